"""Tables of the whole field: `meta` and its rivals at the same share of zeros, against searches and single tasks.

Reads benchmarks/field/<preset>/<seed>.jsonl (``benchmarks/verdict.py --runs benchmarks/field``). Differences are
paired by seed, and the rows of a seed are of one type of machine; on another the same seed ends at other figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rows import Row, read_rows
from tables import META, TUNING_SEEDS, read_all, selected, signed_spread, spread

from analysis.statistics.formats import signed
from analysis.statistics.intervals import interval
from analysis.statistics.paired import NO_WORSE, SEEDS_TO_CLAIM
from ms_automl.comparison.run import Role
from ms_automl.data.elpv import TASKS as ELPV
from ms_automl.data.multimnist import TASKS as MULTIMNIST
from ms_automl.data.rooms import TASKS as ROOMS
from ms_automl.meta.objective import delta_m
from ms_automl.samplers.arms import ARMS

HERE = Path(__file__).parent
FIELD, EARLIER = HERE / "field", HERE / "runs"
TASKS = {"rooms": ROOMS, "multimnist": MULTIMNIST, "elpv": ELPV}
TARGETS = {f"target:{share:g}": f"{100 * share:.0f} %" for share in (0.44, 0.7, 0.9)}
PRICED = "price 1"
SINGLE_TASK = "single-task"
NEAREST = 9
"""Rivals of one training that README shows."""


def presets() -> list[str]:
    """The data sets that have rows, in the order of `TASKS`."""
    return [name for name in TASKS if any((FIELD / name).glob("*.jsonl"))]


def each(of: Callable[[str], str]) -> str:
    """A table of every data set that has rows."""
    return "\n".join(of(preset) for preset in presets())


def one_training(preset: str) -> str:
    """J on test of every arm of one training at each share of zeros and at price 1, and less that of `meta`."""
    columns = outcomes(preset)
    every = pd.concat(columns.values())
    seeds = every["seed"].unique()
    header = [f"`{preset}`, seeds {_range(seeds)}"]
    for name in columns:
        header += [name, "less `meta` (95 %)"]
    rows = []
    for arm in ranked(columns):
        cells = []
        for part in columns.values():
            own = part[part["arm"] == arm].set_index("seed")["J test"]
            few = f" ({len(own)} of {len(seeds)})" if 0 < len(own) < len(seeds) else ""
            cells += [f"{own.mean():.3f}{few}" if len(own) else "–"]
            cells += ["" if arm == META else signed_spread(less_meta(part, arm), 3)]
        rows.append([f"`{short(arm)}`", *cells])
    return f"{table(header, rows)}\n{claim(columns)}\n{made(preset)}\n"


def outcomes(preset: str) -> dict[str, pd.DataFrame]:
    """The selected trial of each arm and seed, by column of the table."""
    trials = read_all(FIELD / preset)
    alone = trials["kind"].map(lambda arm: ARMS[arm].role is not Role.BASELINE)
    trials = trials[(trials["seed"] < TUNING_SEEDS) & (trials["budget"] == 1) & alone]
    columns = {name: selected(trials[trials["objective_kind"] == kind]) for kind, name in TARGETS.items()}
    return {name: part for name, part in columns.items() if len(part)} | {PRICED: priced(trials)}


def priced(trials: pd.DataFrame) -> pd.DataFrame:
    """J at price 1: of `meta` the level that it learned; of what is told a level the best by validation."""
    told = trials["objective_kind"].str.startswith("target")
    density = (1 - trials["zeros"] / 100) * told
    trials = trials.assign(told=told, **{name: trials[name] + density for name in ("J", "J test")})
    trials = trials[~(told & (trials["arm"] == META))]
    # Who was not run at every target yet has no best of them.
    whole = trials.groupby(["arm", "seed"])["objective_kind"].transform("nunique") == len(TARGETS)
    trials = trials[~trials["told"] | whole]
    return trials.loc[trials.groupby(["arm", "seed"])["J"].idxmin()]


def ranked(columns: dict[str, pd.DataFrame]) -> list[str]:
    """Arms, the one with the least J at price 1 first; then those without."""
    last = columns[PRICED].groupby("arm")["J test"].mean()
    others = pd.concat(columns.values()).groupby("arm")["J test"].mean()
    return [*last.sort_values().index, *others.drop(last.index).sort_values().index]


def less_meta(part: pd.DataFrame, arm: str) -> np.ndarray:
    """J on test of an arm less that of `meta`, over the seeds that both have; above 0 `meta` is better."""
    own, meta = (part[part["arm"] == name].set_index("seed")["J test"] for name in (arm, META))
    return (own - meta).dropna().to_numpy()


def claim(columns: dict[str, pd.DataFrame]) -> str:
    """Against how many rivals `meta` is no worse, and which ones are left."""
    parts = []
    for name, part in columns.items():
        verdicts: dict[str, list[str]] = {"shown": [], "not shown": []}
        for arm in (one for one in ranked(columns) if one != META):
            gaps = less_meta(part, arm)
            if len(gaps) >= SEEDS_TO_CLAIM:
                shown = interval(-gaps)[1] < NO_WORSE
                verdicts["shown" if shown else "not shown"].append(f"`{short(arm)}`")
        tried = len(verdicts["shown"]) + len(verdicts["not shown"])
        if tried:
            missing = f" (not shown: {', '.join(verdicts['not shown'])})" if verdicts["not shown"] else ""
            parts.append(f"{name}: {len(verdicts['shown'])} of {tried}{missing}")
    if not parts:
        return f"No claim: fewer than {SEEDS_TO_CLAIM} seeds."
    bound = f"`meta` is no worse (upper 95 % bound of the paired difference below {NO_WORSE}) than"
    return f"{bound}, of those with {SEEDS_TO_CLAIM} seeds or more, {'; '.join(parts)}."


def made(preset: str) -> str:
    """On what the rows were made."""
    rows = [row for _, row in every_row(preset)]
    cpus, revisions = (Counter(row[key] for row in rows) for key in ("cpu", "revision"))
    versions = ", ".join(sorted({row["torch"] for row in rows}))
    names = ", ".join(revision[:7] for revision in revisions)
    return f"One thread of {', '.join(cpus)}, torch {versions}, revisions {names}."


def every_row(preset: str) -> Iterator[tuple[str, Row]]:
    """Arm and row of every trial that ended."""
    for path in sorted((FIELD / preset).glob("*.jsonl")):
        for row in read_rows(path):
            if not row["error"] and row["seed"] < TUNING_SEEDS:
                yield row["label"].partition("/")[0], row


def against_single_task(preset: str) -> str:
    """Δm on test against a dense network for each task, by the share of zeros; empty where none was trained."""
    rows = list(every_row(preset))
    alone = {row["seed"]: tested(row) for arm, row in rows if arm == SINGLE_TASK}
    if not alone:
        return ""
    found: dict[str, dict[str, list[float]]] = {}
    for arm, row in rows:
        kind = "dense" if arm == "dense" else row["label"].split("/")[2]
        if row["seed"] in alone and (kind in TARGETS or arm == "dense"):
            value = delta_m(TASKS[preset], tested(row), alone[row["seed"]])
            found.setdefault(arm, {}).setdefault(TARGETS.get(kind, "0 %"), []).append(value)
    columns = ["0 %", *TARGETS.values()]
    order = sorted(found, key=lambda arm: -np.mean(found[arm].get("44 %", [np.inf])))
    shown = [
        [f"`{arm}`", *(signed_spread(np.array(found[arm].get(name, [])), 1) for name in columns)] for arm in order
    ]
    header = [f"Δm in %, `{preset}`, seeds {_range(list(alone))}", *columns]
    return table(header, shown)


def tested(row: Row) -> dict[str, float]:
    """A row's metrics on the test split, by task and name."""
    return {key.removeprefix("test/"): value for key, value in row["metrics"].items() if key.startswith("test/")}


