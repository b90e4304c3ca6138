"""The objective against sparsity, and the Pareto fronts of Δm and density."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.plots.style import (
    BLACK,
    GREY,
    INK,
    LOOK,
    MANY_POINTS,
    WIDTH,
    drawn,
    legend,
    reference_line,
    style,
)
from analysis.statistics.arms import ordered
from analysis.statistics.pareto import REFERENCE_POINT, front_points, pareto_front
from analysis.statistics.trials import full_fidelity, searched, stopped

CUT = 0.9  # share of the points the y axis has room for at least: networks that are gone must not flatten the rest


def scatter_figure(
    trials: pd.DataFrame,
    selected: pd.Series,
    metric: str = "test/objective",
    dense: float | None = None,
    target: float | None = None,
    of: str = "weights of the trunk",
) -> Figure:
    """Objective against sparsity, a point per trial; selected ones are large and ringed, stopped ones hollow.

    The grey line joins the trials of all arms that no other one beats in both.

    Args:
        trials: One row per trial with arm, status, outcome, `density` and `metric`.
        selected: Whether a trial is the one its arm and seed selected, by the index of `trials`.
        metric: `test/objective` or `val/objective`.
        dense: The objective of the dense network.
        target: The sparsity asked for, in [0, 1].
        of: What sparsity is a share of.
    """
    has_columns = {"density", metric} <= set(trials.columns)
    valid = trials[searched(trials)].dropna(subset=["density", metric]) if has_columns else trials.head(0)
    valid = valid[full_fidelity(valid) | stopped(valid)]
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
        ax = figure.subplots()
        top = _top(valid[metric], dense)
        for arm in ordered(valid["arm"]):
            colour, marker, _ = style(arm)
            points = valid[valid["arm"] == arm]
            chosen, early = selected.reindex(points.index, fill_value=False), stopped(points)
            x, y = 100 * (1 - points["density"]), points[metric].clip(upper=top)
            look: dict[str, Any] = {"marker": marker, "rasterized": len(valid) > MANY_POINTS, "clip_on": False}
            ax.scatter(x[~early], y[~early], s=22, alpha=0.45, linewidths=0, color=colour, label=arm, **look)
            ax.scatter(x[early], y[early], s=14, alpha=0.5, facecolors="none", edgecolors=colour, **look)
            ax.scatter(x[chosen], y[chosen], s=52, edgecolors=INK, linewidths=0.9, zorder=4, color=colour, **look)
        if len(valid):
            whole = valid[full_fidelity(valid)]
            front = pareto_front(whole.assign(delta_m=-whole[metric]))
            ax.step(
                100 * (1 - front["density"]), front[metric], where="pre", color=GREY, linewidth=1.2, zorder=3,
                label="Pareto front",
            )  # fmt: skip
        if dense is not None:
            reference_line(ax, dense)
        if target is not None:
            ax.axvline(100 * target, color=GREY, linewidth=1, linestyle=":", label=f"target {target:.0%}")
        if top is not None:
            low = min(float(valid[metric].min()), dense if dense is not None else top)
            ax.set_ylim(low - 0.05 * (top - low) - 1e-3, top)
        ax.set_xlim(-2, 102)
        ax.set_xlabel(f"Parameter sparsity (% of {of} in zero groups)")
        ax.set_ylabel(f"{'Test' if metric.startswith('test') else 'Validation'} J (ratio)")
        ax.grid(True)
        legend(figure, ax)
        return drawn(figure)


def _top(values: pd.Series, dense: float | None) -> float | None:
    """Where the y axis ends; points above it sit on its edge."""
    if values.empty:
        return None
    low, high = float(values.min()), max(float(values.quantile(CUT)), dense if dense is not None else -math.inf)
    return high + 0.08 * (high - low) + 1e-3


def front_figure(trials: pd.DataFrame) -> Figure | None:
    """The Pareto front of Δm and density of each arm over the trials of all its seeds; `None` without Δm."""
    points = front_points(trials)
    if points.empty:
        return None
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
        ax = figure.subplots()
        for arm in ordered(points["arm"]):
            colour, marker, line = style(arm)
            group = points[points["arm"] == arm]
            front = pareto_front(group)
            ax.scatter(
                100 * group["density"], group["delta_m"], s=7, color=colour, alpha=0.25, linewidths=0,
                rasterized=len(points) > MANY_POINTS,
            )  # fmt: skip
            ax.step(
                100 * front["density"], front["delta_m"], where="post", color=colour, linestyle=line,
                linewidth=1.5, marker=marker, markersize=5, label=arm,
            )  # fmt: skip
        ax.plot(100, 0, "d", color=BLACK, label="dense (reference)", clip_on=False, zorder=5)
        ax.axhline(0, color=BLACK, linewidth=0.8, linestyle="--")
        lowest, _ = REFERENCE_POINT
        best = float(points["delta_m"].max())
        ax.set_ylim(max(lowest, float(points["delta_m"].quantile(0.05))) - 2, max(best, 0.0) + 2)
        ax.set_xlim(-2, 102)
        ax.set_xlabel("Density (% of trunk weights kept)")
        ax.set_ylabel("Δm on test (%), higher is better")
        ax.grid(True)
        legend(figure, ax)
        return drawn(figure)
