"""λ by layer: at the end, and over training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from analysis.plots.style import LOOK, WIDTH, drawn, lambda_ticks, legend, style
from analysis.statistics.arms import REFERENCE, ordered
from analysis.statistics.layers import lambda_course, last_knot


def lambda_figure(rows: pd.DataFrame) -> Figure | None:
    """λ of each layer in the selected model, a line per arm and a point per seed; `None` without two layers.

    A λ that changes over training is shown at its last knot. λ = 0 has no place on the logarithmic axis.
    """
    lambdas = {
        (arm, seed): last_knot(lambda_)
        for arm, seed, lambda_ in zip(rows["arm"], rows["seed"], rows["lambda"], strict=True)
        if arm != REFERENCE
    }
    layers = list(dict.fromkeys(layer for values in lambdas.values() for layer in values))
    if len(layers) < 2:
        return None
    arms = [arm for arm in ordered(rows["arm"]) if any(lambdas.get((arm, seed)) for seed in rows["seed"])]
    y = np.arange(len(layers))
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 1.6 + 0.3 * len(layers)), layout="constrained")
        ax = figure.subplots()
        for arm in arms:
            colour, marker, line = style(arm)
            table = pd.DataFrame(
                {seed: values for (name, seed), values in lambdas.items() if name == arm and values}
            )
            table = table.reindex(layers).where(lambda values: values > 0)
            for seed in table:
                ax.plot(table[seed], y, marker, color=colour, markersize=4, alpha=0.3, markeredgewidth=0)
            centre = np.exp(np.log(table).mean(axis=1))
            ax.plot(centre, y, marker=marker, color=colour, linestyle=line, linewidth=1.5, markersize=6, label=arm)
        ax.set_xscale("log")
        lambda_ticks(ax.xaxis)
        ax.set_yticks(y, layers)
        ax.set_ylim(len(layers) - 0.5, -0.5)
        ax.set_xlabel("λ at the end of the sparsifying phase (no unit)")
        ax.grid(True)
        legend(figure, ax)
        return drawn(figure)


def course_figure(rows: pd.DataFrame) -> Figure | None:
    """λ of each layer over the sparsifying phase, a panel per arm in which it moves; `None` where none does."""
    courses = lambda_course(rows)
    arms = [arm for arm in ordered(courses) if len(courses[arm])]
    if not arms:
        return None
    values = np.concatenate([courses[arm].to_numpy(dtype=float).ravel() for arm in arms])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    norm = LogNorm(values.min(), max(values.max(), values.min() * 1.01))
    heights = [max(len(courses[arm]), 2) for arm in arms]
    with rc_context(LOOK):
        figure = Figure(
            figsize=(WIDTH, 1.1 + sum(0.24 * height + 0.3 for height in heights)), layout="constrained"
        )
        axes = figure.subplots(len(arms), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for ax, arm in zip(axes, arms, strict=True):
            course = courses[arm]
            image = ax.imshow(
                course, aspect="auto", norm=norm, cmap="viridis", interpolation="nearest",
                extent=(0.0, 100.0, len(course) - 0.5, -0.5),
            )  # fmt: skip
            ax.set_yticks(range(len(course)), course.index)
            ax.tick_params(axis="y", length=0)
            ax.set_title(arm, fontsize=10, loc="left", pad=4)
        axes[-1].set_xlabel("Sparsifying phase (%)")
        bar = figure.colorbar(image, ax=list(axes), pad=0.02, aspect=30)
        lambda_ticks(bar.ax.yaxis)
        bar.set_label("λ (no unit, logarithmic)")
        return drawn(figure)
