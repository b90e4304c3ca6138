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

from rich.console import Console

from ms_automl.callbacks.backup import Backup
from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.mlflow.address import seen_from
from ms_automl.callbacks.restore import check_own
from ms_automl.callbacks.screen import Screen, warn
from ms_automl.cli import sigterm_kept, undisturbed
from ms_automl.comparison.events import EARLIER, FILE, EventLog, TrialEvents, replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.rows import reference_lines
from ms_automl.comparison.run import Status
from ms_automl.comparison.selection import keep_best
from ms_automl.comparison.state import FORMAT, Comparison
from ms_automl.config import Config
from ms_automl.data import MultiTaskData
from ms_automl.driver.assembly import arm_names, assemble, check_batches, decided, trial_cost
from ms_automl.driver.compaction import compact_selected
from ms_automl.driver.looking import look_at_data
from ms_automl.driver.scheduler import Scheduler
from ms_automl.environment.arguments import folder_there
from ms_automl.environment.provenance import cpu_name, git_revision, versions
from ms_automl.errors import ConfigError, TrackingError
from ms_automl.samplers.arms import REFERENCE, check_names
from ms_automl.sparsity.beforehand import why_not
from ms_automl.storage.files import alone, from_here, writable, write_json
from ms_automl.storage.remote import Storage, storage_of
from ms_automl.tuning.hosts import check_sent
from ms_automl.tuning.run import run_trials
from ms_automl.tuning.session import Session, ray_session

SHARE = "name a folder that all hosts see, or s3://... or gs://..., by --storage"

WriteReport = Callable[[Path], tuple[Path, str]]
"""Writes the report of a comparison in a folder: its page, and why MLflow lacks it ('': it has it)."""


@dataclass(frozen=True)
class Ended:
    """A comparison that has come to its end, or was stopped.

    Attributes:
        out: its folder.
        content: of ``comparison.json``.
        trial_cost: what one fixed-λ trial costs, in the budget's unit.
        models: whether any arm has a selected model.
        store: address of the MLflow store.
        page: of its runs there.
        lacks: what MLflow lacks of it; '' where it has all.
        report: the report's page, or why there is none.
        stopped: what it was stopped by; None where it came to its end.
    """

    out: Path
    content: dict[str, Any]
    trial_cost: float
    models: bool
    store: str
    page: str
    lacks: str
    report: Path | str
    stopped: BaseException | None

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

    Args:
        config: what is compared.
        out: a folder that holds no comparison yet, or the one that goes on.
        report: writes the report.
        console: shows how it goes; None for the terminal.
        data_dir: handed to the data factory.
        own: factories that are handed over as functions, by the name that the configuration has for them.
        address: of a running Ray cluster, or None for one on this machine.
        slots: trials at a time, on this machine.
        storage: folder or object store below which trials leave their models; None for ``out``.
        record: ``comparison.json`` of the comparison that goes on; None begins one.

    Raises:
        MsAutomlError: before anything trains.
        KeyboardInterrupt: where it was stopped before it had anything to say.
    """
    check_names(config)
    if slots < 1:
        raise ConfigError(f"`slots >= 1` must hold, but got slots={slots}")
    out = writable(out)
    experiment = Experiment(config, folder_there("--data-dir", data_dir), own or {})
    check_sent(experiment.own)
    with sigterm_kept(), alone(out):
        if record is None:
            _check_new(out)
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
        self.experiment = replace(experiment, config=config)
        self.replayed = None if record is None else replay(out)
        log = EventLog(out)
        self.comparison: Comparison
        self.scheduler: Scheduler
        self.comparison, self.scheduler = assemble(
            self.experiment, log, self.replayed, studies=out / "optuna.journal"
        )
        self._say_what_lambda_misses()
        self.screen = Screen(console)
        self.comparison.callbacks += [self.tracker, self.screen, TrialEvents(log, self.comparison)]
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "config": config.to_dict(),
            "versions": versions(),
            "git_revision": git_revision(),
            "cpu": cpu_name(),
        }
        self.stopped: BaseException | None = None

    def _say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, markup=False, soft_wrap=True)

    def _say_what_lambda_misses(self) -> None:
        experiment, config = self.experiment, self.experiment.config
        if line := experiment.remark():
            self._say(line, "yellow")
        if self.record is not None:
            return
        network = experiment.network(config.first_seed)
        if why := why_not(network, config.training.grouping, self.data.image_shape):
            self._say(f"selected models will not be compacted, what they would cost then will be missing: {why}")

    def run(self, address: str | None, slots: int, report: WriteReport) -> Ended:
        """Run the trials, select, and write everything down."""
        comparison = self.comparison
        with ExitStack() as quiet:
            with ray_session(address, slots, self.experiment, self.models, SHARE) as session:
                slots = session.slots
                self._open(slots)
                try:
                    self._run_trials(session)
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
                self._compact(kept)
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
        """Begin the comparison's parent run, or go on with the one it has; whether it had one.

        Raises:
            TrackingError: where the runs are in another store.
        """
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
            tracker.begin(self.out.name, self._tags(data, slots), config.to_dict())
        source = config.data.model_dump(mode="json") | {"seeds": list(config.seed_numbers)}
        samples = {"train": len(data.train), "validation": len(data.val), "test": len(data.test)}
        tracker.dataset_used(data.name, source, samples)
        return goes_on

    def _tags(self, data: MultiTaskData, slots: int) -> dict[str, str]:
        """The tags of the parent run."""
        metrics = {
            f"{task.name}/{name}": metric.direction for task in data.tasks for name, metric in task.metrics.items()
        }
        return {
            "preset": self.experiment.config.preset,
            "out": self.out.name,
            "git_revision": self.content["git_revision"],
            "versions": json.dumps(self.content["versions"]),
            "directions": json.dumps(metrics),
            "slots": str(slots),
        }

    def _run_trials(self, session: Session) -> None:
        self.screen.begin(self.comparison)
        run_trials(
            self.experiment,
            self.scheduler,
            session,
            remove=None if self.backup is None else self.backup.remove,
            say=partial(warn, self.console),
        )

    def _compact(self, kept: dict[str, Path | None]) -> None:
        if self.stopped is not None:
            return
        try:
            compact_selected(self.console, self.comparison, self.tracker, self.experiment, kept)
        except KeyboardInterrupt as error:
            self._say("stopped: not all selected models are compacted, --resume does")
            self.stopped = error

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
        self.content |= {"measured": measured, "warnings": warnings, "rows": comparison.rows()}
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


def _check_new(out: Path) -> None:
    if any((out / name).exists() for name in ("comparison.json", FILE, *EARLIER)):
        raise ConfigError(
            f"--out {from_here(out)} holds a comparison already: name a new folder, or go on with it by --resume"
        )
