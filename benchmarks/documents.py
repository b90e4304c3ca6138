"""Tables of README.md, docs/ and benchmarks/*.md, written between markers from what is committed of runs.

    python benchmarks/documents.py
    python benchmarks/documents.py --take comparisons/mine --name rooms

A finished comparison that is to be shown is taken into docs/results/NAME first: its table and figures, and in
run.json how it was run.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from field_tables import against_single_task, each, headline, one_training, searches, table
from rows import Row, read_rows
from tables import filled, signed_spread, spread, verdict

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = ROOT / "docs" / "results"
QUICK = {
    "dense": "the reference",
    "fixed": "the λ of the preset",
    "random": "λ drawn at random",
    "optuna": "TPE over λ",
    "prune-taylor": "pruning without λ",
    "meta": "λ learned in one training",
    "meta-search": "the learned λ, refined",
}
COLUMNS = {
    "Validation J": "J (val)",
    "Test J": "J (test)",
    "Δm (%)": "Δm on test (%)",
    "Parameter sparsity (%)": "zeros (%)",
    "MACs (% of dense)": "multiply-adds (%)",
    "Trials": "trials",
    "Spent (fixed-λ trials)": "cost",
}
ESTIMATED = {
    "sgd": "SGD, η = .1, 8 steps",
    "adamw": "AdamW, η = .03, 8 steps",
    "fast sgd": "SGD, η = .2, 10 steps",
}
TOLD_APART = (
    *("`one_step`", "`forward`, γ = .99", "`unrolled_first_order`, K = 5", "`unrolled`, K = 8"),
    *("`forward_exact`", "`implicit_cg`, K = 8"),
)
TAKEN = ("table.md", "anytime.png", "scatter.png")


def main() -> None:
    """Write the documents that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", type=Path, metavar="DIR", help="a finished comparison")
    parser.add_argument("--name", default="rooms", help="its folder in docs/results")
    args = parser.parse_args()
    if args.take is not None:
        take(args.take, RESULTS / args.name)
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if (new := written(name, text)) != text:
            path.write_text(new, encoding="utf-8")
            print(f"{name}: written anew")


def written(name: str, text: str) -> str:
    """A document's text with its tables as the records have them."""
    for region, content in DOCUMENTS[name].items():
        text = filled(text, region, content())
    return text


