"""What a comparison leaves in MLflow.

Calls return at once; a :class:`~ms_automl.tracking.writer.Writer` writes them in order. A store that stops
answering holds nothing up: what is not written yet is tried again, and said at the end where it could not be.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, Schema, TensorSpec

from ms_automl.comparison import FORMAT
from ms_automl.config import flat
from ms_automl.errors import TrackingError
from ms_automl.tracking.views import arms_view
from ms_automl.tracking.writer import Writer, public, reason
from ms_automl.trials import Stream, Trial

if TYPE_CHECKING:
    import onnx

EXPERIMENT = "ms_automl"
MOST = 1000
"""Metrics that a store takes at a time."""
SHORT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Tracker:
    """Writes a comparison to an MLflow store.

    Opening makes the database where there is none; no run exists before :meth:`begin`.

    Args:
        uri: of the store; None for ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in this folder.

    Raises:
        TrackingError: where the store cannot be reached or written.
    """

    def __init__(self, uri: str | None = None) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.uri = uri or mlflow.get_tracking_uri()
        with self._reachable():
            self.client = MlflowClient(self.uri)
            self.experiment = self._experiment()
        self.run_id = ""
        self.runs: dict[str, str] = {}
        self.unended: set[str] = set()
        self._points: dict[str, int] = {}  # by arm, of its anytime curve: those that are logged
        self.writer = Writer()
        self._waiting: dict[str, list[Metric]] = {}  # by run, what has not begun to be written
        self._lock = threading.Lock()

    def _experiment(self) -> str:
        """The id of the experiment that all comparisons share; made where it is not there."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            try:
                return self.client.create_experiment(EXPERIMENT)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(EXPERIMENT)  # another one was faster
        assert found is not None
        return found.experiment_id

    def begin(self, name: str, tags: dict[str, str], config: dict[str, Any]) -> None:
        """Make the parent run.

        Args:
            name: of the run.
            tags: of the run, without the ``ms_automl.`` prefix.
            config: the whole configuration; kept as ``config.json`` and as flat params.

        Raises:
            TrackingError: as above.
        """
        all_tags = {"ms_automl.kind": "comparison", "ms_automl.format": str(FORMAT)}
        all_tags |= {f"ms_automl.{key}": value for key, value in tags.items()}
        with self._reachable():
            self.run_id = self.client.create_run(self.experiment, run_name=name, tags=all_tags).info.run_id
        self._start()
        params = [Param(key, str(value)[:6000]) for key, value in flat(config).items()]
        self._put(lambda: self.client.log_batch(self.run_id, params=params))
        self._put(lambda: self.client.log_dict(self.run_id, config, "config.json"))
        key, view = arms_view(name, self.run_id, milliseconds())
        self._put(lambda: self.client.set_experiment_tag(self.experiment, key, view))

    @property
    def page(self) -> str:
        """The part of MLflow's address that opens the comparison's arms with their columns and charts."""
        return f"#/experiments/{self.experiment}/runs?viewStateShareKey={self.run_id}&compareRunsMode=CHART"

    def knows(self, run_id: str) -> bool:
        """Whether the store has a run.

        Raises:
            TrackingError: where the store cannot be reached.
        """
        with self._reachable():
            try:
                return self.client.get_run(run_id).info.lifecycle_stage == "active"
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise

    def resume(self, run_id: str, config: dict[str, Any]) -> None:
        """Go on with a parent run: its arm and trial runs are found by name, and none is made twice.

        Args:
            run_id: of the parent run.
            config: the whole configuration, which may have grown.

        Raises:
            TrackingError: where the store cannot be reached or has no such run.
        """
        self.run_id = run_id
        with self._reachable():
            self.client.update_run(run_id, status="RUNNING")
            self.runs, self.unended = self._known()
        self._start()
        self._put(lambda: self.client.set_tag(run_id, "ms_automl.resumed", "true"))
        self._put(lambda: self.client.log_dict(run_id, config, "config.json"))

    def _known(self, name: str | None = None) -> tuple[dict[str, str], set[str]]:
        """Runs of this comparison by name, and those of its trials that no process ended.

        Args:
            name: of the one run that is looked for; None for all.
        """
        runs: dict[str, str] = {}
        unended: set[str] = set()
        token = None
        while True:
            wanted = f"tags.`ms_automl.comparison` = '{self.run_id}'"
            if name is not None:
                wanted += f" and attributes.run_name = '{name}'"
            page = self.client.search_runs([self.experiment], wanted, max_results=1000, page_token=token)
            for run in page:
                runs[run.info.run_name] = run.info.run_id
                if run.info.status == "RUNNING" and run.data.tags.get("ms_automl.kind") != "arm":
                    unended.add(run.info.run_name)
            token = page.token
            if not token:
                return runs, unended

    def trial_kept(self, stream: Stream, trial: Trial) -> None:
        """Nothing: the selected model is logged at the end."""

    def stream_opened(self, stream: Stream) -> None:
        """Make an arm's run."""
        self._points[stream.name] = len(stream.anytime)
        params = {"arm": stream.arm, "seed": str(stream.seed), "space": stream.space}
        self._create(stream.name, self.run_id, "arm", params)

    def trial_suggested(self, stream: Stream, trial: Trial) -> None:
        """Nothing: it has a run once it has a device."""

    def trial_started(self, stream: Stream, trial: Trial) -> None:
        """Make a trial's run."""
        params = {"method": trial.method, "index": str(trial.index), "arm": stream.arm, "seed": str(stream.seed)}
        params |= {f"value/{key}": repr(value) for key, value in trial.values.items()}
        kind = "trial" if trial.training_seed is None else "retraining"
        self._create(trial.name, stream.name, kind, params)

    def trial_reported(self, stream: Stream, trial: Trial, metrics: dict[str, float]) -> None:
        """Log a report's metrics at its training step."""
        now, step = milliseconds(), int(metrics["step"])
        self._log(trial.name, [Metric(key, value, now, step) for key, value in metrics.items() if key != "step"])

    def trial_ended(self, stream: Stream, trial: Trial) -> None:
        """End a trial's run, and log the arm's anytime curve."""
        status = trial.status
        told = {"ms_automl.outcome": status.lower(), "ms_automl.host": trial.host}
        told["ms_automl.stopped" if status == "STOPPED" else "ms_automl.error"] = (trial.error or "")[:5000]
        told["ms_automl.interruptions"] = str(trial.interruptions or "")
        told["ms_automl.warnings"] = "; ".join(trial.warnings)[:5000]
        tags = [RunTag(key, value) for key, value in told.items() if value]
        self._put(lambda: self.client.log_batch(self.runs[trial.name], tags=tags))
        ended = "KILLED" if status == "STOPPED" else status  # MLflow has no word of its own for it
        self._put(lambda: self.client.set_terminated(self.runs[trial.name], ended))
        self._anytime(stream)

    def recall(self, stream: Stream) -> None:
        """Log an arm's trials of an earlier process again, as they ended: for a store that has lost them."""
        self._points[stream.name] = 0
        for trial in (*stream.trials, *stream.retrained):
            if trial.status == "RUNNING":
                continue
            self.trial_started(stream, trial)
            if trial.metrics:
                self.trial_reported(stream, trial, trial.metrics)
            self.trial_ended(stream, trial)

    def _anytime(self, stream: Stream) -> None:
        """Log what the arm's curve has more than before."""
        now, names = milliseconds(), ("anytime/objective", "anytime/test_objective", "anytime/wall_seconds")
        for passes, *values in stream.anytime[self._points[stream.name] :]:
            told = zip(names, values, strict=True)
            self._log(stream.name, [Metric(name, value, now, round(passes)) for name, value in told])
        self._points[stream.name] = len(stream.anytime)

    def stream_closed(self, stream: Stream, row: dict[str, Any], model: Path | None, status: str) -> None:
        """End an arm's run with its row and its selected model."""
        run = stream.name
        best = stream.best.metrics if stream.best else {}
        now = milliseconds()
        kept = {key: value for key, value in best.items() if not key.startswith("cost/") and key != "step"}
        kept |= {
            f"cost/{key}": row[key] for key in ("passes", "device_seconds", "wall_seconds", "searcher_seconds")
        }
        metrics = [Metric(key, value, now, 0) for key, value in kept.items()]
        # A tag holds some thousand characters: comparison.json has the whole row, with λ's course.
        short = {key: value for key, value in row.items() if key != "lambda"}
        self._put(lambda: self.client.set_tag(self.runs[run], "ms_automl.row", json.dumps(short)))
        self._put(lambda: self.client.set_tag(self.runs[run], "ms_automl.status", row["status"]))
        self._put(lambda: self.client.log_batch(self.runs[run], metrics=metrics))
        if model is not None:
            self._put(lambda: self.client.log_artifacts(self.runs[run], str(model), "model"))
        self._put(lambda: self.client.set_terminated(self.runs[run], status))

    def dataset_used(self, name: str, source: dict[str, Any], samples: dict[str, int]) -> None:
        """Log what the comparison was trained on, in MLflow's form, on the parent run.

        Args:
            name: of the data.
            source: what it is built from: factory, arguments, seeds.
            samples: by split.
        """
        told = json.dumps(source, sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        data = Dataset(name, digest, "code", told, profile=json.dumps(samples))
        used = DatasetInput(data, [InputTag("mlflow.data.context", "training and evaluation")])
        self._put(lambda: self.client.log_inputs(self.run_id, [used]))

    def model_exported(self, stream: Stream, model: onnx.ModelProto) -> None:
        """Log an arm's selected network in MLflow's ONNX flavour: no pickle in it, and no torch to load it.

        Args:
            stream: the arm and seed.
            model: with its batch axis free.
        """

        def log() -> None:
            with mlflow.start_run(run_id=self.runs[stream.name]):
                mlflow.onnx.log_model(model, name=stream.name, **_form(model))

        self._put(log)

    def finish(self, content: dict[str, Any], metrics: dict[str, float], status: str) -> None:
        """Log comparison.json, end the parent run, and wait until everything is written."""
        now = milliseconds()
        batch = [Metric(key, value, now, 0) for key, value in metrics.items()]
        self._put(self._end_the_rest)
        self._put(lambda: self.client.log_dict(self.run_id, content, "comparison.json"))
        self._put(lambda: self.client.log_batch(self.run_id, metrics=batch))
        self._put(lambda: self.client.set_terminated(self.run_id, status))
        self.writer.close()

    def _end_the_rest(self) -> None:
        """Trials of an earlier process that this one did not run again."""
        for name in self.unended:
            self.client.set_terminated(self.runs[name], "KILLED")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            with short_timeouts():
                yield
        except Exception as error:
            raise TrackingError(
                f"the MLflow store at {public(self.uri)} cannot be used: {reason(error)}. "
                "Start it, or set MLFLOW_TRACKING_URI to one that runs"
            ) from error

    def _create(self, name: str, parent: str, kind: str, params: dict[str, str]) -> None:
        """Have a run made, below the parent run or below an arm's, which is found by its name once it is there."""
        tags = {"ms_automl.kind": kind, "ms_automl.comparison": self.run_id}
        tags |= {f"ms_automl.{key}": params[key] for key in ("arm", "seed") if key in params}

        def make(attempt: int) -> None:
            self.unended.discard(name)
            if attempt > 0 and name not in self.runs:  # the store may have made it, and its answer been lost
                self.runs.update(self._known(name)[0])
            if name in self.runs:
                self.client.update_run(self.runs[name], status="RUNNING")
                return
            above = {"mlflow.parentRunId": self.runs.get(parent, self.run_id)}
            run = self.client.create_run(self.experiment, run_name=name, tags=tags | above)
            self.runs[name] = run.info.run_id

        self.writer.put(make)
        entries = [Param(key, value) for key, value in params.items()]
        if entries:
            self._put(lambda: self.client.log_batch(self.runs[name], params=entries))

    def _start(self) -> None:
        # MLflow's own retries last for minutes, and hide from the writer that the store is away. Its lines on the
        # screen, two for every run of a server's, would be in the live table.
        for name, value in (SHORT | {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}).items():
            os.environ.setdefault(name, value)
        self.writer.start()

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
                self.client.log_batch(self.runs[name], metrics=batch[part : part + MOST])

        self._put(write)

    def _put(self, write: Callable[[], object]) -> None:
        self.writer.put(lambda attempt: write())


@contextmanager
def short_timeouts() -> Iterator[None]:
    """A server that is not there is found out in seconds, not minutes; what the user has set stays."""
    added = {name: value for name, value in SHORT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def save_onnx(model: onnx.ModelProto, folder: Path) -> None:
    """Write ``model.onnx``, and the same as an MLflow model in ``mlflow/``."""
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    mlflow.onnx.save_model(model, str(folder / "mlflow"), **_form(model))


def _form(model: onnx.ModelProto) -> dict[str, Any]:
    """What is needed to use a model without this project."""
    return {"signature": _signature(model), "pip_requirements": ["onnxruntime>=1.20"]}


def _signature(model: onnx.ModelProto) -> ModelSignature:
    """Names, types and shapes of the inputs and outputs; -1 where an axis is free."""

    def schema(values: Iterable[onnx.ValueInfoProto]) -> Schema:
        specs: list[ColSpec | TensorSpec] = []
        for value in values:
            axes = [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]
            specs.append(TensorSpec(np.dtype("float32"), tuple(axes), value.name))
        return Schema(specs)

    return ModelSignature(inputs=schema(model.graph.input), outputs=schema(model.graph.output))


def milliseconds() -> int:
    """Since 1970, as MLflow stamps what it is given."""
    return int(time.time() * 1000)
