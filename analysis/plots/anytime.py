"""The best J so far against what was spent."""

from __future__ import annotations

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.plots.style import (
    LOOK,
    WIDTH,
    drawn,
    legend,
    reference_line,
    short,
    style,
    trial_axis,
)
from analysis.statistics.anytime import bands, common_grid, on_grid
from analysis.statistics.arms import ordered

PANELS = {"objective": "Validation J, best so far", "test_objective": "Test J of the same models"}
AXES = {
    "passes": "Spent budget (passes: one sample forward and backward)",
    "seconds": "Wall-clock of the arm by itself (s)",
    "minutes": "Wall-clock of the arm by itself (min)",
}
SHORT = 180.0  # seconds up to which the axis counts in them
COMMON = 0.95  # share of all the steps that the y axis has room for: bad first trials must not flatten the rest


def anytime_figure(
    anytime: pd.DataFrame,
    ends: pd.DataFrame,
    x: str = "passes",
    passes_per_trial: float | None = None,
    dense: float | None = None,
    banded: tuple[str, ...] = (),
) -> Figure:
    """Best objective so far, mean over seeds: by validation above, the same models on test below.

    Args:
        anytime: Columns arm, seed, `x`, objective, test_objective.
        ends: Columns arm, seed, `x`: what each arm had spent when it ended.
        x: `passes` or `seconds`.
        passes_per_trial: One fixed-λ trial, for the upper axis.
        dense: The objective of the dense network, for a reference line.
        banded: Arms whose range over seeds is shaded; all of them would hide one another.
    """
    anytime, ends, x = _readable(anytime, ends, x)
    panels = [metric for metric in PANELS if anytime[metric].notna().any()] or ["objective"]
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 1.3 + 2.7 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for ax, metric in zip(axes, panels, strict=True):
            table = _bands(anytime, ends, metric, x)
            for arm in ordered(anytime["arm"]):
                _draw(ax, table[table["arm"] == arm], arm, band=arm in banded)
            _limit(ax, table["mean"], dense)
            ax.set_ylabel(f"{PANELS[metric]} (ratio)")
            ax.grid(True)
        _x_axis(axes[-1], x)
        axes[-1].set_xlabel(AXES[x])
        if x == "passes":
            trial_axis(axes[0], passes_per_trial)
        legend(figure, axes[0])
        return drawn(figure)


def anytime_arms_figure(
    anytime: pd.DataFrame, ends: pd.DataFrame, metric: str, x: str = "passes", dense: float | None = None
) -> Figure | None:
    """A panel per arm: its mean and the range over seeds, the other arms' means in grey; `None` with one seed."""
    anytime, ends, x = _readable(anytime, ends, x)
    table = _bands(anytime, ends, metric, x)
    if table.empty or table["seeds"].max() < 2:
        return None
    arms = ordered(table["arm"])
    rows = -(-len(arms) // 2)
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 0.7 + 1.45 * rows), layout="constrained")
        grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, arm in zip(grid, arms, strict=False):
            for other in arms:
                if other != arm:
                    curve = table[table["arm"] == other]
                    ax.step(curve["x"], curve["mean"], where="post", color="#C4C4C4", linewidth=0.7)
            _limit(ax, pd.concat([table["mean"], table["high"]]), dense)
            _draw(ax, table[table["arm"] == arm], arm, band=True)
            seeds = int(table.loc[table["arm"] == arm, "seeds"].iloc[0])
            ax.set_title(f"{arm} ({seeds} seeds)", fontsize=9, loc="left", pad=3)
            ax.grid(True)
            _x_axis(ax, x, ticks=4)
        for ax in grid[len(arms) :]:
            ax.set_visible(False)
        if len(arms) % 2:  # the panel above the empty one is the last of its column
            grid[len(arms) - 2].tick_params(labelbottom=True)
        figure.supxlabel(AXES[x], fontsize=10)
        figure.supylabel(f"{PANELS[metric]} (ratio)", fontsize=10)
        return drawn(figure)


def _bands(anytime: pd.DataFrame, ends: pd.DataFrame, metric: str, x: str) -> pd.DataFrame:
    """The bands of every arm up to where its last seed ended, without the budgets at which nothing moves."""
    table = bands(on_grid(anytime, metric, x, common_grid(anytime[x], ends[x])))
    last = table["arm"].map(pd.concat([anytime, ends]).groupby("arm")[x].max())
    table = table[table["x"] <= last]
    moves = table[["arm", "mean", "low", "high"]].ne(table[["arm", "mean", "low", "high"]].shift()).any(axis=1)
    ends_here = table["arm"].ne(table["arm"].shift(-1))
    return table[moves | ends_here]


def _draw(ax: Axes, curve: pd.DataFrame, arm: str, band: bool) -> None:
    """The mean as a step line, a ring where the arm ended."""
    if curve.empty:
        return
    colour, marker, line = style(arm)
    if band and curve["seeds"].max() > 1:
        ax.fill_between(
            curve["x"], curve["low"], curve["high"], step="post", color=colour, alpha=0.16, linewidth=0
        )
    ax.step(
        curve["x"], curve["mean"], where="post", color=colour, linewidth=1.8, linestyle=line,
        marker=marker, markevery=[0], markersize=5, label=arm,
    )  # fmt: skip
    if band:  # an arm with a single result has no width to shade
        last = curve.iloc[-1:]
        ax.vlines(last["x"], last["low"], last["high"], color=colour, alpha=0.5, linewidth=2)
    end = (curve["x"].iloc[-1:], curve["mean"].iloc[-1:])
    ax.plot(*end, "o", mfc="white", mec=colour, mew=1.6, ms=10, zorder=4, clip_on=False)
    ax.plot(*end, marker, color=colour, ms=5, mew=0, zorder=5, clip_on=False)


def _limit(ax: Axes, values: pd.Series, dense: float | None) -> None:
    """Room for most of the values, and for the dense line where it is near enough not to flatten them."""
    known = values.dropna()
    if known.empty:
        return
    low, high = float(known.min()), float(known.quantile(COMMON))
    if dense is not None and low - 0.5 * (high - low) < dense < high + 0.5 * (high - low):
        low, high = min(low, dense), max(high, dense)
        reference_line(ax, dense)
    pad = 0.06 * (high - low) or 0.01
    ax.set_ylim(low - pad, high + pad)


def _x_axis(ax: Axes, x: str, ticks: int = 6) -> None:
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(ticks))
    if x == "passes":
        ax.xaxis.set_major_formatter(FuncFormatter(short))


def _readable(anytime: pd.DataFrame, ends: pd.DataFrame, x: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Both frames, with a column `minutes` to draw against where seconds would be many."""
    if x == "seconds" and pd.concat([anytime[x], ends[x]]).max() > SHORT:
        minutes = [frame.assign(minutes=frame["seconds"] / 60) for frame in (anytime, ends)]
        return minutes[0], minutes[1], "minutes"
    return anytime, ends, x
