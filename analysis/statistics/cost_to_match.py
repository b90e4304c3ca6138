"""Cost to match: the budget at which one arm first reaches the final objective of another."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.statistics.arms import learned_pairs
from analysis.statistics.formats import EMPTY
from analysis.statistics.trials import full_fidelity

NOT_REACHED = "not reached"
COLUMNS = ["arm", "other", "seed", "goal", "spent"]


def trial_passes(rows: pd.DataFrame, trials: pd.DataFrame, config: dict[str, Any]) -> float | None:
    """Passes of one fixed-λ trial: limit / `budget.trials`, else the finished ones' median, else `None`."""
    number = config.get("budget", {}).get("trials")
    limits = rows.loc[(rows["unit"] == "passes") & ~rows["arm"].str.endswith("-2x"), "limit"].dropna()
    if number and len(limits) and limits.min() > 0:
        return float(limits.min()) / float(number)
    if "cost/passes" in trials:
        fixed = trials[(trials["method"] == "fixed_lambda") & full_fidelity(trials)]
        median = float(fixed["cost/passes"].median())
        return median if median > 0 else None
    return None


def cost_to_match(anytime: pd.DataFrame, metric: str = "objective", x: str = "passes") -> pd.DataFrame:
    """Find where an arm first is at or below the final value of another, for every ordered pair and seed.

    Args:
        anytime: Columns arm, seed, `x` and `metric`.
        metric: `objective` (validation) or `test_objective`.
        x: `passes` or `seconds`.

    Returns:
        Columns arm, other, seed, goal (final value of `other`, a ratio as J is), spent (in the unit of `x`; NaN:
        not reached, a value that is censored at the arm's whole budget).
    """
    points = anytime.dropna(subset=[metric, x]).sort_values(x, kind="stable")
    curves = dict(iter(points.groupby(["arm", "seed"])))
    arms, seeds = list(dict.fromkeys(anytime["arm"])), sorted(set(anytime["seed"]))
    records = []
    for seed in seeds:
        for other in arms:
            if (other, seed) not in curves:
                continue
            goal = float(curves[other, seed][metric].iloc[-1])
            records += [
                {"arm": arm, "other": other, "seed": seed, "goal": goal}
                | {"spent": _first(curves.get((arm, seed)), metric, x, goal)}
                for arm in arms
                if arm != other
            ]
    return pd.DataFrame.from_records(records, columns=COLUMNS)


def _first(curve: pd.DataFrame | None, metric: str, x: str, goal: float) -> float:
    if curve is None:
        return math.nan
    reached = curve.loc[curve[metric] <= goal, x]
    return float(reached.iloc[0]) if len(reached) else math.nan


def match_table(costs: pd.DataFrame, unit: float | None = None, name: str = "passes") -> pd.DataFrame:
    """One line per pair of a learned and another arm, both directions, ready to be printed.

    The median over seeds, where a seed that never got there counts as infinite, so that a median exists as long
    as half of the seeds got there; how many did stands beside it.

    Args:
        costs: From `cost_to_match`.
        unit: What to count in, in the unit of `spent`: the passes of a fixed-λ trial, say; `None` counts singly.
        name: What the heading calls that.
    """
    by_pair = dict(iter(costs.groupby(["arm", "other"])["spent"]))
    arms = list(dict.fromkeys([*costs["arm"], *costs["other"]]))
    records = [
        {
            "A": left,
            "B": right,
            f"A reaches B's final J after ({name})": _median(by_pair.get((left, right)), unit),
            f"B reaches A's final J after ({name})": _median(by_pair.get((right, left)), unit),
        }
        for left, right in learned_pairs(arms)
    ]
    return pd.DataFrame.from_records(records)


def _median(spent: pd.Series | None, unit: float | None) -> str:
    if spent is None or spent.empty:
        return EMPTY
    median = float(spent.fillna(math.inf).median())
    reached = f" ({spent.notna().sum()} of {len(spent)} seeds)" if len(spent) > 1 else ""
    if not math.isfinite(median):
        return NOT_REACHED + reached
    return (f"{median / unit:.1f}" if unit else f"{median:,.0f}") + reached
