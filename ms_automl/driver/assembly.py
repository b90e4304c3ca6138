"""From a configuration to what a comparison is made of: checks, runs with their limits, the scheduler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from rich.console import Console

from ms_automl.comparison.events import EventLog, Replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import FIXED, Run, Suggestion
from ms_automl.comparison.state import Comparison
from ms_automl.config import Config
from ms_automl.data import MultiTaskData, inspect
from ms_automl.driver.scheduler import PlannedPasses, Scheduler
from ms_automl.environment.progress import shown
from ms_automl.errors import BudgetError, ConfigError, DataError
from ms_automl.meta.lambda_bounds import LambdaBounds
from ms_automl.samplers.arms import ARMS, REFERENCE
from ms_automl.samplers.base import Sampler, SamplerInputs
from ms_automl.training.constant import extremes

MEASURED = {"bounds/step": 0.2, "bounds/shrink": 0.05}
"""What a dense training by Adam would measure, about."""
ANY = LambdaBounds.measured(*MEASURED.values())
"""Bounds of λ where it does not matter which."""


def check_batches(config: Config, data: MultiTaskData) -> None:
    """Raise ConfigError where a split has no whole batch."""
    for name, split in (("train", data.train), ("val", data.val)):
        sizes = (each.high for each in config.tuned if each.name == "training.batch_size")
        largest = max(config.training.batch_size, *map(int, sizes), 0)
        if largest > len(split):
            raise ConfigError(
                f"training.batch_size must be at most the {name} split's {len(split)} samples, but got {largest}"
            )


def look_at_data(experiment: Experiment, seeds: Sequence[int], console: Console) -> None:
    """Look at every sample of every seed's data before anything trains, and say what is odd about them.

    Raises:
        DataError: naming seed, split, task and sample.
    """
    first = experiment.data(seeds[0])
    for seed in seeds:
        prefix = f"seed {seed}: " if len(seeds) > 1 else ""
        data = experiment.data(seed)
        try:
            if _kind(data) != _kind(first):
                raise DataError(
                    f"tasks or image shape are not those of seed {seeds[0]}: a seed decides samples alone"
                )
            with shown(console, f"looking at the data, {prefix}", stays=False) as progress:
                warnings = inspect(data, progress)
        except DataError as error:
            raise DataError(f"{prefix}{error}") from error
        for line in warnings:
            console.print(f"{prefix}{line}", markup=False, soft_wrap=True)


def _kind(data: MultiTaskData) -> object:
    tasks = [(task.name, task.kind, task.head, tuple(task.metrics)) for task in (*data.tasks, *data.unseen_tasks)]
    return data.image_shape, len(data.tasks), tasks


def decided(config: Config, data: MultiTaskData) -> tuple[Config, str | None]:
    """A configuration whose `objective.scale` is decided by the first seed's data, and what to say of it.

    `auto` is the ratio to dense where every loss is 0 at its best, so that a ratio means something, else skill.

    Raises:
        ConfigError: where a ratio is asked for and would mean nothing.
    """
    objective = config.objective
    if objective.scale == "skill":
        return config, None
    scale: Literal["ratio", "skill"] = "ratio"
    said = None
    found = [(task, ends) for task, ends in extremes(data).items() if not ends.has_zero]
    if found:
        task, ends = found[0]
        why = (
            f"the loss of task '{task}' is {ends.perfect:.4g} for a perfect prediction and {ends.constant:.4g} "
            "for a constant one, so a ratio of two losses means nothing"
        )
        if objective.scale == "ratio":
            raise ConfigError(f"objective.scale=ratio: {why}; set objective.scale=skill")
        scale, said = "skill", f"objective.scale=skill: {why} (docs/protocol.md)"
    return config.model_copy(update={"objective": replace(objective, scale=scale)}), said


def arm_names(config: Config) -> list[str]:
    """The dense reference, and the arms that are relative to it."""
    return [REFERENCE, *(name for name in config.arms if name != REFERENCE)]


def _runs(experiment: Experiment) -> list[Run]:
    """Every arm with every seed; limits in the budget's unit, or in trials where the unit is measured."""
    config, unit = experiment.config, experiment.unit()
    costs = {name: unit.total(passes) if unit.planned else 1.0 for name, passes in _first_passes(experiment)}
    fixed = costs[""]
    runs = []
    for seed in config.seed_numbers:
        for name in arm_names(config):
            arm = ARMS[name]
            limit = arm.share * config.budget.trials * fixed
            needed = costs[name]
            least = needed if arm.first.method in arm.winners else needed + fixed
            if least > limit * (1 + 1e-9):
                raise BudgetError(
                    f"budget.trials={config.budget.trials} is too small for '{name}', whose first result costs "
                    f"{least / fixed:.2f} fixed-λ trials: --set budget.trials={math.ceil(least / fixed - 1e-9)}, "
                    "or leave the arm out"
                )
            planned = 1 if arm.single else 1 + int((limit - needed) / fixed + 1e-9)
            runs.append(Run(name, seed, config.space, limit, arm.winners, planned, arm.role))
    return runs


