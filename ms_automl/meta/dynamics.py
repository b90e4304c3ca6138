"""The training step as a pure function, to be differentiated by torch.func.

A point is everything that a step maps to its successor: the parameters θ and the optimiser's moments. The two
update rules are those of ``torch.optim.SGD`` (momentum, coupled decay) and ``torch.optim.AdamW`` (decoupled
decay, arXiv 1711.05101), written as functions of the gradient.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ms_automl.data import Batch
from ms_automl.errors import ConfigError
from ms_automl.models import MultiTaskNet, frozen_buffers
from ms_automl.models.cost import Cost

Loss = Callable[[Mapping[str, Tensor], Batch], Tensor]
Tensors = list[Tensor]
Update = Callable[[Tensors, Tensors, list[Tensors], float, int], tuple[Tensors, list[Tensors]]]

# Tensor times number. `*` makes the number a tensor whose tangent is zero, and in forward mode torch works out the
# shape of every product with that zero in Python: most of the time of a tangent, for the same result.
_times, _over, _plus = torch.ops.aten.mul.Scalar, torch.ops.aten.div.Scalar, torch.ops.aten.add.Scalar


@dataclass(frozen=True)
class Point:
    """Where training stands: what the next step depends on, apart from batch and learning rate.

    Attributes:
        parameters: P tensors.
        moments: one list of P tensors for SGD (momentum), two for AdamW (first and second moment).
        count: optimiser steps taken so far, which AdamW's bias correction depends on.
    """

    parameters: Tensors
    moments: list[Tensors]
    count: int

    def at(self, parameters: Tensors, moments: list[Tensors] | None = None) -> Point:
        """The same point with other parameters, and other moments where given."""
        return Point(parameters, self.moments if moments is None else moments, self.count)

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {"parameters": self.parameters, "moments": self.moments, "count": self.count}


class Dynamics:
    """A functional view of one network in training with one optimiser.

    Args:
        network: in training mode; its live parameters are read, never written.
        optimizer: ``torch.optim.SGD`` or ``torch.optim.AdamW`` over the network's parameters.
        loss: the training loss of the network's outputs on a batch, a scalar.
        cost: Hessian-vector products are counted here.

    Attributes:
        parameters: the P live parameters that train, in the network's order.
        weight_decay: of each of them.
    """

    def __init__(self, network: MultiTaskNet, optimizer: torch.optim.Optimizer, loss: Loss, cost: Cost) -> None:
        named = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.network, self.optimizer, self.loss, self.cost = network, optimizer, loss, cost
        self.names = tuple(named)
        self.parameters: Tensors = list(named.values())
        decay = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
        self.weight_decay: list[float] = [decay[id(value)] for value in self.parameters]
        settings = optimizer.param_groups[0]
        if isinstance(optimizer, torch.optim.AdamW):
            self.moment_names: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
            beta1, beta2 = settings["betas"]
            self.update: Update = AdamWUpdate(beta1, beta2, settings["eps"], self.weight_decay)
        elif isinstance(optimizer, torch.optim.SGD):
            self.moment_names = ("momentum_buffer",)
            self.update = SGDUpdate(settings["momentum"], self.weight_decay)
        else:
            raise ConfigError(f"no functional form of {type(optimizer).__name__}: train with SGD or AdamW")

    def weight_decay_of(self, parameter: Tensor) -> float:
        """δ of one of the parameters."""
        return next(
            decay for value, decay in zip(self.parameters, self.weight_decay, strict=True) if value is parameter
        )

    def point(self) -> Point:
        """A copy of where training stands now."""
        states = [self.optimizer.state.get(value, {}) for value in self.parameters]
        moments = [
            [_copy(state.get(name), value) for state, value in zip(states, self.parameters, strict=True)]
            for name in self.moment_names
        ]
        count = max((int(state.get("step", 0)) for state in states), default=0)
        return Point([value.detach().clone() for value in self.parameters], moments, count)

    def gradient(self, parameters: Sequence[Tensor], batch: Batch) -> Tensors:
        """∇L(θ) on a batch, P tensors; differentiable, and batch-norm buffers stay as they are."""

        def loss(values: Tensors) -> Tensor:
            arguments = dict(zip(self.names, values, strict=True))
            outputs = torch.func.functional_call(self.network, arguments, (batch.images,))
            return self.loss(outputs, batch)

        with frozen_buffers(self.network):
            gradients: Tensors = torch.func.grad(loss)(list(parameters))
        return gradients

    def hessian_product(self, direction: Tensors, batch: Batch) -> Tensors:
        """(∇²L + δ) v at the live parameters, by forward over reverse (Pearlmutter 1994): P tensors.

        δ is the weight decay. Not counted by itself: see :meth:`charge`.
        """
        here = [value.detach() for value in self.parameters]
        product: Tensors = jvp(lambda values: self.gradient(values, batch), (here,), (direction,))
        return [h + decay * v for h, v, decay in zip(product, direction, self.weight_decay, strict=True)]

    def step(self, point: Point, batch: Batch, lr: float) -> Point:
        """The point after one optimiser step; differentiable in the point's tensors."""
        count = point.count + 1
        gradients = self.gradient(point.parameters, batch)
        parameters, moments = self.update(point.parameters, gradients, point.moments, lr, count)
        return Point(parameters, moments, count)

    def load_point(self, state: dict[str, Any]) -> Point:
        """Inverse of :meth:`Point.state_dict`."""
        return Point(self.alike(state["parameters"]), [self.alike(m) for m in state["moments"]], state["count"])

    def alike(self, tensors: Sequence[Tensor]) -> Tensors:
        """Copies of P tensors in the parameters' memory layout, on which sums' rounding depends."""
        return [
            torch.empty_like(p, requires_grad=False).copy_(t)
            for p, t in zip(self.parameters, tensors, strict=True)
        ]

    def charge(self, batch: Batch, products: int = 1) -> None:
        """Count Hessian-vector products on a batch."""
        self.cost.hessian += products * len(batch.images)


