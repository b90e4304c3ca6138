"""What a comparison leaves in MLflow.

Calls return at once; a :class:`~ms_automl.callbacks.mlflow.writer.Writer` writes them in order. A store that stops
answering holds nothing up: what is not written yet is tried again, and said at the end where it could not be.
Nothing depends on what the calling program has told MLflow: store, experiment and runs are named in every call.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as Logged

from ms_automl.callbacks.mlflow.models import log_onnx
from ms_automl.callbacks.mlflow.opening import understood
from ms_automl.callbacks.mlflow.runs import Runs, milliseconds
from ms_automl.callbacks.mlflow.views import arms_view
from ms_automl.comparison.run import Callback, Run, Status, Trial
from ms_automl.comparison.state import FORMAT
from ms_automl.config import flat

if TYPE_CHECKING:
    import onnx

CURVE = ("anytime/objective", "anytime/test_objective", "anytime/wall_seconds")
COSTS = ("passes", "device_seconds", "wall_seconds", "searcher_seconds")


class Tracker(Runs, Callback):
    """Tells an MLflow store what happens in a comparison. No run exists before it begins, resumes or attaches.

    Which raises a TrackingError where the store cannot be reached, or has no such run.
    """

    def begin(self, name: str, tags: dict[str, str], config: dict[str, Any]) -> None:
        """Make the parent run, with tags; the configuration is kept as ``config.json`` and as flat params."""
        all_tags = {"ms_automl.kind": "comparison", "ms_automl.format": str(FORMAT)}
        all_tags |= {f"ms_automl.{key}": value for key, value in tags.items()}
        with understood(self.uri):
            run = self.client.create_run(self.experiment, run_name=name, tags=all_tags)
        self._begin(run, {})
        self._describe(name, config, {}, {})

    def resume(self, run_id: str, config: dict[str, Any]) -> None:
        """Go on with a parent run: its arm and trial runs are found by name, and none is made twice."""
        run, experiment = self._go_on(run_id)
        with understood(self.uri):
            self.client.update_run(run_id, status="RUNNING")
        self._tag(run_id, "ms_automl.resumed", "true")
        self._describe(run.info.run_name, config, run.data.params, experiment.tags)

    def attach(self, run_id: str, stage: Run) -> None:
        """Add the run of a later stage to a comparison that has ended, whose own runs stay as they are."""
        self._go_on(run_id)
        self.unended = {name for name in self.unended if name.startswith(f"{stage.name}/")}
        self._open(stage, stage.name, {})

    def _describe(self, name: str, config: dict[str, Any], params: dict[str, str], tags: dict[str, str]) -> None:
        """Log the configuration and the view of the arms, but for params and tags that are there already."""
        new = [Param(key, str(value)[:6000]) for key, value in flat(config).items() if key not in params]
        if new:
            self._batch(self.run_id, params=new)
        self._put(lambda: self.artifacts.put_json(self.run_id, config, "config.json"))
        key, view = arms_view(name, self.run_id, milliseconds())
        if key not in tags:
            self._put(lambda: self.client.set_experiment_tag(self.experiment, key, view))

    @property
    def page(self) -> str:
        """The part of MLflow's address that opens the comparison's arms with their columns and charts."""
        return f"#/experiments/{self.experiment}/runs?viewStateShareKey={self.run_id}&compareRunsMode=CHART"

    def run_opened(self, run: Run) -> None:
        """Make an arm's run."""
        self._open(run, "arm", {"arm": run.arm, "seed": str(run.seed), "space": run.space})

    def trial_started(self, run: Run, trial: Trial) -> None:
        """Make a trial's run."""
        kind = "trial" if trial.training_seed is None else "retraining"
        self._create(trial.shown_as, run.name, kind, _params_of(run, trial))

    def trial_reported(self, run: Run, trial: Trial, metrics: dict[str, float]) -> None:
        """Log a report's metrics at its training step."""
        self._log(trial.shown_as, _metrics(metrics, int(metrics["step"])))

    def trial_ended(self, run: Run, trial: Trial) -> None:
        """End a trial's run, and log the arm's anytime curve."""
        texts = {
            "outcome": trial.status.lower(),
            "host": trial.host,
            "stopped" if trial.status == Status.STOPPED else "error": (trial.error or "")[:5000],
            "interruptions": str(trial.interruptions or ""),
            "warnings": "; ".join(trial.warnings)[:5000],
        }
        tags = [RunTag(f"ms_automl.{key}", value) for key, value in texts.items() if value]
        self._batch(trial.shown_as, tags=tags)
        self._end(trial.shown_as, _ended_as(trial))
        self._log_curve(run)

    def recall(self, run: Run) -> int:
        """Log what the store lacks of an arm's curve and trials of an earlier process; how many trials lacked."""
        self._log_curve(run)
        count = 0
        newest = {trial.shown_as: trial for trial in (*run.trials, *run.retrained)}
        for name, trial in newest.items():
            found, ended = self.earlier_runs.get(name), trial.status not in (Status.RUNNING, Status.KILLED)
            if not ended or not _lacks(found, trial, _params_of(run, trial)):
                continue
            count += 1
            self.trial_started(run, trial)
            if metrics := _lacking(self._has(name), trial.metrics):
                self.trial_reported(run, trial, metrics | {"step": trial.metrics["step"]})
            self.trial_ended(run, trial)
        return count

    def run_closed(self, run: Run, row: dict[str, Any], model: Path | None, status: str) -> None:
        """End an arm's run with its row and its selected model."""
        name = run.name
        best = run.best.metrics if run.best else {}
        kept = {key: value for key, value in best.items() if not key.startswith("cost/")}
        kept |= {f"cost/{key}": row[key] for key in COSTS}
        against = ("delta_m_single", "density_single", "macs_ratio_single")
        kept |= {key: row[key] for key in against if row.get(key) is not None}
        # A tag holds some thousand characters: comparison.json has the whole row, with λ's course.
        short = {key: value for key, value in row.items() if key != "lambda"}
        self._tag(name, "ms_automl.row", json.dumps(short))
        self._tag(name, "ms_automl.status", row["status"])
        if new := _lacking(self._has(name), kept):
            self._batch(name, metrics=_metrics(new))
        if model is not None:
            self._put(lambda: self.artifacts.put(self._id(name), model, "model"))
        self._end(name, status)

    def dataset_used(self, name: str, source: dict[str, Any], samples: dict[str, int]) -> None:
        """Log on the parent run what data the comparison was trained on, by name and what it is built from."""
        recipe = json.dumps(source, sort_keys=True)
        digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
        data = Dataset(name, digest, "code", recipe, profile=json.dumps(samples))
        used = DatasetInput(data, [InputTag("mlflow.data.context", "training and evaluation")])
        inputs = self.earlier_runs[self.run_id].inputs
        if inputs is None or not inputs.dataset_inputs:
            self._put(lambda: self.client.log_inputs(self.run_id, [used]))

    def model_exported(self, run: Run, model: onnx.ModelProto) -> None:
        """Log an arm's selected network, its batch axis free, in MLflow's ONNX flavour where its run lacks it."""
        self._put(lambda: log_onnx(model, run.name, self.artifacts, self.experiment, self._id(run.name)))

    def stage_finished(self, stage: Run, content: dict[str, Any], status: str) -> None:
        """Log what a later stage has come to, end its run, and wait until everything is written."""
        self._finish(stage.name, content, f"{stage.name}.json", status)

    def finish(self, content: dict[str, Any], metrics: dict[str, float], status: str) -> None:
        """Log comparison.json, end the parent run, and wait until everything is written."""
        self._batch(self.run_id, metrics=_metrics(metrics))
        self._finish(self.run_id, content, "comparison.json", status)

    def _open(self, run: Run, kind: str, params: dict[str, str]) -> None:
        found = self.earlier_runs.get(run.name)
        with understood(self.uri):
            points = self.client.get_metric_history(found.info.run_id, CURVE[-1]) if found else ()
        self.steps[run.name] = {point.step for point in points}
        self._create(run.name, self.run_id, kind, params)

    def _log_curve(self, run: Run) -> None:
        """Log what an arm's curve has more than its run."""
        known = self.steps[run.name]
        for passes, *values in run.anytime:
            step = round(passes)
            if step not in known:
                known.add(step)
                self._log(run.name, _metrics(dict(zip(CURVE, values, strict=True)), step))

    def _finish(self, name: str, content: dict[str, Any], file: str, status: str) -> None:
        for rest in self.unended:  # trials of an earlier process that this one did not run again
            self._end(rest, "KILLED")
        self._put(lambda: self.artifacts.put_json(self._id(name), content, file))
        self._end(name, status)
        self.writer.close()