def take(comparison: Path, folder: Path) -> None:
    """Keep what is shown of a comparison, and how it was run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TAKEN:
        shutil.copyfile(comparison / "report" / name, folder / name)
    record = json.loads((comparison / "comparison.json").read_text(encoding="utf-8"))
    kept = {name: record[name] for name in ("config", "versions", "git_revision", "cpu", "machine")}
    (folder / "run.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def quick() -> str:
    """The default comparison as docs/results/rooms has it, and how it was run."""
    lines = (RESULTS / "rooms" / "table.md").read_text(encoding="utf-8").splitlines()
    names, _, *arms = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    found = [dict(zip(names, arm, strict=True)) for arm in arms]
    rows = [[f"`{row['Arm']}`: {QUICK[row['Arm']]}", *(row[name] for name in COLUMNS)] for row in found]
    run = json.loads((RESULTS / "rooms" / "run.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in ("torch", "ray", "optuna"))
    seed, revision = run["config"]["first_seed"], run["git_revision"]
    made = f"Seed {seed}, revision {revision}, {versions};\n{run['machine']}, {run['cpu']}."
    return f"{table(['arm', *COLUMNS.values()], rows)}\n{made}\n"


def accuracy() -> str:
    """Every estimator of the gradient in λ against differences of whole runs."""
    header, told = [""], ["estimator"]
    for title in ESTIMATED.values():
        header += [title, "", ""]
        told += ["cosine", "rel. error", "ratio"]
    rows: list[list[object]] = [[*told, "+ passes (8 steps)"]]
    for label, found in estimated():
        row: list[object] = [label]
        for run in ESTIMATED:
            error = float(f"{found[run]['error']:.2g}")  # 100, not 1e+02
            row += [f"{found[run]['cosine']:.3f}", f"{error:g}", f"{found[run]['ratio']:.3g}"]
        rows.append([*row, f"{found['sgd']['passes']:.0f}"])
    return table([*header, ""], rows)


def directions() -> str:
    """The same in short, of the estimators that docs/method.md tells apart."""
    rows = [
        [label, *(f"{found[run]['cosine']:.3f}" for run in ESTIMATED), f"{found['fast sgd']['ratio']:.3g}"]
        for label, found in estimated()
        if label in TOLD_APART
    ]
    return table(["estimator", *ESTIMATED.values(), "one λ, the last of these"], rows)


def estimated() -> list[tuple[str, dict[str, Row]]]:
    """The rows of benchmarks/hypergradient_accuracy.py by estimator and run."""
    found: dict[str, dict[str, Row]] = {}
    for row in read_rows(HERE / "hypergradients.jsonl"):
        name, comma, rest = row["estimator"].partition(",")
        found.setdefault(f"`{name}`{comma}{rest}", {})[row["run"]] = row
    return list(found.items())


def levels() -> str:
    """What pruning to a density costs, and the one number that describes it."""
    pruned = [row for row in read_rows(HERE / "runs" / "rooms-levels.jsonl") if row["method"] == "pruned"]
    found = [(row["density"], row["objective"]) for row in sorted(pruned, key=lambda row: -row["density"])]
    losses = ["loss / dense loss", *(f"{loss:.3f}" for _, loss in found)]
    slopes = ["(loss / dense loss - 1) / (1/d - 1)", *(f"{(loss - 1) / (1 / d - 1):.3f}" for d, loss in found)]
    return table(["d", *(f"{d:.2f}" for d, _ in found)], [losses, slopes])


def overhead() -> str:
    """What a step of a plain loop costs with each tool, in turns on one thread."""
    rows = read_rows(HERE / "sparsifier_overhead.jsonl")
    shown = [
        [row["method"], f"{row['ms']:.1f}", f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"]
        for row in rows
    ]
    made = rows[0]
    how = f"Network of `{made['preset']}`, {made['rounds']} rounds in turns, one thread of {made['cpu']}, torch "
    how += f"{made['torch']}, revision {made['revision']}."
    return f"{table(['step with', 'ms', 'times the plain step (quartiles)'], shown)}\n{how}\n"


def defaults() -> str:
    """What measured bounds and a foretold course cost the sparsifier, seed by seed."""
    rows = read_rows(HERE / "sparsifier_defaults.jsonl")
    ways: dict[str, dict[int, Row]] = {}
    for row in rows:
        ways.setdefault(row["way"], {})[row["seed"]] = row
    given, shown = next(iter(ways.values())), []
    for way, own in ways.items():
        found = {name: np.array([own[seed][name] for seed in given]) for name in ("val", "test", "zeros")}
        gap = found["test"] - np.array([given[seed]["test"] for seed in given])
        less = signed_spread(gap, 3) if own is not given else ""
        shown.append(
            [way, spread(found["val"]), spread(found["test"]), less, f"{100 * found['zeros'].mean():.0f}"]
        )
    made = rows[0]
    how = (
        f"`{made['preset']}`, seeds {', '.join(map(str, given))}; torch {made['torch']}, {made['cpu']}, revision "
    )
    how += f"{made['revision']}."
    header = ["waterfill with", "J (val)", "J (test)", "less the first (95 %)", "zeros (%)"]
    return f"{table(header, shown)}\n{how}\n"


def optimizers() -> str:
    """Accuracy under several optimisers, dense and with zeros, by λ of the groups that stay."""
    rows = read_rows(HERE / "sparsifier_optimizers.jsonl")
    cases: dict[str, dict[float | None, list[float]]] = {}
    for row in rows:
        cases.setdefault(row["case"], {}).setdefault(row["rest"], []).append(row["accuracy"])
    ways = list(next(iter(cases.values())))
    shown = [[case, *(spread(np.array(own[way])) for way in ways)] for case, own in cases.items()]
    seeds, made = sorted({row["seed"] for row in rows}), rows[0]
    how = f"Accuracy, seeds {', '.join(map(str, seeds))} (95 %); torch {made['torch']}, {made['cpu']}, revision "
    header = ["", *("dense" if way is None else f"{way:g} of a step" for way in ways)]
    return f"{table(header, shown)}\n{how}{made['revision']}.\n"


def bounds() -> str:
    """What bounds of λ follow from in each case, and the zeros at multiples of their unit."""
    cases: dict[str, dict[float, Row]] = {}
    rows = read_rows(HERE / "lambda_bounds.jsonl")
    for row in rows:
        cases.setdefault(row["case"], {})[row["multiple"]] = row
    multiples = sorted({row["multiple"] for row in rows} - {0.0})
    shown = []
    for case, own in cases.items():
        zeros = [f"{100 * own[one]['zeros']:.0f}" if one in own else "–" for one in multiples]
        measured = [f"{own[0.0][f'bounds/{name}']:.3g}" for name in ("step", "shrink")]
        shown.append([case, *measured, *zeros])
    header = ["seed 1000", "u / η", "r / Σ η", *(f"λ = {one:g} u/η" for one in multiples)]
    made, revisions = rows[0], dict.fromkeys(row["revision"][:7] for row in rows)
    how = f"Zeros in %; torch {made['torch']}, one thread of {made['cpu']}, revision {', '.join(revisions)}.\n"
    return f"{table(header, shown)}\n{how}"


def zoo(source: str) -> str:
    """What becomes of the networks of a source."""
    rows = [row for row in read_rows(HERE / "networks.jsonl") if row["source"] == source]
    header = [
        *("network", "parameters", "served", "groups", "λ acts on (%)", "parameters left (%)"),
        *("operations left (%)", "zeros that stay (%)", "seconds", "why not all"),
    ]
    shown = []
    for row in rows:
        figures = [f"{100 * row[key]:.0f}" for key in ("share", "left", "arithmetic", "stays")]
        whys = [row["known"], row["left_out"], *(row["why"] if row["stays"] >= 0.005 else [])]
        told = row["refused"] or "; ".join(why for why in whys if why)
        first = [row["name"], f"{row['parameters']:,}", row["served"], f"`{row['grouping']}`"]
        shown.append([*first, *figures, f"{row['seconds']:.0f}", told])
    return table(header, shown)


def thinned() -> str:
    """A ViT and a ConvNeXt, dense and thinned to half."""
    rows = read_rows(HERE / "vit_convnext.jsonl")
    networks: dict[str, list[Row]] = {}
    for row in rows:
        networks.setdefault(row["network"], []).append(row)

    def over(own: list[Row], key: str) -> str:
        return spread(np.array([row[f"compact {key}"] / row[f"dense {key}"] for row in own]))

    shown = [
        [
            name,
            *(spread(np.array([row[key] for row in own])) for key in ("dense", "sparse")),
            signed_spread(np.array([row["sparse"] - row["dense"] for row in own]), 3),
            *(over(own, key) for key in ("parameters", "multiply-adds")),
            *(
                spread(np.array([row[f"{runtime} {count} ratio"] for row in own]))
                for runtime in ("torch", "onnxruntime")
                for count in (1, 64)
            ),
        ]
        for name, own in networks.items()
    ]
    header = ["", "dense", "thinned", "less dense", "parameters", "multiply-adds", "torch, 1", "torch, 64"]
    made, seeds = rows[0], sorted({row["seed"] for row in rows})
    how = (
        f"Seeds {', '.join(map(str, seeds))} (95 %); {made['steps']} steps; torch {made['torch']}, {made['cpu']}, "
    )
    how += f"revision {made['revision']}. The compact network's outputs are those of the sparse one to "
    how += f"{max(row['differs'] for row in rows):.0e} of the largest."
    return f"{table([*header, 'onnxruntime, 1', 'onnxruntime, 64'], shown)}\n{how}\n"


def served() -> str:
    """How many of the zoo's networks are served, and how that was measured."""
    rows = read_rows(HERE / "networks.jsonl")
    counts = Counter(row["served"] for row in rows)
    made, revisions = rows[0], dict.fromkeys(row["revision"] for row in rows)
    parts = ", ".join(f"{counts[kind]} {kind}" for kind in ("in full", "in part", "refused"))
    return (
        f"Of {len(rows)} networks {parts} ({100 * counts['in full'] / len(rows):.0f} % in full); no output of a "
        f"compact network differed, under {made['patterns']} patterns of zeros each. torch {made['torch']}, "
        f"{made['cpu']}, one thread, {sum(row['seconds'] for row in rows) / 60:.0f} minutes, revision "
        f"{', '.join(revisions)}.\n"
    )


DOCUMENTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        "field": partial(headline, "rooms"),
        "quick": quick,
    },
    "docs/sparsifier.md": {"overhead": overhead, "defaults": defaults, "optimizers": optimizers},
    "docs/networks.md": {
        "served": served,
        "thinned": thinned,
        "torchvision": partial(zoo, "torchvision"),
        "timm": partial(zoo, "timm"),
        "byhand": partial(zoo, "by hand"),
    },
    "docs/protocol.md": {"bounds": bounds},
    "docs/method.md": {"estimators": directions, "levels": levels},
    "benchmarks/RESULTS.md": {
        "one_training": partial(each, one_training),
        "searches": partial(each, searches),
        "single_task": partial(each, against_single_task),
    },
    "benchmarks/HISTORY.md": {
        "verdict": partial(verdict, HERE / "runs"),
        "estimators": accuracy,
        "levels": levels,
    },
}


if __name__ == "__main__":
    main()
