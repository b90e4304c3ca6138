"""How each model takes up an unseen task: by labels and by steps."""

from __future__ import annotations

import math
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from analysis.plots.style import DOTTED, GREY, LOOK, WIDTH, drawn, legend, style
from analysis.statistics.arms import REFERENCE, ordered
from analysis.statistics.transfer import finished, learned_arm, start_name

LONGEST = 26
"""Characters in a line of an axis' name: the axes are some two inches high."""
MODES = {"frozen": "trunk frozen", "finetuned": "trunk fine-tuned", "joint": "joint with old tasks"}


def transfer_figure(frame: pd.DataFrame, task: str) -> Figure | None:
    """Above, the test metric against labels; below, the validation metric against steps with most labels.

    A column for each mode; lines are means over seeds and draws, bands their lowest and highest seed for the
    learned arm and dense.
    """
    own = finished(frame)
    own = own[own["task"] == task] if len(own) else own
    if own.empty:
        return None
    modes = [mode for mode in MODES if mode in set(own["mode"])]
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
        axes = figure.subplots(2, len(modes), sharey="row", squeeze=False)
        for column, mode in enumerate(modes):
            group = own[own["mode"] == mode]
            starts = {
                start: group[(group["arm"] == start[0]) & (group["weights"] == start[1])]
                for start in _starts(group)
            }
            banded = (REFERENCE, learned_arm(group))
            compared = [one for (arm, _), one in starts.items() if arm in banded] or list(starts.values())
            common = set.intersection(*(set(one["shots"]) for one in compared))  # other arms may lack some yet
            for (arm, weights), one in starts.items():
                _by_labels(axes[0, column], one, arm, weights, weights == "trained" and arm in banded)
                _by_steps(axes[1, column], one[one["shots"] == max(common, default=None)], arm, weights)
            axes[0, column].set_title(MODES[mode], fontsize=9)
            _labels_axis(axes[0, column], group)
            axes[1, column].set_xlabel("Step")
            axes[1, column].xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes[1, column].grid(True)
        metric, unit = own["metric"].iloc[0], own["unit"].iloc[0]
        lines = [unit] if metric.lower() == unit.lower().replace(" ", "_") else [metric, f"({unit})"]
        arrow = "higher" if own["direction"].iloc[0] == "max" else "lower"
        for row, split, note in ((0, "Test", f"{arrow} is better"), (1, "Validation", "with most labels")):
            said = [f"{split} {lines[0]}", *lines[1:], note]
            axes[row, 0].set_ylabel("\n".join(fill(line, LONGEST) for line in said))
        legend(figure, *axes[0])
        return drawn(figure)


def _starts(group: pd.DataFrame) -> list[tuple[str, str]]:
    """Trained models of all arms, dense without training, and the learned arm's zeros without training."""
    present = set(zip(group["arm"], group["weights"], strict=True))
    learned = learned_arm(group)
    asked = [(arm, "trained") for arm in ordered(group["arm"])] + [(REFERENCE, "random")]
    asked += [(learned, "random")] if learned else []
    return [start for start in asked if start in present]


def _look(arm: str, weights: str) -> dict[str, Any]:
    colour, marker, line = style(arm)
    if weights == "trained":
        return {"color": colour, "linestyle": line, "marker": marker}
    return {"color": GREY if arm == REFERENCE else colour, "linestyle": DOTTED, "marker": "1"}


def _name(arm: str, weights: str) -> str:
    """Name a start alike in every column: what a random dense trunk is depends on the mode."""
    return "dense, new weights" if (arm, weights) == (REFERENCE, "random") else start_name(arm, weights, "")


def _by_labels(ax: Axes, one: pd.DataFrame, arm: str, weights: str, banded: bool) -> None:
    means = one.groupby("shots").agg(labels=("labels", "mean"), value=("value", "mean"))
    ax.plot(
        means["labels"],
        means["value"],
        markersize=4,
        linewidth=1.3,
        label=_name(arm, weights),
        **_look(arm, weights),
    )
    if banded and one["seed"].nunique() > 1:
        spread = one.groupby(["shots", "seed"])["value"].mean().groupby("shots").agg(["min", "max"])
        ax.fill_between(
            means["labels"], spread["min"], spread["max"], color=style(arm).colour, alpha=0.12, linewidth=0
        )


def _by_steps(ax: Axes, one: pd.DataFrame, arm: str, weights: str) -> None:
    curves = [dict(curve) for curve in one["curve"]]
    steps = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    means = [float(pd.Series([curve[step] for curve in curves]).mean()) for step in steps]
    look = _look(arm, weights) | {"marker": ""}
    ax.plot(steps, means, linewidth=1.3, **look)


def _labels_axis(ax: Axes, group: pd.DataFrame) -> None:
    ticks = group.groupby("shots")["labels"].mean()
    ax.set_xscale("log", base=2)
    whole = [math.isinf(shots) for shots in ticks.index]
    ax.set_xticks(
        list(ticks), [f"all\n{count:g}" if end else f"{count:g}" for count, end in zip(ticks, whole, strict=True)]
    )
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlabel("Labelled samples")
    ax.grid(True)
