"""The `unrolled_first_order` hypergradient: back through the last K proxes, the loss taken as linear.

Reverse mode over what the last K steps left behind: with p = ∇_θ J, and newest step first,

    dJ/dρ_l += -Σ_{g in l} τ_g <u_g, p_g>,        p ← (1 - η δ) J_prox p,

δ the weight decay: the optimiser's Jacobian without the loss Hessian. First-order MAML (arXiv 1703.03400,
section 5.2) is the same omission. K = 1 is ``one_step``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.hypergradients.shrinkage import Shrinkage, Ties
from ms_automl.meta.step import TrainingStep
from ms_automl.sparsity import Groups


class UnrolledFirstOrder:
    """Keeps K copies of the penalised weights; needs no pass of its own.

    Args:
        groups: the groups.
        ties: which λ each layer uses.
        unroll: K.
        weight_decay: δ of the penalised weights.
    """

    def __init__(self, groups: Groups, ties: Ties, unroll: int, weight_decay: float) -> None:
        self.groups, self.ties, self.weight_decay = groups, ties, weight_decay
        self.parameters = groups.weights
        self.window: deque[tuple[list[Tensor], Shrinkage, float]] = deque(maxlen=unroll)

    def advance(self, step: TrainingStep, shrinkage: Shrinkage) -> None:
        """Record z, the prox and the step's decay."""
        weights = [weight.detach().clone() for weight in self.groups.weights]
        self.window.append((weights, shrinkage, 1 - step.one_lr * self.weight_decay))

    @torch.no_grad()
    def slope(self, cotangent: Sequence[Tensor]) -> Tensor:
        """[R] by one sweep back over the window."""
        carried = [tensor.clone() for tensor in cotangent]
        total = carried[0].new_zeros(len(self.groups.names))
        for weights, shrinkage, decay in reversed(self.window):
            total += shrinkage.slope(self.groups, weights, carried)
            shrinkage.carry_(self.groups, weights, carried, decay=decay)
        return self.ties.collect(total)

    def state_dict(self) -> dict[str, Any]:
        """The window; its tensors are never written again."""
        return {
            "window": [
                [weights, [shrinkage.norms, shrinkage.threshold, shrinkage.factors], decay]
                for weights, shrinkage, decay in self.window
            ]
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; in the weights' memory layout, on which sums' rounding depends."""
        self.window.clear()
        for saved, parts, decay in state["window"]:
            weights = [torch.empty_like(w).copy_(s) for w, s in zip(self.groups.weights, saved, strict=True)]
            self.window.append((weights, Shrinkage(*(part.to(weights[0].device) for part in parts)), decay))
