"""Networks that compaction once misread: each is compacted exactly, or left as it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from ms_automl.models import MultiTaskNet
from ms_automl.sparsity.compact import compact

SHAPE = (3, 16, 16)
IMAGES = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(3))


class Trunk(nn.Module):
    """Layers by name, and what is done with them."""

    def __init__(self, work, **layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.work = work
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.work(self, x)


def conv(inputs: int, outputs: int, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    return kind(inputs, outputs, 3, padding=1)


def network(trunk: nn.Module, channels: int) -> MultiTaskNet:
    return MultiTaskNet(trunk, {"d": nn.Conv2d(channels, 1, 1)}).eval()


def compacted(whole: MultiTaskNet, shape: tuple[int, int, int] = SHAPE) -> MultiTaskNet:
    """The compact form, after its outputs were compared on images of several contrasts and means."""
    images = torch.randn(8, *shape, generator=torch.Generator().manual_seed(3))
    small, _ = compact(whole, shape, images)
    with torch.no_grad():
        for contrast, mean in ((1, 0), (0.1, 0), (4, 0), (60, 0), (1, 5)):
            expected, found = (one(contrast * images + mean)["d"] for one in (whole, small))
            assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    return small


@torch.no_grad()
def test_a_channel_that_a_linear_layer_writes_is_not_empty():
    whole = network(
        Trunk(
            lambda t, x: t.b(t.a(x).relu() + t.shift(t.a(x).relu().mean((2, 3))).relu()[:, :, None, None]),
            a=conv(3, 4),
            shift=nn.Linear(4, 4),
            b=conv(4, 4),
        ),
        4,
    )
    whole.trunk.a.weight[:2], whole.trunk.a.bias[:2] = 0, 0
    whole.trunk.shift.weight.fill_(1)
    whole.trunk.shift.bias.fill_(-1)
    assert compacted(whole).trunk.a.out_channels == 4


@pytest.mark.parametrize("bias", [0.0, 20.0])
@torch.no_grad()
def test_a_gate_of_one_channel_is_no_part_of_what_it_multiplies(bias):
    whole = network(
        Trunk(
            lambda t, x: t.b(t.a(x).relu() * t.gate(t.a(x).relu()).sigmoid()),
            a=conv(3, 8),
            gate=conv(8, 1),
            b=conv(8, 8),
        ),
        8,
    )
    whole.trunk.b.weight[:, 0] = 0
    whole.trunk.gate.weight[:, 0] = 0
    whole.trunk.gate.bias.fill_(bias)
    assert compacted(whole).trunk.a.out_channels == 7


@torch.no_grad()
def test_a_shared_weight_serves_both_of_its_uses():
    torch.manual_seed(1)
    stem, a, b = conv(3, 8), conv(8, 8), conv(8, 8)
    b.weight = a.weight
    whole = network(nn.Sequential(stem, nn.ReLU(), a, nn.ReLU(), b), 8)
    stem.weight[:2] = 0
    stem.bias[:2] = torch.tensor([1.0, 0.5])
    a.bias[0] = -2.5
    compacted(whole)


@torch.no_grad()
def test_a_shared_weight_keeps_its_value_when_a_batch_norm_is_folded_into_one_use():
    torch.manual_seed(1)
    a, b, norm = conv(8, 8), conv(8, 8), nn.BatchNorm2d(8)
    b.weight = a.weight
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    compacted(network(nn.Sequential(conv(3, 8), nn.ReLU(), a, norm, nn.ReLU(), b), 8))


class Activated(nn.Conv2d):
    """A convolution and its activation, as some libraries have it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Padded(nn.Conv2d):
    """Pads by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 2, 0, 2)))[:, :, :16, :16]


class Scaled(nn.Conv2d):
    """Computes with another weight than the one it holds."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * 2, self.bias)


@pytest.mark.parametrize("kind", [Activated, Padded, Scaled])
@torch.no_grad()
def test_what_a_class_of_ones_own_does_besides_is_kept(kind):
    whole = network(
        Trunk(
            lambda t, x: torch.cat([t.first(x).relu(), t.second(t.first(x).relu())], 1),
            first=conv(3, 32),
            second=conv(32, 32, kind),
        ),
        64,
    )
    whole.trunk.second.weight[:, ::2] = 0
    assert type(compacted(whole).trunk.second) is kind


