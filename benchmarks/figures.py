"""The method's figures from the verdict's runs: docs/figures/*.png and *.svg.

    python benchmarks/figures.py --preset rooms --seed 0

λ by layer over the sparsifying phase and the pattern of zeros come from one seed of the meta-learner, the pattern
beside the arms that search. The third figure has every meta run of the preset: the rise of the loss at the
end as each report before the freeze foretells it (by the model of docs/method.md), against the one that came. The
fourth has all seeds: what each arm has to show as its budget is spent, and loss against sparsity of its trials.
The last, where the preset has rows in benchmarks/field, how far above `meta` every rival of one training ends.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from field_tables import PRICED, less_meta, outcomes, presets, ranked, short
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from tables import META, TUNING_SEEDS

from analysis.plots.style import BLACK, BLUE, GREEN, GREY, LOOK, SKY, VERMILION, WIDTH, Style
from analysis.statistics.intervals import interval
from analysis.statistics.paired import NO_WORSE
from ms_automl.meta.level import PricedLevel

HERE = Path(__file__).parent
OUT = HERE.parent / "docs" / "figures"
VERDICT = {
    ("meta", "per_layer"): Style(VERMILION, "o"),
    ("prune-taylor", "per_layer"): Style(GREEN, "^"),
    ("optuna", "per_stage"): Style(SKY, "v"),
    ("optuna", "per_layer"): Style(BLUE, "s"),
    ("random", "per_layer"): Style(GREY, "X"),
}
Row = dict[str, Any]


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    files = sorted((args.runs / args.preset).glob("*.jsonl"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in map(json.loads, lines) if not row["error"]]
    args.out.mkdir(parents=True, exist_ok=True)
    chosen = {arm: best(rows, arm, args.seed) for arm in ("meta", "prune-taylor", "optuna")}
    with rc_context(LOOK):
        save(course(chosen["meta"]), args.out / f"{args.preset}-lambda")
        save(pattern(chosen, chosen["meta"]["schedule"]["layers"]), args.out / f"{args.preset}-pattern")
        save(rise(rows), args.out / f"{args.preset}-rise")
        save(verdict(rows), args.out / f"{args.preset}-verdict")
        if args.preset in presets():
            save(field(outcomes(args.preset)), args.out / f"{args.preset}-field")


def best(rows: list[Row], arm: str, seed: int) -> Row:
    """The trial of least validation J of an arm under the default price."""
    label = f"{arm}/per_layer/tradeoff"
    found = [row for row in rows if row["label"] == label and row["seed"] == seed]
    if not found:
        raise SystemExit(f"no runs of {label} with seed {seed}: run benchmarks/verdict.py first")
    return min(found, key=lambda row: row["objective"])


def course(row: Row) -> Figure:
    """λ of each layer, and the share of its groups that it acts on, over the sparsifying phase."""
    schedule = row["schedule"]
    layers = schedule["layers"]
    values, shares = (np.array(schedule[name]).T for name in ("values", "shares"))
    figure = Figure(figsize=(2 * WIDTH, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    low = values[values > 0].min()
    shown, acted = np.where(values > 0, values, np.nan), np.where(shares > 0, 100 * shares, np.nan)
    _heat(figure, left, shown, layers, "λ (log scale; white: nothing is taken)", norm=LogNorm(low, values.max()))
    _heat(figure, right, acted, layers, "share of the layer's groups it acts on, %", vmin=0, vmax=100)
    return figure


def _heat(figure: Figure, axes: Axes, values: np.ndarray, layers: list[str], title: str, **scale: Any) -> None:
    image = axes.imshow(values, aspect="auto", cmap="cividis_r", **scale)
    axes.set_title(title, fontsize=10)
    axes.set_yticks(range(len(layers)), layers)
    knots = values.shape[1]
    axes.set_xticks(range(knots), [f"{100 * knot / (knots - 1):.0f}" for knot in range(knots)])
    axes.set_xlabel("progress of the sparsifying phase, %")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter("{x:g}")


def pattern(chosen: dict[str, Row], layers: list[str]) -> Figure:
    """Zero groups by layer in the selected model of each arm."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(layers))
    looks = {"meta": (VERMILION, ""), "prune-taylor": (GREEN, "///"), "optuna": (BLUE, "...")}
    for index, (arm, row) in enumerate(chosen.items()):
        colour, hatch = looks[arm]
        label = f"{arm}: {100 * (1 - row['density']):.0f} % of the weights, J {row['objective_test']:.3f}"
        shares = [100 * share for share in row["zeros_by_layer"]]
        axes.barh(
            places + 0.27 * (index - 1), shares, 0.25, color=colour, hatch=hatch, edgecolor="white", label=label
        )
    axes.set_yticks(places, layers)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("zero groups of the layer, %")
    figure.legend(loc="outside upper center")
    return figure


