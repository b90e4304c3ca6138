"""The processes of a distributed training, which must all zero the same groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ms_automl.errors import ConfigError, MsAutomlError


class Ranks:
    """The ranks that train one model together; one alone where there are no others.

    ``DistributedDataParallel`` gives every rank the same gradients, so that importance, λ and zeros are the same
    on all of them without more. What they are told of losses is not, and is averaged.

    Args:
        model: as it is trained: a DistributedDataParallel somewhere in it, or not.
    """

    def __init__(self, model: nn.Module) -> None:
        wrapped = (one for one in model.modules() if isinstance(one, nn.parallel.DistributedDataParallel))
        found = next(wrapped, None)
        self.group = None if found is None else found.process_group
        self.count = 1 if found is None else dist.get_world_size(self.group)

    def mean(self, values: Sequence[float]) -> list[float]:
        """The means over all ranks; each must call."""
        return torch.tensor(self._gathered(list(values)), dtype=torch.float64).mean(0).tolist()

    def check(self, value: object, what: str) -> None:
        """Raise ConfigError where ranks differ in something; each must call."""
        gathered = self._gathered(value)
        if any(one != gathered[0] for one in gathered):
            raise ConfigError(
                f"the ranks of this training differ in {what}: make and step a sparsifier alike on all"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one rank refuses is refused on all: none waits for one that has gone. Each must enter."""
        try:
            yield
        except MsAutomlError as error:
            self._gathered(str(error))
            raise
        for number, line in enumerate(self._gathered("")):
            if line:
                raise ConfigError(f"rank {number} of this training refuses: {line}")

    def _gathered(self, value: object) -> list[Any]:
        """What each rank has for a value."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, value, group=self.group)
        return gathered


def refuse_sharded(model: nn.Module) -> None:
    """Raise ConfigError where parameters lie in parts on several processes."""
    sharded = [name for name, value in model.named_parameters() if _is_sharded(value)]
    if sharded:
        raise ConfigError(
            f"'{sharded[0]}' is sharded over processes (FSDP), whose channels no process sees whole: train with "
            "DistributedDataParallel"
        )


def _is_sharded(value: Tensor) -> bool:
    return type(value).__name__ in ("DTensor", "FlatParameter") or type(value.data).__name__ == "DTensor"
