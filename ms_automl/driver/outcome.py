"""What a comparison came to, in the lines below its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ms_automl.callbacks.mlflow import Tracker, short_timeouts
from ms_automl.callbacks.mlflow.opening import how_to_see
from ms_automl.environment.siblings import ours
from ms_automl.storage.files import from_here


def say_outcome(console: Console, content: dict[str, Any], out: Path, tracker: Tracker, models: bool) -> bool:
    """Say what came out, and write the report.

    Args:
        console: that it is said on.
        content: of ``comparison.json``.
        out: folder of the comparison.
        tracker: of the comparison, which has written all it could.
        models: whether any arm has a selected model.

    Returns:
        Whether MLflow lacks something of it.
    """
    objective, measured = content["config"]["objective"], content["measured"]
    loss = "mean loss relative to dense"
    if objective["scale"] == "skill":
        loss = "1 + mean share that is lost of what dense has learned over a constant prediction"
    if objective["kind"] == "tradeoff":
        meaning = f"{loss} + {objective['price']:g} x density"
    else:
        meaning = f"{loss}, at a sparsity of at least {objective['target']:.0%}"
    seeds = content["config"]["seeds"]
    claim = "One seed claims nothing" if seeds == 1 else f"{seeds} seeds claim nothing" if seeds < 5 else ""
    say = console.print
    say(f"J: {meaning}; lower is better.", soft_wrap=True)
    unit = content["config"]["budget"]["unit"].replace("_", " ")
    say(
        f"zeros: share of the weights that λ acts on. cost: {unit}, in units of one fixed-λ trial.", soft_wrap=True
    )
    most = content["config"]["resources"]["concurrency_per_run"]
    if most > 1:
        say(
            f"{most} trials of an arm and seed at a time: samplers knew the results of {most - 1} fewer.",
            soft_wrap=True,
        )
    searcher = sum(row["searcher_seconds"] for row in content["rows"])
    say(f"samplers took {searcher:.2f} s, logging {measured['cost/logging_seconds']:.1f} s", soft_wrap=True)
    if claim:
        say(f"{claim}: --seeds 5 is the least for a claim.", soft_wrap=True)
    say(
        f"useful share {measured['useful_share']:.2f}, {measured['cost/wall_seconds']:.0f} s, "
        f"peak memory about {measured['cost/peak_memory_mb'] / 1024:.1f} GB",
        soft_wrap=True,
    )
    lacks = tracker.writer.lost or ""
    try:
        with ours():
            from analysis.report import logged_report

        with short_timeouts():
            index, unlogged = logged_report(out)
        say(f"report: {from_here(index)}", markup=False, soft_wrap=True)
        lacks = lacks or unlogged
    except Exception as error:  # the comparison itself is done and written
        say(f"no report: {' '.join(str(error).split())}", markup=False, soft_wrap=True)
    if lacks:
        warn(console, f"MLflow lacks some records: {lacks}; comparison.json is complete, --resume adds what lacks")
    if models:
        say(f"models: {from_here(out / 'best')}/<arm>-<seed>", markup=False, soft_wrap=True)
    say(f"all runs: {how_to_see(tracker.uri)}, and there {tracker.page}", markup=False, soft_wrap=True)
    return bool(lacks)


def warn(console: Console, line: str) -> None:
    """Say what went wrong, in red."""
    console.print(line, style="red", markup=False, soft_wrap=True)
