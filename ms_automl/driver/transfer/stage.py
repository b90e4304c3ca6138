"""The stage as the scheduler knows it: one run whose trials are adaptations, and the rows of these."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ms_automl.comparison.events import EventLog, Replay
from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import Role, Run, Status, Suggestion, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.driver.scheduler import Scheduler
from ms_automl.driver.transfer.adaptation import Adaptation
from ms_automl.driver.transfer.experiment import TransferExperiment
from ms_automl.meta import Reference
from ms_automl.samplers.base import DONE, Answer, Observation, Sampler
from ms_automl.tasks import Task

NAME = "transfer"


@dataclass
class StageRun(Run):
    """The adaptations of all arms and seeds."""

    @property
    def name(self) -> str:
        """The stage's name: a comparison has one stage."""
        return self.arm


class Adaptations(Sampler):
    """Suggests what is left of a list, in its order.

    Args:
        asked: the list.
        before: of how many trials earlier starts have been suggested: what failed there is tried again.
    """

    least = 0.0

    def __init__(self, asked: Sequence[Adaptation], before: int) -> None:
        self.asked = asked
        self.before = before

    def ask(self, trials: Sequence[Observation]) -> Suggestion | Answer:
        """The first adaptation that has not been suggested yet; DONE after the last."""
        index = len(trials) - self.before
        return self.asked[index].suggestion if index < len(self.asked) else DONE


class AdaptationJudge(Judge):
    """Holds adaptations against nothing while they run: the report compares them."""

    def reference(self, seed: int) -> Reference | None:
        """No reference: the judge needs none."""
        return None

    def trouble(self, seed: int) -> str | None:
        """No trouble: the judge needs no reference."""
        return None

    def judge(self, run: Run, trial: Trial, metrics: Mapping[str, float]) -> dict[str, float]:
        """No further metrics; the trial's course is that of the first metric of its task."""
        task = next(task for task in self.tasks if task.name == adaptation_of(trial).task)
        name = next(iter(task.metrics))
        trial.course[int(metrics["step"])] = {name: metrics[f"val/{task.name}/{name}"]}
        return {}

    def select(self, run: Run, trial: Trial, seconds: float) -> None:
        """Select no adaptation: the report compares them."""

    def summary(self, trial: Trial) -> str:
        """The value of the task's first metric at the end; '' before the first report."""
        if not trial.course:
            return ""
        ((name, value),) = trial.course[max(trial.course)].items()
        return f"{name} {value:.4f}" if math.isfinite(value) else "no valid label"


def adaptation_of(trial: Trial) -> Adaptation:
    """What a trial of the stage adapts to what."""
    return Adaptation.of(trial.params["adaptation"])


@dataclass(frozen=True)
class Stage:
    """A stage before its first trial, or before the first one after a stop.

    Attributes:
        run: of all adaptations.
        comparison: its state.
        scheduler: of its trials.
        pending: what is to be run, in that order.
        passes: that it costs.
    """

    run: StageRun
    comparison: Comparison
    scheduler: Scheduler
    pending: Sequence[Adaptation]
    passes: float

    def missing(self, asked: Collection[Adaptation]) -> set[Adaptation]:
        """What has been asked for and has not come to its end."""
        return set(asked) - finished(self.run.trials)

    def rows(self, present: Mapping[tuple[str, int], str]) -> list[dict[str, Any]]:
        """A row for each adaptation but those that were stopped, and those of models that were replaced since.

        Args:
            present: digests of the models, by arm and seed.
        """
        found = rows_of(self.run.trials, self.comparison.ledger)
        return [row for row in found if present.get((row["arm"], row["seed"]), row["digest"]) == row["digest"]]


def assemble_stage(
    asked: Sequence[Adaptation],
    experiment: TransferExperiment,
    log: EventLog,
    replayed: Replay,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Stage:
    """The stage as far as earlier starts have come, and what is left of it.

    Args:
        asked: all that is wanted.
        experiment: what trials are built from.
        log: that charges are written to.
        replayed: what earlier starts have done.
        clock: seconds.
    """
    pending_entries, ended = dict(replayed.pending), list(replayed.ended)
    remaining = set(asked) - finished(entry.trial for entry in ended)
    for name, entry in replayed.pending.items():
        # Not asked for any more, or its model was replaced, or it is done elsewhere.
        if adaptation_of(entry.trial) not in remaining:
            ended.append(replace(pending_entries.pop(name), trial=replace(entry.trial, status=Status.KILLED)))
    begun = [adaptation_of(entry.trial) for entry in pending_entries.values()]
    new = [adaptation for adaptation in asked if adaptation in remaining and adaptation not in begun]
    pending, before = [*begun, *new], len(ended) + len(begun)
    passes = {each: experiment.passes_of(each) for each in sorted(pending, key=lambda each: each.seed)}
    run = StageRun(NAME, pending[0].seed if pending else 0, "", math.inf, (), before + len(new), Role.CONTROL)
    ledger = Ledger({}, charges=replayed.charges, record=log.charged)
    tasks: Sequence[Task] = experiment.data(asked[0].seed).unseen_tasks
    comparison = Comparison(AdaptationJudge(experiment.config.objective, tasks), [run], ledger, clock=clock)
    scheduler = Scheduler(
        comparison,
        {run.name: Adaptations(new, before)},
        lambda suggestion, _: passes.get(Adaptation.of(suggestion.params["adaptation"]), {}),
        experiment.settings.reports,
        retries=experiment.config.resources.retries,
        concurrency=max(1, run.planned_trials),  # they do not depend on each other
        models=False,
    )
    scheduler.resume(ended, pending_entries)
    return Stage(run, comparison, scheduler, pending, sum(sum(kinds.values()) for kinds in passes.values()))


def finished(trials: Collection[Trial] | Iterator[Trial]) -> set[Adaptation]:
    """The adaptations that have come to their end."""
    return {adaptation_of(trial) for trial in trials if trial.status == Status.FINISHED}


def rows_of(trials: Sequence[Trial], ledger: Ledger) -> list[dict[str, Any]]:
    """A row for each adaptation that was not stopped, of its newest trial.

    What earlier trials of it had cost, and processes that were lost, is in ``lost_passes``.
    """
    charged: dict[str, float] = defaultdict(float)
    for charge in ledger:
        charged[charge.trial] += charge.passes
    spent: dict[Adaptation, float] = defaultdict(float)
    newest: dict[Adaptation, Trial] = {}
    for trial in trials:
        adaptation = adaptation_of(trial)
        spent[adaptation] += charged[trial.name]
        newest[adaptation] = trial
    return [
        asdict(adaptation) | _row(trial) | {"lost_passes": _above_rounding(spent[adaptation] - trial.passes)}
        for adaptation, trial in newest.items()
        if trial.status not in (Status.RUNNING, Status.KILLED)
    ]


def _row(trial: Trial) -> dict[str, Any]:
    hidden = ("sparsity/layer", "cost/")
    return {
        "status": trial.status,
        "error": trial.error,
        "curve": [[step, _finite(value)] for step, values in trial.course.items() for value in values.values()],
        "metrics": {key: _finite(value) for key, value in trial.metrics.items() if not key.startswith(hidden)},
        "passes": trial.passes,
        "device_seconds": trial.device_seconds,
        "wall_seconds": trial.seconds,
    }


def _above_rounding(passes: float) -> float:
    return passes if passes > 1e-6 else 0.0


def _finite(value: float) -> float | None:
    """A value, or None for what JSON cannot hold: there was no valid label."""
    return value if math.isfinite(value) else None
