"""The runs of one comparison in an MLflow store, by their names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from mlflow.entities import Experiment, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from ms_automl.callbacks.mlflow.artifacts import Artifacts
from ms_automl.callbacks.mlflow.home import check, location, settle
from ms_automl.callbacks.mlflow.opening import ensure_active, opened, tracking_uri, understood
from ms_automl.callbacks.mlflow.reasons import REFUSED, http_status
from ms_automl.callbacks.mlflow.writer import UnmadeError, Writer

EXPERIMENT = "ms_automl"
MOST = 1000
"""Metrics that a store takes at a time."""


class Runs:
    """Makes, finds and fills the runs of a comparison, in the order in which it is told to.

    Opening makes the database where there is none.

    Args:
        uri: of the store; None for ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in this folder.
        say: told in a line what a user must know at once; from any thread.

    Raises:
        TrackingError: where the store cannot be reached or written.
    """

    def __init__(self, uri: str | None = None, say: Callable[[str], object] = lambda line: None) -> None:
        self.uri, self.say = tracking_uri(uri), say
        self.client = opened(self.uri)
        self.artifacts = Artifacts(self.client, self.uri)
        with understood(self.uri):
            self.experiment = self._use(self._experiment())
        self.run_id = ""
        self.runs: dict[str, str] = {}
        self.earlier_runs: dict[str, Run] = {}  # by name, those of an earlier process as they were found
        self.unended: set[str] = set()
        self._points: dict[str, int] = {}  # by arm, of its anytime curve: those that are logged
        self.writer = Writer(self._probe, say)
        self._waiting: dict[str, list[Metric]] = {}  # by run, what has not begun to be written
        self._lock = threading.Lock()

    def _experiment(self) -> Experiment:
        """The experiment that all comparisons share; made where it is not there."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            try:
                made = self.client.create_experiment(EXPERIMENT, location(self.uri, EXPERIMENT))
                return self.client.get_experiment(made)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(EXPERIMENT)  # another one was faster
        assert found is not None
        return found

    def _use(self, experiment: Experiment) -> str:
        """The id of an experiment that can be written to, with its artifacts in their place."""
        ensure_active(self.uri, experiment)
        moved = settle(self.uri, experiment.experiment_id, experiment.artifact_location)
        if moved:
            self.say(moved)
        else:
            check(self.uri, experiment.artifact_location)
        return str(experiment.experiment_id)

    def _probe(self) -> None:
        """Read from the store and write to it, as the writer does."""
        if self.uri.startswith("http") and (status := http_status(self.uri)) in REFUSED:
            code = ErrorCode.Value(REFUSED[status])
            raise MlflowException(f"the server answers with HTTP status {status}", error_code=code)
        self.client.get_experiment(self.experiment)
        self.client.set_tag(self.run_id, "ms_automl.probed", str(milliseconds()), synchronous=True)

    def knows(self, run_id: str) -> bool:
        """Whether the store has a run.

        Raises:
            TrackingError: where the store cannot be reached.
        """
        with understood(self.uri):
            try:
                return self.client.get_run(run_id).info.lifecycle_stage == "active"
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

    def _find(self) -> None:
        """Find the comparison's runs, and those of its trials that no process ended."""
        self.earlier_runs = self._search_runs()
        self.runs = {name: run.info.run_id for name, run in self.earlier_runs.items()}
        running = {name: run for name, run in self.earlier_runs.items() if run.info.status == "RUNNING"}
        self.unended = {name for name, run in running.items() if run.data.tags.get("ms_automl.kind") != "arm"}

    def _search_runs(self, name: str | None = None) -> dict[str, Run]:
        """Runs of this comparison by name.

        Args:
            name: of the one run that is looked for; None for all.
        """
        runs: dict[str, Run] = {}
        token = None
        while True:
            wanted = f"tags.`ms_automl.comparison` = '{self.run_id}'"
            if name is not None:
                wanted += f" and attributes.run_name = '{name}'"
            page = self.client.search_runs([self.experiment], wanted, max_results=1000, page_token=token)
            runs |= {run.info.run_name: run for run in page}
            token = page.token
            if not token:
                return runs

    def _end_the_rest(self) -> None:
        """End the runs of an earlier process's trials that this one did not run again."""
        for name in self.unended:
            self.client.set_terminated(self.runs[name], "KILLED")

    def _create(self, name: str, parent: str, kind: str, params: dict[str, str]) -> None:
        """Have a run made, below the parent run or below an arm's, which is found by its name once it is there."""
        tags = {"ms_automl.kind": kind, "ms_automl.comparison": self.run_id}
        tags |= {f"ms_automl.{key}": params[key] for key in ("arm", "seed") if key in params}

        def make(attempt: int) -> None:
            self.unended.discard(name)
            if attempt > 0 and name not in self.runs:  # the store may have made it, and its answer been lost
                self.runs.update({found: run.info.run_id for found, run in self._search_runs(name).items()})
            if name in self.runs:
                self.client.update_run(self.runs[name], status="RUNNING")
                return
            above = {"mlflow.parentRunId": parent if parent == self.run_id else self._id(parent)}
            run = self.client.create_run(self.experiment, run_name=name, tags=tags | above)
            self.runs[name] = run.info.run_id

        self.writer.put(make)
        entries = [Param(key, value) for key, value in params.items()]
        if entries:
            self._batch(lambda: self._id(name), params=entries)

    def _id(self, name: str) -> str:
        """The id of a run.

        Raises:
            UnmadeError: where it could not be made.
        """
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

    def _batch(self, run: Callable[[], str], **entries: Any) -> None:
        # A program may have had MLflow log in the background, where nobody hears of what fails.
        self._put(lambda: self.client.log_batch(run(), **entries, synchronous=True))

    def _tag(self, run: Callable[[], str], key: str, value: str) -> None:
        self._put(lambda: self.client.set_tag(run(), key, value, synchronous=True))

    def _put(self, write: Callable[[], object]) -> None:
        self.writer.put(lambda attempt: write())


def milliseconds() -> int:
    """Milliseconds since 1970, as MLflow stamps what it is given."""
    return int(time.time() * 1000)
