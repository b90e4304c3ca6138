"""The network of the presets: a small residual trunk of even width, and light heads."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models.network import MultiTaskNet
from ms_automl.tasks import HeadSpec

TRUNK_STRIDE = 4


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), He et al. 2016 (arXiv 1512.03385), section 3.3."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = _conv(inputs, outputs, 1, stride)
            self.bn_shortcut = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H/stride, W/stride]."""
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        skip = x if self.shortcut is None else self.bn_shortcut(self.shortcut(x))
        return F.relu(skip + branch)


class ResNetTrunk(nn.Module):
    """A stem, two blocks at half resolution and four at a quarter, 1.5 times as wide.

    Blocks of one width keep the weights spread: with doubling widths the last block holds half of them, and
    a search wins by deleting it. Here the largest block holds 21 % of the trunk's weights.

    Args:
        channels: channels of the images.
        width: channels at half resolution; even.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        wide = width * 3 // 2
        self.out_channels = wide
        self.stem = _conv(channels, width, 3, 2)
        self.bn = nn.BatchNorm2d(width)
        self.block1 = BasicBlock(width, width)
        self.block2 = BasicBlock(width, width)
        self.block3 = BasicBlock(width, wide, stride=2)
        self.block4 = BasicBlock(wide, wide)
        self.block5 = BasicBlock(wide, wide)
        self.block6 = BasicBlock(wide, wide)

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, H, W] to [B, 1.5 width, H/4, W/4]."""
        x = F.relu(self.bn(self.stem(images)))
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5, self.block6):
            x = block(x)
        return x


def dense_head(inputs: int, channels: int, hidden: int) -> nn.Sequential:
    """[B, inputs, H/4, W/4] to [B, channels, H, W]: 3x3 conv, then sub-pixel convolution (arXiv 1609.05158)."""
    return nn.Sequential(
        _conv(inputs, hidden, 3),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, channels * TRUNK_STRIDE**2, 1),
        nn.PixelShuffle(TRUNK_STRIDE),
    )


def image_head(inputs: int, channels: int, hidden: int) -> nn.Sequential:
    """[B, inputs, h, w] to [B, channels]: 3x3 conv, a 2 x 3 grid of means (it keeps left and right), linear."""
    return nn.Sequential(
        _conv(inputs, hidden, 3),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 3)),
        nn.Flatten(),
        nn.Linear(hidden * 6, channels),
    )


def small_resnet(
    image_shape: tuple[int, int, int], heads: Mapping[str, HeadSpec], *, width: int = 32, hidden: int = 32
) -> MultiTaskNet:
    """Build the small residual multi-task network.

    Args:
        image_shape: (channels, H, W); H and W multiples of 4.
        heads: what each task needs.
        width: channels of the trunk at half resolution; 1.5 times as many at a quarter.
        hidden: channels inside each head.
    """
    channels, height, image_width = image_shape
    if height % TRUNK_STRIDE or image_width % TRUNK_STRIDE:
        raise NetworkError(
            f"small_resnet needs image sides that are multiples of {TRUNK_STRIDE}, "
            f"but got {height} x {image_width}: pad the images"
        )
    if width < 4 or width % 2 or hidden < 1:
        raise NetworkError(
            f"`width >= 4`, width even and `hidden >= 1` must hold, but got width={width}, hidden={hidden}"
        )
    trunk = ResNetTrunk(channels, width)
    build = {True: dense_head, False: image_head}
    modules = {name: build[spec.dense](trunk.out_channels, spec.channels, hidden) for name, spec in heads.items()}
    branches = [f"block{i}.conv{j}" for i in range(1, 7) for j in (1, 2)]
    return MultiTaskNet(trunk, modules, removable=branches)
