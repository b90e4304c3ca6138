"""The one training and evaluation loop that every way of training uses.

A trial has two phases. In the *sparsifying* phase a rule may zero groups after each optimiser step (a prox, a
pruning). Then the pattern of zeros is frozen for good and the network trains on without shrinkage
('debiasing'), or every surviving weight would stay too small and a sparse model would look worse than it is.
"""

from __future__ import annotations

from typing import Protocol

from ms_automl.models.cost import Cost
from ms_automl.training.constant import constant_losses
from ms_automl.training.evaluation import Metrics, evaluate, task_losses, weighted
from ms_automl.training.feed import BatchOrder, State
from ms_automl.training.finite import Seen
from ms_automl.training.loop import TrainingLoop
from ms_automl.training.settings import PROBE, TrainingSettings

__all__ = [
    "PROBE",
    "BatchOrder",
    "Metrics",
    "Seen",
    "State",
    "Trainable",
    "TrainingLoop",
    "TrainingSettings",
    "constant_losses",
    "evaluate",
    "task_losses",
    "weighted",
]


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
