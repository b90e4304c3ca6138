"""Tables of the verdict's runs, written between markers into benchmarks/HISTORY.md.

    python benchmarks/tables.py

Reads benchmarks/runs/*/*.jsonl (``benchmarks/verdict.py``). For each preset and objective: what every arm ends
with at its budget, the paired differences to the meta-learner, and the best model of each arm that reaches a
given sparsity. An arm that has fewer trials than its budget in some seed is left out of that seed; '4 of 5' seeds
are those that have a trial with the sparsity that is asked for, of all whose budget was spent.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics.formats import signed
from analysis.statistics.intervals import interval
from analysis.statistics.paired import NO_WORSE, SEEDS_TO_CLAIM
from ms_automl.comparison.run import Role
from ms_automl.samplers.arms import ARMS

HERE = Path(__file__).parent
SPACELESS = (Role.PRUNED, Role.LITERATURE, Role.BASELINE, Role.CONTROL)
"""Roles of arms for which it does not matter in which space λ is."""
LISTED = {"dense-reg": 8}
"""Trials of arms that do not grow with the budget."""
META = "meta per_layer"
LEVELS = (0.44, 0.70)
TUNING_SEEDS = 1000
"""From this seed on runs serve the choice of bounds and defaults and nothing else."""


def main() -> None:
    """Write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    parser.add_argument("--results", type=Path, default=HERE / "HISTORY.md")
    args = parser.parse_args()
    text = args.results.read_text(encoding="utf-8")
    args.results.write_text(filled(text, "verdict", verdict(args.runs)), encoding="utf-8")


def filled(text: str, name: str, content: str) -> str:
    """The text with other content between the markers of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"error: {begin} and {end} must stand once in the text")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content}\n{end}{after}"


def verdict(runs: Path) -> str:
    """The section's tables, a preset after the other."""
    parts = []
    for folder in sorted(path for path in runs.iterdir() if path.is_dir()):
        trials = read_all(folder)
        if trials.empty:
            continue
        chosen_on = trials["seed"] >= TUNING_SEEDS
        for title, rows in (
            (folder.name, ~chosen_on),
            (f"{folder.name}, what the defaults were chosen on", chosen_on),
        ):
            if bool(rows.any()):
                parts.append(section(title, trials[rows]))
    ablations = sorted(runs.glob("*-ablation.jsonl"))
    parts += [ablation(path.stem.removesuffix("-ablation"), read(path)) for path in ablations]
    return "\n".join(parts)


def read_all(folder: Path) -> pd.DataFrame:
    """One row per trial of a preset."""
    return pd.concat([read(path) for path in sorted(folder.glob("*.jsonl"))], ignore_index=True)


def read(path: Path) -> pd.DataFrame:
    """One row per trial."""
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        # J in another scale is another number: benchmarks/scales.py has those rows.
        if row["label"].partition("/")[0] == "dense" or row["error"] or "/objective.scale=" in row["label"]:
            continue
        arm, space, objective, *changes = row["label"].split("/")
        # Under a target what is told a level needs no search: one trial at the target.
        told = ARMS[arm].role is Role.PRUNED and not arm.endswith("-tuned") and objective.startswith("target")
        single = ARMS[arm].single or told
        records.append(
            {
                "arm": "/".join([arm if ARMS[arm].role in SPACELESS else f"{arm} {space}", *changes]),
                "kind": arm,
                "objective_kind": objective,
                "seed": row["seed"],
                "trial": row["trial"],
                "budget": 1 if single else LISTED.get(arm, row["settings"]["budget"]["trials"]),
                "J": row["objective"],
                "J test": row["objective_test"],
                "violation": row["violation"],
                "zeros": 100 * (1 - row["density"]),
                "delta_m": row["delta_m_test"],
                "passes": row["passes"],
            }
        )
    return pd.DataFrame.from_records(records)


def section(preset: str, trials: pd.DataFrame) -> str:
    """All tables of a preset."""
    lines = [f"### {preset}", ""]
    for objective, part in trials.groupby("objective_kind", sort=False):
        chosen = selected(part)
        if chosen.empty:
            continue
        seeds = sorted(chosen["seed"].unique())
        lines += [f"Objective {objective}, seeds {', '.join(map(str, seeds))}:", "", *summary(part, chosen), ""]
        lines += differences(chosen)
    lines += matched(trials) if trials["kind"].nunique() > 1 else []
    return "\n".join(lines)


def ablation(preset: str, trials: pd.DataFrame) -> str:
    """The ways of learning λ by objective; then the settings of the default, one changed at a time."""
    names = trials["arm"].str.removeprefix("meta ").str.replace("meta.", "", regex=False)
    estimators = names.str.contains("learner=")
    trials = trials.assign(arm=names.str.replace("learner=", "", regex=False).str.replace("/", " "))
    lines = [f"### {preset}: ways of learning λ (seeds that nothing else is shown for)", ""]
    for objective, part in trials[estimators].groupby("objective_kind", sort=False):
        lines += [f"Objective {objective}:", "", *summary(part, selected(part)), ""]
    part = trials[
        ~estimators | (trials["arm"].str.endswith(" waterfill") & (trials["objective_kind"] == "tradeoff"))
    ]
    if len(part) and (~estimators).any():
        lines += [
            f"### {preset}: settings of waterfill, one changed at a time",
            "",
            *summary(part, selected(part)),
            "",
        ]
    return "\n".join(lines)


