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

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.sides import Stacks

FLOOR = 1e-12
"""Smallest d: far below Adam's ε, and large enough that no derivative overflows."""

MOST_STEPS = 50


def adam_metric(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor]) -> list[Tensor]:
    """Adam's d = sqrt(v̂) + ε of the step that was just taken; ε alone where a weight never had a gradient.

    Args:
        optimizer: Adam or AdamW, without amsgrad.
        weights: some of its parameters.
    """
    options = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    moments, corrections = [], []
    for weight in weights:
        state = optimizer.state.get(weight, {})
        moments.append(state["exp_avg_sq"] if state else torch.zeros_like(weight))
        beta = options[id(weight)]["betas"][1]
        corrections.append((1 - beta ** float(state["step"])) ** 0.5 if state else 1.0)
    metric = list(torch._foreach_sqrt(moments))
    torch._foreach_div_(metric, corrections)
    torch._foreach_add_(metric, [options[id(weight)]["eps"] for weight in weights])
    return metric


def _euclidean(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor]) -> None:
    return None


METRICS: dict[str, Callable[[torch.optim.Optimizer, Sequence[Tensor]], list[Tensor] | None]] = {
    "euclidean": _euclidean,
    "adam": adam_metric,
}
"""By name: d as tensors shaped like the weights, from the optimiser's state; None where d is 1 throughout."""


def multipliers(
    groups: Groups, tensors: Sequence[Tensor], threshold: Tensor, metric: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """What the step multiplies each weight by, s / (s + τ/d_i), and which groups it leaves alive.

    Differentiable in weights, threshold and metric: the root is found without a graph, and then given the
    derivative of the implicit function (first derivatives; the second are not exact).
    A group that dies, and one that is kept to pass the signal, answers neither threshold nor metric.

    Args:
        groups: the groups. Where a weight stands in two, it gets the product of their factors.
        tensors: shaped like the weights, before the step.
        threshold: [G] τ ≥ 0.
        metric: d, shaped like the weights; raised to at least 1e-12.

    Returns:
        Tensors shaped like the weights, and [G] False where a group dies.
    """
    stacks = groups.stacks
    tensors, metric = stacks(tensors), stacks(metric)
    torch._foreach_clamp_min_(metric, FLOOR)
    with torch.no_grad():
        squares, scaled = torch._foreach_mul(tensors, tensors), torch._foreach_mul(tensors, metric)
        torch._foreach_mul_(scaled, scaled)
        sums = stacks.sums(squares, scaled, torch._foreach_div(squares, metric))
        norms, lengths, inverse = sums[0].sqrt(), sums[1].sqrt(), sums[2]
        limit = threshold.detach()
        shrinks = (lengths > limit) & (limit > 0)
        alive = shrinks | (limit == 0) | groups.strongest(lengths)
        guess = _guess(norms, lengths, inverse, limit, shrinks)
        # Else s = 1 and τ = 0 for the living, which is a factor of 1, and s = 0 and τ = 1 for the dead: exactly 0.
        root = torch.where(shrinks, guess, alive.to(guess.dtype))
    threshold = torch.where(shrinks, threshold, (~alive).to(threshold.dtype))
    ratios = torch._foreach_div(stacks.spread(threshold, absent=0.0), stacks.members(metric))
    members = stacks.members(tensors)
    with torch.no_grad():
        root = _root(stacks, members, ratios, root, shrinks, norms)
    if torch.is_grad_enabled():
        # The root stays where φ does: 2 ψ ds is the change of φ at the fixed s.
        parts = torch._foreach_div(members, torch._foreach_add(ratios, stacks.spread(root)))
        (phi,) = stacks.total(stacks.inner(torch._foreach_mul(parts, parts)))
        _, psi = _phi_and_psi(stacks, members, ratios, root, shrinks)
        root = torch.where(shrinks, root + (phi - phi.detach()) / (2 * psi), root)
    rooted = stacks.spread(root)
    factors = torch._foreach_div(rooted, torch._foreach_add(ratios, rooted))
    return stacks.split(stacks.product(factors)), alive


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


def _root(
    stacks: Stacks,
    members: list[Tensor],
    ratios: tuple[Tensor, ...],
    root: Tensor,
    shrinks: Tensor,
    norms: Tensor,
) -> Tensor:
    """[G] s with φ(s) = 1 for the groups that shrink, by Newton's method on φ^(-1/2) = 1 from a first guess."""
    eps = torch.finfo(root.dtype).eps
    for _ in range(MOST_STEPS):
        phi, psi = _phi_and_psi(stacks, members, ratios, root, shrinks)
        last, root = root, (root + phi * (phi.sqrt() - 1) / psi).clamp(min=0)
        # After a step of relative size δ the error is about δ²/10: that leaves one of rounding.
        near = torch.maximum(8 * eps**0.5 * root, 4 * eps * norms)
        if not bool(((root - last).abs() > near).any()):
            break
    return root


@torch.no_grad()
def _phi_and_psi(
    stacks: Stacks, members: list[Tensor], ratios: tuple[Tensor, ...], root: Tensor, shrinks: Tensor
) -> Tensor:
    """[2, G] φ(s) and ψ(s) = -φ'(s)/2 of the groups that shrink, 1 for others; in as little memory as can be."""
    sums = torch._foreach_add(ratios, stacks.spread(root))
    parts = torch._foreach_div(members, sums)
    torch._foreach_mul_(parts, parts)
    phi = stacks.inner(parts)
    torch._foreach_div_(parts, sums)
    return torch.where(shrinks, stacks.total(phi, stacks.inner(parts)), 1.0)
