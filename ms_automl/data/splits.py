"""Splits that hand out batches by index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ms_automl.errors import DataError


@dataclass(frozen=True)
class Batch:
    """A batch of B samples.

    Attributes:
        images: [B, channels, H, W] float32.
        targets: by task name, shapes as in :mod:`ms_automl.tasks`.
        valid: by task name, bool, True where the target counts.
    """

    images: Tensor
    targets: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]

    def split(self, count: int) -> list[Batch]:
        """``count`` batches whose sizes differ by one sample at most, in order."""
        ends = [len(self.images) * index // count for index in range(count + 1)]
        return [self.part(start, end) for start, end in pairwise(ends)]

    def label_share(self, whole: Batch, task: str) -> Tensor:
        """Share of a task's valid labels in a whole batch that this part of it holds."""
        return self.valid[task].sum() / whole.valid[task].sum().clamp(min=1)

    def part(self, start: int, end: int) -> Batch:
        """The samples from ``start`` to before ``end``; in the same memory."""
        cut = slice(start, end)
        return Batch(self.images[cut], _each(self.targets, cut), _each(self.valid, cut))


def _each(tensors: Mapping[str, Tensor], cut: slice) -> dict[str, Tensor]:
    return {name: tensor[cut] for name, tensor in tensors.items()}


def moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Tensors copied to a device; to a GPU from pinned memory, without waiting for it."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}


class Split(Protocol):
    """Samples that can be fetched by index. Fetching the same indices twice gives the same batch."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B]."""
        ...


@runtime_checkable
class AugmentedSplit(Split, Protocol):
    """A split whose samples can be had changed at random, as training wants them."""

    def augmented(self, indices: Tensor, seed: int) -> Batch:
        """The samples at ``indices``, changed as ``seed`` says; the same for the same seed."""
        ...


def training_batch(split: Split, indices: Tensor, seed: int) -> Batch:
    """The samples at ``indices`` to train on: augmented where the split can do that."""
    return split.augmented(indices, seed) if isinstance(split, AugmentedSplit) else split.batch(indices)


def sets_random_state(split: Split) -> bool:
    """Whether reading a split sets the process's random numbers, which whoever trains meanwhile draws from."""
    return bool(getattr(split, "random", False))


class TensorSplit:
    """A split that lies in memory.

    Args:
        images: [N, channels, H, W] float32.
        targets: by task name, N targets each.
        valid: by task name; a task that is missing here has only valid labels.
    """

    def __init__(
        self, images: Tensor, targets: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None
    ) -> None:
        for what, given in (("target", targets), ("valid", valid or {})):
            for name, tensor in given.items():
                if not isinstance(tensor, Tensor):
                    raise DataError(f"{what} of task '{name}' is a {type(tensor).__name__}, expected a tensor")
        if unknown := [name for name in valid or {} if name not in targets]:
            raise DataError(f"valid is of '{unknown[0]}', which has no targets: there are {', '.join(targets)}")
        for name, target in targets.items():
            if len(target) != len(images):
                raise DataError(
                    f"task '{name}' has {len(target)} targets, but there are {len(images)} images: "
                    "give one target per image"
                )
        self.images = images
        self.targets = dict(targets)
        self.valid = dict(valid or {})

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Batch:
        """The samples at ``indices``, an int64 tensor of shape [B]."""
        targets = {name: target[indices] for name, target in self.targets.items()}
        valid = {name: self._valid(name, targets[name], indices) for name in targets}
        return Batch(self.images[indices], targets, valid)

    def to(self, device: torch.device) -> TensorSplit:
        """The same samples in a device's memory."""
        return TensorSplit(self.images.to(device), moved(self.targets, device), moved(self.valid, device))

    def _valid(self, name: str, target: Tensor, indices: Tensor) -> Tensor:
        if name in self.valid:
            return self.valid[name][indices]
        shape = target.shape
        if target.ndim == 4:  # [B, C, H, W] values: one mask for all channels
            shape = torch.Size((shape[0], *shape[2:]))
        elif target.ndim == 2:  # [B, C] values of an image
            shape = shape[:1]
        return torch.ones(shape, dtype=torch.bool, device=target.device)
