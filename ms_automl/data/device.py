"""Data on the device that trains on it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ms_automl.data.contract import MultiTaskData
from ms_automl.data.prepared import PreparedSplit
from ms_automl.data.splits import Batch, Split, TensorSplit, moved, sets_random_state, training_batch


class DeviceSplit:
    """A split whose batches are copied to a device when they are fetched.

    Args:
        split: gives batches on the CPU.
        device: where they are wanted.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        self.split, self.device = split, device

    @property
    def random(self) -> bool:
        """As of the split."""
        return sets_random_state(self.split)

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B]."""
        return self._moved(self.split.batch(indices))

    def augmented(self, indices: Tensor, seed: int) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B], augmented where the split can do that."""
        return self._moved(training_batch(self.split, indices, seed))

    def _moved(self, batch: Batch) -> Batch:
        images = moved({"images": batch.images}, self.device)["images"]
        return Batch(images, moved(batch.targets, self.device), moved(batch.valid, self.device))


def on_device(data: MultiTaskData, device: torch.device) -> MultiTaskData:
    """The same data with its batches on a device.

    What lies in memory is copied there once; of prepared samples what is stored goes there, and is decoded there.
    """
    if device.type == "cpu":
        return data
    train, val, test = (_split(split, device) for split in data.splits.values())
    return replace(data, train=train, val=val, test=test)


def _split(split: Split, device: torch.device) -> Split:
    return split.to(device) if isinstance(split, TensorSplit | PreparedSplit) else DeviceSplit(split, device)
