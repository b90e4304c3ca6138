"""The sentences that say no more than the intervals allow."""

from __future__ import annotations

import pandas as pd

from analysis.statistics.arms import LEARNED, METRICS, PRUNED, REFERENCE, first_of, headline_metric, rivals
from analysis.statistics.formats import signed
from analysis.statistics.paired import NO_WORSE, SEEDS_TO_CLAIM, Paired, paired

NOTHING_TO_COMPARE = "No verdict: a comparison needs a learned arm (meta, …) and a searched one (optuna, …)."


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
    return f"not distinguishable at {n} seeds"


def verdict(result: Paired) -> str:
    """The plain sentence a report opens with.

    >>> print(verdict(Paired("meta", "optuna", "test_objective", (), 1, *[float("nan")] * 5)))
    No verdict: meta and optuna have no seed in which both have a valid result.
    """
    n, left, right, name = len(result.seeds), result.left, result.right, METRICS[result.metric]
    if n == 0:
        return f"No verdict: {left} and {right} have no seed in which both have a valid result."
    if n == 1:
        return (
            f"One seed claims nothing. With seed {result.seeds[0]}, {left} ended at {name} "
            f"{result.left_mean:.3f} and {right} at {result.right_mean:.3f} (lower is better); "
            f"a claim needs {SEEDS_TO_CLAIM} seeds."
        )
    opening = reading(result)
    if opening.startswith("not"):
        opening = f"{left} and {right} are {opening}"
    numbers = (
        f"The mean paired difference in {name}, {left} − {right}, is {signed(result.mean)} "
        f"(95 % interval {signed(result.low)} to {signed(result.high)}, {n} seeds; below 0, {left} is better)."
    )
    missing = f" {result.left_out} seed(s) without a valid result in both are left out." if result.left_out else ""
    few = "" if n >= SEEDS_TO_CLAIM else f" A claim needs {SEEDS_TO_CLAIM} seeds."
    opening = opening.replace("a hint", "A hint")  # arms keep their names as they are written
    return f"{opening}. {numbers}{missing}{few}"


def verdict_of(rows: pd.DataFrame, target: float | None = None) -> str:
    """The verdict on the two arms that speak for learning and for searching."""
    pair = rivals(rows)
    if pair is None:
        return NOTHING_TO_COMPARE
    return verdict(paired(rows, *pair, metric=headline_metric(rows), target=target))


def beside(rows: pd.DataFrame, target: float | None = None) -> str:
    """What the verdict leaves out: the learned arm against pruning, and who has the lowest mean; '' if neither."""
    metric = headline_metric(rows)
    learned, pruning = first_of(LEARNED, rows), first_of(PRUNED, rows)
    sentences = []
    if learned and pruning:
        result = paired(rows, learned, pruning, metric, target)
        if len(result.seeds) > 1:
            words = reading(result).replace("not dist", "the two are not dist")
            numbers = f"{signed(result.mean)}, {signed(result.low)} to {signed(result.high)}"
            sentences.append(f"Against {pruning}, which needs no λ: {words} ({numbers}).")
    best = _lowest(rows, metric)
    if best is not None and best[0] not in (rivals(rows) or ()):
        arm, mean = best
        what = "lowest mean" if rows["seed"].nunique() > 1 else "lowest"
        sentences.append(f"The {what} is {arm}'s, {mean:.3f}; picked afterwards, so no claim.")
    return " ".join(sentences)


def _lowest(rows: pd.DataFrame, metric: str) -> tuple[str, float] | None:
    """The arm with the lowest mean of a metric among those valid in as many seeds as any, and that mean."""
    valid = rows[(rows["status"] == "ok") & (rows["arm"] != REFERENCE)].dropna(subset=[metric])
    if valid.empty:
        return None
    means = valid.groupby("arm")[metric].agg(["mean", "count"])
    whole = means[means["count"] == means["count"].max()]["mean"]
    return str(whole.idxmin()), float(whole.min())
