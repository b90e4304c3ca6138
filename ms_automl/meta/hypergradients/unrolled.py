"""The `unrolled` hypergradient: back through the last K real steps, second order included.

From z_1, the weights before the oldest of the last K proxes, the K - 1 steps since are replayed as functions of ρ,

    θ_k = prox(z_k, τ_k(ρ)),        (z_{k+1}, moments) = step(θ_k, moments, batch_{k+1}),

and reverse mode gives d<∇_θ J, θ_K>/dρ: the truncated back-propagation of Shaban et al. 2019 (arXiv 1810.10667).
What lies before the window is taken as independent of λ. K = 1 is ``one_step`` with no pass of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients.replay import Record, Replay
from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups


class Unrolled:
    """Keeps K points and batches; a slope costs K - 1 Hessian-vector products and holds K - 1 steps' graphs.

    Args:
        groups: the groups.
        ties: which λ each layer uses.
        dynamics: the training step as a function.
        unroll: K.
    """

    def __init__(self, groups: Groups, ties: Ties, dynamics: Dynamics, unroll: int) -> None:
        self.ties, self.dynamics = ties, dynamics
        self.replay = Replay(groups, dynamics)
        self.parameters = dynamics.parameters
        self.window: deque[Record] = deque(maxlen=unroll)

    def advance(self, step: TrainingStep, shrinkage: Shrinkage) -> None:
        """Record the step."""
        self.window.append(Record(self.dynamics.point(), shrinkage.threshold, step.batch(), step.one_lr))

    def slope(self, cotangent: Sequence[Tensor]) -> Tensor:
        """[R] by reverse mode through the replayed window."""

        def outcome(shift: Tensor) -> Tensor:
            point = self.window[0].point
            for record, following in pairwise(self.window):
                shrunk = self.replay.prox(point.parameters, self.ties.moved(record.threshold, shift))
                point = self.dynamics.step(point.at(shrunk), following.batch, following.lr)
            last = self.window[-1]
            end = self.replay.prox(point.parameters, self.ties.moved(last.threshold, shift))
            return torch.stack([(c * value).sum() for c, value in zip(cotangent, end, strict=True)]).sum()

        for record in list(self.window)[1:]:
            self.dynamics.charge(record.batch)
        slope: Tensor = torch.func.grad(outcome)(self.window[-1].threshold.new_zeros(self.ties.count))
        return slope

    def state_dict(self) -> dict[str, Any]:
        """The window."""
        return {"window": [record.state_dict() for record in self.window]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.window.clear()
        self.window.extend(self.replay.load(record) for record in state["window"])
