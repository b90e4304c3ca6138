"""The kinds of groups, by name."""

from __future__ import annotations

from collections.abc import Callable

from ms_automl.errors import unknown_name
from ms_automl.models import MultiTaskNet
from ms_automl.sparsity.coupled import CoupledGroups
from ms_automl.sparsity.groups import ChannelGroups, FilterGroups, Groups, WeightGroups

GROUPINGS: dict[str, Callable[[MultiTaskNet, tuple[int, int, int]], Groups]] = {
    "input_channel": lambda network, _: ChannelGroups(network),
    "output_channel": lambda network, _: FilterGroups(network),
    "coupled": CoupledGroups,
    "weight": lambda network, _: WeightGroups(network),
}


def build_groups(network: MultiTaskNet, grouping: str, image_shape: tuple[int, int, int]) -> Groups:
    """Group the penalised weights of a network.

    Args:
        network: it is referred to, not copied.
        grouping: a key of :data:`GROUPINGS`.
        image_shape: (channels, H, W) of the images it takes; tells `coupled` what to trace it with.

    Raises:
        ConfigError: for an unknown name.
        NetworkError: where the trunk's channels cannot be coupled.
    """
    if grouping not in GROUPINGS:
        raise unknown_name("grouping", grouping, list(GROUPINGS))
    return GROUPINGS[grouping](network, image_shape)
