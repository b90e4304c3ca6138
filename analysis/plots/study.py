"""What λ does: the trials of an arm that varies one λ for all layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots.style import BLACK, BLUE, GREEN, LOOK, ORANGE, VERMILION, WIDTH, drawn, lambda_ticks
from analysis.statistics.trials import layer_columns

XLABEL = "λ, the same in all layers (no unit, logarithmic)"
# Panel: (column, words, factor, colour, marker) each.
PANELS: dict[str, list[tuple[str, str, float, str, str]]] = {
    "J (ratio)": [
        ("val/objective", "validation", 1, BLUE, "s"),
        ("test/objective", "test", 1, VERMILION, "o"),
    ],
    "Δm on test (%)": [("delta_m", "Δm", 1, BLACK, "D")],
    "Sparsity (%)": [
        ("sparsity/trunk", "weights", 100, BLUE, "o"),
        ("sparsity/param", "penalised weights", 100, GREEN, "^"),
        ("sparsity/group", "groups", 100, ORANGE, "v"),
    ],
    "Compact network\n(% of dense)": [
        ("compact/latency_ratio", "inference time", 100, BLACK, "P"),
        ("compact/macs_ratio", "multiply-adds", 100, ORANGE, "v"),
    ],
}


def study_figure(study: pd.DataFrame) -> Figure | None:
    """Performance, sparsity and inference time against λ, points by seed and means; `None` with fewer than 3 λ.

    Args:
        study: From `analysis.statistics.layers.lambda_study`.
    """
    if study["lambda_"].nunique() < 3:
        return None
    panels = {label: [line for line in lines if line[0] in study] for label, lines in PANELS.items()}
    panels = {label: lines for label, lines in panels.items() if lines}
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 0.6 + 1.85 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for ax, (label, lines) in zip(axes, panels.items(), strict=True):
            for column, words, factor, colour, marker in lines:
                _points(ax, study["lambda_"], factor * study[column], words, colour, marker)
            ax.set_ylabel(label)
            ax.grid(True)
            if len(lines) > 1:
                ax.legend(loc="best")
        axes[-1].set_xscale("log")
        lambda_ticks(axes[-1].xaxis)
        axes[-1].set_xlabel(XLABEL)
        figure.align_ylabels(list(axes))
        return drawn(figure)


def _points(ax: Axes, lambdas: pd.Series, values: pd.Series, words: str, colour: str, marker: str) -> None:
    ax.plot(lambdas, values, marker, color=colour, alpha=0.3, markersize=4, markeredgewidth=0)
    mean = values.groupby(lambdas.map(_same)).mean()
    ax.plot(mean.index, mean, color=colour, marker=marker, markersize=5, linewidth=1.5, label=words)


def _same(value: float) -> float:
    """Seeds share a grid, but float32 logarithms give its values last digits of their own."""
    return float(f"{value:.3g}")


def study_pattern_figure(study: pd.DataFrame, order: list[str]) -> Figure | None:
    """Share of zero groups by layer against λ, mean over seeds; `None` without layers or with fewer than 3 λ."""
    names = layer_columns(study, "sparsity/layer")
    if not names or study["lambda_"].nunique() < 3:
        return None
    table = 100 * study.groupby(study["lambda_"].map(_same))[list(names)].mean().T
    table = table.rename(index=names)
    table = table.loc[[layer for layer in order if layer in table.index] or table.index]
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.24 * len(table)), layout="constrained")
        ax = figure.subplots()
        image = ax.imshow(table, aspect="auto", cmap="cividis_r", vmin=0, vmax=100, interpolation="nearest")
        every = max(1, -(-table.shape[1] // 8))
        places = np.arange(0, table.shape[1], every)
        ax.set_xticks(places, [f"{value:.3g}" for value in table.columns[::every]])
        ax.set_yticks(range(len(table)), table.index)
        ax.tick_params(length=0)
        ax.set_xlabel("λ, the same in all layers (no unit)")
        bar = figure.colorbar(image, ax=ax, pad=0.02, aspect=30)
        bar.set_label("Zero groups in the layer (%)")
        return drawn(figure)
