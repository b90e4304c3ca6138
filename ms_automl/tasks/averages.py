"""Means over the labels that count, as losses and as metrics."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ms_automl.tasks.labels import LabelFunction as TaskFunction
from ms_automl.tasks.task import Metric


def _masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, torch.zeros_like(values)).sum() / valid.sum().clamp(min=1)


def mean_of(per_label: TaskFunction) -> TaskFunction:
    """The loss that is the mean of a function of each label."""

    def loss(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return _masked_mean(per_label(prediction, target, valid), valid)

    return loss


def average(per_label: TaskFunction, direction: Literal["max", "min"], unit: str) -> Metric:
    """The metric that is the mean of a function of each label."""

    def statistic(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        values = per_label(prediction.detach(), target, valid).to(torch.float64)
        total = torch.where(valid, values, torch.zeros_like(values)).sum()
        return torch.stack([total, valid.sum().to(torch.float64)])

    def value(total: Tensor) -> float:
        return float(total[0] / total[1])  # 0/0 is NaN: no valid label

    return Metric(statistic, value, direction, unit)
