"""A comparison without training: its real runs, samplers, scheduler and ledger, on a virtual clock.

Trials are events on a heap: what one takes and costs is what a real one would, what comes out of it is made up. So
a simulation says in seconds how many trials a comparison has, what they cost, and how long they keep slots busy.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from ms_automl.comparison.events import EventLog, Replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.registry import METHODS
from ms_automl.comparison.run import Report, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.data import MultiTaskData
from ms_automl.driver.assembly import assemble, planned_passes
from ms_automl.driver.scheduler import Scheduler
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.base import Answer
from ms_automl.training import TrainingSettings

Passes = Mapping[str, float]
"""By kind: train, outer, hessian, forward."""

CONSTANT = 4.0
"""A made-up loss of a constant prediction: above all that trials are made to have."""


class Clock:
    """Seconds that pass only when something is said to happen.

    Attributes:
        now: seconds since the start; what a call returns.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds since the start."""
        return self.now


class Durations(Protocol):
    """How long trials take."""

    def startup(self, trial: Trial) -> float:
        """Seconds from the grant of a device to the first step."""

    def interval(self, trial: Trial, passes: Passes) -> float:
        """Seconds of a report interval that makes these passes."""


@dataclass
class Share:
    """What a part of a comparison runs and costs.

    Attributes:
        trials: that belong to the search, those that are stopped on the way included.
        stopped: of these, by their arm or their budget.
        retrainings: of selected models.
        passes: of trials and retrainings.
        device_seconds: likewise.
        spent: likewise, in the budget's unit.
    """

    trials: int = 0
    stopped: int = 0
    retrainings: int = 0
    passes: float = 0.0
    device_seconds: float = 0.0
    spent: float = 0.0

    def add(self, other: Share) -> None:
        """Count another part in."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass
class Outcome:
    """What a simulation came to.

    Attributes:
        arms: by name; trials of an earlier process are not in it.
        seconds: from the first trial's start to the last one's end.
        most: trials at a time.
        searcher_seconds: that samplers really took.
        stopping: the arms whose samplers stop trials on the way.
    """

    arms: dict[str, Share] = field(default_factory=dict)
    seconds: float = 0.0
    most: int = 0
    searcher_seconds: float = 0.0
    stopping: list[str] = field(default_factory=list)

    @property
    def whole(self) -> Share:
        """All arms together; its device seconds are those that slots were busy for."""
        total = Share()
        for share in self.arms.values():
            total.add(share)
        return total


