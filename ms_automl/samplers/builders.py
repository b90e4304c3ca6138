"""The arms' samplers, built from what they are given: one function for each arm."""

from __future__ import annotations

from ms_automl.comparison.registry import Parameter, Space
from ms_automl.comparison.run import Suggestion
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers import optuna
from ms_automl.samplers.base import Sampler, SamplerInputs, fixed_lambda, pruned
from ms_automl.samplers.meta import MetaOptuna, MetaSparsity
from ms_automl.samplers.multi_fidelity import TopK, WarmPath
from ms_automl.samplers.optuna import MakeSampler, OptunaSearch
from ms_automl.samplers.random import ListedTrials, RandomSearch, grid

PRUNING_LEVEL = (Parameter("level", 0.05, 0.95, "linear"),)
WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
REGULARISING = 4
"""Values of λ that `dense-reg` tries: the lower half of the bounds, where no group dies."""


def dense(given: SamplerInputs) -> Sampler:
    """One dense training, the reference."""
    return ListedTrials([Suggestion("dense", {"probe": True}, {})])


def dense_regularised(given: SamplerInputs) -> Sampler:
    """Dense trainings at several weight decays, and at small λ whose zeros are not frozen."""
    decays = [Suggestion("dense", {"weight_decay": decay}, {"weight_decay": decay}) for decay in WEIGHT_DECAYS]
    low, high = given.config.lambda_.low, given.config.lambda_.high
    thawed = []
    for index in range(REGULARISING):
        value = low * (high / low) ** (index / (2 * (REGULARISING - 1)))
        schedule = _constant(given.space, value)
        thawed.append(
            Suggestion("fixed_lambda", {"schedule": schedule.to_dict(), "freeze": False}, {"lambda": value})
        )
    return ListedTrials([*decays, *thawed])


def stated(given: SamplerInputs) -> Sampler:
    """The λ that the configuration states."""
    value = given.config.lambda_.fixed
    params = {"schedule": _constant(given.space, value).to_dict()}
    return ListedTrials([Suggestion("fixed_lambda", params, {"lambda": value})])


def _constant(space: Space, value: float) -> LambdaSchedule:
    """One λ for every layer."""
    return LambdaSchedule.constant({layer: value for layers in space.layers.values() for layer in layers})


def random_search(given: SamplerInputs) -> Sampler:
    """Random draws of λ."""
    return RandomSearch(given.space.parameters, fixed_lambda(given.space), given.seed)


def grid_search(given: SamplerInputs) -> Sampler:
    """A grid of one λ for all layers."""
    return grid(given.space.parameters, fixed_lambda(given.space), given.trials)


def warm_path(given: SamplerInputs) -> Sampler:
    """A grid of one λ for all layers, each trial from the weights of the one before."""
    return WarmPath(grid(given.space.parameters, fixed_lambda(given.space), given.trials))


def top_k(given: SamplerInputs) -> Sampler:
    """Random draws for a short while, the best of them to the end."""
    rung = max(1, round(given.reports / 3))
    training = given.config.training
    # The last report may come after fewer steps than the others.
    share = min(1.0, rung * training.report_every / training.steps)
    return TopK(given.space.parameters, fixed_lambda(given.space), given.seed, given.trials, rung, share)


def _optuna(given: SamplerInputs, name: str, sampler: MakeSampler, rungs: tuple[int, ...] = ()) -> OptunaSearch:
    return OptunaSearch(
        given.space.parameters,
        fixed_lambda(given.space),
        given.seed,
        given.trials,
        sampler=sampler,
        rungs=rungs,
        journal=given.journal,
        name=f"{name}-{given.seed}",
    )


def optuna_tpe(given: SamplerInputs) -> Sampler:
    """Optuna's tree-structured Parzen estimator over λ."""
    return _optuna(given, "optuna", optuna.tpe)


def optuna_gp(given: SamplerInputs) -> Sampler:
    """Optuna's Gaussian process over λ."""
    return _optuna(given, "optuna-gp", optuna.gp)


def optuna_halving(given: SamplerInputs) -> Sampler:
    """Optuna's tree-structured Parzen estimator over λ, with successive halving."""
    return _optuna(given, "optuna-asha", optuna.tpe, optuna.rungs(given.reports))


def _prune(given: SamplerInputs, criterion: str) -> Sampler:
    render = pruned(criterion)
    if given.config.objective.kind == "target":
        # The ramp removes at least what is asked, so one trial at the target is the whole search.
        return ListedTrials([render({"level": given.config.objective.target})])
    name = f"prune-{criterion}-{given.seed}"
    return OptunaSearch(PRUNING_LEVEL, render, given.seed, given.trials, journal=given.journal, name=name)


def prune_taylor(given: SamplerInputs) -> Sampler:
    """TPE over the level of Taylor pruning."""
    return _prune(given, "taylor")


def prune_magnitude(given: SamplerInputs) -> Sampler:
    """TPE over the level of magnitude pruning."""
    return _prune(given, "magnitude")


def meta(given: SamplerInputs) -> Sampler:
    """One training that learns λ."""
    return ListedTrials([Suggestion("meta_sparsity", {}, {})])


def meta_search(given: SamplerInputs) -> Sampler:
    """The learned λ tried and refined as a fixed λ."""
    return MetaSparsity(given.space, given.seed)


def meta_optuna(given: SamplerInputs) -> Sampler:
    """TPE around the learned λ."""
    return MetaOptuna(
        given.space, given.seed, given.trials, journal=given.journal, name=f"meta-optuna-{given.seed}"
    )
