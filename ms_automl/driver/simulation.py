"""A comparison without training: its real runs, samplers, scheduler and ledger, on a virtual clock.

What a trial takes and costs is what a real one would, what comes out of it is made up. So a simulation says in
seconds how many trials a comparison has, what they cost, and how long they keep slots busy.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ms_automl.comparison.events import Replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.registry import METHODS
from ms_automl.comparison.run import Report, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.driver.assembly import ANY, MEASURED, assemble, planned_passes
from ms_automl.driver.progress import suggestion_of
from ms_automl.driver.scheduler import Scheduler
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.base import Answer

Passes = Mapping[str, float]
"""Passes by kind: train, outer, hessian, forward."""

Seconds = Callable[[Trial, Passes, bool], float]
"""Seconds of a report interval that makes these passes; whether it is the trial's first, which starts it."""

CONSTANT = 4.0
"""A made-up loss of a constant prediction: above all that trials are made to have."""


class Clock:
    """A clock whose seconds pass only when something happens."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds since the start."""
        return self.now


class Script:
    """The reports that a trial makes: passes as a real one's, results made up.

    Results depend on what was suggested and on nothing else; every seed is taken to have as many samples as the
    first. A layer loses its groups where λ comes near the upper bound, as in the presets' sweeps, the loss rises
    with what is lost, and no two seeds agree on the second decimal: enough for arms that stop trials to stop as
    many as they would. ``plan`` gives the passes of a whole trial.
    """

    def __init__(self, experiment: Experiment, plan: Callable[[Suggestion], Passes]) -> None:
        seed = experiment.config.first_seed
        self.settings, self.data = experiment.config.training, experiment.data(seed)
        self.layers, self.bounds = experiment.layers(experiment.network(seed)), experiment.bounds(ANY)
        self.plan = plan

    def passes(self, trial: Trial, interval: int) -> dict[str, float]:
        """Passes by kind of a report interval 0, 1, … of a whole trial; over all of them what was planned."""
        settings = self.settings
        begin = interval * settings.report_every
        end = min(begin + settings.report_every, settings.steps)
        sparsifying = min(end, settings.prox_steps) - min(begin, settings.prox_steps)
        learns = METHODS[trial.method].learns_lambda and interval < settings.sparsifying_reports
        evaluated = len(self.data.val) + (len(self.data.test) if end == settings.steps else 0)
        if learns or trial.params.get("probe"):
            evaluated += settings.probe_samples(self.data)
        whole = self.plan(suggestion_of(trial))
        return {
            "train": whole["train"] * (end - begin) / settings.steps,
            "outer": whole["outer"] * sparsifying / settings.prox_steps,
            "hessian": whole["hessian"] * sparsifying / settings.prox_steps,
            "forward": evaluated / 3,
        }

    def metrics(self, trial: Trial, interval: int) -> dict[str, float]:
        """The metrics that a trial gives at the end of an interval."""
        settings = self.settings
        step = min((interval + 1) * settings.report_every, settings.steps)
        share = min(1.0, step / settings.prox_steps)
        by_layer = {layer: zeros * share for layer, zeros in self._zeros(trial).items()}
        zeros = sum(by_layer.values()) / len(by_layer)
        key = f"0/{trial.run}/{trial.training_seed}/{sorted(trial.values.items())}"
        noise = random.Random(key).gauss(0, 0.02)
        loss = 0.5 * (1 + 0.2 * zeros**3 / (1.05 - zeros) + abs(noise)) * (1 + 1 / (interval + 1))
        shares = dict.fromkeys(("sparsity/group", "sparsity/param", "sparsity/trunk"), zeros)
        metrics = {"step": float(step), "density": 1 - zeros} | shares
        metrics |= {f"sparsity/layer/{layer}": value for layer, value in by_layer.items()}
        for split in ("val", "test") if step == settings.steps else ("val",):
            for task in self.data.tasks:
                metrics |= {f"{split}/{task.name}/{name}": 1 / (1 + loss) for name in task.metrics}
                metrics[f"{split}/{task.name}/loss"] = loss
                if trial.params.get("probe"):
                    metrics |= MEASURED
                    metrics |= {f"{split}/{task.name}/constant": CONSTANT, f"probe/{task.name}/loss": loss}
                    if step == settings.steps:
                        metrics[f"{split}/{task.name}/loss_error"] = 0.0
        return metrics

    def _zeros(self, trial: Trial) -> dict[str, float]:
        """Share of each layer's groups that a whole trial takes away."""
        low, high = math.log(self.bounds.low), math.log(self.bounds.high)
        schedule = trial.params.get("schedule")
        if METHODS[trial.method].learns_lambda:
            return dict.fromkeys(self.layers, 0.5)
        if schedule is None or not trial.params.get("freeze", True):
            return dict.fromkeys(self.layers, float(trial.params.get("level", 0.0)))
        where = [(math.log(max(value, 1e-12)) - low) / (high - low) for value in schedule["values"][-1]]
        return {layer: 1 / (1 + math.exp(-(x - 0.75) / 0.04)) for layer, x in zip(self.layers, where, strict=True)}

    def learned(self) -> dict[str, Any]:
        """The λ that a trial that learns it ends with."""
        value = self.bounds.low**0.25 * self.bounds.high**0.75
        return LambdaSchedule.constant(dict.fromkeys(self.layers, value)).to_dict()


