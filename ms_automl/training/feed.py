"""Which samples a step trains on, and how they get there: in shuffled order, read ahead, in micro-batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ms_automl.data import Batch, Split, training_batch
from ms_automl.data.splits import sets_random_state
from ms_automl.errors import ConfigError

State = dict[str, Any]


class BatchOrder:
    """Endless shuffled batches of indices: every sample once an epoch, incomplete batches dropped."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        if batch_size > size:
            raise ConfigError(f"batch_size must be at most the split's {size} samples, but got {batch_size}")
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.order = torch.empty(0, dtype=torch.int64)
        self.position = 0

    def next(self) -> Tensor:
        """Indices of the next batch."""
        if self.position + self.batch_size > len(self.order):
            self.order = torch.randperm(self.size, generator=self.generator)
            self.position = 0
        batch = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return batch

    def state_dict(self) -> State:
        """The shuffle and the place in it."""
        return {"order": self.order, "position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.order, self.position = state["order"], state["position"]
        self.generator.set_state(state["generator"])


class Feed:
    """The training batches, step by step.

    Args:
        split: where the samples are.
        batch_size: samples a step.
        seed: of the order, and of what is drawn for an augmented sample.
        ahead: batches that a thread of its own has ready or is reading; 0 reads each when it is asked for. So it
            is too with a split that sets the process's random numbers.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, ahead: int = 0) -> None:
        ahead = 0 if sets_random_state(split) else ahead
        self.split, self.seed, self.ahead = split, seed, ahead
        self.order = BatchOrder(len(split), batch_size, seed)
        self.asked = 0  # steps whose indices were drawn
        self._waiting: deque[tuple[State, Future[Batch]]] = deque()
        self._thread = ThreadPoolExecutor(1, "feed") if ahead else None

    def next(self) -> Batch:
        """The batch of the next step."""
        if self._thread is None:
            return self._read()()
        while len(self._waiting) <= self.ahead:
            before = self._state()
            self._waiting.append((before, self._thread.submit(self._read())))
        return self._waiting.popleft()[1].result()

    def _read(self) -> Callable[[], Batch]:
        indices, seed = self.order.next(), (self.seed << 32) + self.asked
        self.asked += 1
        return lambda: training_batch(self.split, indices, seed)

    def _state(self) -> State:
        return self.order.state_dict() | {"asked": self.asked}

    def state_dict(self) -> State:
        """What the next step's batch follows from; what was read ahead is read again."""
        return self._waiting[0][0] if self._waiting else self._state()

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self._waiting.clear()
        self.asked = state["asked"]
        self.order.load_state_dict(state)
