"""One comparison from its configuration to its record: set up, run, select, write down."""

from __future__ import annotations

import json
import platform
import resource
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ms_automl.callbacks.backup import Backup, check_own
from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.mlflow.opening import seen_from
from ms_automl.callbacks.screen import Screen, warn
from ms_automl.comparison.events import EARLIER, FILE, EventLog, TrialEvents, replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.judge import reference_lines
from ms_automl.comparison.run import Status
from ms_automl.comparison.selection import best_of_each_arm, compacted, keep_best, real_images
from ms_automl.comparison.state import FORMAT
from ms_automl.config import Config
from ms_automl.driver.assembly import arm_names, assemble, check_batches, decided, look_at_data, trial_cost
from ms_automl.environment.arguments import folder_there
from ms_automl.environment.process import sigterm_kept, undisturbed
from ms_automl.environment.provenance import cpu_name, git_revision, versions
from ms_automl.errors import ConfigError, TrackingError, first_line
from ms_automl.meta.lambda_bounds import LambdaBounds
from ms_automl.models.onnx_form import to_onnx
from ms_automl.samplers.arms import REFERENCE, check_names
from ms_automl.sparsity.beforehand import why_not
from ms_automl.storage.files import at_work_in, from_here, write_json
from ms_automl.storage.remote import Storage, storage_of
from ms_automl.tuning.hosts import check_sent
from ms_automl.tuning.run import run_trials
from ms_automl.tuning.session import ray_session

SHARE = "name a folder that all hosts see, or s3://... or gs://..., by --storage"

WriteReport = Callable[[Path], tuple[Path, str]]
"""Writes the report of a comparison in a folder: its page, and why MLflow lacks it ('': it has it)."""


@dataclass(frozen=True)
class Ended:
    """A comparison that has come to its end, or was stopped."""

    out: Path
    content: dict[str, Any]  # of comparison.json
    trial_cost: float  # of one fixed-λ trial, in the budget's unit
    models: bool  # whether any arm has a selected model
    store: str  # address of the MLflow store
    page: str  # of its runs there
    lacks: str  # what MLflow lacks of it; '' where it has all
    report: Path | str  # its page, or why there is none
    stopped: BaseException | None  # by what; None where it came to its end

    @property
    def valid(self) -> bool:
        """Whether any arm beside the reference has a valid result."""
        return any(row["status"] == "ok" for row in self.content["rows"] if row["arm"] != REFERENCE)


def run_comparison(
    config: Config,
    out: Path,
    *,
    report: WriteReport,
    console: Console | None = None,
    data_dir: Path | None = None,
    own: Mapping[str, Callable[..., Any]] | None = None,
    address: str | None = None,
    slots: int = 1,
    storage: str | None = None,
    record: dict[str, Any] | None = None,
) -> Ended:
    """Run a comparison and write ``out/comparison.json``, ``out/best/`` and ``out/report/``.

    The arguments are those of :func:`ms_automl.compare`; ``own`` has the factories that are functions by the names
    that the configuration has for them, and ``record`` is the ``comparison.json`` of a comparison that goes on.

    Raises:
        MsAutomlError: before anything trains.
        KeyboardInterrupt: where it was stopped before it had anything to say.
    """
    check_names(config)
    if slots < 1:
        raise ConfigError(f"`slots >= 1` must hold, but got slots={slots}")
    experiment = Experiment(config, folder_there("--data-dir", data_dir), own or {})
    check_sent(experiment.own)
    with sigterm_kept(), at_work_in(out) as out:
        if record is None and any((out / name).exists() for name in ("comparison.json", FILE, *EARLIER)):
            raise ConfigError(
                f"--out {from_here(out)} holds a comparison already: name a new folder, or go on with it by "
                "--resume"
            )
        try:
            comparing = _Comparing(experiment, out, storage_of(storage, out), console or Console(), record)
            return comparing.run(address, slots, report)
        except KeyboardInterrupt as error:  # while the runs are opened, or while Ray ends
            if not (out / "comparison.json").exists():
                raise
            raise KeyboardInterrupt("stopped; what has ended is kept: --resume goes on") from error