@dataclass(frozen=True)
class Script:
    """The reports that a trial makes: passes as a real one's, results made up.

    Results depend on the seed and on what was suggested, and on nothing else. A layer loses its groups where λ
    comes near the upper bound, as in the presets' sweeps, the loss rises with what is lost, and no two seeds agree
    on the second decimal: enough for arms that stop trials to stop as many as they would.

    Attributes:
        settings: how a trial trains.
        data: whose tasks and numbers of samples every seed is taken to have.
        layers: what has a λ of its own.
        bounds: (low, high) of λ.
        plan: passes of a whole trial of a method.
        seed: of what is made up.
    """

    settings: TrainingSettings
    data: MultiTaskData
    layers: tuple[str, ...]
    bounds: tuple[float, float]
    plan: Callable[[str], Passes]
    seed: int = 0

    def passes(self, trial: Trial, interval: int) -> dict[str, float]:
        """By kind, of a report interval 0, 1, … of a whole trial; over all of them what was planned."""
        settings = self.settings
        begin = interval * settings.report_every
        end = min(begin + settings.report_every, settings.steps)
        sparsifying = min(end, settings.prox_steps) - min(begin, settings.prox_steps)
        whole, probe = self.plan(trial.method), 0
        if trial.params.get("probe") or (
            METHODS[trial.method].learns_lambda and interval < settings.sparsifying_reports
        ):
            probe = settings.probe_samples(self.data)
        evaluated = len(self.data.val) + probe + (len(self.data.test) if end == settings.steps else 0)
        return {
            "train": whole["train"] * (end - begin) / settings.steps,
            "outer": whole["outer"] * sparsifying / settings.prox_steps,
            "hessian": whole["hessian"] * sparsifying / settings.prox_steps,
            "forward": evaluated / 3,
        }

    def metrics(self, trial: Trial, interval: int) -> dict[str, float]:
        """As a trial gives them at the end of an interval."""
        settings = self.settings
        step = min((interval + 1) * settings.report_every, settings.steps)
        share = min(1.0, step / settings.prox_steps)
        gone = {layer: zeros * share for layer, zeros in self._zeros(trial).items()}
        zeros = sum(gone.values()) / len(gone)
        told = f"{self.seed}/{trial.run}/{trial.training_seed}/{sorted(trial.values.items())}"
        noise = random.Random(told).gauss(0, 0.02)
        loss = 0.5 * (1 + 0.2 * zeros**3 / (1.05 - zeros) + abs(noise)) * (1 + 1 / (interval + 1))
        metrics = {"step": float(step), "density": 1 - zeros, "sparsity/param": zeros, "sparsity/group": zeros}
        metrics |= {f"sparsity/layer/{layer}": value for layer, value in gone.items()}
        for split in ("val", "test") if step == settings.steps else ("val",):
            for task in self.data.tasks:
                metrics |= {f"{split}/{task.name}/{name}": 1 / (1 + loss) for name in task.metrics}
                metrics[f"{split}/{task.name}/loss"] = loss
                if trial.params.get("probe"):
                    metrics |= {f"{split}/{task.name}/constant": CONSTANT, f"probe/{task.name}/loss": loss}
                    if step == settings.steps:
                        metrics[f"{split}/{task.name}/loss_error"] = 0.0
        return metrics

    def _zeros(self, trial: Trial) -> dict[str, float]:
        """Share of each layer's groups that a whole trial takes away."""
        low, high = map(math.log, self.bounds)
        schedule = trial.params.get("schedule")
        if METHODS[trial.method].learns_lambda:
            return dict.fromkeys(self.layers, 0.5)
        if schedule is None or not trial.params.get("freeze", True):
            return dict.fromkeys(self.layers, float(trial.params.get("level", 0.0)))
        where = [(math.log(max(value, 1e-12)) - low) / (high - low) for value in schedule["values"][-1]]
        return {layer: 1 / (1 + math.exp(-(x - 0.75) / 0.04)) for layer, x in zip(self.layers, where, strict=True)}

    def learned(self) -> dict[str, Any]:
        """The λ that a trial that learns it ends with."""
        value = self.bounds[0] ** 0.25 * self.bounds[1] ** 0.75
        return LambdaSchedule.constant(dict.fromkeys(self.layers, value)).to_dict()


