"""How the losses of several tasks become the one that a step descends: the plain sum, and what others change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def state_dict(self) -> dict[str, Any]:
        """What later steps depend on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