class _Comparing:
    """A comparison on its way: checks and opens when it is built, then :meth:`run`."""

    def __init__(
        self, experiment: Experiment, out: Path, models: Storage, console: Console, record: dict[str, Any] | None
    ) -> None:
        self.out, self.models, self.console, self.record = out, models, console, record
        self.stopped: BaseException | None = None
        self.backup = None if models.address == str(out) else Backup(out, models)
        if self.backup is not None:
            check_own(models, record)
        config = experiment.config
        self._say(f"{config.preset}: {', '.join(arm_names(config))}; results in {from_here(out)}")
        with ThreadPoolExecutor(1) as background:  # a fresh MLflow database takes seconds to make
            opening = background.submit(Tracker, None, partial(warn, console))
            self.data = experiment.data(config.first_seed)
            check_batches(config, self.data)
            look_at_data(experiment, config.seed_numbers, console)
            config, why = decided(config, self.data)
            self.tracker = opening.result()
        if why is not None:
            self._say(why)
        self.experiment = experiment = replace(experiment, config=config)
        self.replayed = None if record is None else replay(out)
        log = EventLog(out)
        self.comparison, self.scheduler = assemble(experiment, log, self.replayed, studies=out / "optuna.journal")
        if line := experiment.remark():
            self._say(line, "yellow")
        if record is None:
            network = experiment.network(config.first_seed)
            if why := why_not(network, config.training.grouping, self.data.image_shape):
                self._say(
                    f"selected models will not be compacted, what they would cost then will be missing: {why}"
                )
        self.screen = Screen(console)
        self.comparison.callbacks += [self.tracker, self.screen, TrialEvents(log, self.comparison)]
        weights, penalised = experiment.weights
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "config": config.to_dict(),
            "weights": {"trunk": weights, "penalised": penalised},
            "versions": versions(),
            "git_revision": git_revision(),
            "cpu": cpu_name(),
        }

    def _say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, markup=False, soft_wrap=True)

    def run(self, address: str | None, slots: int, report: WriteReport) -> Ended:
        """Run the trials, select, and write everything down."""
        comparison = self.comparison
        with ExitStack() as quiet:
            with ray_session(address, slots, self.experiment, self.models, SHARE) as session:
                slots = session.slots
                self._open(slots)
                remove = None if self.backup is None else self.backup.remove
                try:
                    self.screen.begin(comparison)
                    say = partial(warn, self.console)
                    run_trials(self.experiment, self.scheduler, session, remove=remove, say=say)
                except KeyboardInterrupt as error:
                    quiet.enter_context(undisturbed())
                    self.stopped = error
                    comparison.stop(Status.KILLED, "stopped by Ctrl-C or SIGTERM")
                except Exception as error:  # what is recorded so far is kept, whatever happens
                    self.stopped = error
                    comparison.stop(Status.KILLED, f"the comparison broke off: {type(error).__name__}")
                finally:
                    self.screen.end()
            try:
                kept = {run.name: keep_best(run, self.out) for run in comparison.runs.values()}
                try:
                    if self.stopped is None:
                        self._compact(kept)
                except KeyboardInterrupt as error:
                    self._say("stopped: not all selected models are compacted, --resume does")
                    self.stopped = error
                quiet.enter_context(undisturbed())
                return self._finish(slots, kept, report)
            finally:
                if self.backup is not None:
                    self.backup.close()
                    if self.backup.behind:
                        warn(self.console, self.backup.behind)

    def _open(self, slots: int) -> None:
        """Begin the records, or go on with them."""
        store, tracker = seen_from(self.tracker.uri, self.out), self.tracker
        self.content["machine"] = f"{platform.system()} {platform.machine()}, {slots} slots"
        goes_on = self._open_runs(store, slots)
        self.content["mlflow"] = {"run_id": tracker.run_id, "tracking_uri": store}
        before = (self.record or {}).get("drivers", ())
        self.content["drivers"] = [*before, *([self.backup.driver] if self.backup else ())]
        write_json(self.out / "comparison.json", self.content | {"rows": []})
        if self.backup is not None:
            self.comparison.callbacks.append(self.backup)
            self.backup.begin()
        runs = self.comparison.runs.values()
        for run in runs:
            tracker.run_opened(run)
        if self.replayed is not None and self.replayed.ended:
            logged = sum(tracker.recall(run) for run in runs)
            if not goes_on:
                self._say(f"MLflow has lost the comparison: {logged} trials that ended are logged again")
            elif logged:
                self._say(f"MLflow lacked records of {logged} trials that ended: they are logged again")
        idle = slots - self.experiment.config.resources.concurrency_per_run * len(runs)
        if idle > 0:
            remedy = "--set resources.concurrency_per_run=N uses more"
            self._say(f"{idle} of {slots} slots have nothing to do: {remedy}")

    def _open_runs(self, store: str, slots: int) -> bool:
        """Begin the comparison's parent run, or go on with the one it has; whether it had one."""
        config, data, tracker = self.experiment.config, self.data, self.tracker
        before = self.record["mlflow"] if self.record is not None else None
        goes_on = before is not None and tracker.knows(before["run_id"])
        if before is not None and goes_on:
            tracker.resume(before["run_id"], config.to_dict())
        elif before is not None and before.get("tracking_uri") not in (store, None):  # the same one has lost them
            raise TrackingError(
                f"the MLflow store {store} does not have the comparison's runs, which are in "
                f"{before['tracking_uri']} (seen from --out): start the command in the same folder as before, or "
                "set MLFLOW_TRACKING_URI"
            )
        else:
            directions = {
                f"{task.name}/{name}": metric.direction
                for task in data.tasks
                for name, metric in task.metrics.items()
            }
            tags = {
                "preset": config.preset,
                "out": self.out.name,
                "git_revision": self.content["git_revision"],
                "versions": json.dumps(self.content["versions"]),
                "directions": json.dumps(directions),
                "slots": str(slots),
                "weights": json.dumps(self.content["weights"]),
            }
            tracker.begin(self.out.name, tags, config.to_dict())
        source = config.data.model_dump(mode="json") | {"seeds": list(config.seed_numbers)}
        samples = {"train": len(data.train), "validation": len(data.val), "test": len(data.test)}
        tracker.dataset_used(data.name, source, samples)
        return goes_on

    def _compact(self, models: dict[str, Path | None]) -> None:
        """Compact and measure the selected models, and log the best of each arm in ONNX."""
        config = self.experiment.config
        images = real_images(self.data)
        torch.set_num_threads(config.resources.cpus_per_trial)  # as in a trial
        runs = self.comparison.runs.values()
        logged = {run.name for run in best_of_each_arm(runs, self.comparison.judge.better)}
        troubles: dict[str, list[str]] = {}
        for run in runs:
            model = models[run.name]
            if model is None:
                continue
            try:
                small = compacted(model, config.training.grouping, images)
            except Exception as error:  # such as a factory that fails when it is called again
                troubles.setdefault(f"not compacted: {first_line(error)}", []).append(run.name)
                continue
            run.macs_ratio, run.latency_ratio = small.macs_ratio, small.latency_ratio
            if small.why:
                troubles.setdefault(f"not compacted: {small.why}", []).append(run.name)
            if run.name in logged and config.resources.onnx:
                try:
                    form = to_onnx(small.network, self.data.image_shape)
                except Exception as error:  # a stranger's network may do anything
                    troubles.setdefault(f"not in MLflow as ONNX: {first_line(error)}", []).append(run.name)
                else:
                    self.tracker.model_exported(run, form)
        for trouble, names in troubles.items():
            self._say(f"{', '.join(names)}: {trouble}")

    def _finish(self, slots: int, kept: dict[str, Path | None], report: WriteReport) -> Ended:
        """Write the records, then the report."""
        comparison, tracker, status = self.comparison, self.tracker, Status.FINISHED
        if self.stopped is not None:
            status = Status.KILLED if isinstance(self.stopped, KeyboardInterrupt) else Status.FAILED
        for run in comparison.runs.values():
            row = comparison.row(run)
            ended = status if not run.closed else Status.FAILED if row["status"] == "failed" else Status.FINISHED
            tracker.run_closed(run, row, kept[run.name], ended)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        largest = max((trial.peak_memory for trial in comparison.trials.values()), default=0.0)
        measured = {
            "useful_share": comparison.useful_share / slots,
            "cost/wall_seconds": comparison.clock() - comparison.began,
            "cost/logging_seconds": tracker.writer.seconds,
            "cost/peak_memory_mb": own + slots * largest,
        }
        dense = {seed: trial.metrics for seed, trial in comparison.judge.references.items()}
        warnings = reference_lines(comparison.judge.tasks, dense)
        bounds = (
            {} if self.experiment.config.lambda_.stated else {seed: LambdaBounds.of(dense[seed]) for seed in dense}
        )
        found = {str(seed): [each.low, each.high] for seed, each in bounds.items() if each is not None}
        self.content |= {"measured": measured, "warnings": warnings, "bounds": found, "rows": comparison.rows()}
        write_json(self.out / "comparison.json", self.content)
        tracker.finish(self.content, measured, status)
        lacks = tracker.writer.lost or ""
        page: Path | str
        try:
            page, unlogged = report(self.out)
            lacks = lacks or unlogged
        except Exception as error:  # the comparison itself is done and written
            page = " ".join(str(error).split())
        cost, models = trial_cost(self.experiment, comparison), any(kept.values())
        return Ended(self.out, self.content, cost, models, tracker.uri, tracker.page, lacks, page, self.stopped)
