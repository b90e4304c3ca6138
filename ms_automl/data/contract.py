"""What data is here: three splits, the tasks, and the held-back tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ms_automl.data.datasets import as_split
from ms_automl.data.splits import Split
from ms_automl.errors import ConfigError
from ms_automl.tasks import Task


@dataclass(frozen=True)
class MultiTaskData:
    """Data of a comparison.

    A split may also be given as torch has it, a Dataset or a DataLoader: :mod:`ms_automl.data.datasets` says in
    which forms.

    Attributes:
        name: as it appears in records and tables.
        train: trains θ and nothing else.
        val: feeds λ and the selection, nothing else.
        test: is measured, and never chosen by.
        tasks: the tasks that are trained.
        unseen_tasks: tasks held back for the transfer stage; their labels lie in the same splits.
    """

    name: str
    train: Split
    val: Split
    test: Split
    tasks: Sequence[Task]
    unseen_tasks: Sequence[Task] = ()

    def __post_init__(self) -> None:
        # What is no task is refused by `check_data`.
        groups = [group for group in (self.tasks, self.unseen_tasks) if isinstance(group, Sequence)]
        tasks = [task for group in groups for task in group if isinstance(task, Task)]
        for name, split in self.splits.items():
            object.__setattr__(self, name, as_split(name, split, tasks))

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, H, W) of one image."""
        channels, height, width = self.train.batch(torch.zeros(1, dtype=torch.int64)).images.shape[1:]
        return channels, height, width


def check_arguments(seed: int, **counts: int) -> None:
    """Check what every dataset factory is given: a seed of at least 0, and at least one sample per split.

    Raises:
        ConfigError: with the condition and the value.
    """
    if seed < 0:
        raise ConfigError(f"`seed >= 0` must hold, but got seed={seed}")
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"`{name} >= 1` must hold, but got {name}={count}")
