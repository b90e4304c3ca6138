"""What a comparison leaves in MLflow.

Calls return at once; a :class:`~ms_automl.callbacks.mlflow.writer.Writer` writes them in order. A store that stops
answering holds nothing up: what is not written yet is tried again, and said at the end where it could not be.
Nothing depends on what the calling program has told MLflow: store, experiment and runs are named in every call.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from ms_automl.callbacks.mlflow.missing import ended_as, lacking, lacks, reported
from ms_automl.callbacks.mlflow.models import LoggedOnnx
from ms_automl.callbacks.mlflow.opening import understood
from ms_automl.callbacks.mlflow.runs import Runs, milliseconds
from ms_automl.callbacks.mlflow.views import arms_view
from ms_automl.comparison.run import Callback, Run, Status, Trial
from ms_automl.comparison.state import FORMAT
from ms_automl.config import flat

if TYPE_CHECKING:
    import onnx

CURVE = ("anytime/objective", "anytime/test_objective", "anytime/wall_seconds")


class Tracker(Runs, Callback):
    """Tells an MLflow store what happens in a comparison. No run exists before :meth:`begin`."""

    def begin(self, name: str, tags: dict[str, str], config: dict[str, Any]) -> None:
        """Make the parent run.

        Args:
            name: of the run.
            tags: of the run, without the ``ms_automl.`` prefix.
            config: the whole configuration; kept as ``config.json`` and as flat params.

        Raises:
            TrackingError: where the store cannot be reached or written.
        """
        all_tags = {"ms_automl.kind": "comparison", "ms_automl.format": str(FORMAT)}
        all_tags |= {f"ms_automl.{key}": value for key, value in tags.items()}
        with understood(self.uri):
            self.run_id = self.client.create_run(self.experiment, run_name=name, tags=all_tags).info.run_id
        self.writer.start()
        self._describe(name, config, {}, {})

    def _describe(self, name: str, config: dict[str, Any], params: dict[str, str], tags: dict[str, str]) -> None:
        """Log the configuration, and the view of the arms.

        Args:
            name: of the comparison.
            config: the whole configuration.
            params: that the run has: what has grown since stays there as it began.
            tags: of the experiment.
        """
        new = [Param(key, str(value)[:6000]) for key, value in flat(config).items() if key not in params]
        if new:
            self._batch(lambda: self.run_id, params=new)
        self._put(lambda: self.artifacts.put_json(self.run_id, config, "config.json"))
        key, view = arms_view(name, self.run_id, milliseconds())
        if key not in tags:
            self._put(lambda: self.client.set_experiment_tag(self.experiment, key, view))

    @property
    def page(self) -> str:
        """The part of MLflow's address that opens the comparison's arms with their columns and charts."""
        return f"#/experiments/{self.experiment}/runs?viewStateShareKey={self.run_id}&compareRunsMode=CHART"

    def resume(self, run_id: str, config: dict[str, Any]) -> None:
        """Go on with a parent run: its arm and trial runs are found by name, and none is made twice.

        Args:
            run_id: of the parent run.
            config: the whole configuration, which may have grown.

        Raises:
            TrackingError: where the store cannot be reached or has no such run.
        """
        self.run_id = run_id
        with understood(self.uri):
            run = self.client.get_run(run_id)
            experiment = self.client.get_experiment(run.info.experiment_id)
            self.experiment = self._use(experiment)
            self.client.update_run(run_id, status="RUNNING")
            self._find()
        self.writer.start()
        self._tag(lambda: run_id, "ms_automl.resumed", "true")
        self._describe(run.info.run_name, config, run.data.params, experiment.tags)

    def attach(self, run_id: str, stage: Run) -> None:
        """Add the run of a later stage to a comparison that has ended, whose own runs stay as they are.

        Args:
            run_id: of the comparison.
            stage: its trials' runs are those below its own.

        Raises:
            TrackingError: where the store cannot be reached or has no such run.
        """
        self.run_id = run_id
        with understood(self.uri):
            experiment = self.client.get_run(run_id).info.experiment_id
            self.experiment = self._use(self.client.get_experiment(experiment))
            self._find()
        self.unended = {name for name in self.unended if name.startswith(f"{stage.name}/")}
        self.writer.start()
        self._points[stage.name] = 0
        self._create(stage.name, run_id, stage.name, {})

    def run_opened(self, run: Run) -> None:
        """Make an arm's run."""
        self._points[run.name] = len(run.anytime)
        params = {"arm": run.arm, "seed": str(run.seed), "space": run.space}
        self._create(run.name, self.run_id, "arm", params)

    def trial_started(self, run: Run, trial: Trial) -> None:
        """Make a trial's run."""
        kind = "trial" if trial.training_seed is None else "retraining"
        self._create(trial.shown_as, run.name, kind, _params_of(run, trial))

    def trial_reported(self, run: Run, trial: Trial, metrics: dict[str, float]) -> None:
        """Log a report's metrics at its training step."""
        now, step = milliseconds(), int(metrics["step"])
        batch = [Metric(key, value, now, step) for key, value in metrics.items() if key != "step"]
        self._log(trial.shown_as, batch)

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """End a trial's run, and log the arm's anytime curve."""
        status = trial.status
        texts = {"ms_automl.outcome": status.lower(), "ms_automl.host": trial.host}
        texts["ms_automl.stopped" if status == Status.STOPPED else "ms_automl.error"] = (trial.error or "")[:5000]
        texts["ms_automl.interruptions"] = str(trial.interruptions or "")
        texts["ms_automl.warnings"] = "; ".join(trial.warnings)[:5000]
        tags = [RunTag(key, value) for key, value in texts.items() if value]
        self._batch(lambda: self._id(trial.shown_as), tags=tags)
        ended = ended_as(trial)
        self._put(lambda: self.client.set_terminated(self._id(trial.shown_as), ended))
        self._anytime(run)

    def recall(self, run: Run) -> int:
        """Log what the store lacks of an arm's trials of an earlier process, as they ended, and of its curve.

        Returns:
            How many trials lacked something.
        """
        logged = self._steps(run)
        self._log_points(run, [point for point in run.anytime if round(point[0]) not in logged])
        self._points[run.name] = len(run.anytime)
        count = 0
        newest = {trial.shown_as: trial for trial in (*run.trials, *run.retrained)}
        for name, trial in newest.items():
            found = self.earlier_runs.get(name)
            ended = trial.status not in (Status.RUNNING, Status.KILLED)
            if not ended or not lacks(found, trial, _params_of(run, trial)):
                continue
            count += 1
            self.trial_started(run, trial)
            metrics = lacking(found.data.metrics if found else {}, reported(trial))
            if metrics:
                self.trial_reported(run, trial, metrics | {"step": trial.metrics["step"]})
            self.trial_ended(run, trial)
        return count

    def _steps(self, run: Run) -> set[int]:
        """Where an arm's curve has points in the store."""
        found = self.earlier_runs.get(run.name)
        if found is None:
            return set()
        with understood(self.uri):
            return {point.step for point in self.client.get_metric_history(found.info.run_id, CURVE[-1])}

    def _anytime(self, run: Run) -> None:
        """Log what the arm's curve has more than before."""
        self._log_points(run, run.anytime[self._points[run.name] :])
        self._points[run.name] = len(run.anytime)

    def _log_points(self, run: Run, points: list[tuple[float, float, float, float]]) -> None:
        now = milliseconds()
        for passes, *values in points:
            named = zip(CURVE, values, strict=True)
            self._log(run.name, [Metric(name, value, now, round(passes)) for name, value in named])

    def run_closed(self, run: Run, row: dict[str, Any], model: Path | None, status: str) -> None:
        """End an arm's run with its row and its selected model."""
        name = run.name
        best = run.best.metrics if run.best else {}
        now = milliseconds()
        kept = {key: value for key, value in best.items() if not key.startswith("cost/") and key != "step"}
        kept |= {
            f"cost/{key}": row[key] for key in ("passes", "device_seconds", "wall_seconds", "searcher_seconds")
        }
        # A tag holds some thousand characters: comparison.json has the whole row, with λ's course.
        short = {key: value for key, value in row.items() if key != "lambda"}
        self._tag(lambda: self._id(name), "ms_automl.row", json.dumps(short))
        self._tag(lambda: self._id(name), "ms_automl.status", row["status"])

        def log() -> None:
            new = lacking(self.client.get_run(self._id(name)).data.metrics, kept)
            if new:
                metrics = [Metric(key, value, now, 0) for key, value in new.items()]
                self.client.log_batch(self._id(name), metrics=metrics, synchronous=True)

        self._put(log)
        if model is not None:
            self._put(lambda: self.artifacts.put(self._id(name), model, "model"))
        self._put(lambda: self.client.set_terminated(self._id(name), status))

    def dataset_used(self, name: str, source: dict[str, Any], samples: dict[str, int]) -> None:
        """Log what the comparison was trained on, in MLflow's form, on the parent run.

        Args:
            name: of the data.
            source: what it is built from: factory, arguments, seeds.
            samples: by split.
        """
        recipe = json.dumps(source, sort_keys=True)
        digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
        data = Dataset(name, digest, "code", recipe, profile=json.dumps(samples))
        used = DatasetInput(data, [InputTag("mlflow.data.context", "training and evaluation")])

        def log() -> None:
            inputs = self.client.get_run(self.run_id).inputs
            if inputs is None or not inputs.dataset_inputs:
                self.client.log_inputs(self.run_id, [used])

        self._put(log)

    def model_exported(self, run: Run, model: onnx.ModelProto) -> None:
        """Log an arm's selected network in MLflow's ONNX flavour, where the arm's run has not got it.

        Args:
            run: the arm and seed.
            model: with its batch axis free.
        """
        whole = LoggedOnnx(model, run.name)
        self._put(lambda: whole.log(self.client, self.artifacts, self.experiment, self._id(run.name)))

    def stage_finished(self, stage: Run, content: dict[str, Any], status: str) -> None:
        """Log what a later stage has come to, end its run, and wait until everything is written."""
        self._put(self._end_the_rest)
        self._put(lambda: self.artifacts.put_json(self._id(stage.name), content, f"{stage.name}.json"))
        self._put(lambda: self.client.set_terminated(self._id(stage.name), status))
        self.writer.close()

    def finish(self, content: dict[str, Any], metrics: dict[str, float], status: str) -> None:
        """Log comparison.json, end the parent run, and wait until everything is written."""
        now = milliseconds()
        batch = [Metric(key, value, now, 0) for key, value in metrics.items()]
        self._put(self._end_the_rest)
        self._put(lambda: self.artifacts.put_json(self.run_id, content, "comparison.json"))
        self._batch(lambda: self.run_id, metrics=batch)
        self._put(lambda: self.client.set_terminated(self.run_id, status))
        self.writer.close()


def _params_of(run: Run, trial: Trial) -> dict[str, str]:
    if trial.about:
        return {"method": trial.method} | trial.about
    params = {"method": trial.method, "index": str(trial.index), "arm": run.arm, "seed": str(run.seed)}
    return params | {f"value/{key}": repr(value) for key, value in trial.values.items()}
