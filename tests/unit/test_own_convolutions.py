"""Convolutions of a class of one's own go to zero where their zeros count."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, check_network, find_penalised, plain_convolution
from ms_automl.sparsity import build_groups
from tests.unit.chains import SHAPE, TASK, apart, chain, conv, each_grouping, names


class Activated(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input) - 0.1)


class Same(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(F.pad(input, (1, 1, 1, 1)), self.weight, self.bias)[..., 1:-1, 1:-1]


class Standardised(nn.Conv2d):
    """timm's StdConv2d in short."""

    def forward(self, input: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, [1, 2, 3], keepdim=True)
        return self._conv_forward(input, (self.weight - mean) / (variance + 1e-6).sqrt(), self.bias)


class Scaled(nn.Conv2d):
    """timm's ScaledStdConv2d in short."""

    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        self.gain = nn.Parameter(torch.ones(self.out_channels))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, weight=self.gain, training=True).reshape_as(weight)
        return super()._conv_forward(input, weight, bias)


class Skipping(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return input + super().forward(input)


class Adapted(nn.Conv2d):
    """A low-rank branch beside the weight."""

    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        self.down, self.up = nn.Conv2d(self.in_channels, 2, 1), nn.Conv2d(2, self.out_channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.up(self.down(input))


class Centred(nn.Conv2d):
    """Each kernel without its mean: zero channels stay zero, single weights and filters do not."""

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight - self.weight.mean((2, 3), keepdim=True), self.bias)


class Masked(nn.Conv2d):
    """Takes more than images, and cannot be tried by itself."""

    def forward(self, input: Tensor, mask: Tensor) -> Tensor:
        return super().forward(input) * mask


class GivesMask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.masked = Masked(8, 8, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        return self.masked(input, torch.ones(8, 8))


def hooked() -> nn.Conv2d:
    module = conv(8, 8)
    module.register_forward_hook(lambda module, inputs, output: output + inputs[0])
    return module


def instance() -> nn.Conv2d:
    module = conv(8, 8)
    module.forward = lambda input: F.conv2d(input, module.weight - module.weight.mean(1, keepdim=True), padding=1)
    return module


KEEP = {"relu": Activated, "same": Same}
BREAK = {"standardised": Standardised, "scaled": Scaled, "skipping": Skipping, "adapted": Adapted}


@apart
@pytest.mark.parametrize("kind", KEEP.values(), ids=KEEP)
def test_a_class_whose_zeros_count_is_penalised(kind: type[nn.Conv2d], grouping: str) -> None:
    network = chain(kind(8, 8, 3, padding=1))
    assert names(network, grouping) == ["0", "2", "4"]
    assert not plain_convolution(network.trunk[2])


@each_grouping
@pytest.mark.parametrize("kind", BREAK.values(), ids=BREAK)
def test_a_class_that_answers_channels_of_zero_weights_is_left_out(kind: type[nn.Conv2d], grouping: str) -> None:
    network = chain(kind(8, 8, 3, padding=1))
    groups = build_groups(network, grouping, SHAPE)
    assert "2" not in groups.names
    assert groups.left_out["2"] == f"zeros of a {kind.__name__} are not seen to silence a channel"
    check_network(network, SHAPE, [TASK])


def test_a_trunk_of_such_a_class_alone_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"'0' \(zeros of a Standardised are not seen to silence"):
        check_network(
            MultiTaskNet(nn.Sequential(Standardised(3, 3, 3, padding=1)), {"d": conv(3, 1)}), SHAPE, [TASK]
        )


def test_a_class_that_cannot_be_tried_is_left_out() -> None:
    groups = build_groups(chain(GivesMask()), "input_channel", SHAPE)
    assert groups.left_out == {"2.masked": "zeros of a Masked are not seen to silence a channel"}


def test_hooks_and_forwards_of_an_instance_are_seen() -> None:
    for module in (hooked(), instance()):
        assert not plain_convolution(module)
        assert "2" in build_groups(chain(module), "input_channel", SHAPE).left_out
    quiet = conv(8, 8)
    quiet.register_forward_hook(lambda *_: None)
    assert not plain_convolution(quiet)
    assert names(chain(quiet)) == ["0", "2", "4"]


def test_a_class_may_count_for_channels_and_not_for_single_weights() -> None:
    network = chain(Centred(8, 8, 3, padding=1))
    assert names(network, "input_channel") == ["0", "2", "4"]
    assert names(network, "weight") == ["0", "4"]


def test_trying_a_class_leaves_it_and_the_random_numbers_alone() -> None:
    network = chain(Scaled(8, 8, 3, padding=1))
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    find_penalised(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


class Renamed(nn.Conv2d):
    def __init__(self, *arguments: int, **options: int) -> None:
        super().__init__(*arguments, **options)
        self.note = "an __init__ of its own changes nothing"


def test_a_plain_convolution_is_what_another_may_stand_in_for() -> None:
    assert plain_convolution(conv(3, 8))
    assert plain_convolution(nn.Conv2d(4, 4, 3, groups=4))
    assert plain_convolution(Renamed(3, 8, 3))
    others = (Activated(3, 8, 3), Scaled(3, 8, 3), parametrizations.weight_norm(conv(3, 8)), nn.Conv1d(3, 8, 3))
    assert not any(plain_convolution(module) for module in others)
