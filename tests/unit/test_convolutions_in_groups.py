"""Convolutions in groups lose whole groups, or channels of every group, whichever is finer."""

import copy

import pytest
import torch
from torch import nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet
from ms_automl.models.surgery import Surgery, operate
from ms_automl.models.weights import thins_inside
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact, randomised
from ms_automl.sparsity.equality import check_equal, probes

SHAPE = (3, 16, 16)


def network(*middle: nn.Module) -> MultiTaskNet:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), *middle, nn.Conv2d(32, 8, 1))
    return MultiTaskNet(trunk, {"d": nn.Conv2d(8, 1, 1)})


def halved(dense: MultiTaskNet, seed: int = 0) -> MultiTaskNet:
    """Half of its coupled channels zero, all others random."""
    half = randomised(dense, seed, zeros=False)
    groups = build_groups(half, "coupled", SHAPE)
    drawn = torch.rand(len(groups.layer), generator=torch.Generator().manual_seed(seed))
    groups.scale_(((drawn < 0.5) | groups.strongest(drawn)).float())
    return half


@pytest.mark.parametrize(
    ("conv", "inside"),
    [
        (nn.Conv2d(32, 32, 3, groups=2), True),
        (nn.Conv2d(32, 32, 3, groups=4), True),
        (nn.Conv2d(16, 32, 3, groups=4), True),
        (nn.Conv2d(32, 32, 3, groups=8), False),
        (nn.Conv2d(32, 64, 3, groups=32), False),
        (nn.Conv2d(32, 32, 3), False),
        (nn.ConvTranspose2d(32, 32, 3, groups=2), False),
    ],
)
def test_the_finer_way_is_taken(conv, inside):
    assert thins_inside(conv) is inside


MIDDLES = {
    "two groups": lambda: [nn.Conv2d(32, 32, 3, groups=2), nn.ReLU()],
    "two groups after each other": lambda: [
        nn.Conv2d(32, 48, 3, groups=2, padding=1),
        nn.GroupNorm(4, 48),
        nn.Conv2d(48, 32, 1, groups=4),
        nn.ReLU(),
    ],
    "a shuffle": lambda: [nn.Conv2d(32, 32, 1, groups=2), nn.ChannelShuffle(2), nn.Conv2d(32, 32, 3, groups=32)],
    "a shuffle of many": lambda: [nn.ChannelShuffle(4), nn.Conv2d(32, 32, 3, groups=8)],
    "transposed depthwise": lambda: [nn.ConvTranspose2d(32, 32, 4, 2, 1, groups=32), nn.ReLU()],
    "transposed depthwise with a border": lambda: [
        nn.ConvTranspose2d(32, 32, 3, 2, 1, output_padding=1, groups=32, bias=False),
        nn.BatchNorm2d(32),
    ],
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", MIDDLES)
def test_all_zeros_go_and_outputs_stay(kind, seed):
    half = halved(network(*MIDDLES[kind]()), seed)
    small, surgery = compact(half, SHAPE)
    check_equal(half.double(), small.double(), [one.double() for one in probes(SHAPE)])
    assert not any(bool((one.weight == 0).all(0).any()) for one in small.modules() if isinstance(one, nn.Conv2d))
    middle = [one for one in small.trunk[3:] if isinstance(one, nn.modules.conv._ConvNd)]
    dense = [one for one in half.trunk[3:] if isinstance(one, nn.modules.conv._ConvNd)]
    assert all(one.weight.numel() < other.weight.numel() for one, other in zip(middle, dense, strict=True))
    again = copy.deepcopy(half).float()
    operate(again, Surgery.from_dict(surgery.to_dict()))
    shapes = {name: value.shape for name, value in again.state_dict().items()}
    assert shapes == {name: value.shape for name, value in small.state_dict().items()}


def test_each_of_two_groups_keeps_as_many():
    half = halved(network(nn.Conv2d(32, 48, 3, groups=2), nn.ReLU(), nn.Conv2d(48, 32, 1)))
    conv = compact(half, SHAPE)[0].trunk[3]
    assert conv.groups == 2
    assert conv.in_channels < 32
    assert conv.out_channels < 48
    assert conv.weight.shape[:2] == (conv.out_channels, conv.in_channels // 2)


class Skipping(nn.Module):
    """A stream that a convolution in groups reads, and a layer that gives the answers."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 32, 3)
        self.first, self.second = (nn.Conv2d(32, 32, 3, padding=1, groups=groups) for _ in range(2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.a(images).relu()
        return (x + self.second(self.first(x).relu())).relu()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_channel_that_they_and_a_head_read_goes(groups):
    torch.manual_seed(0)
    half = halved(MultiTaskNet(Skipping(groups), {"d": nn.Conv2d(32, 1, 1)}))
    small, _ = compact(half, SHAPE)
    assert small.trunk.a.out_channels < 32
    assert small.trunk.first.weight.shape[1] < 32 // groups


def test_a_frozen_convolution_in_two_groups_keeps_what_it_writes():
    """With whole groups it would be silent where it reads nothing; here it writes other channels than it reads."""
    dense = network(nn.Conv2d(32, 32, 3, groups=2), nn.ReLU())
    dense.trunk[3].requires_grad_(False)
    half = halved(dense)
    before = dense.trunk[3].weight.shape[0]
    small, _ = compact(half, SHAPE)
    check_equal(half, small, probes(SHAPE))
    assert small.trunk[3].out_channels == before


def test_the_description_of_a_network_that_lost_whole_groups_means_what_it_meant():
    """Those written before convolutions were thinned inside do not say so."""
    dense = network(nn.Conv2d(32, 32, 3, groups=2), nn.ReLU())
    kept = list(range(16))
    described = Surgery(
        outputs={"trunk.0": kept, "trunk.1": kept, "trunk.3": kept}, inputs={"trunk.5": kept}
    ).to_dict()
    del described["inside"]
    operate(dense, Surgery.from_dict(described))
    assert (dense.trunk[3].groups, dense.trunk[3].in_channels) == (1, 16)
    assert dense(torch.rand(1, *SHAPE))["d"].shape[1] == 1


def test_a_network_of_them_alone_has_something_to_lose():
    torch.manual_seed(0)
    trunk = nn.Sequential(
        *(nn.Conv2d(3, 48, 3, groups=3), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 48, 3, groups=2)),
        *(nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 48, 1, groups=2)),
    )
    half = halved(MultiTaskNet(trunk, {"d": nn.Conv2d(48, 1, 1)}))
    small, _ = compact(half, SHAPE)
    assert small.trunk[3].out_channels < 48
    with pytest.raises(NetworkError, match="no channel can be driven to zero"):
        build_groups(half, "input_channel", SHAPE)