def searches(preset: str) -> str:
    """One training of `meta` at price 1 against the best of a budget of trainings, by validation."""
    rows = []
    for arm, own, gap, passes in searched(preset):
        figures = [signed(own["delta_m"].mean(), 1), f"{own['zeros'].mean():.0f}"]
        row = [arm, len(own), own["budget"].iloc[0], spread(own["J test"].to_numpy())]
        rows.append([*row, signed_spread(gap, 3) if len(gap) else "", *figures, passes])
    header = [
        f"`{preset}`, price 1",
        "seeds",
        "trainings",
        "J on test (95 %)",
        "less `meta` (95 %)",
        "Δm on test (%)",
    ]
    return table([*header, "zeros (%)", "passes"], rows)


def searched(preset: str) -> Iterator[tuple[str, pd.DataFrame, np.ndarray, str]]:
    """Name, selected trials, J less that of `meta` and passes of each arm with a budget; `meta` first."""
    for folder, kind, where in ((FIELD, "tradeoff:1", ""), (EARLIER, "tradeoff", ", earlier")):
        if not (folder / preset).is_dir():
            continue
        trials = read_all(folder / preset)
        trials = trials[(trials["seed"] < TUNING_SEEDS) & (trials["objective_kind"] == kind)]
        chosen, passes = selected(trials), trials.groupby(["arm", "seed"])["passes"].sum()
        many = chosen[(chosen["budget"] > 1) | (chosen["arm"] == META)]
        for arm, own in sorted(many.groupby("arm"), key=lambda pair: pair[1]["J test"].mean()):
            gap = less_meta(many, str(arm)) if arm != META else np.array([])
            yield f"`{short(str(arm))}`{where}", own, gap, f"{passes[arm].loc[own['seed']].mean() / 1e3:.0f} k"


