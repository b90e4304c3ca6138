"""The proximal step in a diagonal metric, such as that of Adam's second moment.

Adam divides its step by d = sqrt(v̂) + ε, weight by weight. In its metric the proximal step is (Deleu & Bengio
2021, arXiv 2102.03869)

    argmin_x  (1/2) Σ_i d_i (x_i - z_i)² + τ ||x||,      τ = η λ sqrt(n),

which is 0 where ||d ∘ z|| ≤ τ, and else x_i = z_i s / (s + τ/d_i) with s = ||x|| > 0 the root of

    φ(s) = Σ_i (z_i / (s + τ/d_i))² = 1.

That is the secular equation of a trust-region step: φ^(-1/2) is concave and rises, so that Newton's method on
φ^(-1/2) = 1 comes from the left after one step, never leaves it again, and needs few steps (Conn, Gould & Toint
2000, Trust-Region Methods, section 7.3): two in a training, from the first guess made here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.memberships import Members

MOST_STEPS = 50


def adam_metric(optimizer: torch.optim.Optimizer, groups: Groups) -> Tensor:
    """[N] Adam's d = sqrt(v̂) + ε of the step that was just taken; ε alone where a weight never had a gradient.

    Args:
        optimizer: Adam or AdamW of some parameters, without amsgrad, with one β2 and one ε for all.
        groups: of some of its parameters.
    """
    states = [optimizer.state.get(weight, {}) for weight in groups.weights]
    beta = optimizer.defaults["betas"][1]
    moments = [
        state["exp_avg_sq"] if state else torch.zeros_like(weight)
        for weight, state in zip(groups.weights, states, strict=True)
    ]
    metric = groups.blocks.join(moments).sqrt_()
    corrections = [(1 - beta ** float(state["step"])) ** 0.5 if state else 1.0 for state in states]
    if len(set(corrections)) == 1:
        metric /= corrections[0]
    else:
        torch._foreach_div_(groups.blocks.split(metric), corrections)
    return metric.add_(optimizer.defaults["eps"])


def _euclidean(optimizer: torch.optim.Optimizer, groups: Groups) -> None:
    return None


PROX_METRICS: dict[str, Callable[[torch.optim.Optimizer, Groups], Tensor | None]] = {
    "euclidean": _euclidean,
    "adam": adam_metric,
}
"""By name: d as a vector in the order of the groups' blocks, from the optimiser's state; None where d is 1."""


@torch.no_grad()
def multipliers(groups: Groups, threshold: Tensor, metric: Tensor) -> tuple[list[Tensor], Tensor]:
    """What the step multiplies each weight by, s / (s + τ/d_i), and which groups it leaves alive.

    Args:
        groups: the groups, before the step. Where a weight stands in two, it gets the product of their factors.
        threshold: [G] τ ≥ 0.
        metric: [N] d > 0, in the order of the groups' blocks.

    Returns:
        Tensors shaped like the weights, and [G] False where a group dies.
    """
    members, weights = groups.members, groups.blocks.join(groups.weights)
    norms, lengths, inverse = _moments(members, weights, metric)
    shrinks = (lengths > threshold) & (threshold > 0)
    alive = shrinks | (threshold == 0) | groups.strongest(lengths)
    guess = _guess(norms, lengths, inverse, threshold, shrinks)
    # Else s = 1 and τ = 0 for the living, which is a factor of 1, and s = 0 and τ = 1 for the dead: exactly 0.
    root = torch.where(shrinks, guess, alive.to(guess.dtype))
    threshold = torch.where(shrinks, threshold, (~alive).to(threshold.dtype))
    equation = _Equation(members, weights, metric, threshold)
    root = _root(equation, root, shrinks, norms)
    return groups.blocks.split(equation.factors(root)), alive


def _moments(members: Members, weights: Tensor, metric: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[G] each: ||z||, ||d ∘ z|| and Σ z²/d."""
    summands = weights.new_empty(3, len(weights))
    torch.mul(weights, weights, out=summands[0])
    torch.mul(weights, metric, out=summands[1]).square_()
    torch.div(summands[0], metric, out=summands[2])
    squares, scaled, inverse = members.sum_over_sides(summands)
    return squares.sqrt(), scaled.sqrt(), inverse


