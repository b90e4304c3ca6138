"""Losses and metrics of a network on a batch and on a whole split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ms_automl.data import Batch, Split
from ms_automl.errors import DataError
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
def evaluate(
    network: nn.Module, split: Split, tasks: Sequence[Task], batch_size: int, *, errors: bool = False
) -> Metrics:
    """Losses and metrics of a whole split, exact for any batch size.

    Args:
        network: images to predictions by task name.
        split: all of it is looked at, in order.
        tasks: those that are measured.
        batch_size: of a forward.
        errors: whether the standard errors of the losses are wanted too.

    Returns:
        ``<task>/loss``, the mean over the split's valid labels, and ``<task>/<metric>``; with ``errors`` also
        ``<task>/loss_error``.
    """
    training = network.training
    network.eval()
    sums: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {task.name: [] for task in tasks}
    for start in range(0, len(split), batch_size):
        batch = split.batch(torch.arange(start, min(start + batch_size, len(split))))
        outputs = network(batch.images)
        for task in tasks:
            labels = (outputs[task.name], batch.targets[task.name], batch.valid[task.name])
            _add(sums, f"{task.name}/loss", _sum_and_count(task, *labels))
            if errors:
                pieces = (torch.split(one, _part_size(len(split))) for one in labels)
                parts[task.name] += [_sum_and_count(task, *piece) for piece in zip(*pieces, strict=True)]
            for name, metric in task.metrics.items():
                _add(sums, f"{task.name}/{name}", metric.statistic(*labels))
    network.train(training)
    values: Metrics = {}
    for task in tasks:
        total = sums[f"{task.name}/loss"]
        values[f"{task.name}/loss"] = float(total[0] / total[1].clamp(min=1))
        if errors:
            values[f"{task.name}/loss_error"] = _standard_error(torch.stack(parts[task.name]))
        for name in task.metrics:
            values[f"{task.name}/{name}"] = _value(task, name, sums[f"{task.name}/{name}"])
    return values


def _value(task: Task, name: str, total: Tensor) -> float:
    try:
        value: object = task.metrics[name].value(total)
        if isinstance(value, str | bytes):
            raise TypeError(f"it is the text {value!r}")
        return float(value)  # type: ignore[arg-type]
    except Exception as error:  # whatever a function of the user's own raises
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"task '{task.name}': its metric '{name}' has no number for value ({reason}); give NaN where there is "
            "none"
        ) from error


def _part_size(samples: int) -> int:
    """Samples of each part whose losses a standard error is taken from: 64 parts or more, if it can be."""
    return min(8, max(1, samples // 64))


def _sum_and_count(task: Task, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    count = valid.sum().to(torch.float64)
    return torch.stack([task.loss(prediction, target, valid).to(torch.float64) * count, count])


def _standard_error(parts: Tensor) -> float:
    """Of Σ s_k / Σ n_k, from K parts of a split: sqrt(K / (K - 1) Σ_k (s_k - m n_k)²) / Σ n_k (ratio estimator).

    Args:
        parts: [K, 2] sums s and counts n.

    Returns:
        In the loss's unit; 0 where a single part says nothing of a spread.
    """
    total, count = parts.sum(0)
    known = len(parts)
    if known < 2 or float(count) == 0:
        return 0.0
    residuals = parts[:, 0] - total / count * parts[:, 1]
    return float((known / (known - 1) * residuals.square().sum()).sqrt() / count)


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value
