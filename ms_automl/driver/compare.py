"""One comparison from its configuration to its table: set up, run, select, write down."""

from __future__ import annotations

import json
import platform
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ms_automl.callbacks.backup import Backup, check_own
from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.mlflow.address import seen_from
from ms_automl.callbacks.screen import Screen, comparison_table, notes
from ms_automl.cli import sigterm_kept, undisturbed
from ms_automl.comparison.events import EARLIER, FILE, EventLog, TrialEvents, replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.rows import reference_lines
from ms_automl.comparison.run import Status
from ms_automl.comparison.selection import best_of_each_arm, compacted, first_line, keep_best, real_images
from ms_automl.comparison.state import FORMAT, Comparison
from ms_automl.config import Config
from ms_automl.data import MultiTaskData
from ms_automl.driver.assembly import arm_names, assemble, check_batches, decided, one_trial
from ms_automl.driver.looking import look_at_data
from ms_automl.driver.outcome import say_outcome, warn
from ms_automl.environment.provenance import git_revision, versions
from ms_automl.errors import ConfigError, TrackingError
from ms_automl.models.onnx_form import to_onnx
from ms_automl.samplers.arms import REFERENCE, check_names
from ms_automl.sparsity.beforehand import why_not
from ms_automl.storage.files import alone, from_here, writable, write_json
from ms_automl.storage.remote import Storage, storage_of
from ms_automl.tuning.run import run_trials
from ms_automl.tuning.session import ray_session

SHARE = "name a folder that all hosts see, or s3://... or gs://..., by --storage"


def run_comparison(
    config: Config,
    out: Path,
    *,
    data_dir: Path | None = None,
    address: str | None = None,
    slots: int = 1,
    storage: str | None = None,
    record: dict[str, Any] | None = None,
) -> int:
    """Run a comparison and write ``out/comparison.json``, ``out/best/`` and ``out/report/``.

    Args:
        config: what is compared.
        out: a folder that holds no comparison yet, or the one that goes on.
        data_dir: handed to the data factory.
        address: of a running Ray cluster, or None for one on this machine.
        slots: trials at a time, on this machine.
        storage: folder or object store below which trials leave their models; None for ``out``.
        record: ``comparison.json`` of the comparison that goes on; None begins one.

    Returns:
        The exit status: 0, 1 (no arm has a valid result, or MLflow lacks records) or 130 (stopped by Ctrl-C or
        SIGTERM).

    Raises:
        MsAutomlError: before anything trains.
    """
    check_names(config)
    if slots < 1:
        raise ConfigError(f"`slots >= 1` must hold, but got slots={slots}")
    out = writable(out)
    if data_dir is not None and not data_dir.is_dir():
        raise ConfigError(f"--data-dir {from_here(data_dir)} is no folder: name the one that the data lies in")
    experiment = Experiment(config, data_dir.resolve() if data_dir else None)
    with sigterm_kept(), alone(out):
        if record is None:
            _check_new(out)
        try:
            return _compare(experiment, out, storage_of(storage, out), address, slots, record)
        except KeyboardInterrupt:  # while the runs are opened, or while Ray ends
            if not (out / "comparison.json").exists():
                raise
            Console().print("stopped; what has ended is kept: --resume goes on", soft_wrap=True)
            return 130


