"""Cost to match: the budget at which one arm first reaches the final objective of another."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.paired import LEARNED

NOT_REACHED = "not reached"


def trial_passes(rows: pd.DataFrame, trials: pd.DataFrame, config: dict[str, Any]) -> float | None:
    """Passes of one fixed-λ trial: limit / `budget.trials`, else the finished ones' median, else `None`."""
    number = config.get("budget", {}).get("trials")
    limits = rows.loc[~rows["arm"].str.endswith("-2x"), "limit_passes"].dropna()
    if number and len(limits) and limits.min() > 0:
        return float(limits.min()) / float(number)
    if "cost/passes" in trials:
        fixed = trials[(trials["method"] == "fixed_lambda") & (trials["status"] == "FINISHED")]
        median = float(fixed["cost/passes"].median())
        return median if median > 0 else None
    return None


def cost_to_match(anytime: pd.DataFrame, metric: str = "objective") -> pd.DataFrame:
    """For every ordered pair of arms and seed: where `arm` first is at or below the final value of `other`.

    Args:
        anytime: Columns arm, seed, passes and `metric`.
        metric: `objective` (validation) or `test_objective`.

    Returns:
        Columns arm, other, seed, goal (final value of `other`), passes (NaN: not reached, a censored value).
    """
    points = anytime.dropna(subset=[metric]).sort_values("passes")
    curves = dict(iter(points.groupby(["arm", "seed"])))
    arms, seeds = list(dict.fromkeys(anytime["arm"])), sorted(set(anytime["seed"]))
    records = []
    for seed in seeds:
        for other in arms:
            if (other, seed) not in curves:
                continue
            goal = float(curves[other, seed][metric].iloc[-1])
            for arm in arms:
                if arm != other:
                    passes = _first(curves.get((arm, seed)), metric, goal)
                    records.append({"arm": arm, "other": other, "seed": seed, "goal": goal, "passes": passes})
    return pd.DataFrame.from_records(records, columns=["arm", "other", "seed", "goal", "passes"])


def _first(curve: pd.DataFrame | None, metric: str, goal: float) -> float:
    if curve is None:
        return math.nan
    reached = curve.loc[curve[metric] <= goal, "passes"]
    return float(reached.iloc[0]) if len(reached) else math.nan


def match_table(costs: pd.DataFrame, passes_per_trial: float | None = None) -> pd.DataFrame:
    """One line per pair of a learned and another arm, both directions, ready to be printed.

    The median over seeds, where a seed that never got there counts as infinite; in fixed-λ trials' worth of
    passes where that is known.
    """
    arms = list(dict.fromkeys([*costs["arm"], *costs["other"]]))
    learned = [arm for arm in LEARNED if arm in arms] or arms[:1]
    pairs = [(left, right) for left in learned for right in arms if right not in learned]
    unit = "fixed-λ trials" if passes_per_trial else "passes"
    records = [
        {
            "A": left,
            "B": right,
            f"A reaches the final J of B after ({unit})": _median(costs, left, right, passes_per_trial),
            f"B reaches the final J of A after ({unit})": _median(costs, right, left, passes_per_trial),
        }
        for left, right in pairs
    ]
    return pd.DataFrame.from_records(records)


def _median(costs: pd.DataFrame, arm: str, other: str, passes_per_trial: float | None) -> str:
    passes = costs.loc[(costs["arm"] == arm) & (costs["other"] == other), "passes"]
    if passes.empty:
        return "–"
    median = float(passes.fillna(math.inf).median())
    reached = f" ({passes.notna().sum()} of {len(passes)} seeds)" if len(passes) > 1 else ""
    if not math.isfinite(median):
        return NOT_REACHED + reached
    return (f"{median / passes_per_trial:.1f}" if passes_per_trial else f"{median:,.0f}") + reached
