"""Losses and metrics of a network on a batch and on a whole split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ms_automl.data import Batch, Split
from ms_automl.models import MultiTaskNet
from ms_automl.tasks import Task

Metrics = dict[str, float]


def task_losses(tasks: Sequence[Task], outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """L_t of one batch by task name."""
    return {
        task.name: task.loss(outputs[task.name], batch.targets[task.name], batch.valid[task.name])
        for task in tasks
    }


def weighted(tasks: Sequence[Task], losses: Mapping[str, Tensor]) -> Tensor:
    """Σ_t w_t L_t over the given tasks."""
    return torch.stack([task.weight * losses[task.name] for task in tasks]).sum()


@torch.no_grad()
def evaluate(network: MultiTaskNet, split: Split, tasks: Sequence[Task], batch_size: int) -> Metrics:
    """Losses and metrics of a whole split, exact for any batch size.

    Returns:
        ``<task>/loss``, the mean over the split's valid labels, and ``<task>/<metric>``.
    """
    training = network.training
    network.eval()
    sums: dict[str, Tensor] = {}
    for start in range(0, len(split), batch_size):
        batch = split.batch(torch.arange(start, min(start + batch_size, len(split))))
        outputs = network(batch.images)
        for task in tasks:
            labels = (outputs[task.name], batch.targets[task.name], batch.valid[task.name])
            count = labels[2].sum().to(torch.float64)
            _add(sums, f"{task.name}/loss", torch.stack([task.loss(*labels).to(torch.float64) * count, count]))
            for name, metric in task.metrics.items():
                _add(sums, f"{task.name}/{name}", metric.statistic(*labels))
    network.train(training)
    values: Metrics = {}
    for task in tasks:
        total = sums[f"{task.name}/loss"]
        values[f"{task.name}/loss"] = float(total[0] / total[1].clamp(min=1))
        for name, metric in task.metrics.items():
            values[f"{task.name}/{name}"] = metric.value(sums[f"{task.name}/{name}"])
    return values


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value
