"""The dense reference of a seed, and how far a loss is from it: the part of J that speaks of losses."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ms_automl.errors import ConfigError
from ms_automl.meta.lambda_bounds import LambdaBounds

if TYPE_CHECKING:
    from torch import Tensor

Losses = Mapping[str, float]
"""L_t by task."""

Scale = Literal["ratio", "skill"]

FLOOR = 0.01
"""Smallest reference loss of a ratio, as a share of the constant prediction's loss (of comparisons that have not
measured it: in the loss's own unit). A near-zero cross-entropy must not make a ratio explode."""
LEAST_SPAN = 0.5
"""Of the span that dense has covered at its end, the least that a rise on the way is measured by: at the first
reports dense is hardly better than the constant."""


STANDARD_ERRORS = 2.0
"""Of dense's mean loss, by which it must be below the constant prediction's."""


def learned(metrics: Mapping[str, float], task: str, split: str = "val") -> bool:
    """Whether a dense network has learned a task: L^const - L > 2 standard errors of L, as a split shows it.

    Args:
        metrics: of the dense reference, ``<split>/<task>/loss``, ``loss_error`` and ``constant``; without the last
            two, which earlier versions have not measured, it is taken to have learned.
        task: name of the task.
        split: that it is measured on.
    """
    loss, constant = metrics[f"{split}/{task}/loss"], metrics.get(f"{split}/{task}/constant")
    return constant is None or constant - loss > STANDARD_ERRORS * metrics.get(f"{split}/{task}/loss_error", 0.0)


@dataclass(frozen=True)
class Reference:
    """The dense reference of a seed on one split.

    The relative loss of a model is 1 where it equals dense, in either scale:

    - ``ratio``: (1/T) Σ_t L_t / L_t^ref; below the floor F_t = 0.01 L_t^const the slope is that of the floor,
      1 + (L_t - L_t^ref) / F_t. Invariant to the unit of a loss; it needs a loss that is 0 at its best.
    - ``skill``: 1 + (1/T') Σ_t (L_t - L_t^ref) / (L_t^const - L_t^ref) over the T' tasks that dense has learned:
      the share of what dense has learned over the best constant prediction that the model has lost, 1 less a
      skill score (Murphy 1988, Monthly Weather Review 116, section 2, with dense for the perfect forecast); a
      constant prediction has 2. Invariant to the unit and to a shift of a loss.

    Attributes:
        losses: L_t^ref by task, after its last step.
        course: (step, L_t by task) at each of its reports, as ``TrainingLoop.probe`` measures them: what a
            network without zeros reaches by then.
        constants: L_t^const by task, the loss of the best constant prediction; None where it was not measured.
        scale: of the relative loss.
        unlearned: tasks on which dense is no better than the constant prediction, on the validation split or on
            this one: a span within the error of its measurement is no unit.
        bounds: of λ, as far as this training tells; None where it did not measure them.
    """

    losses: Losses
    course: Sequence[tuple[int, Losses]] = ()
    constants: Losses | None = None
    scale: Scale = "ratio"
    unlearned: Collection[str] = frozenset()
    bounds: LambdaBounds | None = None

    def __post_init__(self) -> None:
        if self.scale == "skill" and self.constants is None:
            raise ConfigError("the scale 'skill' needs the best constant predictions' losses: give `constants`")

    @classmethod
    def of(
        cls,
        metrics: Mapping[str, float],
        tasks: Sequence[str],
        split: str = "val",
        course: Sequence[tuple[int, Losses]] = (),
        scale: Scale = "ratio",
    ) -> Reference:
        """The reference that a dense trial's metrics make.

        Args:
            metrics: ``<split>/<task>/loss`` and, where they were measured, ``<split>/<task>/constant``; of the
                validation split also what :func:`learned` asks for.
            tasks: names of the trained tasks.
            split: that losses are compared on.
            course: as above.
            scale: as above.
        """
        losses = {task: metrics[f"{split}/{task}/loss"] for task in tasks}
        constants = {task: metrics[key] for task in tasks if (key := f"{split}/{task}/constant") in metrics}
        unlearned = frozenset(
            task for task in tasks if not (learned(metrics, task) and learned(metrics, task, split))
        )
        known = constants if len(constants) == len(losses) else None
        return cls(losses, course, known, scale, unlearned, LambdaBounds.of(metrics))

    @property
    def trouble(self) -> str | None:
        """Why losses cannot be held against this reference; None where they can."""
        if self.scale == "skill" and not self._learned:
            return "the dense reference is no better than a constant prediction on any task"
        below = [f"'{task}' ({loss:.4g})" for task, loss in self.losses.items() if loss <= 0]
        if self.scale == "ratio" and self.constants is not None and below:
            return (
                f"a ratio to a dense loss that is not above 0 means nothing: task {', '.join(below)}; "
                "set objective.scale=skill"
            )
        return None

    @property
    def _learned(self) -> list[str]:
        return [task for task in self.losses if task not in self.unlearned]

    def relative(self, losses: Losses) -> float:
        """The relative loss of a model, as above; NaN in the scale ``skill`` where dense has learned no task.

        Args:
            losses: L_t of all tasks.
        """
        if self.scale == "skill" and not self._learned:
            return float("nan")
        return self._against(self.losses, losses)

    def rise(self, step: int, losses: Losses) -> float:
        """The relative loss less 1, against the dense reference at the same step.

        How far training has come falls out of it, so that what is left is the cost of the zeros.

        Raises:
            ConfigError: where the reference was not measured at ``step``.
        """
        for when, dense in self.course:
            if when == step:
                return self._against(dense, losses) - 1
        steps = ", ".join(str(when) for when, _ in self.course) or "none"
        raise ConfigError(
            f"the dense reference has no probe at step {step} (it has {steps}): train it with probe=True and the "
            "same steps and report_every"
        )

    def check(self) -> None:
        """Raise ConfigError where no course was recorded."""
        if not self.course:
            raise ConfigError("the dense reference has no course to hold losses against: train it with probe=True")

    def term(self, task: str, loss: Tensor) -> Tensor:
        """L_t in units of the relative loss, up to a constant: its derivative is T ∂R/∂L_t."""
        if self.scale == "ratio":
            return loss / max(self.losses[task], self._floor(task))
        return loss * self._weight(task) / self._span(task, self.losses)

    def _against(self, dense: Losses, losses: Losses) -> float:
        parts = [self._part(task, dense, loss) for task, loss in losses.items()]
        return sum(parts) / len(parts)

    def _part(self, task: str, dense: Losses, loss: float) -> float:
        reference, floor = dense[task], self._floor(task)
        if self.scale == "skill":
            return 1 + self._weight(task) * (loss - reference) / self._span(task, dense)
        if self.constants is None:
            return loss / max(reference, floor)
        return loss / reference if reference >= floor else 1 + (loss - reference) / floor

    def _floor(self, task: str) -> float:
        # Without a unit of its own, so that none of the loss matters.
        return FLOOR if self.constants is None else max(FLOOR * self.constants[task], sys.float_info.min)

    def _weight(self, task: str) -> float:
        """T / T' of a task that dense has learned, 0 of another."""
        return 0.0 if task in self.unlearned else len(self.losses) / len(self._learned)

    def _span(self, task: str, dense: Losses) -> float:
        assert self.constants is not None
        constant = self.constants[task]
        whole = constant - self.losses[task]
        # Of a task that dense has not learned the weight is 0.
        return max(constant - dense[task], LEAST_SPAN * whole) if whole > 0 else 1.0
