"""Memory for batches that is used again."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ms_automl.data.cache import Array

New = Callable[[Sequence[int], torch.dtype], Tensor]
"""Makes a tensor of a shape and dtype that is not filled."""


class Recycled:
    """Tensors on the CPU, in the memory of earlier ones of their size that nothing holds any more.

    The system fills memory that is new to a process with zeros, page by page as it is first written to, which
    takes longer than the writing; and blocks of the size of a batch go back to it when they are freed.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, list[Array]] = defaultdict(list)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor, not filled; from any thread."""
        size = math.prod(shape) * dtype.itemsize
        free = self._free[size]
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(size, dtype=np.uint8)
        lent = block[:]  # what the tensor and all of its views keep alive; the block itself stays
        weakref.finalize(lent, free.append, block).atexit = False
        return torch.from_numpy(lent).view(dtype).view(*shape)
