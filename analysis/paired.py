"""Two arms compared seed by seed, and the sentence that says no more than the interval allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Student's t, 97.5 % quantile for 1, 2, … 18 degrees of freedom.
T_975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622),
    *(2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009),
)
SEEDS_TO_CLAIM = 5
SEEDS_TO_BOOTSTRAP = 20
NO_WORSE = 0.02  # a paired difference in J whose upper bound is below this is 'no worse'
NAMES = {"objective": "validation J", "test_objective": "test J"}
# Which arm speaks for a side is fixed beforehand: picking the best of several afterwards would favour it.
LEARNED = ("meta", "meta-search", "meta-optuna")
SEARCHED = ("optuna", "optuna-gp", "optuna-asha", "topk", "random", "grid", "path", "fixed")


@dataclass(frozen=True)
class Paired:
    """Differences left − right over the seeds with a valid result in both; below 0, left is better.

    `low` and `high` bound the mean difference at 95 %: Student-t, from 20 seeds on a percentile bootstrap;
    NaN with fewer than two seeds.
    """

    left: str
    right: str
    metric: str
    seeds: tuple[int, ...]
    left_out: int
    left_mean: float
    right_mean: float
    mean: float
    low: float
    high: float


def headline_metric(rows: pd.DataFrame) -> str:
    """The column arms are compared on: test J where it was recorded, else validation J."""
    return "test_objective" if rows["test_objective"].notna().any() else "objective"


def rivals(rows: pd.DataFrame) -> tuple[str, str] | None:
    """The pair the verdict is about: the first learned and the first searched arm present, or `None`."""
    arms = set(rows["arm"])
    learned = next((arm for arm in LEARNED if arm in arms), None)
    searched = next((arm for arm in SEARCHED if arm in arms), None)
    return (learned, searched) if learned and searched else None


def paired(rows: pd.DataFrame, left: str, right: str, metric: str, target: float | None = None) -> Paired:
    """Compare two arms by seed.

    Args:
        rows: One row per arm and seed.
        left: The arm whose advantage is asked for.
        right: The arm it is compared with.
        metric: `objective` or `test_objective`.
        target: The group sparsity in [0, 1] a result must have to count, under the `target` objective.
    """
    valid = rows[(rows["status"] == "ok") & np.isfinite(rows[metric])]
    if target is not None:
        valid = valid[valid["sparsity_group"] >= target]
    values = valid.pivot_table(index="seed", columns="arm", values=metric).reindex(columns=[left, right])
    both = values.dropna()
    difference = (both[left] - both[right]).to_numpy(dtype=float)
    low, high = interval(difference)
    asked = rows.loc[rows["arm"].isin([left, right]), "seed"].nunique()
    return Paired(
        left=left,
        right=right,
        metric=metric,
        seeds=tuple(int(seed) for seed in both.index),
        left_out=asked - len(both),
        left_mean=float(both[left].mean()),
        right_mean=float(both[right].mean()),
        mean=float(difference.mean()) if len(both) else math.nan,
        low=low,
        high=high,
    )


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of n values; (NaN, NaN) for n < 2.

    Student-t, because a percentile bootstrap covers only 84 % at n = 5 and 91 % at n = 10.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    if n >= SEEDS_TO_BOOTSTRAP:
        means = np.random.default_rng(0).choice(values, (10_000, n)).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)
    mean = float(values.mean())
    half = T_975[n - 2] * float(values.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def reading(result: Paired) -> str:
    """What the interval allows to say, in a few words."""
    n, left, right = len(result.seeds), result.left, result.right
    if n < 2:
        return "nothing: one seed" if n else "nothing: no common seed"
    shown = n >= SEEDS_TO_CLAIM
    if result.high < 0:
        return f"{left} is better" if shown else f"a hint that {left} is better"
    if result.low > 0:
        return f"{right} is better" if shown else f"a hint that {right} is better"
    if shown and result.high < NO_WORSE:
        return f"{left} is no worse (margin {NO_WORSE})"
    if shown and result.low > -NO_WORSE:
        return f"{right} is no worse (margin {NO_WORSE})"
    return "no difference shown"


def verdict(result: Paired) -> str:
    """The plain sentence a report opens with.

    >>> print(verdict(Paired("meta", "optuna", "test_objective", (), 1, *[math.nan] * 5)))
    No verdict: meta and optuna have no seed in which both have a valid result.
    """
    n, left, right, name = len(result.seeds), result.left, result.right, NAMES[result.metric]
    if n == 0:
        return f"No verdict: {left} and {right} have no seed in which both have a valid result."
    if n == 1:
        return (
            f"One seed claims nothing. With seed {result.seeds[0]}, {left} ended at {name} "
            f"{result.left_mean:.3f} and {right} at {result.right_mean:.3f} (lower is better); "
            f"a claim needs {SEEDS_TO_CLAIM} seeds."
        )
    numbers = (
        f"Over {n} seeds the paired difference in {name}, {left} − {right}, is {signed(result.mean)} "
        f"(95 % interval {signed(result.low)} to {signed(result.high)}; below 0, {left} is better)."
    )
    missing = f" {result.left_out} seed(s) without a valid result in both are left out." if result.left_out else ""
    few = "" if n >= SEEDS_TO_CLAIM else f" A claim needs {SEEDS_TO_CLAIM} seeds."
    opening = reading(result)
    return f"{opening[0].upper()}{opening[1:]}. {numbers}{missing}{few}"


def signed(value: float) -> str:
    """Three decimals with a sign, and a true minus.

    >>> signed(-0.0312), signed(0.0)
    ('−0.031', '0.000')
    """
    return (
        "–" if math.isnan(value) else f"{round(value, 3) + 0.0:+.3f}".replace("+0.000", "0.000").replace("-", "−")
    )
