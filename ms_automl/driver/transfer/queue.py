"""The queue of uptakes: hands them out in order, and makes a row of each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ms_automl.comparison.run import Assignment, Report, Status, Suggestion
from ms_automl.driver.transfer.uptake import Uptake
from ms_automl.samplers.base import DONE, WAIT, Answer


class Recorder(Protocol):
    """Who is told what happens: the journal, MLflow, the screen."""

    def uptake_started(self, uptake: Uptake) -> None:
        """It has its device."""

    def uptake_reported(self, uptake: Uptake, metrics: dict[str, float]) -> None:
        """It has made a report."""

    def uptake_ended(self, uptake: Uptake, row: dict[str, Any]) -> None:
        """It is over, whichever way."""


@dataclass
class _Running:
    uptake: Uptake
    heard: float
    began: float
    row: dict[str, Any]
    started: bool = False


class TransferQueue:
    """Hands out uptakes in order, and makes a row of each.

    Args:
        pending: what is to be run.
        models: place of each selected model, by arm and seed.
        metrics: by task, the metric its curve shows.
        reports: of a whole uptake.
        passes: what an uptake costs.
        recorders: told of everything, in order.
        retries: how often an uptake whose process is lost begins again in another.
        clock: seconds; injected in tests.
    """

    def __init__(
        self,
        pending: Sequence[Uptake],
        models: Mapping[tuple[str, int], str],
        metrics: dict[str, str],
        reports: int,
        passes: Callable[[Uptake], float],
        recorders: Sequence[Recorder],
        retries: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pending = list(pending)
        self.models = models
        self.metrics = metrics
        self.reports = reports
        self.passes = passes
        self.recorders = recorders
        self.retries = retries
        self.clock = clock
        self.lost: dict[Uptake, list[float]] = {}  # passes of each process that was lost
        self.running: dict[str, _Running] = {}

    def next(self, trial_id: str) -> Assignment | Answer:
        """The next uptake, WAIT while the last ones run, whose process may be lost, DONE after that."""
        if not self.pending:
            return WAIT if self.running else DONE
        uptake, now = self.pending.pop(0), self.clock()
        row = asdict(uptake) | {
            "status": Status.RUNNING, "error": None, "curve": [], "metrics": {}, "passes": 0.0,
            "device_seconds": 0.0,
            "lost_passes": sum(self.lost.get(uptake, [])),
        }  # fmt: skip
        self.running[trial_id] = _Running(uptake, now, now, row)
        params = {"uptake": asdict(uptake), "model": self.models[uptake.arm, uptake.seed]}
        return Assignment(Suggestion("transfer", params, {}), uptake.seed)

    def started(self, trial_id: str) -> None:
        """A trial has its device."""
        one = self.running.get(trial_id)
        if one is None or one.started:
            return
        one.started, one.heard, one.began = True, self.clock(), self.clock()
        for recorder in self.recorders:
            recorder.uptake_started(one.uptake)

    def silence(self, trial_id: str) -> float:
        """Seconds since a running trial gave a sign of life; 0 for any other."""
        one = self.running.get(trial_id)
        return self.clock() - one.heard if one is not None and one.started else 0.0

    def stored(self, trial_id: str, place: str) -> tuple[str, ...]:
        """These models are not kept."""
        return ()

    def report(self, trial_id: str, report: Report) -> bool:
        """Add a report to its row; the last one ends it. One that arrives again changes nothing."""
        one = self.running.get(trial_id)
        if one is None or len(one.row["curve"]) > report.interval:
            return False
        one.heard = self.clock()
        row, task = one.row, one.uptake.task
        row["passes"] += sum(report.passes.values())
        row["device_seconds"] += report.device_seconds
        if report.metrics:
            row["metrics"] = {
                name: value if math.isfinite(value) else None  # what JSON cannot hold: no valid label
                for name, value in report.metrics.items()
                if not name.startswith("sparsity/layer")
            }
            row["curve"].append([report.metrics["step"], row["metrics"][f"val/{task}/{self.metrics[task]}"]])
            for recorder in self.recorders:
                recorder.uptake_reported(one.uptake, report.metrics)
        if report.done:
            self._end(trial_id, Status.FAILED if report.error else Status.FINISHED, report.error)
        return False

    def end(self, trial_id: str, report: Report | None = None, lost: str | None = None) -> None:
        """Begin again what a process was lost with, and end what too many were; any other has ended."""
        one = self.running.get(trial_id)
        if lost is not None and one is not None and len(self.lost.get(one.uptake, [])) < self.retries:
            self._charge_interval(one)
            self.lost.setdefault(one.uptake, []).append(one.row["passes"])
            self.pending.insert(0, one.uptake)
            del self.running[trial_id]
        elif lost is not None:
            self.give_up(trial_id, lost)
        elif report is not None:
            self.report(trial_id, report)

    def give_up(self, trial_id: str, why: str) -> None:
        """End a trial whose process is lost or was stopped, and charge the interval that it was in."""
        one = self.running.get(trial_id)
        if one is None:
            return
        self._charge_interval(one)
        self._end(trial_id, Status.FAILED, why)

    def _charge_interval(self, one: _Running) -> None:
        if one.started:
            one.row["passes"] += self.passes(one.uptake) / self.reports
            one.row["device_seconds"] += self.clock() - one.heard

    def stop(self, message: str) -> None:
        """End whatever still runs."""
        for trial_id in list(self.running):
            self._end(trial_id, Status.KILLED, message)

    def _end(self, trial_id: str, status: str, error: str | None) -> None:
        self.started(trial_id)  # its process never came up, yet it has a record
        one = self.running.pop(trial_id)
        one.row |= {"status": status, "error": error, "wall_seconds": self.clock() - one.began}
        for recorder in self.recorders:
            recorder.uptake_ended(one.uptake, one.row)
