"""Whether a rung foretells the end: the rank correlation of early values with the final J."""

from __future__ import annotations

import math

import pandas as pd

from analysis.statistics.formats import EMPTY, signed
from analysis.statistics.trials import full_fidelity, stopped

LEAST = 3  # trials below which a rank correlation says nothing


def spearman(left: pd.Series, right: pd.Series) -> float:
    """Spearman's ρ: Pearson's correlation of the ranks, ties at their mean rank; NaN where either is constant."""
    both = pd.DataFrame({"left": left, "right": right}).dropna()
    if len(both) < 2 or both["left"].nunique() < 2 or both["right"].nunique() < 2:
        return math.nan
    ranks = both.rank()
    return float(ranks["left"].corr(ranks["right"]))


def rung_table(trials: pd.DataFrame) -> pd.DataFrame:
    """One line per arm that recorded rungs: mean over seeds of ρ between `rung/objective` and final validation J.

    Within a seed, because J is relative to that seed's dense network. Only trials that went on to the end have a
    final J; those are the ones the rung favoured, which narrows the range and lowers ρ.
    """
    if not {"rung/objective", "val/objective"} <= set(trials.columns):
        return pd.DataFrame()
    records = []
    for arm, group in trials[trials["rung/objective"].notna()].groupby("arm", sort=False):
        whole = group[full_fidelity(group)].dropna(subset=["val/objective"])
        values = [
            spearman(trial["rung/objective"], trial["val/objective"])
            for _, trial in whole.groupby("seed")
            if len(trial) >= LEAST
        ]
        known = pd.Series(values, dtype=float).dropna()
        records.append(
            {
                "Arm": str(arm),
                "Spearman's ρ, mean": signed(float(known.mean()), 2) if len(known) else EMPTY,
                "Lowest and highest seed": f"{signed(known.min(), 2)}, {signed(known.max(), 2)}"
                if len(known)
                else EMPTY,
                "Seeds": str(len(known)),
                "Trials to the end": str(len(whole)),
                "Stopped trials": str(int(stopped(group).sum())),
            }
        )
    return pd.DataFrame.from_records(records)
