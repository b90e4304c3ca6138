"""The transfer stage in MLflow: one run below the comparison's, and below it a run for each uptake."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from mlflow.entities import Metric, Run

from ms_automl.callbacks.mlflow.missing import lacking
from ms_automl.callbacks.mlflow.opening import understood
from ms_automl.callbacks.mlflow.runs import milliseconds
from ms_automl.callbacks.mlflow.tracker import Tracker
from ms_automl.driver.transfer.uptake import Uptake

NAME = "transfer"


class TransferTracker(Tracker):
    """Adds to a comparison that has ended; its own runs stay as they are."""

    def attach(self, run_id: str) -> None:
        """Find the comparison's runs, and make that of the stage.

        Args:
            run_id: of the comparison.

        Raises:
            TrackingError: where the store cannot be reached or has no such run.
        """
        self.run_id = run_id
        with understood(self.uri):
            experiment = self.client.get_run(run_id).info.experiment_id
            self.experiment = self._use(self.client.get_experiment(experiment))
            self._find()
        self.known = frozenset(self.runs)
        self.unended = {name for name in self.unended if name.startswith(f"{NAME}/")}
        self.writer.start()
        self._create(NAME, run_id, NAME, {})

    def uptake_started(self, uptake: Uptake) -> None:
        """Make its run."""
        params = {"arm": uptake.arm, "seed": str(uptake.seed), "weights": uptake.weights, "mode": uptake.mode}
        params |= {"task": uptake.task, "shots": str(uptake.shots or "all"), "draw": str(uptake.draw)}
        self._create(_run_name(uptake), NAME, "uptake", params)

    def uptake_reported(self, uptake: Uptake, metrics: dict[str, float]) -> None:
        """Log a report's metrics at its training step."""
        now, step = milliseconds(), int(metrics["step"])
        batch = [Metric(key, value, now, step) for key, value in metrics.items() if key != "step"]
        self._log(_run_name(uptake), batch)

    def uptake_ended(self, uptake: Uptake, row: dict[str, Any]) -> None:
        """End its run."""
        name, now, error = _run_name(uptake), milliseconds(), row["error"] or ""
        self._log(name, [Metric(key, value, now, 0) for key, value in _costs(row).items()])
        if error or name in self.known:  # an earlier attempt may have left one
            self._tag(lambda: self._id(name), "ms_automl.error", error[:5000])
        self._put(lambda: self.client.set_terminated(self._id(name), row["status"]))

    def add_lacking(self, done: Iterable[tuple[Uptake, dict[str, Any]]]) -> int:
        """Log what the store lacks of uptakes that were finished before, as they ended.

        Args:
            done: each with its row.

        Returns:
            How many lacked something.
        """
        count = 0
        for uptake, row in done:
            run = self.there.get(_run_name(uptake))
            metrics, missing = _missing(run, row)
            if not missing:
                continue
            count += 1
            self.uptake_started(uptake)
            if metrics:
                self.uptake_reported(uptake, metrics | {"step": row["curve"][-1][0]})
            self.uptake_ended(uptake, row)
        return count

    def close(self, content: dict[str, Any], status: str) -> None:
        """Log ``transfer.json``, end the stage's run, and wait until everything is written."""
        self._put(self._end_the_rest)
        self._put(lambda: self.artifacts.put_json(self._id(NAME), content, "transfer.json"))
        self._put(lambda: self.client.set_terminated(self._id(NAME), status))
        self.writer.close()


def _costs(row: dict[str, Any]) -> dict[str, float]:
    return {f"cost/{key}": row[key] for key in ("passes", "device_seconds", "wall_seconds")}


def _missing(run: Run | None, row: dict[str, Any]) -> tuple[dict[str, float], bool]:
    """What a run lacks of the metrics of a row's last report, and whether it lacks anything."""
    told = {key: math.nan if value is None else value for key, value in row["metrics"].items() if key != "step"}
    if run is None:
        return told, True
    metrics, there = lacking(run.data.metrics, told), run.data.metrics
    return metrics, bool(metrics) or run.info.status != row["status"] or bool(lacking(there, _costs(row)))


def _run_name(uptake: Uptake) -> str:
    """With the model's digest: another model under the same name gets runs of its own."""
    return f"{NAME}/{uptake.name} {uptake.digest[:6]}"
