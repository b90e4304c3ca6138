"""What a dense network would reach, foretold from the losses before the first zero."""

from __future__ import annotations

import math
from typing import Any

from ms_automl.errors import ConfigError
from ms_automl.meta.reference import Losses

STEEPEST = 0.7
"""Largest exponent of the power law."""


class EarlyReference:
    """In the place of a dense network's course: L_t(k) = c_t k^(-α_t), fitted before the ramp begins.

    Losses of the first steps are those of the dense network itself. Least squares of log L_t on log k over them
    gives c and α, 0 ≤ α ≤ 0.7; from a single one α = 0, the loss as it was. Training gains more than that where it
    is short or η falls, so that a rise is told too small: from such a course one learns that zeros cost more than
    was thought, never that they cost less (``least`` of :class:`~ms_automl.meta.level.PricedLevel`).

    Args:
        begin: steps before the ramp begins.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.seen: list[tuple[int, dict[str, float]]] = []

    def rise(self, step: int, losses: Losses) -> float:
        """The relative loss less 1, against what is foretold for the step; 0 before the ramp.

        Raises:
            ConfigError: for a loss that is not above 0, or where no loss is known from before the ramp.
        """
        if below := [f"'{task}' ({loss:.4g})" for task, loss in losses.items() if not loss > 0]:
            raise ConfigError(f"under a price a loss must be above 0, but got {', '.join(below)}")
        if step <= self.begin:
            self.seen.append((step, dict(losses)))
            return 0.0
        self.check()
        return sum(loss / self._foretold(task, step) for task, loss in losses.items()) / len(losses) - 1

    def check(self) -> None:
        """Raise where no loss is known from before the ramp."""
        if not self.seen:
            raise ConfigError(
                f"under a price the ramp begins at step {self.begin}, and no loss is known from before it: call "
                "sparsifier.observe(validation_loss) at least once by then, or give `reference`"
            )

    def _foretold(self, task: str, step: int) -> float:
        points = [(math.log(max(1, when)), math.log(losses[task])) for when, losses in self.seen]
        mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
        squares = sum((x - mean_x) ** 2 for x, _ in points)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / squares if squares > 0 else 0.0
        slope = min(0.0, max(-STEEPEST, slope))
        return math.exp(mean_y + slope * (math.log(step) - mean_x))

    def state_dict(self) -> dict[str, Any]:
        """The losses before the ramp."""
        return {"seen": [[step, dict(losses)] for step, losses in self.seen]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.seen = [(step, dict(losses)) for step, losses in state["seen"]]