def _guess(norms: Tensor, lengths: Tensor, inverse: Tensor, limit: Tensor, shrinks: Tensor) -> Tensor:
    """[G] s near the root, from ||z||, ||d ∘ z|| and Σ z²/d.

    φ^(-1/2) is τ/||d ∘ z|| at 0 and rises towards (s + b)/||z||, b = τ Σ z²/d / ||z||². The guess is where
    s + b - c b/(s + b) with c = b - τ ||z||/||d ∘ z||, which has both of these, is ||z||: exact where d is
    constant in the group, and right to first order in a small τ.
    """
    norms, lengths = torch.where(shrinks, norms, 1.0), torch.where(shrinks, lengths, 1.0)
    offset = limit * inverse / norms.square()
    bend = offset * (offset - limit * norms / lengths).clamp(min=0)
    return ((norms + (norms.square() + 4 * bend).sqrt()) / 2 - offset).clamp(min=0)


def _root(equation: _Equation, root: Tensor, shrinks: Tensor, norms: Tensor) -> Tensor:
    """[G] s with φ(s) = 1 for the groups that shrink, by Newton's method on φ^(-1/2) = 1 from a first guess."""
    eps = torch.finfo(root.dtype).eps
    for _ in range(MOST_STEPS):
        phi, psi = torch.where(shrinks, equation.phi_and_psi(root), 1.0)
        last, root = root, (root + phi * (phi.sqrt() - 1) / psi).clamp(min=0)
        # After a step of relative size δ the error is about δ²/10: that leaves one of rounding.
        near = torch.maximum(8 * eps**0.5 * root, 4 * eps * norms)
        if not bool(((root - last).abs() > near).any()):
            break
    return root


class _Equation:
    """φ(s) of all groups, in memory that every step uses again.

    Args:
        members: of the groups.
        weights: [N] z.
        metric: [N] d.
        threshold: [G] τ.
    """

    def __init__(self, members: Members, weights: Tensor, metric: Tensor, threshold: Tensor) -> None:
        self.members, self.weights = members, weights
        self.below = weights.new_empty(members.memberships, len(weights))
        self.parts = weights.new_empty(2, members.memberships, len(weights))
        self.below_views, self.parts_views = members.views(self.below), members.views(self.parts)
        self.ratios = members.views(torch.empty_like(self.below))
        metrics = members.blocks.views(metric) * members.memberships
        for ratio, tau, d in zip(self.ratios, members.spread(threshold, absent=0.0), metrics, strict=True):
            torch.div(tau, d, out=ratio)

    def _set_below(self, root: Tensor) -> list[Tensor]:
        """Set below to s + τ/d; s as it broadcasts over the members."""
        spread = self.members.spread(root)
        for below, ratio, s in zip(self.below_views, self.ratios, spread, strict=True):
            torch.add(ratio, s, out=below)
        return spread

    def phi_and_psi(self, root: Tensor) -> Tensor:
        """[2, G] φ(s) and ψ(s) = -φ'(s)/2."""
        self._set_below(root)
        phi, psi = self.parts
        torch.div(self.weights, self.below, out=phi).square_()
        torch.div(phi, self.below, out=psi)
        return self.members.sum(self.parts_views)

    def factors(self, root: Tensor) -> Tensor:
        """[N] s / (s + τ/d), multiplied over the memberships."""
        for below, s in zip(self.below_views, self._set_below(root), strict=True):
            torch.div(s, below, out=below)
        product = self.below[0]
        for other in self.below[1:]:
            product *= other
        return product
