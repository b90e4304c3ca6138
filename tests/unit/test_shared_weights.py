"""A weight is one layer, whatever uses it and whatever it is called."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, check_network, names_of_modules, shared_weights
from ms_automl.sparsity import build_groups
from tests.unit.chains import SHAPE, TASK, apart, chain, conv, each_grouping, kept_zero, names


def tied() -> MultiTaskNet:
    network = chain(conv(8, 8))
    network.trunk[4].weight = network.trunk[2].weight
    return network


@apart
def test_a_weight_that_two_convolutions_use_is_one_layer_and_shrinks_once(grouping: str) -> None:
    network = tied()
    groups = build_groups(network, grouping, SHAPE)
    assert groups.names == ("0", "2")
    assert groups.total == 8 * 3 * 9 + 8 * 8 * 9
    before = network.trunk[4].weight.clone()
    groups.scale_(torch.full_like(groups.size, 0.5))
    assert torch.equal(network.trunk[4].weight, 0.5 * before)
    check_network(network, SHAPE, [TASK])


def test_a_weight_may_go_whole_only_where_all_that_use_it_may() -> None:
    network = tied()
    for removable, may_go in ((["2"], [False, False]), (["4"], [False, False]), (["4", "2"], [False, True])):
        network.removable = frozenset(removable)
        assert build_groups(network, "input_channel", SHAPE).removable.tolist() == may_go
    network.heads["d"] = conv(8, 8)
    network.heads["d"].weight = network.trunk[2].weight
    assert build_groups(network, "input_channel", SHAPE).removable.tolist() == [False, False]


def test_coupled_channels_of_a_shared_weight_or_bias_are_refused() -> None:
    with pytest.raises(NetworkError, match=r"'trunk\.2' and 'trunk\.4' share a weight.*input_channel$"):
        build_groups(tied(), "coupled", SHAPE)
    network = chain(conv(8, 8))
    network.trunk[4].bias = network.trunk[2].bias
    with pytest.raises(NetworkError, match=r"'trunk\.2' and 'trunk\.4' share a weight"):
        build_groups(network, "coupled", SHAPE)
    network = chain(conv(8, 8))
    network.heads["d"] = conv(8, 8)
    network.heads["d"].weight = network.trunk[2].weight
    with pytest.raises(NetworkError, match=r"'trunk\.2' and 'heads\.d' share a weight"):
        build_groups(network, "coupled", SHAPE)


def alias_data(network: MultiTaskNet) -> None:
    network.trunk[4].weight.data = network.trunk[2].weight.data


def alias_view(network: MultiTaskNet) -> None:
    network.trunk[4].weight = nn.Parameter(network.trunk[2].weight.detach().flip(0)[:])
    network.trunk[4].weight = nn.Parameter(network.trunk[2].weight.detach()[:])


def alias_part(network: MultiTaskNet) -> None:
    network.trunk[0].bias.data = network.trunk[2].weight.data[0, :, 0, 0]


@each_grouping
@pytest.mark.parametrize("alias", [alias_data, alias_view, alias_part])
def test_two_parameters_in_one_memory_are_refused(alias: Callable[[MultiTaskNet], None], grouping: str) -> None:
    network = chain(conv(8, 8))
    alias(network)
    for refuse in (lambda: check_network(network, SHAPE, [TASK]), lambda: build_groups(network, grouping, SHAPE)):
        with pytest.raises(NetworkError, match=r"are two parameters in the same memory.*b\.weight = a\.weight"):
            refuse()


def test_parts_of_one_memory_are_parameters_of_their_own() -> None:
    network = chain(conv(8, 8))
    both = torch.randn(2, 8, 8, 3, 3)
    for place, part in ((2, both[0]), (4, both[1])):
        network.trunk[place].weight = nn.Parameter(part)
    check_network(network, SHAPE, [TASK])
    assert names(network) == ["0", "2", "4"]


class Twice(nn.Module):
    """A convolution of two names that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3, 8), conv(8, 8)])
        self.stem, self.again = self.layers

    def forward(self, images: Tensor) -> Tensor:
        return self.again(torch.relu(self.layers[1](torch.relu(self.stem(images)))))


@apart
def test_a_convolution_of_two_names_that_is_called_twice_is_one_layer(grouping: str) -> None:
    network = MultiTaskNet(Twice(), {"d": conv(8, 1)}, removable=["again"])
    groups = build_groups(network, grouping, SHAPE)
    assert groups.names == ("layers.0", "layers.1")
    assert groups.removable.tolist() == [False, True]
    kept_zero(groups, network)
    check_network(network, SHAPE, [TASK])


def test_names_and_shared_weights_are_told() -> None:
    network = MultiTaskNet(Twice(), {"d": conv(8, 1)})
    assert names_of_modules(network)[network.trunk.again] == ("trunk.layers.1", "trunk.again")
    assert shared_weights(network) == []
    assert shared_weights(tied()) == [("trunk.2", "trunk.4")]
    three = nn.Sequential(conv(8, 8), conv(8, 8), conv(8, 8))
    three[2].weight, three[1].bias = three[0].weight, three[0].bias
    assert shared_weights(three) == [("0", "2"), ("0", "1")]
