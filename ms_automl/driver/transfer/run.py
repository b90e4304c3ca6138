"""The transfer stage from what is asked to its record: run what is not done yet, and write it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ms_automl.callbacks.backup import Backup
from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.screen import Screen, clock, warn
from ms_automl.comparison.events import EventLog, TrialEvents
from ms_automl.comparison.run import Status
from ms_automl.data import MultiTaskData
from ms_automl.driver.transfer import earlier
from ms_automl.driver.transfer.experiment import Adaptation, TransferExperiment
from ms_automl.driver.transfer.source import Source, store_models
from ms_automl.driver.transfer.stage import Stage
from ms_automl.environment.process import undisturbed
from ms_automl.storage.files import from_here, write_json
from ms_automl.storage.remote import Storage, shown
from ms_automl.tuning.run import run_trials
from ms_automl.tuning.session import ray_session

SHARE = "put the comparison where all hosts see it, or name such a place, s3://... or gs://..., by --storage"


def run_transfer(
    source: Source,
    asked: Sequence[Adaptation],
    experiment: TransferExperiment,
    out: Path,
    *,
    report: Callable[[], tuple[Path, str]],
    console: Console,
    address: str | None,
    slots: int,
    storage: Storage | None,
) -> tuple[dict[str, Any], bool, str, Path | str]:
    """Run what is asked for and not done yet, and write ``transfer.json`` and the report.

    Args:
        source: the comparison, with the models that adapt.
        asked: all that is wanted, done already or not.
        experiment: what trials are built from; where models lie is added.
        out: folder of the stage, which no other process is in.
        report: writes the comparison's report anew; its page, and why MLflow lacks it ('': it has it).
        console: shows how it goes.
        address: of a running Ray cluster, or None for one on this machine.
        slots: trials at a time, on this machine.
        storage: outside of the stage's folder, that all hosts see; None where they see the comparison.

    Returns:
        The content of ``transfer.json``, whether all that was asked for has come to its end, what MLflow lacks of
        it ('' where it has all), and the report's page, or why there is none.
    """
    say = partial(warn, console)
    settings = asdict(experiment.settings)
    head: dict[str, Any] = {"format": earlier.FORMAT, "comparison": source.run_id, "settings": settings}
    log = _log(source, head, out)
    stage = Stage(asked, experiment, log)
    backup = None if storage is None else Backup(out, storage, earlier.FILES, ())
    models = {key: source.models[key] for key in {(each.arm, each.seed) for each in stage.pending}}
    places = {key: str(model) for key, model in models.items()}
    if storage is not None:
        places = store_models(storage, models, source.digests)
    experiment = replace(experiment, models=places)
    tasks, remaining = ", ".join(dict.fromkeys(each.task for each in asked)), len(stage.pending)
    seconds = stage.passes * source.seconds_per_pass / slots
    line = (
        f"{tasks}: {len(asked)} adaptations, {len(asked) - remaining} done, {remaining} to run, "
        f"{stage.passes:,.0f} passes, about {clock(seconds)} with {slots} at a time; results in {from_here(out)}"
    )
    console.print(line, markup=False, soft_wrap=True)
    comparison, tracker, screen = stage.comparison, Tracker(source.store, say), Screen(console)
    tracker.attach(source.run_id, stage.run)
    if logged := tracker.recall(stage.run):
        console.print(f"MLflow lacked records of {logged} adaptations that ended: they are logged again")
    comparison.callbacks += [tracker, screen, TrialEvents(log, comparison), *([backup] if backup else ())]
    head["drivers"] = [*earlier.head_of(out).get("drivers", ()), *([backup.driver] if backup else ())]
    head |= _about(experiment.data(asked[0].seed))
    write_json(out / earlier.RECORD, head | {"rows": stage.rows(source.digests)})
    status, stopped = Status.FINISHED, None
    try:
        if backup is not None:
            backup.begin()
        if stage.pending:
            # On a cluster every host reads the models: it must see the folder they lie in.
            place = source.folder if address is not None and source.folder is not None else out
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
            content = head | {"rows": stage.rows(source.digests)}
            write_json(out / earlier.RECORD, content)
            tracker.stage_finished(stage.run, content, status)
            if backup is not None:
                backup.close()
    if backup is not None and backup.behind:
        say(backup.behind)
    page, unlogged = _report(report, storage, say)
    if stopped is not None:
        raise KeyboardInterrupt("stopped; what has ended is kept: the same command goes on") from stopped
    return content, not stage.missing, tracker.writer.lost or unlogged, page


def _about(data: MultiTaskData) -> dict[str, Any]:
    """What the data are called, and what each task is measured by."""
    tasks = {}
    for task in data.unseen_tasks:
        name, metric = next(iter(task.metrics.items()))
        tasks[task.name] = {"metric": name, "direction": metric.direction, "unit": metric.unit}
    return {"data": data.name, "tasks": tasks}


def _log(source: Source, head: Mapping[str, Any], out: Path) -> EventLog:
    """The log of the stage with what MLflow has of it; ConfigError where either is another one's."""
    digests, recorded = set(source.digests.values()), source.recorded
    earlier.check_head(head, earlier.head_of(out), earlier.digests_in(out), digests, str(out))
    if recorded is None:
        return earlier.log_of(out)
    adapted = {str(row["digest"]) for row in recorded["rows"]}
    earlier.check_head(head, recorded, adapted, digests, "the comparison's records in MLflow")
    return earlier.log_of(out, recorded["rows"])


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
