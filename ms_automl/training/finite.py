"""What is wrong where a loss is NaN or infinite: the images, a target, a prediction, or the loss itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ms_automl.data import Batch, Split
from ms_automl.models import MultiTaskNet
from ms_automl.tasks import Task
from ms_automl.tasks.labels import cleared
from ms_automl.training.evaluation import task_losses

LARGEST = 1e15
"""A network whose outputs are larger has diverged: the square of ten thousand times that is infinite."""


@dataclass(frozen=True)
class Seen:
    """What losses were taken on.

    Attributes:
        tasks: T of them.
        outputs: of the network, by task.
        batch: of samples.
        losses: of it, by task.
    """

    tasks: Sequence[Task]
    outputs: Mapping[str, Tensor]
    batch: Batch
    losses: Mapping[str, Tensor]

    @torch.no_grad()
    def sizes(self) -> dict[str, Tensor]:
        """By task [4]: the largest of images, targets that count, predictions, NaN where one is; and the loss."""
        images = _largest(self.batch.images)
        rows = {}
        for name in (task.name for task in self.tasks):
            target = cleared(self.batch.targets[name], self.batch.valid[name])
            loss = self.losses[name].detach().float()
            rows[name] = torch.stack([images, _largest(target), _largest(self.outputs[name]), loss])
        return rows


def _largest(values: Tensor) -> Tensor:
    """The largest absolute value, in one kernel: on a GPU this is done at every step."""
    largest: Tensor = torch.linalg.vector_norm(values.float(), torch.inf)
    return largest


class Watch:
    """Remembers the first losses that were not finite, without waiting for the device that computes them.

    Args:
        tasks: that there may be losses of.
        device: that computes them.
    """

    def __init__(self, tasks: Sequence[Task], device: torch.device) -> None:
        self.names = [task.name for task in tasks]
        self.broken = torch.zeros((), dtype=torch.bool, device=device)
        self.first = torch.zeros(len(self.names), 4, device=device)

    def look(self, total: Tensor, seen: Sequence[Seen]) -> None:
        """Look at a sum of losses, and at what they were taken on."""
        rows = {name: row for one in seen for name, row in one.sizes().items()}
        now = torch.stack([rows.get(name, torch.zeros_like(self.first[0])) for name in self.names])
        self.first = torch.where(self.broken, self.first, now)
        self.broken = self.broken | ~torch.isfinite(total.detach())

    def why(self) -> str | None:
        """What was wrong at first; None where nothing was. Waits for the device."""
        return _told(dict(zip(self.names, self.first, strict=True))) if bool(self.broken) else None


def why(seen: Sequence[Seen]) -> str:
    """What is wrong with losses of which one, or the sum, is not finite."""
    return _told({name: row for one in seen for name, row in one.sizes().items()})


@torch.no_grad()
@torch.no_grad()
def why_of_split(network: MultiTaskNet, split: Split, tasks: Sequence[Task], batch_size: int) -> str:
    """What is wrong with the first batch of a split whose loss is not finite; '' where there is none.

    Args:
        network: in the mode that the losses were taken in.
        split: is gone through again.
        tasks: that are measured.
        batch_size: samples at a time.
    """
    for start in range(0, len(split), batch_size):
        batch = split.batch(torch.arange(start, min(start + batch_size, len(split))))
        outputs = network(batch.images)
        seen = Seen(tasks, outputs, batch, task_losses(tasks, outputs, batch))
        if not all(math.isfinite(float(loss)) for loss in seen.losses.values()):
            return f"{why([seen])}, in samples {start} to {start + len(batch.images) - 1}"
    return ""


def _told(rows: Mapping[str, Tensor]) -> str:
    table = {name: row.tolist() for name, row in rows.items()}
    losses = str({name: loss for name, (*_, loss) in table.items()})
    limits = (sys.float_info.max, sys.float_info.max, LARGEST, sys.float_info.max)
    images, targets, predictions, own = (
        " and ".join(f"'{name}'" for name, row in table.items() if not abs(row[index]) <= limit)
        for index, limit in enumerate(limits)
    )
    if images:
        return f"{losses}; the images hold NaN or infinite values"
    if targets:
        return (
            f"{losses}; the target of {targets} is NaN or infinite at a label that counts: mend it, or mark it as "
            "not valid"
        )
    if predictions:
        return (
            f"{losses}; the network's prediction of {predictions} is not finite, or beyond {LARGEST:g}; try a "
            "lower training.lr"
        )
    if own:
        return (
            f"{losses}; the loss of {own} is not finite, though its prediction and target are: is there a "
            "division by 0 in it, or a logarithm?"
        )
    return f"{losses}; every loss is finite and their weighted sum is not; try a lower training.lr"
