"""The figures: pure functions from frames to matplotlib figures, readable at the width of a phone.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; every arm keeps its colour and its
marker in every figure, so that no figure needs colour alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#C9B800", "#0072B2", "#D55E00", "#CC79A7", "#7A7A7A"
# Okabe and Ito's yellow is too pale for a line on white, so it is darkened.
STYLES: dict[str, tuple[str, str]] = {
    "meta": (VERMILION, "o"),
    "meta-search": (ORANGE, "D"),
    "meta-optuna": (PURPLE, "p"),
    "optuna": (BLUE, "s"),
    "optuna-gp": (SKY, "^"),
    "optuna-asha": (SKY, "v"),
    "random": (GREY, "X"),
    "random-2x": (GREY, "P"),
    "grid": (YELLOW, "h"),
    "topk": (PURPLE, "<"),
    "path": (YELLOW, ">"),
    "fixed": (BLACK, "*"),
    "prune-taylor": (GREEN, "^"),
    "prune-magnitude": (GREEN, "v"),
    "dense-reg": (BLACK, "P"),
    "dense": (BLACK, "d"),
}
REFERENCE = "dense"
INK = "#222222"
LOOK: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8A8A8A",
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "svg.hashsalt": "ms_automl",
}
WIDTH = 5.4  # inches: the type is then of reading size on a phone and on a page


def style(arm: str) -> tuple[str, str]:
    """Colour and marker of an arm; an arm of the user's own is grey with a filled plus.

    >>> style("meta")
    ('#D55E00', 'o')
    """
    return STYLES.get(arm, (GREY, "P"))


def anytime_figure(
    anytime: pd.DataFrame,
    ends: pd.DataFrame,
    passes_per_trial: float | None = None,
    dense: float | None = None,
) -> Figure:
    """Best objective so far against spent passes: by validation above, the same models on test below.

    Args:
        anytime: Columns arm, seed, passes, objective, test_objective.
        ends: Columns arm, seed, passes: what each arm had spent when it ended.
        passes_per_trial: One fixed-λ trial, for the upper axis.
        dense: The objective of the dense network, for a reference line.
    """
    panels = [("objective", "Validation J, best so far"), ("test_objective", "Test J of the same models")]
    panels = [panel for panel in panels if anytime[panel[0]].notna().any()] or panels[:1]
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 1.1 + 2.7 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for ax, (metric, label) in zip(axes, panels, strict=True):
            for arm in _ordered(anytime["arm"]):
                _steps(ax, anytime[anytime["arm"] == arm], ends[ends["arm"] == arm], arm, metric)
            if dense is not None:
                _reference(ax, dense)
            ax.set_ylabel(f"{label} (ratio)")
            ax.grid(True)
        last = axes[-1]
        last.set_xlim(left=0)
        last.xaxis.set_major_locator(MaxNLocator(6))
        last.xaxis.set_major_formatter(FuncFormatter(_short))
        last.set_xlabel("Spent budget (passes: one sample forward and backward)")
        _trial_axis(axes[0], passes_per_trial)
        _legend(figure, axes[0])
        FigureCanvasAgg(figure)
    return figure


def _steps(ax: Axes, curve: pd.DataFrame, ends: pd.DataFrame, arm: str, metric: str) -> None:
    """A thin line per seed, a strong one for their mean, a ring where the arm ended."""
    colour, marker = style(arm)
    table = curve.pivot_table(index="passes", columns="seed", values=metric, aggfunc="last")
    table.index = table.index.astype(float)
    end = ends.set_index("seed")["passes"].reindex(table.columns).fillna(table.index.max())
    table = table.reindex(sorted({*table.index, *end})).ffill()
    if table.shape[1] > 1:
        for (_, steps), last in zip(table.items(), end, strict=True):
            line = steps[table.index <= last]
            ax.step(line.index, line, where="post", color=colour, linewidth=0.7, alpha=0.35)
    mean = table.mean(axis=1, skipna=False).dropna()
    if mean.empty:
        return
    ax.step(mean.index, mean, where="post", color=colour, linewidth=2, marker=marker, markevery=[0], label=arm)
    end_point = (mean.index[-1:], mean.iloc[-1:])
    ax.plot(*end_point, "o", mfc="white", mec=colour, mew=1.6, ms=11, zorder=4, clip_on=False)
    ax.plot(*end_point, marker, color=colour, ms=5.5, mew=0, zorder=5, clip_on=False)


def scatter_figure(
    trials: pd.DataFrame,
    selected: pd.Series,
    metric: str = "test/objective",
    dense: float | None = None,
    target: float | None = None,
) -> Figure:
    """Objective against sparsity, a point per finished trial; the selected ones are large and ringed.

    Args:
        trials: One row per trial with arm, status, `sparsity/param` and `metric`.
        selected: Whether a trial is the one its arm and seed selected, by the index of `trials`.
        metric: `test/objective` or `val/objective`.
        dense: The objective of the dense network.
        target: The sparsity asked for, in [0, 1].
    """
    columns = {"sparsity/param", metric} <= set(trials.columns)
    valid = trials[(trials["status"] == "FINISHED") & (trials["arm"] != REFERENCE)] if columns else trials.head(0)
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
        ax = figure.subplots()
        for arm in _ordered(valid["arm"]):
            colour, marker = style(arm)
            points = valid[valid["arm"] == arm]
            chosen = selected.reindex(points.index, fill_value=False)
            look: dict[str, Any] = {"color": colour, "marker": marker, "clip_on": False}
            x, y = 100 * points["sparsity/param"], points[metric]
            ax.scatter(x, y, s=24, alpha=0.45, linewidths=0, label=arm, **look)
            ax.scatter(x[chosen], y[chosen], s=85, edgecolors=INK, linewidths=1.1, zorder=4, **look)
        if dense is not None:
            _reference(ax, dense)
        if target is not None:
            ax.axvline(100 * target, color=GREY, linewidth=1, linestyle=":", label=f"target {target:.0%}")
        ax.set_xlim(0, 100)
        ax.set_xlabel("Parameter sparsity (% of trunk weights in zero groups)")
        ax.set_ylabel(f"{'Test' if metric.startswith('test') else 'Validation'} J (ratio)")
        ax.grid(True)
        _legend(figure, ax)
        FigureCanvasAgg(figure)
    return figure


def lambda_figure(rows: pd.DataFrame) -> Figure | None:
    """λ of each layer in the selected model, a line per arm and a point per seed; `None` without two layers.

    A λ that changes over training is shown at its last knot. λ = 0 has no place on the logarithmic axis.
    """
    lambdas = {
        (row["arm"], row["seed"]): last_knot(row["lambda"])
        for _, row in rows.iterrows()
        if row["arm"] != REFERENCE
    }
    layers = list(dict.fromkeys(layer for values in lambdas.values() for layer in values))
    if len(layers) < 2:
        return None
    place = {layer: index for index, layer in enumerate(layers)}
    arms = [arm for arm in _ordered(rows["arm"]) if any(lambdas.get((arm, seed)) for seed in rows["seed"])]
    with rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, 1.5 + 0.3 * len(layers)), layout="constrained")
        ax = figure.subplots()
        for arm in arms:
            colour, marker = style(arm)
            table = pd.DataFrame(
                {seed: values for (name, seed), values in lambdas.items() if name == arm and values}
            )
            table = table.reindex(layers).where(lambda values: values > 0)
            y = np.array([place[layer] for layer in table.index])
            for seed in table:
                ax.plot(table[seed], y, marker, color=colour, markersize=4, alpha=0.35, markeredgewidth=0)
            centre = np.exp(np.log(table).mean(axis=1))
            ax.plot(centre, y, marker=marker, color=colour, linewidth=1.6, markersize=6, label=arm)
        ax.set_xscale("log")
        ax.set_yticks(range(len(layers)), layers)
        ax.set_ylim(len(layers) - 0.5, -0.5)
        ax.set_xlabel("λ (strength of the penalty, no unit)")
        ax.grid(True)
        _legend(figure, ax)
        FigureCanvasAgg(figure)
    return figure


def last_knot(lambda_: object) -> dict[str, float]:
    """λ by layer, whether constant (a dict), over training (a list of dicts) or absent (`None`).

    >>> last_knot([{"stem": 0.1}, {"stem": 0.2}])
    {'stem': 0.2}
    """
    if isinstance(lambda_, list):
        lambda_ = lambda_[-1] if lambda_ else None
    return {str(key): float(value) for key, value in lambda_.items()} if isinstance(lambda_, dict) else {}


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, the same bytes for the same figure."""
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    with rc_context(LOOK):
        figure.savefig(files[0], dpi=200)
        figure.savefig(files[1], metadata={"Date": None})
    return files


def _ordered(arms: pd.Series) -> list[str]:
    """The arms present, in the order of `STYLES`, so that legends agree between figures."""
    present = list(dict.fromkeys(arms))
    return [arm for arm in STYLES if arm in present] + [arm for arm in present if arm not in STYLES]


def _reference(ax: Axes, dense: float) -> None:
    ax.axhline(dense, color=BLACK, linewidth=1, linestyle="--", label="dense (reference)")


def _trial_axis(ax: Axes, passes_per_trial: float | None) -> None:
    if not passes_per_trial:
        return
    unit = passes_per_trial
    upper = ax.secondary_xaxis("top", functions=(lambda x: np.divide(x, unit), lambda x: np.multiply(x, unit)))
    upper.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    upper.set_xlabel("Spent budget (fixed-λ trials)")


def _legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=3, columnspacing=1.2, handlelength=1.8
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)


def _short(value: float, _: int) -> str:
    """Passes as 12k or 1.2M.

    >>> _short(12_000, 0), _short(1_500_000, 0)
    ('12k', '1.5M')
    """
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
