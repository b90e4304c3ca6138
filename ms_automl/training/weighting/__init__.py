"""How the losses of several tasks become the one that a step descends, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ms_automl.data import MultiTaskData
from ms_automl.models import MultiTaskNet
from ms_automl.training.weighting.base import Losses, Weighting
from ms_automl.training.weighting.losses import Chebyshev, DynamicAverage, RandomWeights, Uncertainty

Make = Callable[[MultiTaskNet, MultiTaskData, int, int], Weighting]


def _device(network: MultiTaskNet) -> torch.device:
    return next(network.parameters()).device


WEIGHTINGS: dict[str, Make] = {
    "equal": lambda *_: Weighting(),
    "uncertainty": lambda network, data, *_: Uncertainty(network, data.tasks),
    "random": lambda network, data, _, seed: RandomWeights(data.tasks, _device(network), seed),
    "dwa": lambda network, data, batch, _: DynamicAverage(
        data.tasks, _device(network), max(1, math.ceil(len(data.train) / batch))
    ),
    "chebyshev": lambda *_: Chebyshev(),
}
"""By name: made of network, data, batch size and seed; those with parameters before the optimiser is."""

__all__ = ["WEIGHTINGS", "Chebyshev", "DynamicAverage", "Losses", "RandomWeights", "Uncertainty", "Weighting"]
