"""Steps of a run done again as functions of ρ: the shared part of the estimators that keep the loss Hessian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ms_automl.data import Batch
from ms_automl.meta.dynamics import Dynamics, Point
from ms_automl.sparsity import Groups, proximal


@dataclass(frozen=True)
class Record:
    """One training step as it was left before its prox; its tensors are never written again.

    Attributes:
        point: z and the moments, after the optimiser's step.
        threshold: [G] τ of the prox that followed.
        batch: what the step was taken on.
        lr: η of the step.
    """

    point: Point
    threshold: Tensor
    batch: Batch
    lr: float

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        batch = {"images": self.batch.images, "targets": self.batch.targets, "valid": self.batch.valid}
        return {"point": self.point.state_dict(), "threshold": self.threshold, "batch": batch, "lr": self.lr}


class Replay:
    """The prox on whole points, and records from their saved form.

    Args:
        groups: the groups.
        dynamics: the training step as a function.

    Attributes:
        places: [L] where the penalised weights stand among the P parameters.
    """

    def __init__(self, groups: Groups, dynamics: Dynamics) -> None:
        self.groups, self.dynamics = groups, dynamics
        place = {id(value): index for index, value in enumerate(dynamics.parameters)}
        self.places = [place[id(weight)] for weight in groups.weights]

    def penalised(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The L tensors among P that belong to penalised weights."""
        return [tensors[place] for place in self.places]

    def prox(self, parameters: Sequence[Tensor], threshold: Tensor) -> list[Tensor]:
        """P parameters after the prox; differentiable in both."""
        shrunk = list(parameters)
        for place, weight in zip(
            self.places, proximal(self.groups, self.penalised(parameters), threshold), strict=True
        ):
            shrunk[place] = weight
        return shrunk

    def load(self, state: dict[str, Any]) -> Record:
        """Inverse of :meth:`Record.state_dict`."""
        point, device = self.dynamics.load_point(state["point"]), self.groups.size.device
        saved = state["batch"]
        targets, valid = ({key: t.to(device) for key, t in saved[part].items()} for part in ("targets", "valid"))
        batch = Batch(saved["images"].to(device), targets, valid)
        return Record(point, state["threshold"].to(device), batch, state["lr"])
