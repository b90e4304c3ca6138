"""Layers of compact networks that stand for torch's: they read less, or nothing."""

import copy

import pytest
import torch
from torch import nn

from ms_automl.models.replaced import EmptyConv
from ms_automl.models.surgery import Surgery, operate

AXES = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}
GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": 5, "padding": 3, "dilation": 2, "bias": False},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    {"kernel_size": 3, "padding": 1, "stride": 2, "output_padding": 1},
]
OF_EITHER = (0, 1, 2)
CASES = [
    pytest.param(kind, axes, geometry, id=f"{kind.__name__}-{index}")
    for axes, kinds in AXES.items()
    for kind in kinds
    for index, geometry in enumerate(GEOMETRIES)
    if index in OF_EITHER or ("Transpose" in kind.__name__) == ("output_padding" in geometry)
]


@pytest.mark.parametrize(("kind", "axes", "geometry"), CASES)
def test_a_convolution_reads_some_of_its_channels_or_none_as_if_the_others_were_zero(kind, axes, geometry):
    torch.manual_seed(0)
    conv, images = kind(6, 4, **geometry), torch.randn(2, 6, *[9] * axes)
    holder = nn.Sequential(conv)
    read = [0, 3, 5]
    with torch.no_grad():
        ignored = [index for index in range(6) if index not in read]
        conv.weight.transpose(0, int("Transpose" not in kind.__name__))[ignored] = 0
        expected = conv(images)
        some = copy.deepcopy(holder)
        operate(some, Surgery(selected={"0": read}))
        assert torch.allclose(some(images), expected, atol=1e-6)
        assert isinstance(some[0], kind)
        assert some.state_dict().keys() == {*holder.state_dict(), "0.selected"}
        conv.weight.zero_()
        none = copy.deepcopy(holder)
        operate(none, Surgery(empty=("0",)))
        assert torch.equal(none(images), conv(images))
        if "padding_mode" not in geometry:  # torch pads batches alone
            assert torch.equal(none(images[0]), conv(images[0]))
            conv.weight.copy_(holder[0].weight)
            assert torch.allclose(some(images[0]), some(images)[0], atol=1e-6)


def test_a_transposed_convolution_that_reads_some_gives_the_size_that_it_is_told():
    conv, images = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1), torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        conv.weight[[1, 2, 4]] = 0
    some = nn.Sequential(copy.deepcopy(conv))
    operate(some, Surgery(selected={"0": [0, 3, 5]}))
    assert torch.allclose(some[0](images, output_size=[8, 8]), conv(images, output_size=[8, 8]), atol=1e-6)


def test_a_transposed_convolution_without_weights_gives_the_size_that_it_is_told():
    conv = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1)
    images = torch.randn(1, 3, 4, 4)
    for size in ([7, 7], [8, 8], [1, 2, 7, 8]):
        assert EmptyConv(conv)(images, size).shape == conv(images, size).shape


def test_what_follows_an_empty_convolution_may_work_in_place():
    conv = EmptyConv(nn.Conv2d(3, 2, 1))
    before = conv.bias.clone()
    for shape in ((1, 3, 1, 1), (2, 3, 4, 4)):
        conv(torch.zeros(shape)).add_(1)
        assert torch.equal(conv.bias, before)
