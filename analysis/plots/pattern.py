"""Where the zeros are."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.plots.style import INK, LOOK, WIDTH, drawn
from analysis.statistics.arms import ordered


def pattern_figure(table: pd.DataFrame) -> Figure | None:
    """Share of zero groups by layer and arm, written into the cells; `None` where not recorded.

    Args:
        table: Layers down, arms across, in % (`analysis.statistics.layers.pattern`).
    """
    if table.empty:
        return None
    table = table[ordered(table.columns)]
    rows, columns = table.shape
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 1.5 + 0.25 * rows), layout="constrained")
        ax = figure.subplots()
        image = ax.imshow(table, aspect="auto", cmap="cividis_r", vmin=0, vmax=100, interpolation="nearest")
        size = 8 if columns <= 9 else 6.5
        for row, values in enumerate(table.to_numpy(dtype=float)):
            for column, value in enumerate(values):
                if np.isfinite(value):
                    ink = "white" if value > 55 else INK
                    ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=size)
        ax.set_xticks(range(columns), table.columns, rotation=45, ha="left", rotation_mode="anchor")
        ax.set_yticks(range(rows), table.index)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=ax, orientation="horizontal", pad=0.02, aspect=40, shrink=0.9)
        bar.set_label("Zero groups in the layer (%)")
        return drawn(figure)