def _compare(
    experiment: Experiment,
    out: Path,
    models: Storage,
    address: str | None,
    slots: int,
    record: dict[str, Any] | None,
) -> int:
    console, config = Console(), experiment.config
    backup = None if models.address == str(out) else Backup(out, models)
    if backup is not None:
        check_own(models, record)
    tags = {"preset": config.preset, "out": out.name, "git_revision": git_revision()}
    tags["versions"] = json.dumps(versions())
    line = f"{config.preset}: {', '.join(arm_names(config))}; results in {from_here(out)}"
    console.print(line, markup=False, soft_wrap=True)
    with ThreadPoolExecutor(1) as background:  # a fresh MLflow database takes seconds to make
        opening = background.submit(Tracker, None, partial(warn, console))
        data = experiment.data(config.first_seed)
        check_batches(config, data)
        look_at_data(experiment, config.seed_numbers, console)
        config, said = decided(config, data)
        tracker = opening.result()
    if said is not None:
        console.print(said, markup=False, soft_wrap=True)
    experiment = replace(experiment, config=config)
    tags["directions"] = json.dumps(
        {f"{task.name}/{name}": metric.direction for task in data.tasks for name, metric in task.metrics.items()}
    )
    replayed = None if record is None else replay(out)
    log = EventLog(out)
    comparison, scheduler = assemble(experiment, log, replayed, studies=out / "optuna.journal")
    if line := experiment.remark():
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    if record is None and (why := _uncompactable(experiment)):
        line = f"selected models will not be compacted, what they would cost then will be missing: {why}"
        console.print(line, markup=False, soft_wrap=True)
    screen = Screen(console)
    comparison.callbacks += [tracker, screen, TrialEvents(log, comparison)]
    content: dict[str, Any] = {
        "format": FORMAT,
        "config": config.to_dict(),
        "versions": versions(),
        "git_revision": tags["git_revision"],
    }
    stopped: BaseException | None = None
    quiet = ExitStack()
    with ray_session(address, slots, experiment, models, SHARE) as session:
        slots = session.slots
        content["machine"] = f"{platform.system()} {platform.machine()}, {slots} slots"
        tags["slots"] = str(slots)
        store = seen_from(tracker.uri, out)
        goes_on = _open_runs(tracker, record, store, out.name, tags, experiment, data)
        content["mlflow"] = {"run_id": tracker.run_id, "tracking_uri": store}
        content["drivers"] = [*(record or {}).get("drivers", ()), *([backup.driver] if backup else ())]
        write_json(out / "comparison.json", content | {"rows": []})
        try:
            if backup is not None:
                comparison.callbacks.append(backup)
                backup.begin()
            for run in comparison.runs.values():
                tracker.run_opened(run)
            if replayed is not None and replayed.ended:
                again = sum(tracker.recall(run) for run in comparison.runs.values())
                if not goes_on:
                    console.print(f"MLflow has lost the comparison: {again} trials that ended are logged again")
                elif again:
                    console.print(f"MLflow lacked records of {again} trials that ended: they are logged again")
            idle = slots - config.resources.concurrency_per_run * len(comparison.runs)
            if idle > 0:
                remedy = "--set resources.concurrency_per_run=N uses more"
                console.print(f"{idle} of {slots} slots have nothing to do: {remedy}", soft_wrap=True)
            screen.begin(comparison)
            run_trials(
                experiment,
                scheduler,
                session,
                remove=None if backup is None else backup.remove,
                say=partial(warn, console),
            )
        except KeyboardInterrupt as error:
            quiet.enter_context(undisturbed())
            stopped = error
            comparison.stop(Status.KILLED, "stopped by Ctrl-C or SIGTERM")
        except Exception as error:  # what is recorded so far is kept, whatever happens
            stopped = error
            comparison.stop(Status.KILLED, f"the comparison broke off: {type(error).__name__}")
        finally:
            screen.end()
    try:
        kept = {run.name: keep_best(run, out) for run in comparison.runs.values()}
        if stopped is None:
            try:
                _compact(console, comparison, tracker, experiment, kept)
            except KeyboardInterrupt as error:
                console.print("stopped: not all selected models are compacted, --resume does", soft_wrap=True)
                stopped = error
        quiet.enter_context(undisturbed())
        return _finish(console, comparison, tracker, experiment, out, content, slots, kept, stopped)
    finally:
        if backup is not None:
            backup.close()
            if backup.behind:
                warn(console, backup.behind)
        quiet.close()


def _uncompactable(experiment: Experiment) -> str:
    config = experiment.config
    image_shape = experiment.data(config.first_seed).image_shape
    return why_not(experiment.network(config.first_seed), config.training.grouping, image_shape)


