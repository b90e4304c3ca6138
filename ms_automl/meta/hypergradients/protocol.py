"""What every estimator of dJ/dρ offers, whatever it carries along."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from ms_automl.meta.hypergradients.shrinkage import Shrinkage
from ms_automl.meta.step import TrainingStep


class Hypergradient(Protocol):
    """An estimator of dJ/dρ_r = <∇_θ J, dθ/dρ_r>, ρ = log λ, while θ trains.

    Attributes:
        parameters: those whose outer gradient it needs: the L penalised weights, or all P that train, because
            heads and batch norm answer λ too.
    """

    parameters: list[Tensor]

    def advance(self, step: TrainingStep, shrinkage: Shrinkage) -> None:
        """Take in one training step, called after the optimiser's step and before the prox is applied."""
        ...

    def slope(self, cotangent: Sequence[Tensor]) -> Tensor:
        """[R] <cotangent, dθ/dρ_r>, called after the prox of the last step taken in was applied.

        Args:
            cotangent: a tensor for each of :attr:`parameters`.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What later slopes depend on."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        ...
