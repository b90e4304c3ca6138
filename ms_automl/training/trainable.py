"""What every way of training is."""

from __future__ import annotations

from typing import Protocol

from ms_automl.models.cost import Cost
from ms_automl.training.evaluation import Metrics
from ms_automl.training.feed import State
from ms_automl.training.loop import TrainingLoop


class Trainable(Protocol):
    """A way of training. Built from plain arguments; driven by ``step`` until ``done``.

    ``save → load → step`` equals an uninterrupted run, bit for bit on CPU.
    """

    cost: Cost
    loop: TrainingLoop

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        ...

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        ...

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on: tensors, numbers, lists and dicts of them."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        ...
