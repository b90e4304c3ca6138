"""The arms: ways of choosing λ, each a sampler, the methods whose trials may win, and a line about itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ms_automl.comparison.experiment import Suggestion
from ms_automl.config import Config
from ms_automl.environment.siblings import ours
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers import optuna as optuna_search
from ms_automl.samplers.base import ListedTrials, RandomSearch, Sampler, fixed_lambda, grid, pruned
from ms_automl.samplers.meta import MetaOptunaSearch, MetaSparsitySearcher
from ms_automl.samplers.multi_fidelity import Path as WarmPath
from ms_automl.samplers.multi_fidelity import TopK
from ms_automl.samplers.optuna import OptunaSearch

with ours():
    from search_spaces import Parameter, Space

PRUNING_LEVEL = (Parameter("level", 0.05, 0.95, "linear"),)
WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
REGULARISING = 4
"""Values of λ that `dense-reg` tries: the lower half of the bounds, where no group dies."""


@dataclass(frozen=True)
class Stage:
    """What an arm's sampler is made for: one seed of a comparison.

    Attributes:
        config: the whole configuration.
        space: what λ may be.
        seed: of the stream.
        journal: file that Optuna's studies are kept in; None keeps none.
    """

    config: Config
    space: Space
    seed: int
    journal: Path | None = None

    @property
    def trials(self) -> int:
        """How many the budget allows."""
        return self.config.budget.trials

    @property
    def reports(self) -> int:
        """Of a whole trial."""
        return self.config.training.reports


@dataclass(frozen=True)
class Arm:
    """A way of choosing λ.

    Attributes:
        about: one line for ``--help`` and reports.
        sampler: proposes the trials of one stream.
        first: the method of its first trial, which the budget must afford.
        winners: the methods whose trials may be selected.
        single: whether it runs one trial whatever the budget.
        share: of the limit that the other arms have; infinite for the dense reference, charged to nobody.
    """

    about: str
    sampler: Callable[[Stage], Sampler]
    first: str
    winners: tuple[str, ...]
    single: bool = False
    share: float = 1.0


def _dense(stage: Stage) -> Sampler:
    return ListedTrials([Suggestion("dense", {"probe": True}, {})])


def _dense_reg(stage: Stage) -> Sampler:
    decays = [Suggestion("dense", {"weight_decay": decay}, {"weight_decay": decay}) for decay in WEIGHT_DECAYS]
    low, high = stage.config.lambda_.low, stage.config.lambda_.high
    thawed = []
    for index in range(REGULARISING):
        value = low * (high / low) ** (index / (2 * (REGULARISING - 1)))
        schedule = _constant(stage.space, value)
        thawed.append(
            Suggestion("fixed_lambda", {"schedule": schedule.to_dict(), "freeze": False}, {"lambda": value})
        )
    return ListedTrials([*decays, *thawed])


def _fixed(stage: Stage) -> Sampler:
    value = stage.config.lambda_.fixed
    params = {"schedule": _constant(stage.space, value).to_dict()}
    return ListedTrials([Suggestion("fixed_lambda", params, {"lambda": value})])


def _constant(space: Space, value: float) -> LambdaSchedule:
    """One λ for every layer."""
    return LambdaSchedule.constant({layer: value for layers in space.layers.values() for layer in layers})


def _random(stage: Stage) -> Sampler:
    return RandomSearch(stage.space.parameters, fixed_lambda(stage.space), stage.seed)


def _grid(stage: Stage) -> Sampler:
    return grid(stage.space.parameters, fixed_lambda(stage.space), stage.trials)


def _path(stage: Stage) -> Sampler:
    return WarmPath(grid(stage.space.parameters, fixed_lambda(stage.space), stage.trials))


def _top_k(stage: Stage) -> Sampler:
    rung = max(1, round(stage.reports / 3))
    training = stage.config.training
    # The last report may come after fewer steps than the others.
    share = min(1.0, rung * training.report_every / training.steps)
    return TopK(stage.space.parameters, fixed_lambda(stage.space), stage.seed, stage.trials, rung, share)


def _optuna(
    name: str, sampler: optuna_search.MakeSampler = optuna_search.tpe, halving: bool = False
) -> Callable[[Stage], Sampler]:
    def build(stage: Stage) -> Sampler:
        return OptunaSearch(
            stage.space.parameters,
            fixed_lambda(stage.space),
            stage.seed,
            stage.trials,
            sampler=sampler,
            rungs=optuna_search.rungs(stage.reports) if halving else (),
            journal=stage.journal,
            name=f"{name}-{stage.seed}",
        )

    return build


def _prune(criterion: str) -> Callable[[Stage], Sampler]:
    def build(stage: Stage) -> Sampler:
        render = pruned(criterion)
        if stage.config.objective.kind == "target":
            # The ramp removes at least what is asked, so one trial at the target is the whole search.
            return ListedTrials([render({"level": stage.config.objective.target})])
        return OptunaSearch(
            PRUNING_LEVEL,
            render,
            stage.seed,
            stage.trials,
            journal=stage.journal,
            name=f"prune-{criterion}-{stage.seed}",
        )

    return build


def _meta(stage: Stage) -> Sampler:
    return ListedTrials([Suggestion("meta_sparsity", {}, {})])


def _meta_search(stage: Stage) -> Sampler:
    return MetaSparsitySearcher(stage.space, stage.seed)


def _meta_optuna(stage: Stage) -> Sampler:
    return MetaOptunaSearch(
        stage.space, stage.seed, stage.trials, journal=stage.journal, name=f"meta-optuna-{stage.seed}"
    )


_FIXED = "fixed_lambda"
ARMS: dict[str, Arm] = {
    "dense": Arm("λ = 0: the reference, charged to nobody", _dense, "dense", ("dense",), True, math.inf),
    "dense-reg": Arm(
        "dense at the best of 4 weight decays, and of 4 λ whose zeros are not frozen",
        _dense_reg,
        "dense",
        ("dense", _FIXED),
    ),
    "fixed": Arm("the λ that the preset states", _fixed, _FIXED, (_FIXED,), True),
    "random": Arm("random search over λ", _random, _FIXED, (_FIXED,)),
    "random-2x": Arm("random search with twice the budget", _random, _FIXED, (_FIXED,), share=2.0),
    "grid": Arm("log-spaced values of one λ for all layers", _grid, _FIXED, (_FIXED,)),
    "path": Arm("the same values upward, each from the weights of the last", _path, _FIXED, (_FIXED,)),
    "topk": Arm("many candidates for a third of a trial, the best to the end", _top_k, _FIXED, (_FIXED,)),
    "optuna": Arm("Optuna's TPE over λ", _optuna("optuna"), _FIXED, (_FIXED,)),
    "optuna-gp": Arm(
        "Optuna's Gaussian process over λ", _optuna("optuna-gp", optuna_search.gp), _FIXED, (_FIXED,)
    ),
    "optuna-asha": Arm(
        "Optuna's TPE, two thirds stopped at each rung", _optuna("optuna-asha", halving=True), _FIXED, (_FIXED,)
    ),
    "prune-taylor": Arm(
        "gradual Taylor pruning, no λ; TPE over its level", _prune("taylor"), "pruned", ("pruned",)
    ),
    "prune-magnitude": Arm("the same by LAMP scores of the weights", _prune("magnitude"), "pruned", ("pruned",)),
    "meta": Arm("λ learned in one training", _meta, "meta_sparsity", ("meta_sparsity",), True),
    "meta-search": Arm("the learned λ tried and refined as a fixed λ", _meta_search, "meta_sparsity", (_FIXED,)),
    "meta-optuna": Arm("Optuna's TPE around the learned λ", _meta_optuna, "meta_sparsity", (_FIXED,)),
}
