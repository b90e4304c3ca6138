"""How the losses of several tasks become the one that a step descends: the plain sum, and what others change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ms_automl.tasks import Task
from ms_automl.training.evaluation import weighted

Losses = Mapping[str, Tensor]


class Weighting:
    """``equal``: Σ_t w_t L_t, with the weights w_t that tasks have from their data set."""

    def begin(self) -> None:
        """A step begins."""

    def total(self, tasks: Sequence[Task], losses: Losses, share: float = 1.0) -> Tensor:
        """What a step descends.

        Args:
            tasks: the t of the sum.
            losses: L_t by name, of a batch or of a part of it, which add up to the batch's.
            share: of a part, the share of the samples that it has: what does not depend on samples counts as much.
        """
        return weighted(tasks, losses)

    def observe(self, losses: Losses) -> None:
        """Hear of the losses of a part of the step's batch, which add up to the batch's."""

    def backward(
        self, total: Tensor, tasks: Sequence[Task], losses: Losses, scale: float, *, first: bool, last: bool
    ) -> None:
        """Leave a part's gradient in ``grad``, beside those of the parts before.

        Args:
            total: ``scale`` times :meth:`total` of the part.
            tasks: the t of the sum.
            losses: L_t by name, of the part.
            scale: factor of the sum.
            first: whether it is the batch's first part.
            last: whether it is the last.
        """
        total.backward()  # type: ignore[no-untyped-call]

    def look_back(self, losses: Callable[[], Losses]) -> None:
        """Learn from a step that is over.

        Args:
            losses: gives L_t of the step's batch with the weights after it, by another forward pass.
        """

    def state_dict(self) -> dict[str, Any]:
        """What later steps depend on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
