"""What the tests of the learners of λ share: a training step made by hand, and gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from ms_automl.data import Batch
from ms_automl.meta import Reference
from ms_automl.meta.rule import Rule
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import ChannelGroups

REFERENCE = Reference({"task": 0.5}, [(10, {"task": 1.0}), (20, {"task": 0.5})])


class Told(Rule):
    """Hands on what it is told of each step, and zeroes nothing."""

    def __init__(self, hear: Callable[[TrainingStep], None] = lambda now: None) -> None:
        self.step = hear  # type: ignore[method-assign]


def at(
    index: int,
    phase: float,
    lr: float,
    *,
    outer: Callable[[], list[Tensor]] = list,
    gradients: Callable[[], list[Tensor]] = list,
) -> TrainingStep:
    return TrainingStep(
        index, phase, lr, lambda: Batch(torch.empty(0), {}, {}), gradients, lambda parameters: outer()
    )


def zeros(groups: ChannelGroups) -> Callable[[], list[Tensor]]:
    return lambda: [torch.zeros_like(weight) for weight in groups.weights]


def ones(groups: ChannelGroups) -> Callable[[], list[Tensor]]:
    return lambda: [torch.ones_like(weight) for weight in groups.weights]


def by_group(groups: ChannelGroups, cost: Tensor) -> Callable[[], list[Tensor]]:
    """Gradients along the weights such that removing group g costs cost_g, [G], per weight."""

    def gradients() -> list[Tensor]:
        pull = groups.per_weight(cost * groups.size / groups.norms().square().clamp(min=1e-12))
        return [p * weight.detach() for p, weight in zip(pull, groups.weights, strict=True)]

    return gradients
