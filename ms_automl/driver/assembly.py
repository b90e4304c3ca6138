"""From a configuration to what a comparison is made of: checks, runs with their limits, the scheduler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ms_automl.comparison.events import EventLog, Replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import Run, Suggestion
from ms_automl.comparison.state import Comparison
from ms_automl.config import Config
from ms_automl.data import MultiTaskData
from ms_automl.driver.scheduler import PlannedPasses, Scheduler
from ms_automl.errors import BudgetError, ConfigError
from ms_automl.samplers.arms import ARMS, REFERENCE, Arm
from ms_automl.samplers.base import SamplerInputs
from ms_automl.training.constant import extremes


def check_batches(config: Config, data: MultiTaskData) -> None:
    """Raise ConfigError where a split has no whole batch."""
    for name, split in (("train", data.train), ("val", data.val)):
        if config.training.batch_size > len(split):
            raise ConfigError(
                f"training.batch_size must be at most the {name} split's {len(split)} samples, "
                f"but got {config.training.batch_size}"
            )


def decided(config: Config, data: MultiTaskData) -> tuple[Config, str | None]:
    """A configuration whose `objective.scale` is decided, and what to say of it.

    `auto` is the ratio to dense where every loss is 0 at its best, so that a ratio means something, else skill.

    Args:
        config: as it was given.
        data: of the first seed.

    Raises:
        ConfigError: where a ratio is asked for and would mean nothing.
    """
    objective = config.objective
    if objective.scale == "skill":
        return config, None
    found = [(task, ends) for task, ends in extremes(data).items() if not ends.has_zero]
    if found:
        task, ends = found[0]
        why = (
            f"the loss of task '{task}' is {ends.perfect:.4g} for a perfect prediction and {ends.constant:.4g} "
            "for a constant one, so a ratio of two losses means nothing"
        )
        if objective.scale == "ratio":
            raise ConfigError(f"objective.scale=ratio: {why}; set objective.scale=skill")
        return _with_scale(config, "skill"), f"objective.scale=skill: {why} (docs/protocol.md)"
    return _with_scale(config, "ratio"), None


def _with_scale(config: Config, scale: Literal["ratio", "skill"]) -> Config:
    return config.model_copy(update={"objective": replace(config.objective, scale=scale)})


def arm_names(config: Config) -> list[str]:
    """The dense reference, and the arms that are relative to it."""
    return [REFERENCE, *(name for name in config.arms if name != REFERENCE)]


def runs_of(experiment: Experiment) -> list[Run]:
    """Every arm with every seed; limits in the budget's unit, or in trials where the unit is measured.

    Raises:
        BudgetError: where an arm cannot have its first result.
    """
    config, unit = experiment.config, experiment.unit()
    costs = {
        method: unit.total(experiment.planned_passes(method, config.first_seed)) if unit.planned else 1.0
        for method in {"fixed_lambda", *(ARMS[name].first for name in arm_names(config))}
    }
    fixed = costs["fixed_lambda"]
    runs = []
    for seed in config.seed_numbers:
        for name in arm_names(config):
            arm = ARMS[name]
            limit = arm.share * config.budget.trials * fixed
            needed = costs[arm.first]
            least = needed if arm.first in arm.winners else needed + fixed
            if least > limit * (1 + 1e-9):
                raise BudgetError(
                    f"budget.trials={config.budget.trials} is too small for '{name}', whose first result costs "
                    f"{least / fixed:.2f} fixed-λ trials: --set budget.trials={math.ceil(least / fixed - 1e-9)}, "
                    "or leave the arm out"
                )
            planned = _planned(arm, limit, needed, fixed)
            runs.append(Run(name, seed, config.space, limit, arm.winners, planned, arm.role))
    return runs


def _planned(arm: Arm, limit: float, needed: float, fixed: float) -> int:
    return 1 if arm.single else 1 + int((limit - needed) / fixed + 1e-9)


def assemble(
    experiment: Experiment,
    log: EventLog,
    replayed: Replay | None = None,
    *,
    studies: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    planned: PlannedPasses | None = None,
) -> tuple[Comparison, Scheduler]:
    """The state of a comparison before its first trial, or before the first one after a stop, and its scheduler.

    Args:
        experiment: what trials are built from.
        log: that charges are written to.
        replayed: what was done before this process began; None begins a comparison.
        studies: file that Optuna's studies are kept in; None keeps none.
        clock: seconds.
        planned: what a suggested trial costs; None is the experiment's.

    Returns:
        The comparison, which tells nobody yet, and the scheduler of its runs, each with its arm's sampler.

    Raises:
        BudgetError: where an arm cannot have its first result.
    """
    config, unit, space = experiment.config, experiment.unit(), experiment.space()
    runs = runs_of(experiment)
    limits = {run.name: run.limit for run in runs} if unit.planned else {}
    done = replayed or Replay()
    ledger = Ledger(limits, unit, done.charges, log.charged)
    tasks = experiment.data(config.first_seed).tasks
    comparison = Comparison(Judge(config.objective, tasks), runs, ledger, clock=clock)
    samplers = {run.name: ARMS[run.arm].sampler(SamplerInputs(config, space, run.seed, studies)) for run in runs}
    reports, retrain, retries = config.training.reports, config.budget.retrain, config.resources.retries
    most = config.resources.concurrency_per_run
    planned = planned or planned_passes(experiment)
    scheduler = Scheduler(comparison, samplers, planned, reports, retrain, retries, most)
    scheduler.resume(done.ended, done.pending)
    comparison.began -= max((entry.elapsed for entry in done.ended), default=0.0)
    return comparison, scheduler


def planned_passes(experiment: Experiment) -> PlannedPasses:
    """What whole trials cost, by their method; of a seed all methods at once: its data is read once."""
    arms = [ARMS[name] for name in arm_names(experiment.config)]
    methods = {"fixed_lambda", *(method for arm in arms for method in (arm.first, *arm.winners))}
    by_seed: dict[int, dict[str, dict[str, float]]] = {}

    def plan(suggestion: Suggestion, seed: int) -> dict[str, float]:
        if seed not in by_seed:
            by_seed[seed] = {method: experiment.planned_passes(method, seed) for method in methods}
        return by_seed[seed][suggestion.method]

    return plan


def trial_cost(experiment: Experiment, comparison: Comparison) -> float:
    """What one fixed-λ trial costs in the budget's unit; where that is measured, what the first dense one took."""
    unit, seed = comparison.ledger.unit, experiment.config.first_seed
    if unit.planned:
        return unit.total(experiment.planned_passes("fixed_lambda", seed))
    return comparison.ledger.totals(comparison.reference_runs[seed].name).spent or 1.0