class Simulation:
    """Runs what a scheduler hands out, without Ray and without training.

    Args:
        comparison: told of every trial and report; its clock is ``clock``.
        scheduler: of its runs.
        script: what trials report.
        durations: how long they take.
        clock: is set forward.
        slots: trials at a time; None for as many as there are.
    """

    def __init__(
        self,
        comparison: Comparison,
        scheduler: Scheduler,
        script: Script,
        durations: Durations,
        clock: Clock,
        slots: int | None,
    ) -> None:
        self.comparison = comparison
        self.scheduler = scheduler
        self.script = script
        self.durations = durations
        self.clock = clock
        self.slots = math.inf if slots is None else slots
        self.outcome = Outcome({run.arm: Share() for run in comparison.runs.values()})
        self._events: list[tuple[float, int, str, Report]] = []
        self._numbers = itertools.count()

    def run(self) -> Outcome:
        """Run everything that is suggested, to its end."""
        began, searched = self.clock.now, self._searched()
        self._fill()
        while self._events:
            self.clock.now, _, trial_id, report = heapq.heappop(self._events)
            if self.scheduler.report(trial_id, report) or report.done:
                self._end(trial_id, report)
            else:
                self._go_on(trial_id)
            self._fill()  # after every event, as Tune asks
        assert all(run.closed for run in self.comparison.runs.values())
        self.outcome.seconds = self.clock.now - began
        self.outcome.searcher_seconds = self._searched() - searched
        return self.outcome

    def _searched(self) -> float:
        ledger = self.comparison.ledger
        return sum(ledger.totals(name).searcher_seconds for name in self.comparison.runs)

    def _fill(self) -> None:
        while len(self._events) < self.slots:
            trial_id = f"simulated-{next(self._numbers)}"
            if isinstance(self.scheduler.next(trial_id), Answer):
                return
            self.comparison.started(trial_id)
            self._go_on(trial_id)
            self.outcome.most = max(self.outcome.most, len(self._events))

    def _go_on(self, trial_id: str) -> None:
        """Have the trial's next report come when it is due."""
        trial, settings = self.comparison.trials[trial_id], self.script.settings
        interval = self._begins(trial) + trial.reports
        passes = self.script.passes(trial, interval)
        busy = self.durations.interval(trial, passes)
        seconds = busy + (self.durations.startup(trial) if trial.reports == 0 else 0.0)
        done = interval == settings.reports - 1
        report = Report(
            interval=trial.reports,
            metrics=self.script.metrics(trial, interval),
            passes=passes,
            device_seconds=seconds,
            busy_seconds=busy,
            evaluation_seconds=busy * passes["forward"] / sum(passes.values()),
            done=done,
            schedule=self.script.learned() if done and METHODS[trial.method].learns_lambda else None,
        )
        heapq.heappush(self._events, (self.clock.now + seconds, next(self._numbers), trial_id, report))

    def _begins(self, trial: Trial) -> int:
        """The interval that a trial begins with: not the first where it goes on from another's state."""
        if trial.start is None or trial.start["what"] != "state":
            return 0
        others = self.comparison.runs[trial.run].trials
        return next(other.reports for other in others if other.name == trial.start["trial"])

    def _end(self, trial_id: str, report: Report) -> None:
        self.scheduler.end(trial_id, report)
        trial = self.comparison.trials[trial_id]
        again = trial.training_seed is not None
        self.comparison.stored(trial_id, trial_id)
        self.outcome.arms[self.comparison.runs[trial.run].arm].add(
            Share(
                trials=int(not again),
                stopped=int(trial.status == Status.STOPPED),
                retrainings=int(again),
                passes=trial.passes,
                device_seconds=trial.device_seconds,
                spent=self.comparison.ledger.spent_on(trial.name),
            )
        )


def simulate(
    experiment: Experiment,
    durations: Durations,
    slots: int | None,
    folder: Path,
    replayed: Replay | None = None,
) -> tuple[Comparison, Outcome]:
    """Simulate a comparison; every seed is taken to have as many samples as the first.

    Args:
        experiment: what trials would be built from.
        durations: how long they take.
        slots: trials at a time; None for as many as there are.
        folder: of the log.
        replayed: what an earlier process has done; None of a comparison that begins.
    """
    config, clock = experiment.config, Clock()
    planned = planned_passes(experiment)
    comparison, scheduler = assemble(
        experiment,
        EventLog(folder),
        replayed,
        clock=clock,
        planned=lambda suggestion, _: planned(suggestion, config.first_seed),
    )
    script = Script(
        config.training,
        experiment.data(config.first_seed),
        experiment.layers(experiment.network(config.first_seed)),
        (config.lambda_.low, config.lambda_.high),
        lambda method: planned(Suggestion(method, {}, {}), config.first_seed),
    )
    outcome = Simulation(comparison, scheduler, script, durations, clock, slots).run()
    arms = (one.run.arm for one in scheduler.progress.values() if one.sampler.stops_trials)
    outcome.stopping = list(dict.fromkeys(arms))
    return comparison, outcome
