"""The selected models against a network for each task: what is gained, and with what share of their weights."""

from __future__ import annotations

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.plots.style import BLACK, LOOK, WIDTH, drawn, legend, style
from analysis.statistics.arms import ordered


def single_task_figure(rows: pd.DataFrame) -> Figure | None:
    """Δm against single-task networks over the share of their parameters, faint by seed; `None` where none ran.

    Args:
        rows: From `analysis.records.frames.rows`.
    """
    points = rows.dropna(subset=["delta_m_single", "density_single"])
    if points.empty:
        return None
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0, color=BLACK, linewidth=0.8, linestyle="--")
        for arm in ordered(points["arm"]):
            colour, marker, _ = style(arm)
            group = points[points["arm"] == arm]
            share, gain = 100 * group["density_single"], group["delta_m_single"]
            ax.scatter(share, gain, s=14, color=colour, marker=marker, alpha=0.3, linewidths=0)
            ax.plot(share.mean(), gain.mean(), marker, color=colour, markersize=7, label=arm, linestyle="none")
        ax.set_xlim(left=0)
        ax.set_xlabel("Parameters (% of the single-task networks' trunks together)")
        ax.set_ylabel("Δm against single-task (%), higher is better")
        ax.grid(True)
        legend(figure, ax)
        return drawn(figure)