def _first_passes(experiment: Experiment) -> Iterator[tuple[str, dict[str, float]]]:
    """Passes of a fixed-λ trial, by the name '', and of the first trial of each arm."""
    seed = experiment.config.first_seed
    yield "", experiment.planned_passes(FIXED, seed)
    for name in arm_names(experiment.config):
        try:
            yield name, experiment.planned_passes(ARMS[name].first, seed)
        except ConfigError as error:
            raise ConfigError(f"{error}; or leave the arm '{name}' out") from error


def assemble(
    experiment: Experiment,
    log: EventLog | None,
    replayed: Replay | None = None,
    *,
    studies: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    planned: PlannedPasses | None = None,
) -> tuple[Comparison, Scheduler]:
    """The state of a comparison before its first trial, or the first one after a stop, and its scheduler.

    Charges are written to the ``log``, Optuna's studies to the file ``studies``, neither where it is None.
    ``planned`` is what a suggested trial costs, where not the experiment's.

    Raises:
        BudgetError: where an arm cannot have its first result.
    """
    config, unit = experiment.config, experiment.unit()
    runs = _runs(experiment)
    limits = {run.name: run.limit for run in runs} if unit.planned else {}
    done = replayed or Replay()
    ledger = Ledger(limits, unit, done.charges, *([] if log is None else [log.charged]))
    tasks = experiment.data(config.first_seed).tasks
    comparison = Comparison(Judge(config.objective, tasks), runs, ledger, clock=clock)
    asked = experiment.asked

    def sampler(run: Run, measured: LambdaBounds | None, journal: Path | None) -> Sampler:
        bounds = experiment.bounds(measured)
        return ARMS[run.arm].sampler(
            SamplerInputs(config, experiment.space(bounds), bounds, run.seed, asked, journal)
        )

    def make_sampler(run: Run) -> Sampler:
        reference = comparison.judge.reference(run.seed)
        # The dense reference's own sampler asks for no λ.
        return sampler(run, ANY if reference is None else reference.bounds, studies)

    for run in runs:
        if run.seed == config.first_seed:  # what an arm cannot do is said before anything trains
            sampler(run, ANY, None)
    scheduler = Scheduler(
        comparison,
        make_sampler,
        planned or planned_passes(experiment),
        config.training.reports,
        config.budget.retrain,
        config.resources.retries,
        config.resources.concurrency_per_run,
    )
    scheduler.resume(done.ended, done.pending)
    comparison.began -= max((entry.elapsed for entry in done.ended), default=0.0)
    return comparison, scheduler


def planned_passes(experiment: Experiment) -> PlannedPasses:
    """What whole trials cost, by their kind; of a seed all kinds at once: its data is read once."""
    arms = [ARMS[name] for name in arm_names(experiment.config)]
    winners = (Suggestion(method, {}, {}) for arm in arms for method in arm.winners)
    known = {one.kind: one for one in (FIXED, *winners, *(arm.first for arm in arms))}
    of_seed = cache(lambda seed: {kind: experiment.planned_passes(one, seed) for kind, one in known.items()})
    under: dict[tuple[object, ...], Mapping[str, float]] = {}

    def planned(suggestion: Suggestion, seed: int) -> Mapping[str, float]:
        settings = suggestion.params.get("training")
        if not settings:
            return of_seed(seed)[suggestion.kind]
        key = (suggestion.kind, seed, *sorted(settings.items()))
        if key not in under:
            under[key] = experiment.planned_passes(suggestion, seed)
        return under[key]

    return planned


def trial_cost(experiment: Experiment, comparison: Comparison) -> float:
    """What one fixed-λ trial costs in the budget's unit; where that is measured, what the first dense one took."""
    unit, seed = comparison.ledger.unit, experiment.config.first_seed
    if unit.planned:
        return unit.total(experiment.planned_passes(FIXED, seed))
    return comparison.ledger.totals(comparison.reference_runs[seed].name).spent or 1.0
