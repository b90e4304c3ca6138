"""The stage as the scheduler knows it: one run whose trials are adaptations, and the rows of these."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ms_automl.comparison.events import EventLog, replay
from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import Role, Run, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.driver.scheduler import Scheduler
from ms_automl.driver.transfer.experiment import Adaptation, TransferExperiment
from ms_automl.samplers.base import DONE, Answer, Observation, Sampler

NAME = "transfer"


class StageRun(Run):
    """The adaptations of all arms and seeds."""

    @property
    def name(self) -> str:
        """The stage's name: a comparison has one stage."""
        return self.arm


class Adaptations(Sampler):
    """Suggests what is left of a list, after as many trials as earlier starts were suggested ``before``."""

    least = 0.0

    def __init__(self, asked: Sequence[Adaptation], before: int) -> None:
        self.asked, self.before = asked, before

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The first adaptation that has not been suggested yet; DONE after the last."""
        index = len(trials) - self.before
        return self.asked[index].suggestion if index < len(self.asked) else DONE


class AdaptationJudge(Judge):
    """Holds adaptations against nothing and selects none: the report compares them."""

    def trouble(self, seed: int) -> str | None:
        """No trouble: the judge needs no reference."""
        return None

    def judge(self, run: Run, trial: Trial, metrics: Mapping[str, float]) -> dict[str, float]:
        """No further metrics; the trial's course is that of the first metric of its task."""
        task = next(task for task in self.tasks if task.name == adaptation_of(trial).task)
        name = next(iter(task.metrics))
        trial.course[int(metrics["step"])] = {name: metrics[f"val/{task.name}/{name}"]}
        return {}

    def summary(self, trial: Trial) -> str:
        """The value of the task's first metric at the end; '' before the first report."""
        if not trial.course:
            return ""
        ((name, value),) = trial.course[max(trial.course)].items()
        return f"{name} {value:.4f}" if math.isfinite(value) else "no valid label"


def adaptation_of(trial: Trial) -> Adaptation:
    """What a trial of the stage adapts to what."""
    return Adaptation.of(trial.params["adaptation"])


class Stage:
    """The stage before its first trial, or before the first one after a stop.

    Args:
        asked: all that is wanted, done already or not.
        experiment: what trials are built from.
        log: what earlier starts have done, and where charges are written to.
        clock: seconds.

    Attributes:
        run: of all adaptations.
        pending: what is to be run, in that order.
        passes: that it costs.
    """

    def __init__(
        self,
        asked: Sequence[Adaptation],
        experiment: TransferExperiment,
        log: EventLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.asked = asked
        replayed = replay(log.folder, models=False)
        pending_entries, ended = dict(replayed.pending), list(replayed.ended)
        remaining = set(asked) - finished(entry.trial for entry in ended)
        for name, entry in replayed.pending.items():
            # Not asked for any more, or its model was replaced, or it is done elsewhere.
            if adaptation_of(entry.trial) not in remaining:
                ended.append(replace(pending_entries.pop(name), trial=replace(entry.trial, status=Status.KILLED)))
        begun = [adaptation_of(entry.trial) for entry in pending_entries.values()]
        new = [adaptation for adaptation in asked if adaptation in remaining and adaptation not in begun]
        self.pending, before = [*begun, *new], len(ended) + len(begun)
        passes = {each: experiment.passes_of(each) for each in sorted(self.pending, key=lambda each: each.seed)}
        self.passes = sum(sum(kinds.values()) for kinds in passes.values())
        seed, planned = self.pending[0].seed if self.pending else 0, before + len(new)
        self.run = StageRun(NAME, seed, "", math.inf, (), planned, Role.CONTROL)
        judge = AdaptationJudge(experiment.config.objective, experiment.data(asked[0].seed).unseen_tasks)
        ledger = Ledger({}, charges=replayed.charges, record=log.charged)
        self.comparison = Comparison(judge, [self.run], ledger, clock=clock)
        self.scheduler = Scheduler(
            self.comparison,
            lambda run: Adaptations(new, before),
            lambda suggestion, _: passes.get(Adaptation.of(suggestion.params["adaptation"]), {}),
            experiment.settings.reports,
            retries=experiment.config.resources.retries,
            concurrency=max(1, planned),  # they do not depend on each other
            models=False,
        )
        self.scheduler.resume(ended, pending_entries)

    @property
    def missing(self) -> set[Adaptation]:
        """What has been asked for and has not come to its end."""
        return set(self.asked) - finished(self.run.trials)

    def rows(self, present: Mapping[tuple[str, int], str]) -> list[dict[str, Any]]:
        """A row for each adaptation that was not stopped, of its newest trial.

        What earlier trials of it had cost, and processes that were lost, is in ``lost_passes``. Models that were
        replaced since are left out: ``present`` has the digests of those at hand, by arm and seed.
        """
        charged: dict[str, float] = defaultdict(float)
        for charge in self.comparison.ledger:
            charged[charge.trial] += charge.passes
        spent: dict[Adaptation, float] = defaultdict(float)
        newest: dict[Adaptation, Trial] = {}
        for trial in self.run.trials:
            adaptation = adaptation_of(trial)
            spent[adaptation] += charged[trial.name]
            newest[adaptation] = trial
        return [
            _row(adaptation, trial, spent[adaptation] - trial.passes)
            for adaptation, trial in newest.items()
            if trial.status not in (Status.RUNNING, Status.KILLED)
            and present.get((adaptation.arm, adaptation.seed), adaptation.digest) == adaptation.digest
        ]


def finished(trials: Iterable[Trial]) -> set[Adaptation]:
    """The adaptations that have come to their end."""
    return {adaptation_of(trial) for trial in trials if trial.status == Status.FINISHED}


def _row(adaptation: Adaptation, trial: Trial, lost: float) -> dict[str, Any]:
    hidden = ("sparsity/layer", "cost/")
    return asdict(adaptation) | {
        "status": trial.status,
        "error": trial.error,
        "curve": [[step, _finite(value)] for step, values in trial.course.items() for value in values.values()],
        "metrics": {key: _finite(value) for key, value in trial.metrics.items() if not key.startswith(hidden)},
        "passes": trial.passes,
        "device_seconds": trial.device_seconds,
        "wall_seconds": trial.seconds,
        "lost_passes": lost if lost > 1e-6 else 0.0,  # above rounding
    }


def _finite(value: float) -> float | None:
    """A value, or None for what JSON cannot hold: there was no valid label."""
    return value if math.isfinite(value) else None
