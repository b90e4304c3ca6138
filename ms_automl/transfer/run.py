"""The stage from what is asked to the report: run what is not done yet, write it down, say what came out."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.formats import duration
from analysis.records import Comparison, load
from analysis.report import report
from analysis.transfer import sentences
from ms_automl.comparison import write_json
from ms_automl.tracking import short_timeouts
from ms_automl.transfer.journal import TransferJournal
from ms_automl.transfer.queue import TransferQueue
from ms_automl.transfer.tracker import TransferTracker
from ms_automl.transfer.uptake import TransferExperiment, Uptake
from ms_automl.tuning.run import ray_session, run_trials


def run_transfer(
    console: Console,
    comparison: Comparison,
    experiment: TransferExperiment,
    models: dict[tuple[str, int], Path],
    asked: Sequence[Uptake],
    out: Path,
    *,
    address: str | None,
    slots: int,
) -> int:
    """Run what is asked for and not done yet, and write ``transfer.json`` and the report.

    Args:
        console: shows how it goes.
        comparison: that has ended.
        experiment: what trials are built from.
        models: folder of each selected model, by arm and seed.
        asked: all that is wanted.
        out: the stage's own folder.
        address: of a running Ray cluster, or None for one on this machine.
        slots: trials at a time, on this machine.

    Returns:
        The exit status: 0, 1 (some failed) or 130 (stopped by Ctrl-C).
    """
    out.mkdir(parents=True, exist_ok=True)
    journal = TransferJournal(out, comparison.run_id, asdict(experiment.settings))
    done = journal.done()
    pending = [uptake for uptake in asked if uptake not in done]
    passes = sum(experiment.passes(uptake) for uptake in pending)
    rows = comparison.rows
    pace = float(rows["device_seconds"].sum() / rows["passes"].sum())  # seconds of a pass in the comparison
    console.print(
        f"{', '.join(dict.fromkeys(one.task for one in asked))}: {len(asked)} uptakes, "
        f"{len(asked) - len(pending)} done, {len(pending)} to run, {passes:,.0f} passes, about "
        f"{duration(passes * pace / slots)} with {slots} at a time; results in {out.name}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    tracker = TransferTracker(comparison.tracking_uri)
    tracker.attach(comparison.run_id)
    data = experiment.data(asked[0].seed)
    primary = {task.name: next(iter(task.metrics)) for task in data.unseen_tasks}
    screen = _Screen(console, len(pending))
    queue = TransferQueue(
        pending, models, primary, experiment.settings.reports, experiment.passes, [journal, tracker, screen]
    )
    status, stopped = "FINISHED", None
    try:
        if pending:
            with ray_session(address, slots, experiment.config.resources):
                folder = out / f"tune-{sum(1 for _ in out.glob('tune-*'))}"
                run_trials(experiment, queue, folder, keep=False)
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not lose the records
        status, stopped = "KILLED", error
    finally:
        queue.stop("stopped by Ctrl-C" if stopped else "the stage broke off")
        content = journal.content(data, asked)
        write_json(out / "transfer.json", content)
        tracker.close(content, status)
    with short_timeouts():
        page = report(comparison.folder or comparison.run_id)
    for line in _told(comparison):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    if stopped is not None:
        return 130
    return 0 if journal.done() >= set(asked) else 1


def _told(comparison: Comparison) -> list[str]:
    """What came out, in a line for each question."""
    return sentences(load(comparison.folder or comparison.run_id).transfer)


class _Screen:
    """A line for each uptake that ends."""

    def __init__(self, console: Console, count: int) -> None:
        self.console, self.count, self.ended = console, count, 0

    def uptake_started(self, uptake: Uptake) -> None:
        """Nothing to show."""

    def uptake_reported(self, uptake: Uptake, metrics: dict[str, float]) -> None:
        """Nothing to show."""

    def uptake_ended(self, uptake: Uptake, row: dict[str, Any]) -> None:
        """Say how it ended."""
        self.ended += 1
        how = row["error"] if row["error"] else f"{row['curve'][-1][1]:.4f}"
        self.console.print(f"{self.ended}/{self.count}  {uptake.name:<44} {how}", markup=False, soft_wrap=True)
