"""The runs of one comparison in an MLflow store, by their names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from mlflow.entities import Experiment, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.utils import get_results_from_paginated_fn

from ms_automl.callbacks.mlflow.artifacts import Artifacts, check, location, settle
from ms_automl.callbacks.mlflow.opening import ensure_active, http_status, opened, tracking_uri, understood
from ms_automl.callbacks.mlflow.writer import UnmadeError, Writer

EXPERIMENT = "ms_automl"
MOST = 1000
"""Metrics, and runs, that a store takes or gives at a time."""


class Runs:
    """Makes, finds and fills the runs of a comparison, by their names (the parent run by its id), in order.

    Opening makes the database where there is none; TrackingError where the store cannot be reached or written.
    ``say`` is told what a user must know, from any thread.
    """

    def __init__(self, uri: str | None = None, say: Callable[[str], object] = lambda line: None) -> None:
        self.uri, self.say = tracking_uri(uri), say
        self.client = opened(self.uri)
        self.artifacts = Artifacts(self.client, self.uri)
        with understood(self.uri):
            self.experiment = self._use(self._experiment())
        self.run_id = ""
        self.runs: dict[str, str] = {}
        self.earlier_runs: dict[str, Run] = {}  # by name, as they were found
        self.unended: set[str] = set()
        self.steps: dict[str, set[int]] = {}  # by arm, where the store has points of its curve
        self.writer = Writer(self._probe, say)
        self._waiting: dict[str, list[Metric]] = {}  # by run, what has not begun to be written
        self._lock = threading.Lock()

    def knows(self, run_id: str) -> bool:
        """Whether the store has a run; TrackingError where it cannot be reached."""
        with understood(self.uri):
            try:
                return self.client.get_run(run_id).info.lifecycle_stage == "active"
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

    def _experiment(self) -> Experiment:
        """The experiment that all comparisons share; made where it is not there."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            try:
                self.client.create_experiment(EXPERIMENT, location(self.uri, EXPERIMENT))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another one was faster
                    raise
            found = self.client.get_experiment_by_name(EXPERIMENT)
        assert found is not None
        return found

    def _use(self, experiment: Experiment) -> str:
        """The id of an experiment that can be written to, with its artifacts in their place."""
        ensure_active(self.uri, experiment)
        if moved := settle(self.uri, experiment.experiment_id, experiment.artifact_location):
            self.say(moved)
        else:
            check(self.uri, experiment.artifact_location)
        return str(experiment.experiment_id)

    def _probe(self) -> None:
        """Read from the store and write to it, as the writer does."""
        if (status := http_status(self.uri)) in (401, 403):
            raise MlflowException(f"the server answers with HTTP status {status}", PERMISSION_DENIED)
        self.client.get_experiment(self.experiment)
        self.client.set_tag(self.run_id, "ms_automl.probed", str(milliseconds()), synchronous=True)

    def _begin(self, run: Run, below: dict[str, Run]) -> None:
        """Begin to write into a parent run and those below it."""
        self.run_id = run.info.run_id
        self.earlier_runs = {self.run_id: run} | below
        self.runs = {name: found.info.run_id for name, found in self.earlier_runs.items()}
        self.writer.start()

    def _go_on(self, run_id: str) -> tuple[Run, Experiment]:
        """Find a comparison, its runs, and those of its trials that no process ended."""
        self.run_id = run_id
        with understood(self.uri):
            run = self.client.get_run(run_id)
            experiment = self.client.get_experiment(run.info.experiment_id)
            self.experiment = self._use(experiment)
            found = self._search_runs()
        running = {name: run for name, run in found.items() if run.info.status == "RUNNING"}
        self.unended = {name for name, run in running.items() if run.data.tags.get("ms_automl.kind") != "arm"}
        self._begin(run, found)
        return run, experiment

    def _has(self, name: str) -> dict[str, float]:
        """The metrics that a run had when it was found."""
        return dict(self.earlier_runs[name].data.metrics) if name in self.earlier_runs else {}

    def _search_runs(self, name: str | None = None) -> dict[str, Run]:
        """Runs of this comparison by name: all, or the one with that name."""
        wanted = f"tags.`ms_automl.comparison` = '{self.run_id}'"
        if name is not None:
            wanted += f" and attributes.run_name = '{name}'"

        def page(count: int, token: str | None) -> Any:
            return self.client.search_runs([self.experiment], wanted, max_results=count, page_token=token)

        runs = get_results_from_paginated_fn(page, MOST)  # type: ignore[no-untyped-call]
        return {run.info.run_name: run for run in runs}

    def _create(self, name: str, parent: str, kind: str, params: dict[str, str]) -> None:
        """Have a run made below another one, or go on where it is there."""
        self.unended.discard(name)
        tags = {"ms_automl.kind": kind, "ms_automl.comparison": self.run_id}
        tags |= {f"ms_automl.{key}": params[key] for key in ("arm", "seed") if key in params}

        def make(attempt: int) -> None:
            if attempt > 0 and name not in self.runs:  # the store may have made it, and its answer been lost
                self.runs.update({found: run.info.run_id for found, run in self._search_runs(name).items()})
            if name in self.runs:
                self.client.update_run(self.runs[name], status="RUNNING")
                return
            below = tags | {"mlflow.parentRunId": self._id(parent)}
            self.runs[name] = self.client.create_run(self.experiment, run_name=name, tags=below).info.run_id

        self.writer.put(make)
        if params:
            self._batch(name, params=[Param(key, value) for key, value in params.items()])

    def _id(self, name: str) -> str:
        """The id of a run; UnmadeError where it could not be made."""
        if name not in self.runs:
            raise UnmadeError(name)
        return self.runs[name]

    def _log(self, name: str, metrics: list[Metric]) -> None:
        """Have metrics of a run written; what comes while others of the same run wait goes with those."""
        with self._lock:
            if name in self._waiting:
                self._waiting[name] += metrics
                return
            self._waiting[name] = batch = list(metrics)

        def write() -> None:
            with self._lock:
                if self._waiting.get(name) is batch:
                    del self._waiting[name]
            for part in range(0, len(batch), MOST):
                self.client.log_batch(self._id(name), metrics=batch[part : part + MOST], synchronous=True)

        self._put(write)

    def _batch(self, name: str, **entries: Any) -> None:
        # A program may have had MLflow log in the background, where nobody hears of what fails.
        self._put(lambda: self.client.log_batch(self._id(name), **entries, synchronous=True))

    def _tag(self, name: str, key: str, value: str) -> None:
        self._put(lambda: self.client.set_tag(self._id(name), key, value, synchronous=True))

    def _end(self, name: str, status: str) -> None:
        self._put(lambda: self.client.set_terminated(self._id(name), status))

    def _put(self, write: Callable[[], object]) -> None:
        self.writer.put(lambda attempt: write())


def milliseconds() -> int:
    """Milliseconds since 1970, as MLflow stamps what it is given."""
    return int(time.time() * 1000)