def headline(preset: str) -> str:
    """In short: J of `meta`, how far above it those end that come nearest, and the searches."""
    columns = outcomes(preset)
    rows = [["`meta`", 1, *(f"{part.loc[part['arm'] == META, 'J test'].mean():.3f}" for part in columns.values())]]
    for arm in [one for one in ranked(columns) if one != META][:NEAREST]:
        gaps = [signed_spread(less_meta(part, arm), 3) for part in columns.values()]
        rows.append([f"`{short(arm)}`", 1 if gaps[0] == "–" else f"1 ({len(TARGETS)} at price 1)", *gaps])
    for arm, own, gap, _ in searched(preset):
        if len(gap) and own["zeros"].mean() > 0:
            rows.append([arm, own["budget"].iloc[0], *["–"] * (len(columns) - 1), signed_spread(gap, 3)])
    told = [name if name == PRICED else f"{name} zeros" for name in columns]
    header = [f"`{preset}`: J on test, and less that of `meta`", "trainings", *told]
    return table(header, rows)


def weightings() -> str:
    """`meta` at a target under every task weighting, and how many of its zeros are those under equal weights."""
    by_name: dict[str, dict[int, Row]] = {}
    for row in read_rows(HERE / "weightings.jsonl"):
        by_name.setdefault(row["name"], {})[row["seed"]] = row
    equal, shown = by_name["equal"], []
    for name, own in by_name.items():
        rows = [(row, equal[seed]) for seed, row in own.items() if seed in equal]
        if name == "dense" or not rows:
            continue
        losses = np.array([row["objective_test"] for row, _ in rows])
        gap = losses - np.array([base["objective_test"] for _, base in rows])
        gains = np.array([row["delta_m_test"] for row, _ in rows])
        same = 100 * np.array([overlap(row["zeros"], base["zeros"]) for row, base in rows])
        shared = f"{same.mean():.0f} ({same.min():.0f} to {same.max():.0f})"
        cells = ["", ""] if name == "equal" else [signed_spread(gap, 3), shared]
        passes = f"{np.mean([row['passes'] for row, _ in rows]) / 1e3:.0f} k"
        shown.append([f"`{name}`", len(rows), f"{losses.mean():.3f}", *cells, signed_spread(gains, 1), passes])
    made = equal[min(equal)]
    title = f"`{made['preset']}`, {100 * made['target']:.0f} % zeros"
    header = [title, "seeds", "J on test", "less `equal` (95 %)", "zeros as under `equal` (%, least to most)"]
    how = f"One thread of {made['cpu']}, torch {made['torch']}, revision {made['revision'][:7]}.\n"
    return f"{table([*header, 'Δm on test (%, 95 %)', 'passes'], shown)}\n{how}"


def overlap(one: str, other: str) -> float:
    """Zero groups of both over those of either (Jaccard), of two strings with a 1 for each zero group."""
    pairs = Counter(zip(one, other, strict=True))
    both, either = pairs["1", "1"], pairs["1", "1"] + pairs["1", "0"] + pairs["0", "1"]
    return both / either if either else 1.0


def short(arm: str) -> str:
    """An arm's name without the space, which all here have in common."""
    return arm.removesuffix(" per_layer")


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells in Markdown, the first column to the left."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _range(seeds: Iterable[int]) -> str:
    known = sorted(set(seeds))
    return f"{known[0]} to {known[-1]}" if len(known) > 1 else ", ".join(map(str, known))
