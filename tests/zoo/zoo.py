"""The networks of the zoo, and what is expected of those that are not served in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from _pytest.mark import ParameterSet
from torch import nn

from tests.zoo import blocks, timms, torchvisions
from tests.zoo.conformance import conform


@dataclass(frozen=True)
class Network:
    """One that is asked.

    Attributes:
        build: makes it, without weights that anybody has trained.
        side: of its images.
        source: where it comes from.
    """

    build: Callable[[], nn.Module]
    side: int
    source: str


def _of(source: str, builds: dict[str, Callable[[], nn.Module]], sides: dict[str, int]) -> dict[str, Network]:
    return {name: Network(build, sides.get(name, 64), source) for name, build in builds.items()}


TORCHVISION = _of("torchvision", torchvisions.TORCHVISION, torchvisions.SIDE)
TIMM = _of("timm", timms.TIMM, timms.SIDE)
BY_HAND = _of("by hand", blocks.BLOCKS, {})
ZOO = TORCHVISION | TIMM | BY_HAND

EXPECTED = {
    "layer norm over all": "most parameters are the norm's, which keeps its width",
    "pixel attention": "its code takes the width of what it gives from its input",
    "attention in one layer": "as of pixel attention, and 32 features are too few to pick from",
    "mixer": "what mixes tokens has a bias for each, which a channel of zeros says too",
    "lstm": "recurrent layers are not followed",
}
"""Of networks that are served in part, what stands in the way."""

QUICK = {
    "batch norm",
    "group norm",
    "layer norm over channels",
    "grouped",
    "squeeze and excitation",
    "pixel shuffle",
    "transposed",
    "c2f",
    "attention in torch",
    "attention with grouped queries",
    "convnext block",
    "outputs by name",
    "lstm",
}
"""Those that every run of the tests asks."""


def asked(networks: dict[str, Network]) -> list[ParameterSet]:
    """Parameters of a test, of which all but the quick ones are long."""
    return [pytest.param(name, id=name, marks=() if name in QUICK else pytest.mark.whole) for name in networks]


def check(name: str) -> None:
    """Fail where a network is not served as is expected; what is wrong raises on the way."""
    network = ZOO[name]
    row = conform(name, network.build, network.side, patterns=2)
    assert row.served == ("in full" if name not in EXPECTED else "in part"), row
