"""The transfer stage from what is asked to its record: run what is not done yet, and write it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ms_automl.callbacks.backup import Backup
from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.screen import Screen, clock, warn
from ms_automl.cli import undisturbed
from ms_automl.comparison.events import EventLog, TrialEvents, replay
from ms_automl.comparison.run import Status
from ms_automl.data import MultiTaskData
from ms_automl.driver.transfer import earlier
from ms_automl.driver.transfer.asked import Asked
from ms_automl.driver.transfer.experiment import TransferExperiment
from ms_automl.driver.transfer.models import store_models
from ms_automl.driver.transfer.stage import Stage, assemble_stage
from ms_automl.storage.files import write_json
from ms_automl.storage.remote import Storage, shown
from ms_automl.tuning.run import run_trials
from ms_automl.tuning.session import ray_session

SHARE = "put the comparison where all hosts see it, or name such a place, s3://... or gs://..., by --storage"


@dataclass(frozen=True)
class Ended:
    """A stage that has come to its end, or was stopped.

    Attributes:
        content: of ``transfer.json``.
        complete: whether all that was asked for has come to its end.
        lacks: what MLflow lacks of it; '' where it has all.
        report: the report's page, or why there is none.
        stopped: what it was stopped by; None where it came to its end.
    """

    content: dict[str, Any]
    complete: bool
    lacks: str
    report: Path | str
    stopped: BaseException | None


def run_transfer(
    asked: Asked,
    experiment: TransferExperiment,
    out: Path,
    *,
    report: Callable[[], tuple[Path, str]],
    console: Console,
    address: str | None,
    slots: int,
    storage: Storage | None = None,
) -> Ended:
    """Run what is asked for and not done yet, and write ``transfer.json`` and the report.

    Args:
        asked: which models of which comparison adapt to what.
        experiment: what trials are built from; where models lie is added.
        out: folder of the stage, which no other process is in.
        report: writes the comparison's report anew; its page, and why MLflow lacks it ('': it has it).
        console: shows how it goes.
        address: of a running Ray cluster, or None for one on this machine.
        slots: trials at a time, on this machine.
        storage: outside of the stage's folder, that all hosts see; None where they see the comparison.

    Raises:
        MsAutomlError: before anything trains.
    """
    say = partial(warn, console)
    settings = asdict(experiment.settings)
    head: dict[str, Any] = {"format": earlier.FORMAT, "comparison": asked.source.run_id, "settings": settings}
    log = _log(asked, head, out)
    stage = assemble_stage(asked.adaptations, experiment, log, replay(out, models=False))
    backup = None if storage is None else Backup(out, storage, earlier.FILES, ())
    experiment = replace(experiment, models=_places(asked, stage, storage))
    console.print(_announced(asked, stage, slots, out), markup=False, soft_wrap=True)
    comparison, tracker, screen = stage.comparison, Tracker(asked.source.store, say), Screen(console)
    tracker.attach(asked.source.run_id, stage.run)
    if logged := tracker.recall(stage.run):
        console.print(f"MLflow lacked records of {logged} adaptations that ended: they are logged again")
    comparison.callbacks += [tracker, screen, TrialEvents(log, comparison), *([backup] if backup else ())]
    head["drivers"] = [*earlier.head_of(out).get("drivers", ()), *([backup.driver] if backup else ())]
    head |= _about(experiment.data(asked.adaptations[0].seed))
    write_json(out / earlier.RECORD, head | {"rows": stage.rows(asked.digests)})
    status, stopped = Status.FINISHED, None
    try:
        if backup is not None:
            backup.begin()
        if stage.pending:
            # On a cluster every host reads the models: it must see the folder they lie in.
            place = asked.source.folder if address is not None and asked.source.folder is not None else out
            seen = storage or Storage(str(place.absolute()))
            with ray_session(address, slots, experiment, seen, SHARE) as session:
                screen.begin(comparison)
                run_trials(experiment, stage.scheduler, session, keep=False, say=say)
    except KeyboardInterrupt as error:
        status, stopped = Status.KILLED, error
    except Exception:
        status = Status.FAILED
        raise
    finally:
        screen.end()
        with undisturbed():
            why = "stopped by Ctrl-C or SIGTERM" if stopped else "the stage broke off"
            comparison.stop(Status.KILLED, why)
            content = head | {"rows": stage.rows(asked.digests)}
            write_json(out / earlier.RECORD, content)
            tracker.stage_finished(stage.run, content, status)
            if backup is not None:
                backup.close()
    if backup is not None and backup.behind:
        say(backup.behind)
    page, lacks = _report(report, storage, say)
    complete = not stage.missing(asked.adaptations)
    return Ended(content, complete, tracker.writer.lost or lacks, page, stopped)


def _about(data: MultiTaskData) -> dict[str, Any]:
    """What the data are called, and what each task is measured by."""
    tasks = {}
    for task in data.unseen_tasks:
        name, metric = next(iter(task.metrics.items()))
        tasks[task.name] = {"metric": name, "direction": metric.direction, "unit": metric.unit}
    return {"data": data.name, "tasks": tasks}


def _announced(asked: Asked, stage: Stage, slots: int, out: Path) -> str:
    tasks = ", ".join(dict.fromkeys(adaptation.task for adaptation in asked.adaptations))
    whole, remaining = len(asked.adaptations), len(stage.pending)
    seconds = stage.passes * asked.source.seconds_per_pass / slots
    return (
        f"{tasks}: {whole} adaptations, {whole - remaining} done, {remaining} to run, {stage.passes:,.0f} passes, "
        f"about {clock(seconds)} with {slots} at a time; results in {out.name}"
    )


def _log(asked: Asked, head: Mapping[str, Any], out: Path) -> EventLog:
    """The log of the stage, with what is known of it elsewhere.

    Raises:
        ConfigError: where that is another comparison's, or had other settings.
    """
    digests, recorded = set(asked.digests.values()), asked.source.recorded
    earlier.check_head(head, earlier.head_of(out), earlier.digests_in(out), digests, str(out))
    if recorded is not None:
        adapted = {str(row["digest"]) for row in recorded["rows"]}
        earlier.check_head(head, recorded, adapted, digests, "the comparison's records in MLflow")
    return earlier.log_of(out, recorded["rows"] if recorded is not None else ())


def _places(asked: Asked, stage: Stage, storage: Storage | None) -> dict[tuple[str, int], str]:
    """Where trials read each model from that is to adapt to something."""
    needed = {
        key: asked.models[key] for key in {(adaptation.arm, adaptation.seed) for adaptation in stage.pending}
    }
    if storage is None:
        return {key: str(model) for key, model in needed.items()}
    return store_models(storage, needed, asked.digests)


def _report(
    report: Callable[[], tuple[Path, str]], storage: Storage | None, say: Callable[[str], None]
) -> tuple[Path | str, str]:
    """The report's page, or why there is none, and why MLflow lacks it ('': it has it)."""
    try:
        page, unlogged = report()
    except Exception as error:  # the records are complete, and it can be written again
        return " ".join(str(error).split()), ""
    if storage is not None:
        try:
            storage.copy(page.parent, page.parent.name)
        except OSError as error:
            say(f"no copy of the report in {shown(storage.address)}: {' '.join(str(error).split())}")
    return page, unlogged
