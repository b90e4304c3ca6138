"""The optimiser of a network's weights."""

from __future__ import annotations

from typing import Any

import torch

from ms_automl.models import MultiTaskNet
from ms_automl.training.settings import TrainingSettings


def optimizer_of(network: MultiTaskNet, settings: TrainingSettings) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; biases and norms do not decay, and what is frozen is left out."""
    parameters = _decayed(network, settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(parameters, lr=settings.lr)


def _decayed(network: MultiTaskNet, weight_decay: float) -> list[dict[str, Any]]:
    trained = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim >= 2]
    others = [p for p in trained if p.ndim < 2]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