@torch.no_grad()
def test_a_hook_is_kept():
    whole = network(
        Trunk(lambda t, x: torch.cat([t.a(x), t.b(t.a(x))], 1), a=conv(3, 32), b=conv(32, 32)),
        64,
    )
    whole.trunk.b.register_forward_hook(lambda module, inputs, output: output.sigmoid() * inputs[0])
    whole.trunk.b.weight[:, ::2] = 0
    compacted(whole)


@torch.no_grad()
def test_one_convolution_of_two_names_is_replaced_under_both():
    first, second, third = conv(3, 16), conv(16, 16), conv(16, 16)
    whole = network(
        Trunk(
            lambda t, x: t.convs[0](x).relu() + t.convs[2](t.convs[1](t.convs[0](x).relu()).relu()),
            second=second,
            convs=nn.ModuleList([first, second, third]),
        ),
        16,
    )
    second.weight[:, ::2] = 0
    third.weight.zero_()
    small = compacted(whole)
    assert small.trunk.second is small.trunk.convs[1]


@torch.no_grad()
def test_one_convolution_called_twice_reads_from_both():
    whole = network(
        Trunk(
            lambda t, x: t.twice(t.a(x).relu()) + t.twice(t.b(x).relu()),
            a=conv(3, 8),
            b=conv(3, 8),
            twice=conv(8, 8),
        ),
        8,
    )
    whole.trunk.a.weight[::2] = 0
    whole.trunk.b.weight[1::2] = 0
    whole.trunk.twice.weight[:, :2] = 0
    small = compacted(whole)
    assert small.trunk.a.out_channels == small.trunk.b.out_channels == 6


@torch.no_grad()
def test_the_trunk_of_a_feature_extractor_is_compacted():
    body = create_feature_extractor(resnet18(), {"layer2": "x"})
    whole = network(Trunk(lambda t, x: t.body(x)["x"], body=body), 128)
    whole.get_submodule("trunk.body.layer1.0.conv2").weight[:, ::2] = 0
    small = compacted(whole, (3, 32, 32))
    assert small.get_submodule("trunk.body.layer1.0.conv1").weight.shape[0] == 32


@torch.no_grad()
def test_a_linear_layer_over_the_last_axis_reads_channels():
    whole = network(
        Trunk(
            lambda t, x: t.fc(t.a(x).relu().permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            a=nn.Conv2d(3, 32, 3, 2, 1),
            fc=nn.Linear(32, 8),
        ),
        8,
    )
    whole.trunk.a.weight[20:] = 0
    assert compacted(whole).trunk.fc.weight.shape == (8, 21)


@torch.no_grad()
def test_a_linear_layer_behind_pixels_reads_each_of_a_channel():
    trunk = nn.Sequential(
        conv(3, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 8 * 256), nn.Unflatten(1, (8, 16, 16))
    )
    trunk[0].weight[:4] = 0
    trunk[0].bias[:2] = -1
    trunk[0].bias[2:4] = torch.tensor([0.5, 0.25])
    assert compacted(network(trunk, 8)).trunk[0].out_channels == 5


@pytest.mark.parametrize(
    ("work", "channels"),
    [
        (lambda x: torch.add(*x.chunk(2, 1)), 8),
        (lambda x: F.glu(x, 1), 8),
        (nn.PixelShuffle(2), 4),
        (FrozenBatchNorm2d(16), 16),
        (lambda x: torch.cat([x, x.relu()], 1)[:, :20], 20),
        (lambda x: x * x.amax(1, True).sigmoid(), 16),
    ],
    ids=["chunk", "GLU", "pixel shuffle", "frozen batch norm", "slice", "CBAM"],
)
@torch.no_grad()
def test_pieces_and_mixtures_of_channels_are_understood_or_left(work, channels):
    whole = network(Trunk(lambda t, x: t.b(work(t.a(x))), a=conv(3, 16), b=conv(channels, 16)), 16)
    whole.trunk.b.weight[:, 1::2] = 0
    whole.trunk.b.weight[:, -1] = 0
    compacted(whole)


@torch.no_grad()
def test_a_branch_that_evaluation_does_not_reach_is_left():
    whole = network(
        Trunk(
            lambda t, x: t.b(t.a(x)) + t.aux(t.a(x)) if t.training else t.b(t.a(x)),
            a=conv(3, 8),
            b=conv(8, 8),
            aux=conv(8, 8),
            spare=nn.Sequential(conv(8, 8), nn.BatchNorm2d(8)),
        ),
        8,
    )
    whole.trunk.b.weight[:, :3] = 0
    small = compacted(whole)
    assert small.trunk.a.out_channels == 5 and small.trunk.aux.weight.shape == (8, 8, 3, 3)
