"""What every figure shares.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; every arm keeps its colour, marker and line
in every figure, so that no figure needs colour alone.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ms_automl.comparison.run import Role
from ms_automl.samplers.arms import ARMS

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#C9B800", "#0072B2", "#D55E00", "#CC79A7", "#7A7A7A"
# Okabe and Ito's yellow is too pale for a line on white, so it is darkened.
SOLID: Any = "-"
DASHED: Any = (0, (5, 1.5))
DOTTED: Any = (0, (1.2, 1.2))


class Style(NamedTuple):
    """How an arm is drawn."""

    colour: str
    marker: str
    line: Any = SOLID


PALETTES: dict[Role, tuple[Style, ...]] = {
    Role.LEARNED: (Style(VERMILION, "o"), Style(ORANGE, "D", DASHED), Style(PURPLE, "p")),
    Role.SEARCHED: (
        *(Style(BLUE, "s"), Style(SKY, "^", DASHED), Style(SKY, "v"), Style(PURPLE, "<", DOTTED)),
        *(Style(GREY, "X"), Style(GREY, "P", DOTTED), Style(YELLOW, "h"), Style(YELLOW, ">", DASHED)),
        Style(BLACK, "*", DOTTED),
    ),
    Role.PRUNED: (Style(GREEN, "^"), Style(GREEN, "v", DASHED)),
    Role.LITERATURE: (Style(ORANGE, "s", DOTTED), Style(BLUE, "h", DASHED), Style(VERMILION, "v", DOTTED)),
    Role.BASELINE: (Style(GREY, "d", DOTTED),),
    Role.CONTROL: (Style(BLACK, "P", DASHED), Style(BLACK, "X", DOTTED)),
    Role.REFERENCE: (Style(BLACK, "d"),),
}
"""What the arms of a role are drawn as, in the order of `ARMS`."""
MARKERS = "osDphv^<>XP*d8"
INK = "#222222"
GRID = "#E4E4E4"
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
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "ms_automl",
}
WIDTH = 5.4  # inches: the type is then of reading size on a phone and on a page
MANY_POINTS = 2000  # from so many on, points go into the SVG as one picture


def style(arm: str) -> Style:
    """Colour, marker and line of an arm; one that is not among `ARMS` is grey with a filled plus.

    Where a role has more arms than its palette, the palette's colours and lines begin again with other markers.

    >>> style("meta").colour
    '#D55E00'
    """
    if arm not in ARMS:
        return Style(GREY, "P", DASHED)
    role = ARMS[arm].role
    index = [name for name, row in ARMS.items() if row.role is role].index(arm)
    palette = PALETTES[role]
    chosen = palette[index % len(palette)]
    again = index // len(palette)
    if not again:
        return chosen
    return chosen._replace(marker=MARKERS[(MARKERS.index(chosen.marker) + again) % len(MARKERS)])


def drawn(figure: Figure) -> Figure:
    """A figure with the canvas that draws it; no pyplot, which keeps figures alive."""
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.png` and `<name>.svg`, the same bytes for the same figure."""
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    with rc_context(LOOK):
        with warnings.catch_warnings():
            # Axes that collapse are drawn as they are; the command's screen is no place to say so.
            warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
            figure.savefig(files[0], dpi=200)
        figure.set_layout_engine("none")  # what was found for the first holds for the second
        figure.savefig(files[1], dpi=200, metadata={"Date": None})
    return files


def reference_line(ax: Axes, dense: float) -> None:
    """The dense network's J across the axes."""
    ax.axhline(dense, color=BLACK, linewidth=1, linestyle="--", label="dense (reference)")


def lambda_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic λ axis at 1, 2 and 5 of every decade, written out."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def trial_axis(ax: Axes, passes_per_trial: float | None) -> None:
    """An upper axis in fixed-λ trials, where that is known."""
    if not passes_per_trial:
        return
    unit = passes_per_trial
    upper = ax.secondary_xaxis("top", functions=(lambda x: np.divide(x, unit), lambda x: np.multiply(x, unit)))
    upper.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    upper.set_xlabel("Spent budget (fixed-λ trials)")


def legend(figure: Figure, *axes: Axes, columns: int = 3) -> None:
    """One legend below all axes, every label once, without the transparency of its points."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        place: Literal["outside lower center"] = "outside lower center"
        made = figure.legend(
            list(found.values()), list(found), loc=place, ncols=columns, columnspacing=1.2, handlelength=2.4
        )
        for shown in made.legend_handles:
            if shown is not None:
                shown.set_alpha(1)


def short(value: float, _: int = 0) -> str:
    """Passes as 12k or 1.2M.

    >>> short(12_000), short(1_500_000)
    ('12k', '1.5M')
    """
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
