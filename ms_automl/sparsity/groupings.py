"""The kinds of groups, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ms_automl.errors import unknown_name
from ms_automl.models import MultiTaskNet, find_penalised
from ms_automl.models.penalised import told
from ms_automl.sparsity.coupled import CoupledGroups
from ms_automl.sparsity.groups import ChannelGroups, FilterGroups, Groups, Layers, WeightGroups
from ms_automl.sparsity.skips import with_a_way_around

GROUPINGS: dict[str, Callable[[MultiTaskNet, tuple[int, int, int], Layers, Mapping[str, str]], Groups]] = {
    "input_channel": lambda network, _, layers, __: ChannelGroups(network, layers),
    "output_channel": lambda network, _, layers, __: FilterGroups(network, layers),
    "coupled": CoupledGroups,
    "weight": lambda network, _, layers, __: WeightGroups(network, layers),
}


def build_groups(
    network: MultiTaskNet,
    grouping: str,
    image_shape: tuple[int, int, int],
    kept: Mapping[str, str] = MappingProxyType({}),
) -> Groups:
    """Group the penalised weights of a network.

    Args:
        network: it is referred to, not copied. Its penalised convolutions are those that
            :func:`~ms_automl.models.penalised.find_penalised` finds. Where it does not say which of its layers are
            removable, that is found by trying (:mod:`~ms_automl.sparsity.skips`).
        grouping: a key of :data:`GROUPINGS`.
        image_shape: (channels, H, W) of the images it takes; tells `coupled` what to trace it with.
        kept: by name of a module or a parameter, why it is to be left alone.

    Raises:
        ConfigError: for an unknown name.
        NetworkError: where no weight can go to zero, or the trunk's channels cannot be coupled.
    """
    if grouping not in GROUPINGS:
        raise unknown_name("grouping", grouping, list(GROUPINGS))
    single, heads = grouping != "input_channel", grouping == "coupled"
    found = find_penalised(network, image_shape, kept, single=single, heads=heads)
    groups = GROUPINGS[grouping](network, image_shape, found.layers, kept)
    if network.removable is None:
        groups.let_go(with_a_way_around(network, groups, image_shape))
    groups.share = groups.total / found.parameters
    left_out, taken = {**found.left_out, **groups.left_out}, {id(weight) for weight in groups.weights}
    mine = {name for name, layer in network.layers().items() if id(layer._parameters.get("weight")) in taken}
    groups.left_out = {name: why for name, why in left_out.items() if name not in mine}
    return groups


def remark(groups: Groups) -> str:
    """A line on what λ cannot act on; empty where it acts on more than half of the trunk, and on all it could."""
    if groups.share >= 0.5 and not groups.left_out:
        return ""
    share = f"{100 * groups.share:.3g} % of the trunk's parameters"
    line = f"λ can act on {share}, and no more of them can go to zero"
    return line + (f"; left out: {told(groups.left_out)}" if groups.left_out else "")