def selected(trials: pd.DataFrame) -> pd.DataFrame:
    """The trial that each arm and seed would hand out: valid, and of the least validation J."""
    whole = finished(trials)
    whole = whole[whole["violation"] <= 0]
    return whole.loc[whole.groupby(["arm", "seed"])["J"].idxmin()]


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of the arms and seeds that have spent their budget."""
    within = trials[trials["trial"] < trials["budget"]]
    counts = within.groupby(["arm", "objective_kind", "seed"])["trial"].transform("count")
    return within[counts >= within["budget"]]


def summary(trials: pd.DataFrame, chosen: pd.DataFrame) -> list[str]:
    """A row per arm: means over seeds, and the interval of the test J."""
    lines = [
        "| arm | seeds | trials | passes | J val | J test (95 %) | Δm test % | zeros % |",
        "| :-- " + "| --: " * 7 + "|",
    ]
    spent = trials.groupby(["arm", "seed"])["passes"].sum()
    tried = finished(trials).groupby("arm")["seed"].nunique()
    for arm, rows in sorted(chosen.groupby("arm"), key=lambda pair: pair[1]["J test"].mean()):
        passes = np.mean([spent[arm, seed] for seed in rows["seed"]])
        lines.append(
            f"| {arm} | {_of(len(rows), tried[arm])} | {rows['budget'].iloc[0]} | {passes / 1e3:.0f} k "
            f"| {rows['J'].mean():.3f} | {spread(rows['J test'].to_numpy())} "
            f"| {rows['delta_m'].mean():+.1f} | {rows['zeros'].mean():.1f} |"
        )
    return lines


def differences(chosen: pd.DataFrame) -> list[str]:
    """Paired by seed: the meta-learner less each rival."""
    metas = [arm for arm in chosen["arm"].unique() if arm.startswith("meta ")]
    rivals = [arm for arm in chosen["arm"].unique() if not arm.startswith("meta ")]
    if not metas or not rivals:
        return []
    lines = [
        "Paired differences (below 0 the first is better):", "",
        f"| pair | seeds | J val (95 %) | J test (95 %) | no worse by {NO_WORSE} (test) |",
        "| :-- | --: | --: | --: | :-- |",
    ]  # fmt: skip
    for meta in metas:
        for rival in rivals:
            both = [chosen[chosen["arm"] == arm].set_index("seed") for arm in (meta, rival)]
            cells = []
            for name in ("J", "J test"):
                gap = (both[0][name] - both[1][name]).dropna().to_numpy()
                low, high = interval(gap)
                cells.append(f"{signed(gap.mean())} ({signed(low)} to {signed(high)})" if len(gap) else "–")
            holds = f"fewer than {SEEDS_TO_CLAIM} seeds"
            if len(gap) >= SEEDS_TO_CLAIM:
                holds = "yes" if high < NO_WORSE else "not shown"
            lines.append(f"| {meta} − {rival} | {len(gap)} | {cells[0]} | {cells[1]} | {holds} |")
    return [*lines, ""]


def matched(trials: pd.DataFrame) -> list[str]:
    """Δm on the test split of each arm's model of least validation loss that is sparse enough.

    An arm's trials under all objectives are pooled: who asked for 44 % has the better model of 44 %.
    """
    trials = finished(trials)
    loss = trials["J"] - (1 - trials["zeros"] / 100) * trials["objective_kind"].map(_price)
    trials = trials.assign(loss=loss)
    tried = trials.groupby("arm")["seed"].nunique()
    lines = [
        "The model of least validation loss with at least so many zeros, among an arm's trials under all "
        "objectives; Δm is that on the test split, and the last column pairs seeds (above 0: meta is better).",
        "",
    ]
    for level in LEVELS:
        enough = trials[trials["zeros"] >= 100 * level - 1e-6]
        best = enough.loc[enough.groupby(["arm", "seed"])["loss"].idxmin()]
        meta = best[best["arm"] == META].set_index("seed")["delta_m"]
        head = f"at least {100 * level:.0f} %"
        lines += [
            f"| {head} | seeds | trials | Δm test % (95 %) | zeros % | Δm of meta less that of the arm (95 %) |",
            "| :-- " + "| --: " * 5 + "|",
        ]
        for arm, rows in sorted(best.groupby("arm"), key=lambda pair: -pair[1]["delta_m"].mean()):
            count = trials[trials["arm"] == arm].groupby("seed").size().mean()
            gap = (meta - rows.set_index("seed")["delta_m"]).dropna().to_numpy()
            lines.append(
                f"| {arm} | {_of(len(rows), tried[arm])} | {count:.0f} "
                f"| {signed_spread(rows['delta_m'].to_numpy(), 1)} "
                f"| {rows['zeros'].mean():.1f} | {'' if arm == 'meta per_layer' else signed_spread(gap, 1)} |"
            )
        lines.append("")
    return lines


def _of(number: int, all_: int) -> str:
    return str(number) if number == all_ else f"{number} of {all_}"


def spread(values: np.ndarray) -> str:
    """The mean of values of J, and its interval."""
    low, high = interval(values)
    return f"{values.mean():.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")


def signed_spread(values: np.ndarray, digits: int) -> str:
    """The mean of differences, and its interval, with their signs."""
    if not len(values):
        return "–"
    low, high = interval(values)
    band = "" if math.isnan(low) else f" ({signed(low, digits)} to {signed(high, digits)})"
    return signed(values.mean(), digits) + band


def _price(objective: str) -> float:
    kind, _, amount = objective.partition(":")
    return float(amount or 1) if kind == "tradeoff" else 0.0


if __name__ == "__main__":
    main()