def _finish(
    console: Console,
    comparison: Comparison,
    tracker: Tracker,
    experiment: Experiment,
    out: Path,
    content: dict[str, Any],
    slots: int,
    models: dict[str, Path | None],
    stopped: BaseException | None,
) -> int:
    status = (
        Status.FINISHED
        if stopped is None
        else Status.KILLED
        if isinstance(stopped, KeyboardInterrupt)
        else Status.FAILED
    )
    for run in comparison.runs.values():
        row, model = comparison.row(run), models[run.name]
        ended = status if not run.closed else Status.FAILED if row["status"] == "failed" else Status.FINISHED
        tracker.run_closed(run, row, model, ended)
    useful = comparison.useful_share / slots
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trials = [trial.peak_memory for trial in comparison.trials.values()]
    measured = {
        "useful_share": useful,
        "cost/wall_seconds": comparison.clock() - comparison.began,
        "cost/logging_seconds": tracker.writer.seconds,
        "cost/peak_memory_mb": own + slots * max(trials, default=0.0),
    }
    warnings = reference_lines(comparison.judge.tasks, comparison.judge.references)
    content |= {"measured": measured, "warnings": warnings, "rows": comparison.rows()}
    write_json(out / "comparison.json", content)
    tracker.finish(content, measured, status)
    for line in warnings:
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    console.print(comparison_table(content["rows"], one_trial(experiment, comparison)))
    for line in notes(content["rows"]):
        console.print(line, markup=False, soft_wrap=True)
    lacks = say_outcome(console, content, out, tracker, any(models.values()))
    if isinstance(stopped, KeyboardInterrupt):
        return 130
    if stopped is not None:
        raise stopped
    valid = any(row["status"] == "ok" for row in content["rows"] if row["arm"] != REFERENCE)
    return 0 if valid and not lacks else 1


def _compact(
    console: Console,
    comparison: Comparison,
    tracker: Tracker,
    experiment: Experiment,
    models: dict[str, Path | None],
) -> None:
    """Compact and measure every selected model, and log the best one of each arm in ONNX."""
    data, grouping = experiment.data(experiment.config.first_seed), experiment.config.training.grouping
    images = real_images(data)
    torch.set_num_threads(experiment.config.resources.cpus_per_trial)  # as in a trial
    runs = comparison.runs.values()
    logged = {run.name for run in best_of_each_arm(runs, comparison.judge.better)}
    troubles: dict[str, list[str]] = {}
    for run in runs:
        model = models[run.name]
        if model is None:
            continue
        try:
            small = compacted(model, grouping, images)
        except Exception as error:  # such as a factory that fails when it is called again
            troubles.setdefault(f"not compacted: {first_line(error)}", []).append(run.name)
            continue
        run.macs_ratio, run.latency_ratio = small.macs_ratio, small.latency_ratio
        if small.why:
            troubles.setdefault(f"not compacted: {small.why}", []).append(run.name)
        if run.name in logged:
            try:
                form = to_onnx(small.network, data.image_shape)
            except Exception as error:  # a stranger's network may do anything
                troubles.setdefault(f"not in MLflow as ONNX: {first_line(error)}", []).append(run.name)
            else:
                tracker.model_exported(run, form)
    for trouble, names in troubles.items():
        console.print(f"{', '.join(names)}: {trouble}", markup=False, soft_wrap=True)


def _check_new(out: Path) -> None:
    if any((out / name).exists() for name in ("comparison.json", FILE, *EARLIER)):
        raise ConfigError(
            f"--out {from_here(out)} holds a comparison already: name a new folder, or go on with it by --resume"
        )


def _open_runs(
    tracker: Tracker,
    record: dict[str, Any] | None,
    store: str,
    name: str,
    tags: dict[str, str],
    experiment: Experiment,
    data: MultiTaskData,
) -> bool:
    """Begin the comparison's parent run, or go on with the one it has; whether it had one.

    Raises:
        TrackingError: where the runs are in another store.
    """
    config = experiment.config
    before = record["mlflow"] if record is not None else None
    source = config.data.model_dump(mode="json") | {"seeds": list(config.seed_numbers)}
    samples = {"train": len(data.train), "validation": len(data.val), "test": len(data.test)}
    if before is not None and tracker.knows(before["run_id"]):
        tracker.resume(before["run_id"], config.to_dict())
        tracker.dataset_used(data.name, source, samples)
        return True
    if before is not None and before.get("tracking_uri") not in (store, None):  # the same one has lost them
        raise TrackingError(
            f"the MLflow store {store} does not have the comparison's runs, which are in {before['tracking_uri']} "
            "(seen from --out): start the command in the same folder as before, or set MLFLOW_TRACKING_URI"
        )
    tracker.begin(name, tags, config.to_dict())
    tracker.dataset_used(data.name, source, samples)
    return False
