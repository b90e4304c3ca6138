"""Every way of training as a case: what the conformance tests run, with the arguments of each."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from ms_automl.data import MultiTaskData
from ms_automl.meta import LambdaSchedule, LearnerSettings, Objective, Reference
from ms_automl.meta.hypergradients import ESTIMATORS
from ms_automl.meta.learners import LEARNERS
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.sparsity import build_groups
from ms_automl.training import TrainingSettings
from ms_automl.training.weighting import AGGREGATORS
from search_spaces import SPACES
from trainables import METHODS, MetaSparsity

SETTINGS = TrainingSettings(steps=16, batch_size=6, lr=5e-3, report_every=3, eval_batch_size=8)
"""12 steps of the sparsifying phase; the 5th and the 6th report (steps 15 and 16) come in debiasing."""

LAYERS = ("stem", *(f"block{i}.conv{j}" for i in (1, 2) for j in (1, 2)), "block3.conv1", "block3.conv2",
          "block3.shortcut", *(f"block{i}.conv{j}" for i in (4, 5, 6) for j in (1, 2)))  # fmt: skip
REFERENCES = {"depth": 0.8, "kind": 1.0}
REFERENCE = Reference(REFERENCES, [(step, REFERENCES) for step in range(1, 41)])
CONSTANT = LambdaSchedule.constant(dict.fromkeys(LAYERS, 15.0))
STRONG = LambdaSchedule(
    LAYERS, (tuple(2.0 + index for index in range(14)), (40.0,) * 14), ((1.0,) * 14, (0.6,) * 14)
)

STREAMS = (
    "stem",
    *(f"block{i}.conv1" for i in (1, 2, 3)),
    "block3.conv2",
    *(f"block{i}.conv1" for i in (4, 5, 6)),
)


def constant(lambda_: float, layers: tuple[str, ...] = LAYERS) -> dict[str, Any]:
    return {"schedule": LambdaSchedule.constant(dict.fromkeys(layers, lambda_))}


HALVES = [0] * 7 + [1] * 7  # two λ: forward_exact carries a tangent of all weights for each


TRADEOFF = Objective("tradeoff", price=3.0)
TARGET = Objective("target", target=0.5)


SETTINGS_OF_LEARNERS = {field.name for entry in LEARNERS.values() for field in fields(entry.settings)}


def learning(learner: str, **changes: Any) -> LearnerSettings:
    kind: Any = LEARNERS[learner].settings if learner in LEARNERS else LearnerSettings
    taken = {field.name for field in fields(kind)}
    usual = {name: value for name, value in {"lambda_lr": 0.3, "unroll": 3}.items() if name in taken}
    return kind(learner=learner, **(usual | changes))


def meta(
    learner: str = "forward",
    objective: Objective = TRADEOFF,
    bounds: tuple[float, float] = (0.5, 50.0),
    ties: Sequence[int] | None = None,
    **changes: Any,
) -> tuple[str, dict[str, Any]]:
    settings = learning(learner, **changes)
    return "meta_sparsity", {
        "reference": REFERENCE, "objective": objective, "bounds": bounds, "ties": ties, "learning": settings
    }  # fmt: skip


LARGE = "dense, learned weights, micro-batches, read ahead, bfloat16"
RULES: dict[str, dict[str, Any]] = {
    "iht": {"level": 0.5},
    "dsd": {},
    "l0": {"level": 0.5, "gate_lr": 1.0},
    "hesso": {"level": 0.5, "length": 0.4, "periods": 3},
    "d-gating": {"level": 0.5, "lambda_": 15.0},
    "greg": {"level": 0.5, "delta": 0.1, "every": 2},
    "group-norm": {"level": 0.5, "reg": 0.01},
    "pat": {"level": 0.5},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {}),
    "dense, probed": ("dense", {"probe": True}),
    LARGE: ("dense", {}),
    # Every weighting is driven in tests/unit/test_weighting.py; these remember something, or see parts of a batch.
    "dense, nash-mtl": ("dense", {}),
    "dense, upgrad, micro-batches": ("dense", {}),
    "dense, famo, micro-batches": ("dense", {}),
    "mtml, famo": ("mtml", {}),
    "mtml, pcgrad": ("mtml", {}),
    "single_task, upgrad": ("single_task", {}),
    "fixed_lambda": ("fixed_lambda", constant(15.0)),
    "fixed_lambda, output channels": ("fixed_lambda", constant(15.0)),
    "fixed_lambda, coupled": ("fixed_lambda", constant(15.0, STREAMS)),
    "fixed_lambda, weights": ("fixed_lambda", constant(5.0)),
    "fixed_lambda, adam": ("fixed_lambda", constant(0.3)),
    "fixed_lambda, output channels, adam": ("fixed_lambda", constant(0.3)),
    "fixed_lambda, coupled, adam": ("fixed_lambda", constant(0.3, STREAMS)),
    "fixed_lambda, weights, adam": ("fixed_lambda", constant(0.1)),
    "fixed_lambda, a course": ("fixed_lambda", {"schedule": STRONG}),
    "meta_sparsity, trade-off": meta(),
    **{
        f"meta_sparsity, {name}": meta(name, ties=HALVES) for name in (*ESTIMATORS, "removal") if name != "forward"
    },
    "meta_sparsity, normalised steps, training batches, no corrections": meta(
        lambda_optimizer="normalised", outer="training", corrected=False
    ),
    "meta_sparsity, one λ": meta(
        objective=Objective("tradeoff"), ties=SPACES["scalar"](LAYERS, (0.5, 50.0)).ties(LAYERS)
    ),
    "meta_sparsity, output channels": meta(bounds=(0.5, 500.0)),
    "meta_sparsity, weights": meta(),
    "meta_sparsity, waterfill": meta("waterfill"),
    "meta_sparsity, waterfill, output channels": meta("waterfill"),
    "meta_sparsity, waterfill, coupled": meta("waterfill"),
    "meta_sparsity, waterfill, learned weights, micro-batches": meta("waterfill"),
    "meta_sparsity, target, coupled": meta("waterfill", TARGET),
    "meta_sparsity, target": meta("waterfill", TARGET),
    "meta_sparsity, target, weights": meta("waterfill", TARGET),
    "pruned": ("pruned", {"level": 0.5, "every": 3}),
    "pruned, output channels": ("pruned", {"level": 0.5, "every": 3}),
    "pruned, coupled": ("pruned", {"level": 0.5, "every": 3}),
    "pruned, weights": ("pruned", {"level": 0.5, "every": 3}),
    "pruned, magnitude": ("pruned", {"level": 0.5, "every": 3, "criterion": "magnitude"}),
    **{f"rival, {rule}": ("rival", {"rule": rule, **knobs}) for rule, knobs in RULES.items()},
    "rival, pat, coupled": ("rival", {"rule": "pat", "level": 0.5}),
    "rival, hesso, coupled": ("rival", {"rule": "hesso", "level": 0.5, "length": 0.4}),
    "rival, group-norm, coupled": ("rival", {"rule": "group-norm", "level": 0.5, "reg": 0.01}),
    "rival, l0, output channels": ("rival", {"rule": "l0", "level": 0.5, "gate_lr": 1.0}),
    "rival, iht, weights": ("rival", {"rule": "iht", "level": 0.5}),
    "mtml": ("mtml", {}),
    "mtml, two inner steps": ("mtml", {"inner_steps": 2}),
    "single_task": ("single_task", {}),
    "single_task, sparse": ("single_task", {"lambda_": 15.0}),
    "overparam": ("overparam", {}),
    "overparam, sparse": ("overparam", {"schedule": CONSTANT}),
    "transfer, frozen": ("transfer", {"task": "bright", "mode": "frozen"}),
    "transfer, finetuned": ("transfer", {"task": "bright", "mode": "finetuned", "shots": 9, "remembers": True}),
    "transfer, finetuned, coupled": ("transfer", {"task": "bright", "mode": "finetuned", "shots": 4}),
    "transfer, finetuned, weights": ("transfer", {"task": "bright", "mode": "finetuned"}),
    "transfer, joint": ("transfer", {"task": "bright", "mode": "joint", "shots": 9, "remembers": True}),
}
DENSE = (
    *(case for case in CASES if case.startswith(("dense", "mtml"))),
    "single_task",
    "single_task, upgrad",
    "overparam",
    "rival, dsd",
)
WORDS = {
    "output channels": {"grouping": "output_channel"},
    "coupled": {"grouping": "coupled"},
    "weights": {"grouping": "weight"},
    "adam": {"prox_metric": "adam"},
    "learned weights": {"weighting": "uncertainty"},
    "micro-batches": {"micro_batch": 4},
    "read ahead": {"prefetch": 2},
    **{weighting: {"weighting": weighting} for weighting in ("famo", *AGGREGATORS)},
    "bfloat16": {"precision": "bfloat16"},
}
"""What the words in a case's name set."""