@dataclass(frozen=True)
class Share:
    """What a part of a comparison runs and costs, retrainings included."""

    trials: int  # of the search, those that are stopped on the way included
    stopped: int  # of these, by their arm or their budget
    retrainings: int  # of selected models
    passes: float
    device_seconds: float
    spent: float  # in the budget's unit


@dataclass(frozen=True)
class Outcome:
    """What a simulation came to; trials of an earlier process are not in it."""

    arms: dict[str, Share]
    whole: Share  # its device seconds are those that slots were busy for
    seconds: float  # from the first trial's start to the last one's end
    concurrency: int  # most trials at a time
    searcher_seconds: float  # that samplers really took
    stopping: list[str]  # the arms whose samplers stop trials on the way


class Simulation:
    """Runs what a scheduler hands out, without Ray and without training.

    ``clock``, which is the comparison's, is set forward. ``slots`` is None for as many as there are trials.
    """

    def __init__(
        self, scheduler: Scheduler, script: Script, seconds: Seconds, clock: Clock, slots: int | None
    ) -> None:
        self.comparison, self.scheduler = scheduler.comparison, scheduler
        self.script, self.seconds, self.clock = script, seconds, clock
        self.slots = math.inf if slots is None else slots
        self.concurrency = 0
        self._events: list[tuple[float, int, str, Report]] = []
        self._numbers = itertools.count()
        self._ended: list[Trial] = []

    def run(self) -> Outcome:
        """Run everything that is suggested, to its end."""
        began, searched = self.clock.now, self._searched()
        self._fill()
        while self._events:
            self.clock.now, _, trial_id, report = heapq.heappop(self._events)
            if self.scheduler.report(trial_id, report) or report.done:
                self.scheduler.end(trial_id, report)
                self.comparison.stored(trial_id, trial_id)
                self._ended.append(self.comparison.trials[trial_id])
            else:
                self._go_on(trial_id)
            self._fill()  # after every event, as Tune asks
        assert all(run.closed for run in self.comparison.runs.values())
        arms: dict[str, list[Trial]] = {run.arm: [] for run in self.comparison.runs.values()}
        for trial in self._ended:
            arms[self.comparison.runs[trial.run].arm].append(trial)
        progress = self.scheduler.progress.values()
        return Outcome(
            {arm: self._share(trials) for arm, trials in arms.items()},
            self._share(self._ended),
            seconds=self.clock.now - began,
            concurrency=self.concurrency,
            searcher_seconds=self._searched() - searched,
            stopping=list(dict.fromkeys(each.run.arm for each in progress if each.sampler.stops_trials)),
        )

    def _share(self, trials: list[Trial]) -> Share:
        retrainings = sum(trial.training_seed is not None for trial in trials)
        return Share(
            trials=len(trials) - retrainings,
            stopped=sum(trial.status == Status.STOPPED for trial in trials),
            retrainings=retrainings,
            passes=sum(trial.passes for trial in trials),
            device_seconds=sum(trial.device_seconds for trial in trials),
            spent=sum(self.comparison.ledger.spent_on(trial.name) for trial in trials),
        )

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
            self.concurrency = max(self.concurrency, len(self._events))

    def _go_on(self, trial_id: str) -> None:
        """Schedule the next report of a trial."""
        report = self.report_of(trial_id, self.comparison.trials[trial_id].reports)
        time = self.clock.now + report.device_seconds
        heapq.heappush(self._events, (time, next(self._numbers), trial_id, report))

    def report_of(self, trial_id: str, number: int) -> Report:
        """The report 0, 1, … that a trial makes."""
        trial = self.comparison.trials[trial_id]
        interval = self.begins(trial) + number
        passes = self.script.passes(trial, interval)
        seconds = self.seconds(trial, passes, number == 0)
        done = interval == self.scheduler.reports - 1
        return Report(
            interval=number,
            metrics=self.script.metrics(trial, interval),
            passes=passes,
            device_seconds=seconds,
            busy_seconds=seconds,
            done=done,
            schedule=self.script.learned() if done and METHODS[trial.method].learns_lambda else None,
        )

    def begins(self, trial: Trial) -> int:
        """The interval that a trial begins with: not the first where it goes on from another's state."""
        if trial.start is None or trial.start["what"] != "state":
            return 0
        others = self.comparison.runs[trial.run].trials
        return next(other.reports for other in others if other.name == trial.start["trial"])


def simulate(
    experiment: Experiment, seconds: Seconds, slots: int | None, replayed: Replay | None = None
) -> tuple[Comparison, Outcome]:
    """Simulate a comparison, or what is left after what is ``replayed``; nothing is recorded."""
    clock = Clock()
    seed, of_seed = experiment.config.first_seed, planned_passes(experiment)

    def plan(suggestion: Suggestion) -> Passes:
        return of_seed(suggestion, seed)

    comparison, scheduler = assemble(
        experiment, None, replayed, clock=clock, planned=lambda suggestion, _: plan(suggestion)
    )
    return comparison, Simulation(scheduler, Script(experiment, plan), seconds, clock, slots).run()
