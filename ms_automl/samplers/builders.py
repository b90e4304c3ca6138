"""The arms' samplers, by name, built from what they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ms_automl.comparison.registry import Parameter
from ms_automl.comparison.run import Suggestion
from ms_automl.errors import ConfigError
from ms_automl.samplers.base import (
    ListedTrials,
    RandomSearch,
    Render,
    Sampler,
    SamplerInputs,
    TopK,
    WarmPath,
    fixed_lambda,
    grid,
)
from ms_automl.samplers.meta import MetaInOptuna, MetaOptuna, MetaSparsity
from ms_automl.samplers.optuna import MakeSampler, OptunaSearch, gp, rungs, tpe

PRUNING_LEVEL = (Parameter("level", 0.05, 0.95, "linear"),)
REST = Parameter("rest", 0.0, 0.67, "linear")
"""From the lower bound of λ, where it does next to nothing, to twice as far upward as by default."""
KNOBS = {
    "iht": Parameter("period", 0.02, 0.25, "log"),
    "l0": Parameter("gate_lr", 0.01, 1.0, "log"),
    "hesso": Parameter("length", 0.07, 0.8, "linear"),
    "greg": Parameter("delta", 1e-5, 1.0, "log"),
    "group-norm": Parameter("reg", 1e-5, 1.0, "log"),
}
"""By rule, the knob that its tuned variant searches: two decades or more around the published default."""
WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
REGULARISING = 4
"""Values of λ that `dense-reg` tries: the lower half of the bounds, where no group dies."""


def _constant(given: SamplerInputs, value: float, **params: bool | str) -> Suggestion:
    """One λ for every layer."""
    trial = fixed_lambda(given.space)(dict.fromkeys(given.space.layers, value))
    return Suggestion(trial.method, trial.params | params, {"lambda": value})


def _dense_regularised(given: SamplerInputs) -> Sampler:
    """Dense trainings at several weight decays, and at small λ whose zeros are not frozen."""
    decays = [Suggestion("dense", {"weight_decay": decay}, {"weight_decay": decay}) for decay in WEIGHT_DECAYS]
    low, high = given.bounds.low, given.bounds.high
    values = [low * (high / low) ** (index / (2 * (REGULARISING - 1))) for index in range(REGULARISING)]
    return ListedTrials([*decays, *(_constant(given, value, freeze=False) for value in values)])


def _random(given: SamplerInputs) -> RandomSearch:
    return RandomSearch(given.parameters, given.render, given.seed)


def _grid(given: SamplerInputs) -> list[Suggestion]:
    return grid(given.space.parameters, fixed_lambda(given.space), given.config.budget.trials)


def _top_k(given: SamplerInputs) -> Sampler:
    training = given.config.training
    rung = max(1, round(training.reports / 3))
    # The last report may come after fewer steps than the others.
    share = min(1.0, rung * training.report_every / training.steps)
    return TopK(_random(given), given.config.budget.trials, rung, share)


def _optuna(name: str, sampler: MakeSampler, halving: bool = False) -> Callable[[SamplerInputs], Sampler]:
    def build(given: SamplerInputs) -> Sampler:
        return OptunaSearch(
            given.parameters,
            given.render,
            given.seed,
            given.config.budget.trials,
            sampler=sampler,
            rungs=rungs(given.config.training.reports) if halving else (),
            journal=given.journal,
            name=f"{name}-{given.seed}",
        )

    return build


def _told(given: SamplerInputs) -> dict[str, float]:
    """The level, where a target is asked for."""
    return {"level": given.asked.target} if given.asked.kind == "target" else {}


def _levelled(
    name: str, render: Render, *knobs: Parameter, sampler: MakeSampler = tpe
) -> Callable[[SamplerInputs], Sampler]:
    """Trials of what is told a level: the target that is asked for, else searched; knobs are searched with it."""

    def build(given: SamplerInputs) -> Sampler:
        told = _told(given)
        parameters = knobs if told else (*PRUNING_LEVEL, *knobs)
        if not parameters:  # it removes at least what is asked, so one trial is the whole search
            return ListedTrials([render(told)])
        trials, study = given.config.budget.trials, f"{name}-{given.seed}"
        return OptunaSearch(
            parameters,
            lambda values: render(told | values),
            given.seed,
            trials,
            sampler=sampler,
            journal=given.journal,
            name=study,
        )

    return build


def _pruned(criterion: str) -> Callable[[SamplerInputs], Sampler]:
    def render(values: dict[str, float]) -> Suggestion:
        return Suggestion("pruned", {"level": values["level"], "criterion": criterion}, values)

    return _levelled(f"prune-{criterion}", render)


def _smac(given: SamplerInputs) -> Sampler:
    from ms_automl.samplers.smac import SmacSearch

    return SmacSearch(given.parameters, given.render, given.seed, given.config.budget.trials)


def _smac_level(given: SamplerInputs) -> Sampler:
    from ms_automl.samplers.smac import SmacSearch

    told = _told(given)
    parameters = (REST,) if told else (*PRUNING_LEVEL, REST)
    trials = given.config.budget.trials
    return SmacSearch(parameters, lambda values: _level(told | values), given.seed, trials)


def _level(values: dict[str, float]) -> Suggestion:
    """A share of zeros, and where λ of the rest lies between the bounds."""
    learning = {"learner": "waterfill", "rest": values["rest"]}
    return Suggestion("meta_sparsity", {"learning": learning, "level": values["level"]}, values)


def _rival(rule: str, *knobs: Parameter) -> Callable[[SamplerInputs], Sampler]:
    def render(values: dict[str, float]) -> Suggestion:
        return Suggestion("rival", {"rule": rule} | values, values)

    return _levelled(f"{rule}-tuned" if knobs else rule, render, *knobs)


def _d_gating(given: SamplerInputs, *, tuned: bool = False) -> Sampler:
    """At a hundredth of the λ that the preset states, or over λ; cut to the target where one is asked for.

    The penalty is part of the gradient, which Adam divides by its own size: much less of it acts as a prox does.
    """
    told = _told(given)

    def render(values: dict[str, float]) -> Suggestion:
        return Suggestion("rival", {"rule": "d-gating", "lambda_": values["lambda"]} | told, values)

    if not tuned:
        return ListedTrials([render({"lambda": given.fixed / 100})])
    parameters = (Parameter("lambda", given.bounds.low / 1000, given.bounds.high, "log"),)
    trials, name = given.config.budget.trials, f"d-gating-tuned-{given.seed}"
    return OptunaSearch(parameters, render, given.seed, trials, journal=given.journal, name=name)


def _single_task_sparse(given: SamplerInputs) -> Sampler:
    value = given.fixed
    return ListedTrials([Suggestion("single_task", {"lambda_": value}, {"lambda": value})])


def _overparam_tuned(given: SamplerInputs) -> Sampler:
    """One λ, up to a hundred times what ordinary weights take: U and M make up for a V that shrinks."""
    parameters = (Parameter("lambda", given.bounds.low, 100 * given.bounds.high, "log"),)

    def render(values: dict[str, float]) -> Suggestion:
        return replace(_constant(given, values["lambda"]), method="overparam")

    trials, name = given.config.budget.trials, f"overparam-tuned-{given.seed}"
    return OptunaSearch(parameters, render, given.seed, trials, journal=given.journal, name=name)


def _meta_optuna(given: SamplerInputs) -> Sampler:
    name = f"meta-optuna-{given.seed}"
    return MetaOptuna(given.space, given.seed, given.config.budget.trials, journal=given.journal, name=name)


def _meta_in_optuna(given: SamplerInputs) -> Sampler:
    if not given.config.tuned:
        raise ConfigError(
            "arm 'meta-in-optuna' searches training settings, but none is to be tuned: "
            "--tune training.lr --tune training.weight_decay, or leave it out"
        )
    if given.config.meta.learner != "waterfill":
        raise ConfigError(
            f"arm 'meta-in-optuna' asks learner '{given.config.meta.learner}' for a level, which it cannot be: "
            "set meta.learner=waterfill, or leave the arm out"
        )
    trials, name = given.config.budget.trials, f"meta-in-optuna-{given.seed}"
    return MetaInOptuna(
        given.config.tuned, given.seed, trials, told=_told(given), journal=given.journal, name=name
    )


SAMPLERS: dict[str, Callable[[SamplerInputs], Sampler]] = {
    "meta-search": lambda given: MetaSparsity(given.space, given.seed),
    "meta-optuna": _meta_optuna,
    "meta-in-optuna": _meta_in_optuna,
    "optuna": _optuna("optuna", tpe),
    "optuna-gp": _optuna("optuna-gp", gp),
    "optuna-asha": _optuna("optuna-asha", tpe, halving=True),
    "topk": _top_k,
    "random": _random,
    "random-2x": _random,
    "grid": lambda given: ListedTrials(_grid(given)),
    "path": lambda given: WarmPath(_grid(given)),
    "fixed": lambda given: ListedTrials([_constant(given, given.fixed)]),
    "fixed-adam": lambda given: ListedTrials([_constant(given, given.fixed, prox_metric="adam")]),
    **{f"prune-{name}": _pruned(name) for name in ("taylor", "magnitude", "l2", "fpgm", "isomorphic")},
    "smac": _smac,
    "smac-level": _smac_level,
    "optuna-level": _levelled("optuna-level", _level, REST, sampler=gp),
    **{rule: _rival(rule) for rule in ("iht", "l0", "hesso", "greg", "group-norm", "pat")},
    **{f"{rule}-tuned": _rival(rule, knob) for rule, knob in KNOBS.items()},
    "d-gating": _d_gating,
    "d-gating-tuned": lambda given: _d_gating(given, tuned=True),
    "single-sparse": _single_task_sparse,
    "overparam-sparse": lambda given: ListedTrials([replace(_constant(given, given.fixed), method="overparam")]),
    "overparam-tuned": _overparam_tuned,
    "dense-reg": _dense_regularised,
}
