"""The `forward_exact` hypergradient: d(θ, moments)/dρ carried along training with Hessian-vector products.

One tangent per free ρ_r of everything the next step depends on, by forward mode through prox and step:

    (ż, ṁ) ← jvp of (z, m, ρ) ↦ step(prox(z, τ(ρ)), m, batch) along (ż, ṁ, e_r),

then θ̇ = jvp of the last prox. Nothing is dropped but what rounding drops, and nothing is forgotten: over a long
horizon of a chaotic training the true derivative can grow without bound (Metz et al. 2021, arXiv 2111.05803).
Forward-mode hypergradients: Franceschi et al. 2017 (arXiv 1703.01785), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.dynamics import Dynamics, Tensors, jvp_of_each
from ms_automl.meta.hypergradients.replay import Record, Replay
from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups

Tangents = tuple[Tensors, list[Tensors]]


class ForwardExact:
    """Carries R tangents side by side (vmap); a training step costs R Hessian-vector products, a slope none.

    Args:
        groups: the groups.
        ties: which λ each layer uses.
        dynamics: the training step as a function.
    """

    def __init__(self, groups: Groups, ties: Ties, dynamics: Dynamics) -> None:
        self.groups, self.ties, self.dynamics = groups, ties, dynamics
        self.replay = Replay(groups, dynamics)
        self.parameters = dynamics.parameters
        self.tangents: Tangents = ([], [])  # of z and the moments, each [R, *shape]
        self.last: Record | None = None

    def advance(self, step: TrainingStep, shrinkage: Shrinkage) -> None:
        """Carry the tangents through the last prox and this step."""
        point, last = self.dynamics.point(), self.last
        if last is None:  # λ has not acted yet
            zero = [value.new_zeros(self.ties.count, *value.shape) for value in point.parameters]
            self.tangents = (zero, [zero for _ in point.moments])
        else:
            self.tangents = self._carry(last, step)
        self.last = Record(point, shrinkage.threshold, step.batch(), step.one_lr)

    def _carry(self, last: Record, step: TrainingStep) -> Tangents:
        def onward(parameters: Tensors, moments: list[Tensors], shift: Tensor) -> Tangents:
            shrunk = self.replay.prox(parameters, self.ties.moved(last.threshold, shift))
            after = self.dynamics.step(last.point.at(shrunk, moments), step.batch(), step.one_lr)
            return after.parameters, after.moments

        self.dynamics.charge(step.batch(), self.ties.count)
        carried, moments = self._along_each(onward, (last.point.parameters, last.point.moments), self.tangents)
        # Contiguous, as they come back from disk: rounding depends on the memory layout.
        return [t.contiguous() for t in carried], [[t.contiguous() for t in moment] for moment in moments]

    def slope(self, cotangent: Sequence[Tensor]) -> Tensor:
        """[R] <cotangent, θ̇_r>."""
        last = self.last
        assert last is not None, "advance comes first"

        def shrunk(parameters: Tensors, shift: Tensor) -> Tensors:
            return self.replay.prox(parameters, self.ties.moved(last.threshold, shift))

        def inner(*moves: Tensor) -> Tensor:
            return torch.stack([(c * move).sum() for c, move in zip(cotangent, moves, strict=True)]).sum()

        # Not inside the jvp: there every product with a constant takes ten times as long.
        slope: Tensor = torch.func.vmap(inner)(
            *self._along_each(shrunk, (last.point.parameters,), self.tangents[:1])
        )
        return slope

    def _along_each(
        self, function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]
    ) -> Any:
        identity = torch.diag(self.groups.size.new_ones(self.ties.count))
        here = (*primals, torch.zeros_like(identity[0]))
        return jvp_of_each(function, here, (*tangents, identity))

    def state_dict(self) -> dict[str, Any]:
        """The tangents and the last step; none of these tensors is ever written again."""
        last = None if self.last is None else self.last.state_dict()
        return {"tangents": self.tangents[0], "moments": self.tangents[1], "last": last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        device = self.groups.size.device
        moments = [[tensor.to(device) for tensor in moment] for moment in state["moments"]]
        self.tangents = ([tensor.to(device) for tensor in state["tangents"]], moments)
        self.last = None if state["last"] is None else self.replay.load(state["last"])
