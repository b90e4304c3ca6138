"""What a network costs to run: time, memory, arithmetic."""

from __future__ import annotations

import statistics
import time
import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ms_automl.models.flops import flops_of_a_sample
from ms_automl.models.network import MultiTaskNet


@dataclass(frozen=True)
class Spread:
    """Quartiles of a measured value."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)


@dataclass(frozen=True)
class Latency:
    """Of one network among others.

    Attributes:
        ms: milliseconds a batch.
        ratio: to the first network, round by round: what a noisy machine says most reliably.
    """

    ms: Spread
    ratio: Spread


def latencies(networks: Mapping[str, nn.Module], images: Tensor, rounds: int = 30) -> dict[str, Latency]:
    """Time networks in turns, so that what else the machine does hits all alike.

    Args:
        networks: in evaluation mode, on the device of the images; ratios are to the first.
        images: [B, channels, H, W].
        rounds: of one call each; every network has a call before that does not count, and one in each round.

    Returns:
        By name.
    """
    times: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for network in networks.values():
            network(images)
        for _ in range(rounds):
            for name, network in networks.items():
                network(images)  # the caches are this network's now
                _wait(images)
                began = time.perf_counter()
                network(images)
                _wait(images)
                times[name].append(1000 * (time.perf_counter() - began))
    first = next(iter(times.values()))
    return {
        name: Latency(Spread.of(found), Spread.of([one / base for one, base in zip(found, first, strict=True)]))
        for name, found in times.items()
    }


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def peak_memory(network: nn.Module, images: Tensor) -> int:
    """The most bytes of activations that are alive at once in a forward, beside weights and images."""
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats(images.device)
        before = torch.cuda.memory_allocated(images.device)
        with torch.inference_mode():
            network(images)
        return torch.cuda.max_memory_allocated(images.device) - before
    with torch.no_grad(), _Living() as living:
        network(images)
    most: int = living.most
    return most


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, for as long as somebody holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.holders: Counter[int] = Counter()
        self.bytes = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_place(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            # A view of a weight is no new memory; one of a counted tensor holds it.
            if isinstance(value, Tensor) and (_place(value) not in given or _place(value) in self.holders):
                self._hold(value)
        return result

    def _hold(self, value: Tensor) -> None:
        place, size = _place(value), value.untyped_storage().nbytes()
        if not self.holders[place]:
            self.bytes += size
            self.most = max(self.most, self.bytes)
        self.holders[place] += 1
        weakref.finalize(value, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        if not self.holders[place]:
            del self.holders[place]
            self.bytes -= size


def _place(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def size_of(network: MultiTaskNet, image_shape: tuple[int, int, int]) -> dict[str, float]:
    """``parameters``, and the multiply-adds of one image in the whole network and in its trunk.

    Args:
        network: any.
        image_shape: (channels, H, W).
    """
    trunk = MultiTaskNet(_Named(network.trunk), {"features": nn.Identity()})
    return {
        "parameters": float(sum(parameter.numel() for parameter in network.parameters())),
        "macs": flops_of_a_sample(network, image_shape)[1] / 2,
        "trunk_macs": flops_of_a_sample(trunk, image_shape)[1] / 2,
    }


class _Named(nn.Module):
    """A trunk under another name."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Any:
        return self.trunk(images)
