"""Paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.plots.style import BLACK, GREY, LOOK, WIDTH, drawn, style
from analysis.statistics.arms import METRICS
from analysis.statistics.paired import NO_WORSE, Paired


def paired_figure(pairs: Sequence[Paired]) -> Figure | None:
    """A line per pair: the mean difference, its 95 % interval, and the margin of 'no worse'; or `None`."""
    shown = [pair for pair in pairs if len(pair.seeds) > 1]
    if not shown:
        return None
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.26 * len(shown)), layout="constrained")
        ax = figure.subplots()
        ax.axvspan(-NO_WORSE, NO_WORSE, color="#EFEFEF", zorder=0)
        ax.axvline(0, color=BLACK, linewidth=0.8)
        for place, pair in enumerate(shown):
            colour, marker, _ = style(pair.left)
            ax.plot([pair.low, pair.high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            ax.plot(pair.mean, place, marker, color=colour, markersize=6, markeredgecolor="white", mew=0.6)
        ax.set_yticks(range(len(shown)), [f"{pair.left} − {pair.right}" for pair in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(True, axis="x")
        name = METRICS[shown[0].metric]
        ax.set_xlabel(f"Difference in {name} (ratio)\nleft of 0 the first is better")
        ax.spines["left"].set_color(GREY)
        return drawn(figure)
