"""The arms: ways of choosing λ, each a sampler, the methods whose trials may win, and a line about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ms_automl.config import Config
from ms_automl.meta import LambdaSchedule
from ms_automl.tuning.experiment import Suggestion
from ms_automl.tuning.meta_search import MetaSparsitySearcher
from ms_automl.tuning.optuna_search import OptunaSearch
from ms_automl.tuning.sampling import OneTrial, RandomSearch, Sampler, fixed_lambda, pruned
from search_spaces import Parameter, Space

PRUNING_LEVEL = (Parameter("level", 0.05, 0.95, "linear"),)


@dataclass(frozen=True)
class Arm:
    """A way of choosing λ.

    Attributes:
        about: one line for ``--help`` and reports.
        sampler: proposes the trials of one stream, from the configuration, the λ space and the seed.
        first: the method of its first trial, which the budget must afford.
        winners: the methods whose trials may be selected.
        single: whether it runs one trial whatever the budget.
        limited: whether the budget limits it; the dense reference is charged to nobody.
    """

    about: str
    sampler: Callable[[Config, Space, int], Sampler]
    first: str
    winners: tuple[str, ...]
    single: bool = False
    limited: bool = True


def _dense(config: Config, space: Space, seed: int) -> Sampler:
    return OneTrial(Suggestion("dense", {"probe": True}, {}))


def _fixed(config: Config, space: Space, seed: int) -> Sampler:
    schedule = LambdaSchedule.constant(
        {layer: config.lambda_.fixed for layers in space.layers.values() for layer in layers}
    )
    return OneTrial(Suggestion("fixed_lambda", {"schedule": schedule.to_dict()}, {"lambda": config.lambda_.fixed}))


def _random(config: Config, space: Space, seed: int) -> Sampler:
    return RandomSearch(space.parameters, fixed_lambda(space), seed)


def _optuna(config: Config, space: Space, seed: int) -> Sampler:
    return OptunaSearch(space.parameters, fixed_lambda(space), seed, config.budget.trials)


def _prune_taylor(config: Config, space: Space, seed: int) -> Sampler:
    if config.objective.kind == "target":
        # The ramp removes at least what is asked, so one trial at the target is the whole search.
        return OneTrial(pruned({"level": config.objective.target}))
    return OptunaSearch(PRUNING_LEVEL, pruned, seed, config.budget.trials)


def _meta(config: Config, space: Space, seed: int) -> Sampler:
    return OneTrial(Suggestion("meta_sparsity", {}, {}))


def _meta_search(config: Config, space: Space, seed: int) -> Sampler:
    return MetaSparsitySearcher(space, seed)


ARMS: dict[str, Arm] = {
    "dense": Arm("λ = 0: the reference, charged to nobody", _dense, "dense", ("dense",), True, False),
    "fixed": Arm("the λ that the preset states", _fixed, "fixed_lambda", ("fixed_lambda",), True),
    "random": Arm("random search over λ", _random, "fixed_lambda", ("fixed_lambda",)),
    "optuna": Arm("Optuna's TPE over λ", _optuna, "fixed_lambda", ("fixed_lambda",)),
    "prune-taylor": Arm("gradual Taylor pruning, no λ; TPE over its level", _prune_taylor, "pruned", ("pruned",)),
    "meta": Arm("λ learned in one training", _meta, "meta_sparsity", ("meta_sparsity",), True),
    "meta-search": Arm(
        "the learned λ tried and refined as a fixed λ", _meta_search, "meta_sparsity", ("fixed_lambda",)
    ),
}
