"""A search space as plain data: names, bounds, scale, and which layers each parameter drives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ms_automl.errors import ConfigError


@dataclass(frozen=True)
class Parameter:
    """One searched number.

    Attributes:
        name: as samplers and records show it.
        low: smallest value.
        high: largest value.
        scale: ``log`` for numbers that act by their ratio, as λ does.
        choices: the values it takes, where not all from low to high.
    """

    name: str
    low: float
    high: float
    scale: Literal["log", "linear"] = "log"
    choices: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (-math.inf < self.low <= self.high < math.inf and (self.scale == "linear" or self.low > 0)):
            condition = "0 < low <= high" if self.scale == "log" else "low <= high"
            raise ConfigError(f"{self.name}: `{condition}` must hold, but got low={self.low}, high={self.high}")


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

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        if list(self.layers) != names:
            raise ConfigError(
                f"space '{self.name}': `layers` must have the keys {names}, but has {list(self.layers)}"
            )
        driven = [layer for layers in self.layers.values() for layer in layers]
        if len(set(driven)) < len(driven):
            raise ConfigError(
                f"space '{self.name}': a layer must have one parameter, but `layers` is {self.layers}"
            )

    def lambdas(self, values: Mapping[str, float]) -> dict[str, float]:
        """λ by layer for values by parameter name."""
        return {layer: values[name] for name, layers in self.layers.items() for layer in layers}

    def ties(self, layers: tuple[str, ...]) -> list[int]:
        """For each of ``layers`` the index of its parameter."""
        index = {layer: i for i, name in enumerate(self.layers) for layer in self.layers[name]}
        return [index[layer] for layer in layers]
