"""What has happened so far: trials, what they cost, each stream's best, and the rows of the table.

A stream is one arm with one seed. Everything that judges a model (objective, Δm, who is best) happens here and
nowhere else.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ms_automl.budget import Charge, Ledger
from ms_automl.meta import Objective, Reference, watch
from ms_automl.meta.objective import delta_m
from ms_automl.tasks import Task
from ms_automl.trials import Recorder, Report, Stream, Trial

FORMAT = 1


class Comparison:
    """The state of a comparison.

    Args:
        objective: J.
        tasks: the trained tasks.
        streams: all of them, the dense references included.
        ledger: what work is charged to.
        recorders: told of everything, in order.
        clock: seconds; injected in tests.
    """

    def __init__(
        self,
        objective: Objective,
        tasks: Sequence[Task],
        streams: Sequence[Stream],
        ledger: Ledger,
        recorders: Sequence[Recorder] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.objective = objective
        self.tasks = tasks
        self.streams = {stream.name: stream for stream in streams}
        self.ledger = ledger
        self.recorders = list(recorders)
        self.clock = clock
        self.began = clock()
        self.first_start: float | None = None
        self.last_end: float | None = None
        self.trials: dict[str, Trial] = {}
        self.references: dict[int, dict[str, float]] = {}
        self.courses: dict[int, dict[int, dict[str, float]]] = {}  # by seed and step: the dense losses on the way

    def reference(self, seed: int) -> Reference | None:
        """The dense reference of a seed on the validation split, or None before it is trained."""
        metrics = self.references.get(seed)
        if metrics is None:
            return None
        return Reference(self._losses(metrics, "val"), tuple(self.courses[seed].items()))

    def _losses(self, metrics: dict[str, float], split: str) -> dict[str, float]:
        return {task.name: metrics[f"{split}/{task.name}/loss"] for task in self.tasks}

    def register(self, trial: Trial) -> None:
        """A trial was suggested."""
        self.trials[trial.id] = trial
        stream = self.streams[trial.stream]
        (stream.trials if trial.training_seed is None else stream.retrained).append(trial)

    def started(self, trial_id: str) -> None:
        """A trial has its device."""
        trial = self.trials[trial_id]
        trial.started = trial.heard = self.clock()
        if self.first_start is None:
            self.first_start = trial.started
        for recorder in self.recorders:
            recorder.trial_started(self.streams[trial.stream], trial)

    def report(self, trial_id: str, report: Report) -> None:
        """Charge and judge one report; the last one ends the trial. One that arrives again changes nothing."""
        trial = self.trials[trial_id]
        stream = self.streams[trial.stream]
        if not self._charge(trial, report):
            return
        trial.heard = self.clock()
        trial.reports += 1
        if report.metrics:
            trial.metrics = dict(report.metrics) | self._judge(stream, report)
            trial.schedule, trial.warnings = report.schedule, report.warnings
            if stream.arm == "dense":
                course = self.courses.setdefault(stream.seed, {})
                course[int(report.metrics["step"])] = self._losses(report.metrics, "probe")
            costs = {
                "cost/passes": trial.passes,
                "cost/device_seconds": trial.device_seconds,
                "cost/training_seconds": trial.busy_seconds - trial.evaluation_seconds,
                "cost/evaluation_seconds": trial.evaluation_seconds,
                "cost/startup_seconds": trial.device_seconds - trial.busy_seconds,
                "cost/wall_seconds": self._running_for(trial),
                "cost/peak_memory_mb": trial.peak_memory,
            }
            trial.metrics |= costs
            if trial.reports in trial.rungs:
                trial.at_rungs[trial.reports] = trial.metrics["val/objective"]
            if trial.at_rungs:
                trial.metrics["rung/objective"] = trial.at_rungs[max(trial.at_rungs)]
            for recorder in self.recorders:
                recorder.trial_reported(stream, trial, trial.metrics)
        if report.done:
            self._end(trial, "FAILED" if report.error else "FINISHED", report.error)

    def failed(self, trial_id: str, message: str, lost: float = 0.0) -> None:
        """A trial's process died.

        Args:
            trial_id: of the trial.
            message: why, in one line.
            lost: passes of an interval: at most so much was done since the last report, and nobody can say.
        """
        trial = self.trials[trial_id]
        if trial.status != "RUNNING":
            return
        if trial.heard is not None:
            gone = self.clock() - trial.heard
            charge = Charge(trial.payer, trial.name, trial.attempt, trial.reports, "lost", lost, gone)
            if self.ledger.add(charge):
                trial.passes += lost
                trial.device_seconds += gone
        self._end(trial, "FAILED", message)

    def kept(self, trial_id: str, checkpoint: str) -> None:
        """A trial's model, or the state it goes on from, lies at a place."""
        trial = self.trials[trial_id]
        trial.checkpoint = checkpoint
        for recorder in self.recorders:
            recorder.trial_kept(self.streams[trial.stream], trial)

    def cut(self, trial_id: str, reason: str) -> None:
        """End a trial that its arm or its budget stops on the way: it is scored as it is."""
        trial = self.trials[trial_id]
        if trial.status == "RUNNING":
            self._end(trial, "STOPPED", reason)

    def searched(self, stream: Stream, trial: str, what: str, seconds: float) -> None:
        """Charge the time that a stream's sampler took.

        Args:
            stream: whose sampler.
            trial: name of the trial it was about.
            what: ``suggest`` or ``tell``.
            seconds: it took.
        """
        self.ledger.add(Charge(stream.name, trial, 0, 0, f"searcher/{what}", 0.0, searcher_seconds=seconds))

    def stop(self, status: str, message: str) -> None:
        """End whatever still runs; streams that are not at their end say why."""
        for trial in list(self.trials.values()):
            if trial.status == "RUNNING":
                self._end(trial, status, message)
        for stream in self.streams.values():
            if not stream.closed:
                stream.note = message

    def _charge(self, trial: Trial, report: Report) -> bool:
        charges = [
            Charge(
                *(trial.payer, trial.name, trial.attempt + report.attempt, report.interval, kind, passes),
                device_seconds=report.device_seconds if kind == "train" else 0.0,
            )
            for kind, passes in report.passes.items()
        ]
        new = [charge for charge in charges if self.ledger.add(charge)]
        if not new:
            return False
        trial.passes += sum(charge.passes for charge in new)
        trial.device_seconds += report.device_seconds
        trial.busy_seconds += report.busy_seconds
        trial.evaluation_seconds += report.evaluation_seconds
        trial.peak_memory, trial.host = report.peak_memory, report.host
        return True

    def restore(self, trial: Trial, course: dict[int, dict[str, float]], elapsed: float) -> None:
        """Take over a trial that ended before this process began; recorders know it already.

        Args:
            trial: as it was.
            course: of a dense reference, its losses by step.
            elapsed: seconds from the start of the comparison to the trial's end.
        """
        self.register(trial)
        stream = self.streams[trial.stream]
        if course:
            self.courses[stream.seed] = course
        self.last_end = self.began + elapsed
        self._select(stream, trial)

    def _judge(self, stream: Stream, report: Report) -> dict[str, float]:
        metrics = report.metrics
        # The dense reference is relative to itself, and final values are what others are relative to.
        base = metrics if stream.arm == "dense" else self.references[stream.seed]
        judged = {"val/objective": self._objective(metrics, base, "val")}
        if any(key.startswith("test/") for key in metrics):
            judged["test/objective"] = self._objective(metrics, base, "test")
            judged["delta_m"] = delta_m(self.tasks, _split(metrics, "test"), _split(base, "test"))
        return judged

    def _objective(self, metrics: dict[str, float], base: dict[str, float], split: str) -> float:
        return self.objective.value(self._losses(metrics, split), self._losses(base, split), metrics["density"])

    def _end(self, trial: Trial, status: str, error: str | None) -> None:
        stream = self.streams[trial.stream]
        if trial.started is None:  # its process never came up, yet it has a record
            self.started(trial.id)
        trial.status, trial.error = status, error
        self.last_end = self.clock()
        trial.seconds = self._running_for(trial)
        self._select(stream, trial)
        for recorder in self.recorders:
            recorder.trial_ended(stream, trial)

    def _select(self, stream: Stream, trial: Trial) -> None:
        """The reference, the stream's best and its anytime curve, after a trial's end."""
        if trial.training_seed is not None:
            return
        stream.failed += trial.status == "FAILED"
        if trial.status == "FINISHED" and stream.arm == "dense":
            self.references[stream.seed] = dict(trial.metrics)
        scored = trial.status in ("FINISHED", "STOPPED") and "val/objective" in trial.metrics
        if scored and trial.method in stream.winners and self.better(trial, stream.best):
            stream.best = trial
        if stream.best is not None and stream.best.status == "FINISHED" and self.last_end is not None:
            best, spent = stream.best.metrics, self.ledger.totals(stream.name)
            seconds = self.last_end - self.began
            stream.anytime.append((spent.passes, best["val/objective"], best["test/objective"], seconds))

    def _running_for(self, trial: Trial) -> float:
        return 0.0 if trial.started is None else self.clock() - trial.started

    def better(self, trial: Trial, best: Trial | None) -> bool:
        """Whether a trial is to be selected in the place of another."""
        if best is None:
            return True
        return self.rank(trial) < self.rank(best)

    def rank(self, trial: Trial) -> tuple[bool, float, float]:
        """Lower is better: first whole trials, then what misses the target, then J on the validation split."""
        missed = max(0.0, self.objective.violation(trial.metrics["density"]))
        return trial.status != "FINISHED", missed, trial.metrics["val/objective"]

    @property
    def useful_share(self) -> float:
        """Busy seconds per second of the trial phase: divide by the slots for the useful share."""
        if self.first_start is None or self.last_end is None or self.last_end <= self.first_start:
            return 0.0
        busy = sum(trial.busy_seconds for trial in self.trials.values())
        return busy / (self.last_end - self.first_start)

    def row(self, stream: Stream) -> dict[str, Any]:
        """The stream's row of comparison.json."""
        best, spent = stream.best, self.ledger.totals(stream.name)
        metrics = best.metrics if best else {}
        limit = self.ledger.limit(stream.name)
        trials = stream.trials
        return {
            "arm": stream.arm,
            "seed": stream.seed,
            "space": stream.space,
            "status": self._status(stream),
            "objective": metrics.get("val/objective"),
            "test_objective": metrics.get("test/objective"),
            "delta_m": _finite(metrics.get("delta_m")),
            "sparsity_group": metrics.get("sparsity/group"),
            "sparsity_param": metrics.get("sparsity/param"),
            "macs_ratio": stream.macs_ratio,
            "latency_ratio": stream.latency_ratio,
            "lambda": _lambda_of(best),
            **self._retrained(stream),
            "unit": self.ledger.unit.name,
            "limit": limit if math.isfinite(limit) else None,
            "spent": spent.spent,
            "overshoot": self.ledger.overshoot(stream.name),
            "passes": spent.passes,
            "lost_passes": spent.lost_passes,
            "device_seconds": spent.device_seconds,
            "training_seconds": sum(trial.busy_seconds - trial.evaluation_seconds for trial in trials),
            "evaluation_seconds": sum(trial.evaluation_seconds for trial in trials),
            "startup_seconds": spent.device_seconds - sum(trial.busy_seconds for trial in trials),
            "wall_seconds": sum(trial.seconds for trial in trials),
            "searcher_seconds": spent.searcher_seconds,
            "trials": len(trials),
            "failed_trials": sum(trial.status == "FAILED" for trial in trials),
            "stopped_trials": sum(trial.status == "STOPPED" for trial in trials),
            "selected_trial": best.name if best else None,
            "note": "; ".join(self._notes(stream)),
        }

    def _reached(self, best: Trial) -> bool:
        return self.objective.violation(best.metrics["density"]) <= 1e-9

    def _status(self, stream: Stream) -> str:
        if stream.best is None:
            return "failed"
        whole = stream.closed and stream.best.status == "FINISHED" and self._reached(stream.best)
        return "ok" if whole else "partial"

    def _notes(self, stream: Stream) -> list[str]:
        best, failed = stream.best, sum(trial.status == "FAILED" for trial in stream.trials)
        notes = [stream.note] if stream.note else []
        if best is not None and not self._reached(best):
            notes.append(f"target sparsity {self.objective.target:g} not reached")
        if best is not None and best.status == "STOPPED":
            notes.append("no trial came to its end")
        if best is not None:
            notes += dict.fromkeys([*best.warnings, *watch.gone(best.metrics["density"])])
        if failed:
            notes.append(f"{failed} trial{'s' if failed > 1 else ''} failed")
        return notes

    def _retrained(self, stream: Stream) -> dict[str, Any]:
        names = {"objective": "val/objective", "test_objective": "test/objective", "delta_m": "delta_m"}
        names["sparsity_param"] = "sparsity/param"
        ended = [trial for trial in stream.retrained if trial.status == "FINISHED"]
        ended.sort(key=lambda trial: trial.index)
        again = [{key: _finite(trial.metrics[name]) for key, name in names.items()} for trial in ended]
        for run, trial in zip(again, ended, strict=True):
            run["training_seed"] = trial.training_seed
        return {
            "retrained": again,
            "retrained_objective": _mean([trial.metrics["val/objective"] for trial in ended]),
            "retrained_test_objective": _mean([trial.metrics["test/objective"] for trial in ended]),
        }

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order of the streams."""
        return [self.row(stream) for stream in self.streams.values()]


def _split(metrics: dict[str, float], split: str) -> dict[str, float]:
    return {key.removeprefix(f"{split}/"): value for key, value in metrics.items() if key.startswith(f"{split}/")}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _finite(value: float | None) -> float | None:
    """None for what JSON cannot hold: a metric without a valid label is NaN, and Δm with it."""
    return value if value is not None and math.isfinite(value) else None


def _lambda_of(trial: Trial | None) -> dict[str, float] | list[dict[str, float]] | None:
    """λ by layer: one dict of constants, or a list of them, a knot each (LambdaSchedule)."""
    if trial is None:
        return None
    schedule = trial.schedule or trial.params.get("schedule")
    if schedule is None:
        return None
    knots = [dict(zip(schedule["layers"], row, strict=True)) for row in schedule["values"]]
    return knots[0] if len(knots) == 1 else knots


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