@dataclass(frozen=True)
class SGDUpdate:
    """m ← μ m + g + δθ,  θ ← θ - η m, as ``torch.optim.SGD`` (m = 0 at the start, no dampening).

    Attributes:
        momentum: μ.
        weight_decay: δ of each parameter.
    """

    momentum: float
    weight_decay: Sequence[float]

    def __call__(
        self, parameters: Tensors, gradients: Tensors, moments: list[Tensors], lr: float, count: int
    ) -> tuple[Tensors, list[Tensors]]:
        """Parameters and moments after the step."""
        decayed = zip(parameters, gradients, moments[0], self.weight_decay, strict=True)
        velocity = [_times(m, self.momentum) + g + _times(value, decay) for value, g, m, decay in decayed]
        return [value - _times(m, lr) for value, m in zip(parameters, velocity, strict=True)], [velocity]


@dataclass(frozen=True)
class AdamWUpdate:
    """m ← β₁m + (1-β₁)g,  v ← β₂v + (1-β₂)g²,  θ ← (1 - ηδ)θ - η m̂ / (sqrt(v̂) + ε), as ``torch.optim.AdamW``.

    The derivative of sqrt(v) at v = 0 is taken as 0: a weight that never had a gradient does not move.

    Attributes:
        beta1, beta2: decays of the moments.
        eps: ε.
        weight_decay: δ of each parameter.
    """

    beta1: float
    beta2: float
    eps: float
    weight_decay: Sequence[float]

    def __call__(
        self, parameters: Tensors, gradients: Tensors, moments: list[Tensors], lr: float, count: int
    ) -> tuple[Tensors, list[Tensors]]:
        """Parameters and moments after the step; ``count`` includes it."""
        beta1, beta2 = self.beta1, self.beta2
        first = [_times(m, beta1) + _times(g, 1 - beta1) for m, g in zip(moments[0], gradients, strict=True)]
        second = [_times(v, beta2) + _times(g, 1 - beta2) * g for v, g in zip(moments[1], gradients, strict=True)]
        rate, scale = lr / (1 - beta1**count), math.sqrt(1 - beta2**count)
        moved = [
            _times(value, 1 - lr * decay) - _times(m, rate) / _plus(_over(_safe_sqrt(v), scale), self.eps)
            for value, m, v, decay in zip(parameters, first, second, self.weight_decay, strict=True)
        ]
        return moved, [first, second]


def jvp(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """The derivative of a function at ``primals`` along ``tangents``: trees of tensors."""
    with _without_torchs_own_warnings():
        return torch.func.jvp(function, primals, tangents)[1]


def jvp_of_each(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """As :func:`jvp` along R tangents at once, stacked in a first axis [R, …] as the results are."""
    with _without_torchs_own_warnings():
        return torch.func.vmap(lambda *along: torch.func.jvp(function, primals, along)[1])(*tangents)


@contextmanager
def _without_torchs_own_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # The first call makes torch load rules that it wrote in its own deprecated TorchScript.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        # A layer without a batching rule is run tangent by tangent: slower, no less right.
        warnings.filterwarnings("ignore", "There is a performance drop because we have not yet implemented")
        yield


def _safe_sqrt(values: Tensor) -> Tensor:
    positive = values > 0
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def _copy(moment: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if moment is None else moment.detach().clone()
