"""Gates on groups, trained with the weights: hard-concrete ones under a constraint, and products of factors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ms_automl.meta.step import TrainingStep
from ms_automl.rivals.base import Latent, RivalInputs, remove, shortest
from ms_automl.sparsity.groups import Groups
from ms_automl.sparsity.importance import cheapest

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Of the hard-concrete distribution: β, γ and ζ of Louizos et al. 2018."""
COLLAPSED = 0.1
"""A product of gates leaves no exact zero: a group is gone below this share of its layer's longest (ours)."""


class Gated(Latent):
    """θ_g = z_g ω_g, ω latent, z of other parameters: ∂L/∂ω_g = z_g ∂L/∂θ_g, ∂L/∂z_g = <∂L/∂θ_g, ω_g>.

    Args:
        groups: that do not overlap.
    """

    @torch.no_grad()
    def gate(self, gates: Tensor) -> None:
        """θ ← z ω with gates z [G]."""
        torch._foreach_copy_(self.groups.weights, list(self.latent_weights))
        self.groups.scale_(gates)

    @torch.no_grad()
    def gate_gradient(self, gates: Tensor) -> Tensor:
        """[G] ∂L/∂z_g; what is left in ``grad`` of the weights becomes ∂L/∂ω."""
        gradients = self.groups.gradients()
        slope = self.groups.inner(gradients, self.latent_weights)
        torch._foreach_mul_(gradients, self.groups.per_weight(gates))
        return slope


