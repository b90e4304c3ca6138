"""The stage from what is asked to the report: run what is not done yet, write it down, say what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ms_automl.callbacks.mlflow import short_timeouts
from ms_automl.cli import undisturbed
from ms_automl.comparison.run import Status
from ms_automl.driver.transfer.journal import TransferJournal
from ms_automl.driver.transfer.queue import TransferQueue
from ms_automl.driver.transfer.stored import TransferBackup, store_models
from ms_automl.driver.transfer.tracker import TransferTracker
from ms_automl.driver.transfer.uptake import TransferExperiment, Uptake
from ms_automl.environment.siblings import ours
from ms_automl.storage.files import write_json
from ms_automl.storage.remote import Storage, shown
from ms_automl.tuning.run import run_trials
from ms_automl.tuning.session import ray_session

with ours():
    from analysis import frames
    from analysis.formats import duration
    from analysis.records import ComparisonRecord
    from analysis.report import logged_report
    from analysis.transfer import sentences

SHARE = "put the comparison where all hosts see it, or name such a place, s3://... or gs://..., by --storage"


def run_transfer(
    console: Console,
    comparison: ComparisonRecord,
    experiment: TransferExperiment,
    models: dict[tuple[str, int], Path],
    digests: dict[tuple[str, int], str],
    asked: Sequence[Uptake],
    journal: TransferJournal,
    *,
    address: str | None,
    slots: int,
    storage: Storage | None = None,
) -> int:
    """Run what is asked for and not done yet, and write ``transfer.json`` and the report.

    Args:
        console: shows how it goes.
        comparison: that has ended.
        experiment: what trials are built from.
        models: folder of each selected model that is asked for, by arm and seed.
        digests: of their weights, and of those of the comparison's other models that are at hand.
        asked: all that is wanted.
        journal: what is done.
        address: of a running Ray cluster, or None for one on this machine.
        slots: trials at a time, on this machine.
        storage: outside of the stage's folder, that all hosts see; None where they see the comparison.

    Returns:
        The exit status: 0, 1 (some failed, or MLflow lacks records) or 130 (stopped by Ctrl-C or SIGTERM).
    """
    done, out = journal.done(), journal.path.parent
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
    data = experiment.data(asked[0].seed)
    primary = {task.name: next(iter(task.metrics)) for task in data.unseen_tasks}
    backup = None if storage is None else TransferBackup(out, storage)
    places = _places(pending, models, digests, storage)
    tracker, screen = TransferTracker(comparison.tracking_uri), _Screen(console, len(pending))
    tracker.attach(comparison.run_id)
    if again := tracker.add_lacking(journal.finished()):
        console.print(f"MLflow lacked records of {again} uptakes that are done: they are logged again")
    queue = TransferQueue(
        pending, places, primary, experiment.settings.reports, experiment.passes,
        [journal, *([backup] if backup else ()), tracker, screen], experiment.config.resources.retries,
    )  # fmt: skip
    status, stopped = Status.FINISHED, None
    try:
        if backup is not None:
            backup.begin()
        if pending:
            # On a cluster every host reads the models: it must see the folder they lie in.
            place = comparison.folder if address is not None and comparison.folder is not None else out
            seen = storage or Storage(str(place.absolute()))
            with ray_session(address, slots, experiment, seen, SHARE) as session:
                run_trials(
                    experiment, queue, session, keep=False,
                    say=lambda line: console.print(line, style="red", markup=False, soft_wrap=True),
                )  # fmt: skip
    except KeyboardInterrupt as error:
        status, stopped = Status.KILLED, error
    except Exception:
        status = Status.FAILED
        raise
    finally:
        with undisturbed():
            queue.stop("stopped by Ctrl-C or SIGTERM" if stopped else "the stage broke off")
            content = journal.content(data, digests)
            write_json(out / "transfer.json", content)
            tracker.close(content, status)
            if backup is not None:
                backup.close()
    if backup is not None and backup.behind:
        console.print(backup.behind, style="red", markup=False, soft_wrap=True)
    lacks = _say(console, comparison, content, tracker, storage)
    if stopped is not None:
        return 130
    return 0 if journal.done() >= set(asked) and not lacks else 1


def _places(
    pending: Sequence[Uptake],
    models: dict[tuple[str, int], Path],
    digests: dict[tuple[str, int], str],
    storage: Storage | None,
) -> dict[tuple[str, int], str]:
    """Where trials read each model from that is to take up something."""
    needed = {key: models[key] for key in {(one.arm, one.seed) for one in pending}}
    if storage is None:
        return {key: str(model) for key, model in needed.items()}
    return store_models(storage, needed, digests)


def _say(
    console: Console,
    comparison: ComparisonRecord,
    content: dict[str, Any],
    tracker: TransferTracker,
    storage: Storage | None,
) -> bool:
    """Say what came out, in a line for each question; whether MLflow lacks something of it."""
    for line in sentences(frames.transfer(content)):
        console.print(line, markup=False, soft_wrap=True)
    lacks = tracker.writer.lost or ""
    try:
        with short_timeouts():
            page, unlogged = logged_report(comparison.folder or comparison.run_id)
        lacks = lacks or unlogged
        console.print(f"report: {page}", markup=False, soft_wrap=True)
    except Exception as error:
        console.print(f"no report: {' '.join(str(error).split())}", markup=False, soft_wrap=True)
    else:
        if storage is not None:
            _copy_report(console, page.parent, storage)
    if lacks:
        line = f"MLflow lacks some records: {lacks}; transfer.json is complete, the same command adds what lacks"
        console.print(line, style="red", markup=False, soft_wrap=True)
    return bool(lacks)


def _copy_report(console: Console, folder: Path, storage: Storage) -> None:
    try:
        storage.copy(folder, folder.name)
    except OSError as error:
        line = f"no copy of the report in {shown(storage.address)}: {' '.join(str(error).split())}"
        console.print(line, style="red", markup=False, soft_wrap=True)


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
        last = row["curve"][-1][1] if row["curve"] else None
        how = row["error"] or ("no valid label" if last is None else f"{last:.4f}")
        self.console.print(f"{self.ended}/{self.count}  {uptake.name:<44} {how}", markup=False, soft_wrap=True)
