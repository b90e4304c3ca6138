"""Layers that the signal has a way around are found, and may all go at once."""

import pytest
import torch
from torch import Tensor, nn

from ms_automl.models import MultiTaskNet
from ms_automl.sparsifier import Sparsifier
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact, randomised
from ms_automl.sparsity.skips import with_a_way_around
from tests.unit.loops import adamw
from tests.zoo.blocks import BLOCKS
from tests.zoo.parts import Classifier, Residual, conv

SHAPE = (3, 32, 32)


class Branches(nn.Module):
    """Two branches, added up: either may go, and not both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.a(images).relu()
        return self.b(x) + self.c(x)


def names_of(trunk: nn.Module, grouping: str = "input_channel", removable: list[str] | None = None) -> list[str]:
    groups = build_groups(MultiTaskNet(trunk, {}, removable), grouping, SHAPE)
    return [name for name, free in zip(groups.names, groups.removable.tolist(), strict=True) if free]


def test_of_a_chain_nothing_may_go_whole():
    assert names_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())) == []


@pytest.mark.parametrize("grouping", ["input_channel", "output_channel"])
def test_what_stands_beside_a_skip_may(grouping):
    trunk = nn.Sequential(conv(3, 8), Residual(conv(8, 6), conv(6, 8)), conv(8, 8))
    assert names_of(trunk, grouping) == ["1.inner.0.0", "1.inner.1.0"]


def test_of_coupled_channels_it_is_whole_streams():
    trunk = nn.Sequential(conv(3, 8), Residual(conv(8, 6), conv(6, 8)), conv(8, 8))
    assert names_of(trunk, "coupled") == ["1.inner.0.0"]


def test_of_two_branches_one_may_go():
    assert names_of(Branches()) == ["b"]


def test_what_the_network_says_counts():
    assert names_of(Branches(), removable=["c"]) == ["c"]
    assert names_of(Branches(), removable=[]) == []


@pytest.mark.parametrize("grouping", ["input_channel", "coupled"])
@pytest.mark.parametrize("name", ["detector", "transposed", "attention in torch", "outputs by name", "ghost"])
def test_with_all_of_them_gone_every_output_tells_images_apart_and_the_rest_is_compacted(name, grouping):
    torch.manual_seed(0)
    shape = (3, 64, 64)
    network = randomised(MultiTaskNet(BLOCKS[name](), {"output": nn.Identity()}), 3, zeros=False)
    groups = build_groups(network, grouping, shape)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert with_a_way_around(network, groups, shape) == groups.removable.tolist()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    groups.scale_((~groups.removable[groups.layer]).float())
    compact(network, shape)  # compared there


def test_a_sparsifier_may_empty_a_block():
    model = Classifier(Residual(conv(16, 12), conv(12, 16)), conv(16, 16))
    sparsifier = Sparsifier(
        model, adamw(model), example=torch.rand(1, *SHAPE), steps=10, target=0.1, grouping="input_channel"
    )
    free = dict(zip(sparsifier.groups.names, sparsifier.groups.removable.tolist(), strict=True))
    assert [name for name, may in free.items() if may] == ["middle.0.inner.0.0", "middle.0.inner.1.0"]
