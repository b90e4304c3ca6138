"""The tuning-cost table: what each arm costs, and its best model of at least a given sparsity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.statistics.formats import duration, fixed
from analysis.statistics.trials import full_fidelity, searched

LEVELS = (0.44, 0.70)
"""Parameter sparsities that 'Less is More' (arXiv 2308.12114) reports on, where no target was asked for."""


def levels(objective: Mapping[str, Any]) -> tuple[float, ...]:
    """The sparsities at which arms are compared: the target where there is one, else `LEVELS`."""
    return (float(objective["target"]),) if objective.get("kind") == "target" else LEVELS


def best_at(trials: pd.DataFrame, level: float, price: float) -> pd.DataFrame:
    """Per arm and seed the trial of least validation loss among those with at least that sparsity.

    The loss is J without its price for density, val/objective − price · density: among models that are sparse
    enough, still sparser ones earn nothing.

    Args:
        trials: One row per trial.
        level: Sparsity in [0, 1], 1 - density.
        price: What a density of 1 costs in J; 0 under a target.
    """
    if not {"val/objective", "density"} <= set(trials.columns):
        return trials.head(0)
    valid = trials[full_fidelity(trials) & searched(trials) & (1 - trials["density"] >= level - 1e-9)]
    loss = (valid["val/objective"] - price * valid["density"]).dropna()
    return trials.loc[loss.groupby([valid["arm"], valid["seed"]]).idxmin()]


def matched(
    rows: pd.DataFrame, trials: pd.DataFrame, level: float, price: float, passes_per_trial: float | None = None
) -> pd.DataFrame:
    """One line per arm at a sparsity, the least test loss first, arms that never got there last.

    Returns:
        Columns arm, seeds (of its rows), reached (seeds with such a model), runs (trials per seed), run_seconds
        (device time of the selected training), tuning_seconds (the rest of the arm's device time and its
        searcher's), total_seconds, total_trials (passes in fixed-λ trials' worth), sparsity_group, sparsity,
        objective (test, else validation), loss (that without its price), delta_m (%). Means over seeds: costs over
        all, what belongs to a model over those that reached the sparsity.
    """
    best = best_at(trials, level, price)
    metric = "test/objective" if "test/objective" in best else "val/objective"
    by_arm = dict(iter(best.groupby("arm")))
    records = []
    for arm, group in rows[searched(rows)].groupby("arm", sort=False):
        models = by_arm.get(arm, best.head(0))
        total = float((group["device_seconds"] + group["searcher_seconds"].fillna(0)).mean())
        run = _mean(models, "cost/device_seconds")
        records.append(
            {
                "arm": arm,
                "seeds": group["seed"].nunique(),
                "reached": len(models),
                "runs": group["trials"].mean(),
                "run_seconds": run,
                "tuning_seconds": max(0.0, total - run) if run == run else total,
                "total_seconds": total,
                "total_trials": group["passes"].mean() / passes_per_trial if passes_per_trial else math.nan,
                "sparsity_group": _mean(models, "sparsity/group"),
                "sparsity": 1 - _mean(models, "density"),
                "objective": _mean(models, metric),
                "loss": _mean(models, metric) - price * _mean(models, "density"),
                "delta_m": _mean(models, "delta_m"),
            }
        )
    table = pd.DataFrame.from_records(records)
    return table.sort_values("loss", kind="stable", ignore_index=True) if len(table) else table


def matched_display(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `matched`, ready to be printed."""
    if table.empty:
        return table
    shown = {
        "Arm": table["arm"],
        "Seeds": [f"{row.reached} of {row.seeds}" for row in table.itertuples()],
        "Runs": table["runs"].map(fixed(1)),
        "One training": table["run_seconds"].map(duration),
        "Tuning": table["tuning_seconds"].map(duration),
        "Total": table["total_seconds"].map(duration),
    }
    if table["total_trials"].notna().any():
        shown["Total (fixed-λ trials)"] = table["total_trials"].map(fixed(1))
    shown |= {
        "Parameter sparsity (%)": table["sparsity"].map(fixed(1, 100)),
        "Group sparsity (%)": table["sparsity_group"].map(fixed(1, 100)),
        "Test J": table["objective"].map(fixed(3)),
        "Δm (%)": table["delta_m"].map(fixed(1)),
    }
    return pd.DataFrame(shown, dtype=object)


def _mean(frame: pd.DataFrame, column: str) -> float:
    return float(frame[column].mean()) if column in frame else math.nan
