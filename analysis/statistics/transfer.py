"""The transfer stage: what each selected model reaches on tasks that no training had seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics.arms import LEARNED, REFERENCE, first_of, ordered
from analysis.statistics.formats import EMPTY, fixed, signed
from analysis.statistics.intervals import interval
from analysis.statistics.paired import SEEDS_TO_CLAIM

SCRATCH = "single task from scratch"
NEW_TRUNK = "new dense trunk"


@dataclass(frozen=True)
class Gain:
    """What one kind of start is worth over another, on one task in one mode.

    Attributes:
        mean: Mean of the paired differences in the task's metric, above 0 where the first is better.
        low: Lower end of the 95 % interval of the mean; NaN with fewer than two pairs.
        high: Upper end.
        pairs: How many: seeds, or draws where the comparison has one seed only.
        unit: `seed` or `draw`.
    """

    mean: float
    low: float
    high: float
    pairs: int
    unit: str

    def __str__(self) -> str:
        """Write the mean and its interval as tables show them."""
        if not self.pairs:
            return EMPTY
        if self.pairs == 1:
            return signed(self.mean)
        return f"{signed(self.mean)} ({signed(self.low)} to {signed(self.high)})"


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """The adaptations that came to their end and have a value."""
    return frame[(frame["status"] == "FINISHED") & frame["value"].notna()] if len(frame) else frame


def start_name(arm: str, weights: str, mode: str) -> str:
    """What an adaptation began from, as tables and legends name it.

    >>> start_name("meta", "random", "frozen"), start_name("dense", "random", "finetuned")
    ("meta's zeros, new weights", 'single task from scratch')
    """
    if weights == "trained":
        return arm
    if arm == REFERENCE:
        return NEW_TRUNK if mode == "frozen" else SCRATCH
    return f"{arm}'s zeros, new weights"


def area(labels: np.ndarray, values: np.ndarray) -> float:
    """The mean of a metric over log2(labels), by trapezoids; with one number of labels the metric there.

    Args:
        labels: [N] increasing.
        values: [N] at each.
    """
    if len(values) < 2:
        return float(values.mean()) if len(values) else math.nan
    x = np.log2(labels.astype(float))
    return float(np.trapezoid(values, x) / (x[-1] - x[0]))


def gain(
    frame: pd.DataFrame,
    task: str,
    mode: str,
    one: tuple[str, str],
    other: tuple[str, str],
    sign: float,
    value: str = "value",
) -> Gain:
    """Compare two starts: the areas of what both did with the same labels, seed and draw.

    Differences are averaged over draws within a seed and paired by seed; where there is one seed, by draw.

    Args:
        frame: One row per adaptation.
        task: The new task's name.
        mode: How it was taken up.
        one: Arm and weights.
        other: Arm and weights of what it is held against.
        sign: +1 where higher is better, else -1.
        value: The column compared.
    """
    chosen = finished(frame)
    chosen = chosen[(chosen["task"] == task) & (chosen["mode"] == mode) & chosen[value].notna()]
    keys = ["seed", "draw", "shots", "labels"]
    sides = [
        chosen[(chosen["arm"] == arm) & (chosen["weights"] == weights)].set_index(keys)[value]
        for arm, weights in (one, other)
    ]
    both = pd.concat(sides, axis=1, join="inner", keys=["one", "other"]).reset_index()
    differences = {
        names: sign * (area(labels, group["one"].to_numpy()) - area(labels, group["other"].to_numpy()))
        for names, group in both.sort_values("labels").groupby(["seed", "draw"])
        for labels in [group["labels"].to_numpy()]
    }
    by_seed = frame["seed"].nunique() > 1
    found = pd.Series(differences, dtype=float)
    if by_seed and len(found):
        found = found.groupby(level=0).mean()
    values = found.to_numpy(dtype=float)
    low, high = interval(values)
    mean = float(values.mean()) if len(values) else math.nan
    return Gain(mean, low, high, len(values), "seed" if by_seed else "draw")


def transfer_table(frame: pd.DataFrame, task: str, mode: str) -> pd.DataFrame:
    """One line per start: the metric by labels, the gain over dense, what is forgotten, and the cost.

    What is forgotten and the cost are those with most labels.
    """
    chosen = finished(frame)
    chosen = chosen[(chosen["task"] == task) & (chosen["mode"] == mode)]
    if chosen.empty:
        return pd.DataFrame()
    sign, shots = _sign(chosen), sorted(chosen["shots"].unique())
    dense, lines = (REFERENCE, "trained"), []
    for arm in ordered(chosen["arm"]):
        for weights in ("trained", "random"):
            own = chosen[(chosen["arm"] == arm) & (chosen["weights"] == weights)]
            if own.empty:
                continue
            means, most = own.groupby("shots")["value"].mean(), own[own["shots"] == shots[-1]]
            line = {"Start": start_name(arm, weights, mode)}
            line |= {_labels(count): fixed(3)(means.get(count, math.nan)) for count in shots}
            same = (arm, weights) == dense
            line["Better than dense by"] = (
                EMPTY if same else str(gain(chosen, task, mode, (arm, weights), dense, sign))
            )
            if chosen["old_delta_m"].notna().any():
                line["Old tasks, Δm (%)"] = signed(float(most["old_delta_m"].mean()), 1)
            line["Passes"] = fixed(0)(float(most["passes"].mean()))
            lines.append(line)
    return pd.DataFrame(lines).fillna(EMPTY)


def _labels(count: float) -> str:
    return "all labels" if math.isinf(count) else f"{count:g} labels"


def _sign(frame: pd.DataFrame) -> float:
    return 1.0 if frame["direction"].iloc[0] == "max" else -1.0


def learned_arm(frame: pd.DataFrame) -> str | None:
    """The arm that the question is about: the first learned one present, else the first but dense."""
    arms = frame[frame["arm"] != REFERENCE]
    return None if arms.empty else first_of(LEARNED, arms) or ordered(arms["arm"])[0]


def sentences(frame: pd.DataFrame) -> list[str]:
    """Whether sparsity helped on each unseen task, a sentence for each mode, no bolder than its interval."""
    kept = finished(frame)
    arm = learned_arm(kept) if len(kept) else None
    if arm is None:
        return []
    found = []
    for _, group in kept.groupby(["task", "mode"], sort=False):
        task, mode, sign = str(group["task"].iloc[0]), str(group["mode"].iloc[0]), _sign(group)
        trained, dense = (arm, "trained"), (REFERENCE, "trained")
        over = gain(kept, task, mode, trained, dense, sign)
        if not over.pairs:
            continue
        words = [
            f"{task}, {mode}: {arm} against dense {over} in {group['metric'].iloc[0]} "
            f"({over.pairs} {over.unit}{'s' * (over.pairs != 1)}): {_verdict(over)}."
        ]
        zeros = gain(kept, task, mode, trained, (arm, "random"), sign)
        if zeros.pairs:
            words.append(f"Against its zeros with new weights: {zeros}.")
        old = gain(kept, task, mode, trained, dense, 1.0, "old_delta_m")
        if old.pairs:
            words.append(f"Δm of the old tasks after it, against dense: {old} %.")
        found.append(" ".join(words))
    return found


def _verdict(found: Gain) -> str:
    if found.unit == "draw":
        return "one model each, which claims nothing about others"
    if found.pairs < SEEDS_TO_CLAIM:
        return f"fewer than {SEEDS_TO_CLAIM} seeds claim nothing"
    if found.low > 0:
        return "it helped"
    return "it did harm" if found.high < 0 else "not distinguishable"
