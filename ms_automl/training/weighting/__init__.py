"""How the losses of several tasks become the one that a step descends, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ms_automl.data import MultiTaskData
from ms_automl.models import MultiTaskNet
from ms_automl.training.weighting.base import Losses, Weighting
from ms_automl.training.weighting.gradients import AGGREGATORS, GradientWeighting
from ms_automl.training.weighting.losses import Chebyshev, DynamicAverage, Famo, RandomWeights, Uncertainty

Make = Callable[[MultiTaskNet, MultiTaskData, int, int], Weighting]


def _device(network: MultiTaskNet) -> torch.device:
    return next(network.parameters()).device


def _by_gradients(name: str) -> Make:
    return lambda network, data, _, seed: GradientWeighting(network, data.tasks, name, seed)


def forwards_besides(weighting: str, tasks: int) -> int:
    """Forward passes' worth of work that a step does for each sample, besides a forward and a backward.

    Args:
        weighting: a key of :data:`WEIGHTINGS`.
        tasks: of the step; those that look at gradients take a backward of each, two forwards' worth.
    """
    if weighting in AGGREGATORS:
        return 2 * (tasks - 1)
    return 1 if weighting == "famo" else 0


WEIGHTINGS: dict[str, Make] = {
    "equal": lambda *_: Weighting(),
    "uncertainty": lambda network, data, *_: Uncertainty(network, data.tasks),
    "random": lambda network, data, _, seed: RandomWeights(data.tasks, _device(network), seed),
    "dwa": lambda network, data, batch, _: DynamicAverage(
        data.tasks, _device(network), max(1, math.ceil(len(data.train) / batch))
    ),
    "chebyshev": lambda *_: Chebyshev(),
    "famo": lambda network, data, *_: Famo(data.tasks, _device(network)),
    **{name: _by_gradients(name) for name in AGGREGATORS},
}
"""By name: made of network, data, batch size and seed; those with parameters before the optimiser is."""

__all__ = [
    "AGGREGATORS",
    "WEIGHTINGS",
    "Chebyshev",
    "DynamicAverage",
    "Famo",
    "GradientWeighting",
    "Losses",
    "RandomWeights",
    "Uncertainty",
    "Weighting",
    "forwards_besides",
]
