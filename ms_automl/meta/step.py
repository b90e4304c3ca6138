"""What a rule for λ is told: after each optimiser step of the sparsifying phase, and at each of its reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ms_automl.data import Batch
from ms_automl.errors import ConfigError
from ms_automl.meta.reference import Losses


@dataclass(frozen=True)
class TrainingStep:
    """The optimiser step just taken; its prox has yet to come.

    Attributes:
        index: training steps taken before this one.
        phase: progress of the sparsifying phase, 0 to 1.
        lr: η; [G] where groups differ in it.
        batch: gives the training batch.
        gradients: gives L tensors, ∇_θ of the training loss in the penalised weights.
        outer_gradient: gives the gradient of the outer losses in the parameters it is handed, at their present
            values, on a fresh outer batch; each call is one outer pass.
        moved: L tensors, by how much the optimiser's step has changed the penalised weights; None where the rule
            did not ask for it (:attr:`~ms_automl.meta.rule.Rule.measures_every`).
    """

    index: int
    phase: float
    lr: float | Tensor
    batch: Callable[[], Batch]
    gradients: Callable[[], list[Tensor]]
    outer_gradient: Callable[[Sequence[Tensor]], list[Tensor]]
    moved: Sequence[Tensor] | None = None

    @property
    def one_lr(self) -> float:
        """η, for what knows one alone.

        Raises:
            ConfigError: where groups differ in it.
        """
        if isinstance(self.lr, Tensor):
            raise ConfigError("this learner needs one learning rate for all layers: take waterfill")
        return self.lr


@dataclass(frozen=True)
class Evaluation:
    """How the network does on validation samples, under batch statistics (``TrainingLoop.probe``).

    Attributes:
        step: training steps taken.
        phase: progress of the sparsifying phase, 0 to 1.
        losses: L_t by task.
        density: share of the penalised weights outside zero groups.
    """

    step: int
    phase: float
    losses: Losses
    density: float