def rise(rows: list[Row]) -> Figure:
    """The rise of the loss over dense that reports foretell, and the one at the end of the run."""
    dense = {
        row["seed"]: {point["step"]: point for point in row["curve"]} for row in rows if row["label"] == "dense"
    }
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    kinds = {"val": ("running averages", BLACK, "x"), "probe": ("batch statistics (the probe)", VERMILION, "o")}
    for kind, (name, colour, marker) in kinds.items():
        came, foretold = [], []
        for row in (row for row in rows if row["label"].startswith("meta/")):
            end = row["objective"] - _paid(row) - 1
            for point in row["curve"]:
                if any(key.startswith("probe/") for key in point) and point["density"] < 0.6:
                    ratio = _ratio(point, dense[row["seed"]][point["step"]], kind)
                    came.append(end)
                    growth = (1 / row["density"] - 1) / (1 / point["density"] - 1)
                    foretold.append(PricedLevel.REMAINS * (ratio - 1) * growth)
        axes.scatter(came, foretold, s=18, color=colour, marker=marker, label=name, alpha=0.7)
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="#8A8A8A", linewidth=0.8)
    axes.set_xlabel("rise of the validation loss over dense, at the end (share)")
    axes.set_ylabel("as a report foretells it (share)")
    axes.legend()
    return figure


def verdict(rows: list[Row]) -> Figure:
    """Test J of the selected trial over the spent budget; Δm on test against the zeros of all trials."""
    rows = [row for row in rows if row["seed"] < TUNING_SEEDS]
    trial = min(row["passes"] for row in rows if row["method"] == "fixed_lambda")
    figure = Figure(figsize=(2 * WIDTH, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (arm, space), style in VERDICT.items():
        name = arm if arm in ("meta", "prune-taylor") else f"{arm}, {space.replace('_', ' ')}"
        look = {"color": style.colour, "marker": style.marker, "label": name}
        curves = incumbents(rows, f"{arm}/{space}/tradeoff")
        if len(curves):
            spent = curves[:, :, 0].mean(0) / trial
            found = curves[:, :, 1]
            left.plot(spent, found.mean(0), linestyle=style.line, markersize=4, drawstyle="steps-post", **look)
            left.fill_between(spent, found.min(0), found.max(0), step="post", color=style.colour, alpha=0.12, lw=0)
        mine = [row for row in rows if row["label"].split("/")[:2] == [arm, space]]
        zeros = [100 * (1 - row["density"]) for row in mine]
        gains = [row["delta_m_test"] for row in mine]
        front = 3 if arm == "meta" else 2
        right.scatter(
            zeros, gains, s=14, color=style.colour, marker=style.marker, alpha=0.7, linewidths=0, zorder=front
        )
    left.set_xscale("log")
    left.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    left.minorticks_off()
    left.set_xlabel("spent budget (fixed-λ trials, in passes)")
    left.set_ylabel("test J of the trial selected so far")
    right.set_ylim(-45, 8)
    right.axhline(0, color="#8A8A8A", linewidth=0.8)
    right.set_xlabel("parameter sparsity, %")
    right.set_ylabel("Δm on test, %")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def field(columns: dict[str, pd.DataFrame]) -> Figure:
    """J on test less that of `meta`, by rival and column of the table: every seed, their mean and its interval."""
    told = pd.concat([part for name, part in columns.items() if name != PRICED])["arm"].unique()
    arms = [arm for arm in ranked(columns) if arm != META and arm in told][::-1]
    figure = Figure(figsize=(2 * WIDTH, 1.4 + 0.27 * len(arms)), layout="constrained")
    for axes, (name, part) in zip(figure.subplots(1, len(columns), sharey=True), columns.items(), strict=True):
        axes.axvspan(-NO_WORSE, NO_WORSE, color="#EFEFEF", linewidth=0)
        axes.axvline(0, color=VERMILION, linewidth=1.2)
        for place, arm in enumerate(arms):
            gaps = less_meta(part, arm)
            if len(gaps):
                axes.plot(gaps, [place] * len(gaps), "o", color=GREY, markersize=3, alpha=0.6)
                axes.plot(interval(gaps), [place] * 2, color=BLUE, linewidth=1.6)
                axes.plot(gaps.mean(), place, "s", color=BLUE, markersize=4.5)
        axes.set_title(name if name == PRICED else f"{name} zeros", fontsize=10)
        axes.set_yticks(range(len(arms)), [short(arm) for arm in arms])
        axes.grid(True, axis="x")
    figure.supxlabel(
        "J on test, less that of meta (right of the line: meta is better; grey: within .02)", fontsize=10
    )
    return figure


def incumbents(rows: list[Row], label: str) -> np.ndarray:
    """Passes so far and test J of the trial of least validation J so far: [seeds, trials, 2], of whole streams."""
    streams: dict[int, list[Row]] = {}
    for row in (row for row in rows if row["label"] == label):
        streams.setdefault(row["seed"], []).append(row)
    longest = max(map(len, streams.values()), default=0)
    curves = []
    for trials in (stream for stream in streams.values() if len(stream) == longest):
        best = [min(trials[: end + 1], key=lambda row: row["objective"]) for end in range(longest)]
        spent = np.cumsum([row["passes"] for row in trials])
        curves.append(np.column_stack([spent, [row["objective_test"] for row in best]]))
    return np.array(curves)


def _paid(row: Row) -> float:
    objective = row["settings"]["objective"]
    return float(objective["price"] * row["density"]) if objective["kind"] == "tradeoff" else 0.0


def _ratio(point: Row, dense: Row, kind: str) -> float:
    names = [key for key in point if key.startswith(f"{kind}/")]
    return float(np.mean([point[name] / dense[name] for name in names]))


def save(figure: Figure, path: Path) -> None:
    """PNG and SVG."""
    figure.savefig(path.with_suffix(".png"), dpi=160)
    figure.savefig(path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