def settings_of(case: str, settings: TrainingSettings = SETTINGS) -> TrainingSettings:
    """What the words in a case's name make of the settings."""
    for word in case.split(", "):
        settings = replace(settings, **WORDS.get(word, {}))
    return settings


class Factory:
    """Fresh trainables of a case, with their networks' initialisation always the same."""

    def __init__(self, data: MultiTaskData, network: Callable[..., MultiTaskNet]) -> None:
        self.data, self.network = data, network
        self._finished: dict[str, tuple[Any, list[dict[str, float]]]] = {}

    def __call__(self, case: str, seed: int = 0, settings: TrainingSettings = SETTINGS, **changes: Any) -> Any:
        method, arguments = CASES[case]
        own = {name: changes.pop(name) for name in [*changes] if name in SETTINGS_OF_LEARNERS}
        if own:
            learner = own.pop("learner", arguments["learning"].learner)
            changes["learning"] = learning(learner, **own)
        settings = settings_of(case, settings)
        data = changes.pop("data", self.data)
        network = self.network() if method != "transfer" else self.sparse(settings)
        return METHODS[method].build(data, network, settings, seed, **(arguments | changes))

    def sparse(self, settings: TrainingSettings) -> MultiTaskNet:
        """A network with a head for a new task, in which a third of the groups is zero."""
        network = self.network(unseen=True)
        groups = build_groups(network, settings.grouping, self.data.image_shape)
        dead = (torch.arange(len(groups.size), device=groups.size.device) % 3 == 0) & ~groups.strongest(
            groups.norms()
        )
        groups.scale_((~dead).to(groups.size.dtype))
        return network

    def finished(self, case: str) -> tuple[Any, list[dict[str, float]]]:
        """An uninterrupted run of seed 0 and its reports; not to be changed."""
        if case not in self._finished:
            method = self(case)
            self._finished[case] = method, run(method)
        return self._finished[case]


def layers_of(case: str) -> tuple[str, ...]:
    """Names of what has a λ in a case."""
    layers = STREAMS if "coupled" in case else LAYERS
    if CASES[case][0] != "single_task":
        return layers
    return tuple(f"of_task.{task}.{layer}" for task in ("depth", "kind") for layer in layers)


def planned(case: str, data: MultiTaskData, **changes: Any) -> Cost:
    """What a run of a meta-sparsity case is said to cost."""
    arguments = CASES[case][1]
    lambdas = max(arguments["ties"] or range(len(LAYERS))) + 1
    learning = replace(arguments["learning"], **changes)
    return MetaSparsity.planned_cost(data, SETTINGS, arguments["objective"], lambdas=lambdas, learning=learning)


def run(method: Any) -> list[dict[str, float]]:
    reports = []
    while not method.done:
        reports.append(method.step())
    return reports


def state(method: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.loop.network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(value, other[name]) for name, value in one.items())
