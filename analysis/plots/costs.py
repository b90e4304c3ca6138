"""Where the time went."""

from __future__ import annotations

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.plots.style import BLUE, INK, LOOK, ORANGE, SKY, VERMILION, WIDTH, drawn, legend
from analysis.statistics.arms import ordered
from analysis.statistics.costs import PARTS

LOOKS = {
    "training_seconds": (BLUE, ""),
    "evaluation_seconds": (SKY, "///"),
    "startup_seconds": (ORANGE, "..."),
    "idle_seconds": ("#D9D9D9", ""),
    "searcher_seconds": (VERMILION, "xxx"),
}


def cost_figure(breakdown: pd.DataFrame) -> Figure | None:
    """A bar per arm, its parts side by side; `None` where not recorded.

    Args:
        breakdown: Mean seconds a seed (`analysis.statistics.costs.cost_breakdown`).
    """
    if breakdown.empty:
        return None
    table = breakdown.loc[ordered(breakdown.index)]
    longest = float(table.sum(axis=1).max())
    scale, unit = (60.0, "min") if longest > 180 else (1.0, "s")
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 1.3 + 0.34 * len(table)), layout="constrained")
        ax = figure.subplots()
        left = pd.Series(0.0, index=table.index)
        for name, words in PARTS.items():
            colour, hatch = LOOKS[name]
            width = table[name] / scale
            ax.barh(
                range(len(table)), width, left=left, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.4,
                height=0.66, label=words,
            )  # fmt: skip
            left = left + width
        ax.set_yticks(range(len(table)), table.index)
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(f"Mean time a seed ({unit})")
        ax.grid(True, axis="x")
        legend(figure, ax)
        return drawn(figure)