def _metrics(values: Mapping[str, float], step: int = 0) -> list[Metric]:
    now = milliseconds()
    return [Metric(key, value, now, step) for key, value in values.items() if key != "step"]


def _params_of(run: Run, trial: Trial) -> dict[str, str]:
    if trial.about:
        return {"method": trial.method} | trial.about
    params = {"method": trial.method, "index": str(trial.index), "arm": run.arm, "seed": str(run.seed)}
    return params | {f"value/{key}": repr(value) for key, value in trial.values.items()}


def _ended_as(trial: Trial) -> str:
    """The status of a trial's run in MLflow, which has no word of its own for one that was stopped."""
    return Status.KILLED if trial.status == Status.STOPPED else trial.status


def _lacks(run: Logged | None, trial: Trial, params: Mapping[str, str]) -> bool:
    """Whether a store lacks something of a trial that has ended, or the run of it that is to have such params."""
    if run is None or run.info.status != _ended_as(trial) or params.keys() - run.data.params.keys():
        return True
    outcome = run.data.tags.get("ms_automl.outcome")
    return outcome != trial.status.lower() or bool(_lacking(run.data.metrics, trial.metrics))


def _lacking(logged: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    """The wanted metrics that a run has not logged, or not with this value."""
    there = {key for key, value in wanted.items() if key in logged and _same(logged[key], value)}
    return {key: value for key, value in wanted.items() if key not in there | {"step"}}


def _same(logged: float, value: float) -> bool:
    if math.isinf(value):  # databases hold the largest number in its place
        return logged in (value, math.copysign(sys.float_info.max, value))
    return logged == value or (math.isnan(logged) and math.isnan(value))
