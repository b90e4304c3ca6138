"""A search space as plain data: names, bounds, scale, and which layers each parameter drives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Parameter:
    """One searched number.

    Attributes:
        name: as samplers and records show it.
        low: smallest value.
        high: largest value.
        scale: ``log`` for numbers that act by their ratio, as λ does.
    """

    name: str
    low: float
    high: float
    scale: Literal["log", "linear"] = "log"


@dataclass(frozen=True)
class Space:
    """Parameters, and for each of them the layers whose λ it is.

    Attributes:
        name: as ``--set space=...`` takes it.
        parameters: in a fixed order.
        layers: by parameter name, the layers it drives; every layer stands exactly once.
    """

    name: str
    parameters: tuple[Parameter, ...]
    layers: Mapping[str, tuple[str, ...]]

    def lambdas(self, values: Mapping[str, float]) -> dict[str, float]:
        """λ by layer for values by parameter name."""
        return {layer: values[name] for name, layers in self.layers.items() for layer in layers}

    def ties(self, layers: tuple[str, ...]) -> list[int]:
        """For each of ``layers`` the index of its parameter."""
        index = {layer: i for i, name in enumerate(self.layers) for layer in self.layers[name]}
        return [index[layer] for layer in layers]
