"""A compact network answers as the sparse one does on images of other sizes than it was traced with."""

import pytest
import torch
from torch import nn

from ms_automl.models import MultiTaskNet
from ms_automl.sparsity.compact import compact, randomised

SHAPE = (3, 16, 16)


def depthwise(padding: int, *behind: nn.Module) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=padding, groups=16), *behind),
    )


POOLED = {
    "a mean": lambda: depthwise(1, nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU()),
    "a largest value": lambda: depthwise(1, nn.AdaptiveMaxPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU()),
    "no border": lambda: depthwise(0, nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU()),
    "pooling with a border": lambda: depthwise(
        0, nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU()
    ),
    "an instance norm": lambda: depthwise(
        1, nn.InstanceNorm2d(16), nn.AdaptiveMaxPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU()
    ),
    "a border of zeros": lambda: depthwise(
        0, nn.ZeroPad2d(2), nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU()
    ),
    "two pixels": lambda: nn.Sequential(
        *(nn.Conv2d(3, 16, 3, stride=8, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.ReLU()),
    ),
}


@pytest.mark.parametrize("kind", POOLED)
def test_what_is_constant_at_one_size_is_not_trusted_at_another(kind):
    """Channels without filters emit relu(β): behind a border, how much depends on how large the image is."""
    torch.manual_seed(0)
    network = randomised(MultiTaskNet(POOLED[kind](), {"d": nn.Conv2d(8, 2, 1)}), zeros=False)
    with torch.no_grad():
        network.trunk[0].weight[::2] = 0
        network.trunk[0].bias[::2] = 0
        network.trunk[1].bias.abs_()
    small, _ = compact(network, SHAPE)
    network = network.double()
    small = small.double()
    for size in ((16, 16), (32, 32), (24, 56)):
        images = torch.randn(3, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            one, other = network(images)["d"], small(images)["d"]
        assert float((one - other).abs().max()) <= 1e-6 * float(one.abs().max())