class HardConcrete(Gated):
    """`l0`: min_θ L subject to E[density] ≤ 1 - level, over hard-concrete gates.

    z = clamp(s (ζ - γ) + γ, 0, 1) with s = σ((log u - log(1 - u) + log α_g)/β), u uniform, β = 2/3, γ = -.1,
    ζ = 1.1 (Louizos et al. 2018, arXiv 1712.01312, eq. 10 to 12), so that P(z_g > 0) = σ(log α_g - β log(-γ/ζ)).
    The Lagrangian L + μ (Σ_g n_g P(z_g > 0)/N - (1 - level)) descends in θ and α and ascends in μ ≥ 0, which
    starts again at 0 while the constraint holds (Gallego-Posada et al. 2022, arXiv 2208.04425, section 3). In the
    end every gate stands at clamp(σ(log α)(ζ - γ) + γ, 0, 1); where too few are 0, those of lowest α follow.

    Args:
        groups: the groups.
        level: share of the weights to be zero.
        seed: of u.
        gate_lr: Adam's, of log α.
        dual_lr: of μ.
        droprate: 1 - σ(log α) at the first step.
    """

    def __init__(
        self, groups: Groups, level: float, seed: int, *, gate_lr: float, dual_lr: float, droprate: float
    ) -> None:
        super().__init__(groups)
        self.level, self.dual_lr = level, dual_lr
        self.log_alpha = torch.full_like(groups.size, math.log(1 / droprate - 1))
        self.optimizer = torch.optim.Adam([self.log_alpha], lr=gate_lr)
        self.dual = 0.0
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn = torch.ones_like(groups.size)  # z of this step, and its slope in log α
        self.slope = torch.zeros_like(groups.size)

    @torch.no_grad()
    def prepare(self) -> None:
        """Draw the gates of a step."""
        u = torch.rand(len(self.log_alpha), generator=self.generator).to(self.log_alpha).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid((torch.logit(u) + self.log_alpha) / TEMPERATURE)
        stretched = s * (HIGH - LOW) + LOW
        self.drawn = stretched.clamp(0, 1)
        moves = (stretched > 0) & (stretched < 1)
        self.slope = torch.where(moves, (HIGH - LOW) * s * (1 - s) / TEMPERATURE, 0.0)
        self.gate(self.drawn)

    def open(self) -> Tensor:
        """[G] P(z_g > 0)."""
        return torch.sigmoid(self.log_alpha - TEMPERATURE * math.log(-LOW / HIGH))

    def median(self) -> Tensor:
        """[G] the gates of evaluation; in a layer that must pass the signal one stays open."""
        gates = (torch.sigmoid(self.log_alpha) * (HIGH - LOW) + LOW).clamp(0, 1)
        return torch.where(self.groups.strongest(self.log_alpha) & (gates == 0), 1.0, gates)

    @torch.no_grad()
    def adjust(self) -> None:
        """Descend in α, ascend in μ."""
        opened, share = self.open(), self.groups.size / self.groups.total
        excess = float((opened * share).sum()) - (1 - self.level)
        gradient = self.gate_gradient(self.drawn) * self.slope + self.dual * share * opened * (1 - opened)
        self.log_alpha.grad = gradient
        self.optimizer.step()
        self.dual = max(0.0, self.dual + self.dual_lr * excess) if excess > 0 else 0.0
        super().adjust()

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Note the latent weights; the gates of evaluation stand until the next step."""
        self.take()
        gates = self.median()
        self.gate(gates)
        if now.phase >= 1:
            closed = gates == 0
            remove(self.groups, closed | cheapest(self.groups, self.open(), self.level, closed))

    def state_dict(self) -> dict[str, Any]:
        """Latent weights, gates, their optimiser, μ and what draws u."""
        return super().state_dict() | {
            "log_alpha": self.log_alpha.clone(),
            "optimizer": self.optimizer.state_dict(),
            "dual": self.dual,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.dual = state["dual"]
        self.generator.set_state(state["generator"].cpu())


class Product(Gated):
    """`d-gating`: θ_g = ω_g Π_{d<D} γ_{g,d} under (λ/D) Σ_g sqrt(n_g) (||ω_g||² + Σ_d γ_{g,d}²).

    A smooth problem whose minima are those of λ Σ_g sqrt(n_g) ||θ_g||^(2/D) (NeurIPS 2025, openreview 8OGTkEJrmb).
    It starts with all D factors of a group of one norm. A group whose norm ends below a tenth of its layer's
    longest is gone; where a level is asked for, the shortest follow until it is reached.

    Args:
        groups: the groups.
        level: share of the weights to be zero, at least; 0 leaves it to λ.
        lambda_: λ, one for all layers.
        depth: D, at least 2.
    """

    def __init__(self, groups: Groups, level: float, lambda_: float, depth: int) -> None:
        super().__init__(groups)
        self.level, self.depth, self.lambda_ = level, depth, lambda_
        self.pull = 2 * lambda_ / depth * groups.size.sqrt()  # the penalty's gradient is this times the factor
        norms = groups.norms().clamp(min=1e-6)
        self.gates = (norms ** (1 / depth)).repeat(depth - 1, 1)
        self.optimizer = torch.optim.Adam([self.gates])
        torch._foreach_div_(list(self.latent_weights), groups.per_weight(self.gates.prod(0)))

    def lambdas(self) -> Tensor:
        """[L] λ, the same for every layer."""
        return torch.full_like(self.groups.size[:1], self.lambda_).repeat(len(self.groups.names))

    @torch.no_grad()
    def prepare(self) -> None:
        """θ as the factors' product."""
        self.gate(self.gates.prod(0))

    @torch.no_grad()
    def adjust(self) -> None:
        """The gradients of all factors, the penalty's with them."""
        slope = self.gate_gradient(self.gates.prod(0))
        others = torch.stack([self._without(index) for index in range(self.depth - 1)])
        self.gates.grad = slope * others + self.pull * self.gates
        super().adjust()
        for weight, pull in zip(self.groups.weights, self.groups.per_weight(self.pull), strict=True):
            if weight.grad is not None:
                weight.grad.addcmul_(weight, pull.to(weight.dtype))

    def _without(self, index: int) -> Tensor:
        """[G] the product of all gates but one."""
        return torch.cat([self.gates[:index], self.gates[index + 1 :]]).prod(0)

    @torch.no_grad()
    def step(self, now: TrainingStep) -> None:
        """Move the gates by the step's η; in the phase's last step what has collapsed goes."""
        self.take()
        self.optimizer.param_groups[0]["lr"] = now.one_lr
        self.optimizer.step()
        self.prepare()
        if now.phase >= 1:
            norms = self.groups.norms()
            longest = norms.new_zeros(len(self.groups.names)).scatter_reduce(0, self.groups.layer, norms, "amax")
            gone = (norms < COLLAPSED * longest[self.groups.layer]) & ~self.groups.strongest(norms)
            remove(self.groups, gone)
            remove(self.groups, shortest(self.groups, self.level))

    def state_dict(self) -> dict[str, Any]:
        """Latent weights, gates and their optimiser."""
        state = super().state_dict()
        return state | {"gates": self.gates.clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.gates.copy_(state["gates"])
        self.optimizer.load_state_dict(state["optimizer"])


def l0(given: RivalInputs, *, gate_lr: float = 0.1, dual_lr: float = 0.05, droprate: float = 0.01) -> HardConcrete:
    """Constrained hard-concrete gates; the rates are ours, for short trainings."""
    return HardConcrete(given.groups, given.level, given.seed, gate_lr=gate_lr, dual_lr=dual_lr, droprate=droprate)


def d_gating(given: RivalInputs, *, lambda_: float, depth: int = 2) -> Product:
    """Products of D factors, of which λ decides the sparsity."""
    return Product(given.groups, given.level, lambda_, depth)
