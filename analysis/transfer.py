"""The transfer stage: what each selected model reaches on tasks that no training had seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arms import LEARNED, REFERENCE, first_of
from analysis.formats import EMPTY, fixed, signed
from analysis.intervals import interval
from analysis.paired import SEEDS_TO_CLAIM
from analysis.plots.style import ordered

SCRATCH = "single task from scratch"
RANDOM_HEAD = "random dense trunk"
KEYS = ["task", "mode", "arm", "weights", "seed"]


@dataclass(frozen=True)
class Gain:
    """What one kind of start is worth over another, on one task in one mode.

    Attributes:
        mean: of the paired differences in the task's metric, above 0 where the first is better.
        low: Lower end of the 95 % interval of the mean; NaN with fewer than two pairs.
        high: Upper end.
        pairs: How many: seeds, or draws where the comparison has one seed only.
        unit: `seeds` or `draws`.
    """

    mean: float
    low: float
    high: float
    pairs: int
    unit: str

    def __str__(self) -> str:
        """As tables show it."""
        if not self.pairs:
            return EMPTY
        if self.pairs == 1:
            return signed(self.mean)
        return f"{signed(self.mean)} ({signed(self.low)} to {signed(self.high)})"


def finished(frame: pd.DataFrame) -> pd.DataFrame:
    """The uptakes that came to their end and have a value."""
    return frame[(frame["status"] == "FINISHED") & frame["value"].notna()] if len(frame) else frame


def start_name(arm: str, weights: str, mode: str) -> str:
    """What an uptake began from, as tables and legends name it.

    >>> start_name("meta", "random", "frozen"), start_name("dense", "random", "finetuned")
    ("meta's zeros, new weights", 'single task from scratch')
    """
    if weights == "trained":
        return arm
    if arm == REFERENCE:
        return RANDOM_HEAD if mode == "frozen" else SCRATCH
    return f"{arm}'s zeros, new weights"


def areas(frame: pd.DataFrame) -> pd.DataFrame:
    """The mean of the metric over log2(labels), by trapezoids: one value per `KEYS` and draw, column `value`.

    A start that lacks one of the numbers of labels that others of its task and mode have is left out; with one
    number of labels it is the metric there.
    """
    parts = []
    for _, group in finished(frame).groupby(["task", "mode"], sort=False):
        asked = group["shots"].nunique()
        for key, one in group.groupby([*KEYS[2:], "draw"], sort=False):
            curve = one.sort_values("labels")
            if one["shots"].nunique() < asked:
                continue
            x, y = np.log2(curve["labels"].to_numpy(float)), curve["value"].to_numpy(float)
            width = x[-1] - x[0]
            area = float(np.trapezoid(y, x) / width) if width > 0 else float(y.mean())
            names = dict(zip([*KEYS[2:], "draw"], key, strict=True))
            parts.append({"task": curve["task"].iloc[0], "mode": curve["mode"].iloc[0], **names, "value": area})
    return pd.DataFrame(parts, columns=[*KEYS, "draw", "value"])


def gain(
    values: pd.DataFrame, task: str, mode: str, one: tuple[str, str], other: tuple[str, str], sign: float
) -> Gain:
    """Compare two starts, paired by seed (draws averaged), or by draw where there is one seed.

    Args:
        values: One row per `KEYS` and draw, with `value`.
        task: Of the new task.
        mode: Of taking it up.
        one: Arm and weights.
        other: Arm and weights of what it is held against.
        sign: +1 where a higher metric is better, else -1.
    """
    chosen = values[(values["task"] == task) & (values["mode"] == mode)]
    by = ["seed"] if chosen["seed"].nunique() > 1 else ["draw"]
    means = [
        chosen[(chosen["arm"] == arm) & (chosen["weights"] == weights)].groupby(by)["value"].mean()
        for arm, weights in (one, other)
    ]
    difference = sign * (means[0] - means[1]).dropna().to_numpy(dtype=float)
    low, high = interval(difference)
    mean = float(difference.mean()) if len(difference) else math.nan
    return Gain(mean, low, high, len(difference), f"{by[0]}s")


def transfer_table(frame: pd.DataFrame, task: str, mode: str) -> pd.DataFrame:
    """One line per start: the metric by labels, its area, the gain over dense, what is forgotten, and the cost."""
    chosen = finished(frame)
    chosen = chosen[(chosen["task"] == task) & (chosen["mode"] == mode)]
    if chosen.empty:
        return pd.DataFrame()
    over, sign, shots = areas(frame), _sign(chosen), sorted(chosen["shots"].unique())
    lines = []
    for arm in ordered(chosen["arm"]):
        for weights in ("trained", "random"):
            own = chosen[(chosen["arm"] == arm) & (chosen["weights"] == weights)]
            if own.empty:
                continue
            means = own.groupby("shots")["value"].mean()
            kept = over[(over["task"] == task) & (over["mode"] == mode)]
            kept = kept[(kept["arm"] == arm) & (kept["weights"] == weights)]
            line = {"Start": start_name(arm, weights, mode)}
            line |= {_labels(count): fixed(3)(means.get(count, math.nan)) for count in shots}
            if len(shots) > 1:
                line["Area"] = fixed(3)(float(kept["value"].mean()))
            same = (arm, weights) == (REFERENCE, "trained")
            dense = gain(over, task, mode, (arm, weights), (REFERENCE, "trained"), sign)
            line["Better than dense by"] = EMPTY if same else str(dense)
            if own["old_delta_m"].notna().any():
                line["Old tasks, Δm (%)"] = signed(float(own["old_delta_m"].mean()), 1)
            line["Passes"] = fixed(0)(float(own["passes"].mean()))
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
    over, found = areas(frame), []
    for _, group in kept.groupby(["task", "mode"], sort=False):
        task, mode = str(group["task"].iloc[0]), str(group["mode"].iloc[0])
        dense = gain(over, task, mode, (arm, "trained"), (REFERENCE, "trained"), _sign(group))
        if not dense.pairs:
            continue
        pattern = gain(over, task, mode, (arm, "trained"), (arm, "random"), _sign(group))
        beside = f" Against its zeros with new weights: {pattern}." if pattern.pairs else ""
        found.append(
            f"{task}, {mode}: {arm} against dense {dense} in {group['metric'].iloc[0]} "
            f"({dense.pairs} {dense.unit}): {_verdict(dense)}.{beside}"
        )
    return found


def _verdict(found: Gain) -> str:
    if found.unit == "draws":
        return "one model each, which claims nothing about others"
    if found.pairs < SEEDS_TO_CLAIM:
        return f"fewer than {SEEDS_TO_CLAIM} seeds claim nothing"
    if found.low > 0:
        return "it helped"
    return "it did harm" if found.high < 0 else "not distinguishable"
