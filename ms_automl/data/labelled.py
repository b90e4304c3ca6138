"""Some of a split's samples: those that a new task has labels for."""

from __future__ import annotations

import torch
from torch import Tensor

from ms_automl.data.splits import Batch, Split, sets_random_state, training_batch
from ms_automl.errors import ConfigError
from ms_automl.tasks import Task

_CHUNK = 64  # samples looked at at a time


class Subset:
    """Some samples of a split.

    Args:
        split: all of them.
        indices: [N] int64: which ones.
    """

    def __init__(self, split: Split, indices: Tensor) -> None:
        self.split, self.indices = split, indices

    @property
    def random(self) -> bool:
        """As of the split."""
        return sets_random_state(self.split)

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices`` of the subset, an int64 tensor of shape [B]."""
        return self.split.batch(self.indices[indices])

    def augmented(self, indices: Tensor, seed: int) -> Batch:
        """The samples at ``indices`` of the subset, augmented where the split can do that."""
        return training_batch(self.split, self.indices[indices], seed)


def labelled(split: Split, task: Task, count: int | None, seed: int) -> Tensor:
    """Indices [count] of samples that have a valid label of a task.

    They are the first ones of a random order that the seed fixes, so that a smaller count is part of a larger one.

    Args:
        split: to choose from.
        task: whose labels are asked for.
        count: how many; None for all.
        seed: of the order.

    Raises:
        ConfigError: where the split has fewer, or none.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    found: list[Tensor] = []
    total = 0
    for chunk in torch.split(order, _CHUNK):
        has_label = split.batch(chunk).valid[task.name].reshape(len(chunk), -1).any(1).cpu()
        found.append(chunk[has_label])
        total += len(found[-1])
        if count is not None and total >= count:
            return torch.cat(found)[:count]
    if count is not None or total == 0:
        raise ConfigError(
            f"{count or 'all'} samples with labels of '{task.name}' are asked for, but the train split has "
            f"{total}: ask for fewer"
        )
    return torch.cat(found)
