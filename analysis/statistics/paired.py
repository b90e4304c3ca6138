"""Two arms compared seed by seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.arms import headline_metric, learned_pairs
from analysis.statistics.intervals import interquartile_mean, interval

SEEDS_TO_CLAIM = 5
NO_WORSE = 0.02  # a paired difference in J whose upper bound is below this is 'no worse'
TIE = NO_WORSE
"""A seed's difference of at most this is a tie: it is the difference that the protocol calls no worse, so a win
is one that would count, and the report states how far two trainings of the same λ differ beside it."""


@dataclass(frozen=True)
class Paired:
    """Differences d = left − right over the seeds with a valid result in both; below 0, left is better.

    Attributes:
        left: The arm whose advantage is asked for.
        right: The arm it is compared with.
        metric: The column compared, see `analysis.statistics.arms.METRICS`.
        seeds: Those with a valid result in both.
        left_out: How many seeds have none.
        left_mean: Mean over `seeds`, a ratio as J is.
        right_mean: Mean over `seeds`.
        mean: Mean of d.
        low: Lower end of the 95 % interval of the mean of d (`interval`); NaN with fewer than two seeds.
        high: Upper end.
        iqm: Interquartile mean of d; NaN with fewer than four seeds.
        wins: Seeds in which left is better by more than `TIE`.
        ties: Seeds in which the two differ by at most `TIE`.
        losses: Seeds in which right is better by more than `TIE`.
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
    iqm: float = math.nan
    wins: int = 0
    ties: int = 0
    losses: int = 0


def paired(rows: pd.DataFrame, left: str, right: str, metric: str, target: float | None = None) -> Paired:
    """Compare two arms by seed.

    Args:
        rows: One row per arm and seed.
        left: The arm whose advantage is asked for.
        right: The arm it is compared with.
        metric: A column of `rows`, see `analysis.statistics.arms.METRICS`.
        target: The sparsity in [0, 1] a result must have to count, under the `target` objective.
    """
    valid = rows[(rows["status"] == "ok") & np.isfinite(rows[metric])]
    if target is not None:
        valid = valid[1 - valid["density"] >= target - 1e-9]
    values = valid.pivot_table(index="seed", columns="arm", values=metric).reindex(columns=[left, right])
    both = values.dropna()
    difference = (both[left] - both[right]).to_numpy(dtype=float)
    low, high = interval(difference)
    asked = rows.loc[rows["arm"].isin([left, right]), "seed"].nunique()
    tie = TIE + 1e-9  # 1.48 and 1.5 are a tie, whatever their last bits say
    wins, losses = int((difference < -tie).sum()), int((difference > tie).sum())
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
        iqm=interquartile_mean(difference),
        wins=wins,
        ties=len(both) - wins - losses,
        losses=losses,
    )


def all_pairs(rows: pd.DataFrame, target: float | None = None) -> list[Paired]:
    """Every learned arm against every other one but dense, on the headline metric."""
    metric = headline_metric(rows)
    pairs = learned_pairs(list(dict.fromkeys(rows["arm"])))
    return [paired(rows, left, right, metric, target) for left, right in pairs]


def retraining_noise(rows: pd.DataFrame) -> float:
    """Standard deviation of test J over trainings of the same λ, pooled over arms and seeds; NaN where unknown.

    s = sqrt(Σ_i (n_i − 1) s_i² / Σ_i (n_i − 1)), over the selected models i with n_i ≥ 2 retrainings.
    """
    squares, freedom = 0.0, 0
    for retrained in rows["retrained"]:
        entries = retrained if isinstance(retrained, list) else []
        values = pd.to_numeric(
            pd.Series([entry.get("test_objective") for entry in entries], dtype=object)
        ).dropna()
        if len(values) > 1:
            squares += float(values.var()) * (len(values) - 1)
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else math.nan
