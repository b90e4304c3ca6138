"""Pareto fronts of (Δm, density) and their hypervolume."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from analysis.statistics.formats import EMPTY, fixed
from analysis.statistics.intervals import interval
from analysis.statistics.trials import full_fidelity, searched

REFERENCE_POINT = (-50.0, 1.0)
"""(Δm in %, density): half as good as dense at dense size. Fixed, so that comparisons of the same data and tasks
can be set side by side; a front that is worse than it in Δm counts nothing, and dense itself counts 0."""


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other one beats: none has at least the Δm at no more density, and one of them strictly.

    Args:
        points: Columns `delta_m` (%, higher is better) and `density` (share of weights kept, lower is better);
            rows with NaN are left out.

    Returns:
        Its rows, by increasing density and so by increasing Δm; of equal points the first.
    """
    valid = points.dropna(subset=["delta_m", "density"])
    ordered = valid.sort_values(["density", "delta_m"], ascending=[True, False], kind="stable")
    best_before = ordered["delta_m"].cummax().shift(fill_value=-math.inf)
    return ordered[ordered["delta_m"] > best_before]


def hypervolume(points: pd.DataFrame, reference: tuple[float, float] = REFERENCE_POINT) -> float:
    """Area between the front and the reference point, in % of Δm times density (Zitzler and Thiele 1999).

    HV = Σ_i (Δm_i − Δm_ref) · (d_{i+1} − d_i) over the front by increasing density d, with d_{n+1} = d_ref: the
    area of everything that some point beats and that beats the reference point. 0 without such a point.
    """
    lowest, densest = reference
    inside = points[(points["delta_m"] > lowest) & (points["density"] < densest)]
    front = pareto_front(inside)
    edges = np.append(front["density"].to_numpy(dtype=float), densest)
    return float(((front["delta_m"].to_numpy(dtype=float) - lowest) * np.diff(edges)).sum())


def front_points(trials: pd.DataFrame) -> pd.DataFrame:
    """Arm, seed, Δm and density of the full-fidelity trials that have both; dense left out."""
    if not {"delta_m", "density"} <= set(trials.columns):
        return pd.DataFrame(columns=["arm", "seed", "delta_m", "density"])
    valid = trials[full_fidelity(trials) & searched(trials)]
    return valid[["arm", "seed", "delta_m", "density"]].dropna()


def hypervolumes(trials: pd.DataFrame) -> pd.DataFrame:
    """Hypervolume of each arm's and seed's trials: columns arm, seed, volume (% × density), trials."""
    volumes = [
        {"arm": arm, "seed": seed, "volume": hypervolume(group), "trials": len(group)}
        for (arm, seed), group in front_points(trials).groupby(["arm", "seed"], sort=False)
    ]
    return pd.DataFrame.from_records(volumes, columns=["arm", "seed", "volume", "trials"])


def hypervolume_table(volumes: pd.DataFrame) -> pd.DataFrame:
    """One line per arm, most first, ready to be printed: mean over seeds with its 95 % interval."""
    order = volumes.groupby("arm")["volume"].mean().sort_values(ascending=False).index
    by_arm = dict(iter(volumes.groupby("arm")))
    records: list[dict[str, str]] = []
    for arm in order:
        group = by_arm[arm]
        low, high = interval(group["volume"].to_numpy(dtype=float))
        records.append(
            {
                "Arm": arm,
                "Hypervolume (% × density)": fixed(1)(group["volume"].mean()),
                "95 % interval": EMPTY if math.isnan(low) else f"{fixed(1)(low)} to {fixed(1)(high)}",
                "Seeds": str(len(group)),
                "Trials a seed": f"{group['trials'].mean():.0f}",
            }
        )
    return pd.DataFrame.from_records(records)
