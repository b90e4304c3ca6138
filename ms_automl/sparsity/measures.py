"""How sparse a trunk is: in groups, in weights, by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ms_automl.sparsity.groups import Groups


@dataclass(frozen=True)
class Sparsity:
    """Shares of exact zeros in a trunk.

    Attributes:
        group: zero groups / groups.
        param: weights in zero groups / penalised weights. It differs from ``group`` where groups differ in size; a
            weight of two groups counts once, and as zero when either is.
        trunk: weights in zero groups / all parameters of the trunk, penalised or not.
        layers: ``group`` within each layer, by name.
    """

    group: float
    param: float
    trunk: float
    layers: dict[str, float]

    @property
    def density(self) -> float:
        """1 - trunk."""
        return 1 - self.trunk


@torch.no_grad()
def measure(groups: Groups) -> Sparsity:
    """Measure a trunk."""
    alive = (groups.norms() > 0).to(torch.float64)
    zero = 1 - alive
    shares = [float((mask == 0).to(torch.float64).mean()) for mask in groups.per_weight(alive)]
    zeros = sum(share * weight.numel() for share, weight in zip(shares, groups.weights, strict=True))
    by_layer = groups.layer_sum(zero) / groups.layer_sum(torch.ones_like(zero))
    return Sparsity(
        group=float(zero.mean()),
        param=zeros / groups.total,
        trunk=zeros / groups.total * groups.share,
        layers=dict(zip(groups.names, by_layer.tolist(), strict=True)),
    )
