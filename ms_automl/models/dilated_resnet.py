"""The network of the NYU-v2 multi-task literature: a dilated ResNet and a DeepLab head for each dense task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from ms_automl.errors import NetworkError
from ms_automl.models.batch_norm import frozen_buffers
from ms_automl.models.network import MultiTaskNet
from ms_automl.tasks import HeadSpec

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Bottlenecks in each of the four stages, by depth (arXiv 1512.03385, table 1)."""

STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1)}
"""Stride of each stage, by output stride; stem and max-pooling take another 4."""

RATES = (12, 24, 36)
"""Of the three atrous convolutions of a dense head."""

PRETRAINED_WIDTH = 64


class DilatedResNet(nn.Module):
    """torchvision's ResNet without its classifier, the strides of its last stages replaced by dilation.

    Where a stage had stride 2 it has 1, and every 3x3 convolution behind the lost stride reads pixels twice as far
    apart: the same weights see the same field of the image, at a resolution that dense tasks can use ('Dilated
    Residual Networks', Yu et al. 2017, arXiv 1705.09914, section 2). Modules are named as torchvision's.

    Args:
        channels: channels of the images.
        depth: 50 or 101.
        width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
        output_stride: image pixels between two pixels of the features.
        checkpointing: keep the inputs of residual blocks alone, and compute their insides again in backward.
    """

    def __init__(self, channels: int, depth: int, width: int, output_stride: int, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs, dilation = width, 1
        for index, (blocks, stride) in enumerate(zip(BLOCKS[depth], STRIDES[output_stride], strict=True)):
            before, inside = dilation, width * 2**index
            dilation *= 2 if index and stride == 1 else 1
            stage = _stage(inputs, inside, blocks, stride, before, dilation)
            self.add_module(f"layer{index + 1}", stage)
            inputs = 4 * inside
        self.out_channels = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and module of each residual block, in order."""
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            for name, block in self.get_submodule(stage).named_children():
                yield f"{stage}.{name}", block

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, H, W] to [B, 32 width, H/output_stride, W/output_stride]."""
        x: Tensor = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        # torch.func forbids the hooks that checkpointing works by: inside it everything is kept.
        possible = torch.is_grad_enabled() and torch._C._functorch.maybe_current_level() is None
        again = self.checkpointing and self.training and possible
        for _, block in self.blocks():
            x = _computed_again(block, x) if again else block(x)
        return x


def _stage(inputs: int, inside: int, blocks: int, stride: int, before: int, dilation: int) -> nn.Sequential:
    """Bottlenecks; the first has the dilation of the stage before, whose resolution it reads, as torchvision's."""
    from torchvision.models.resnet import Bottleneck  # here, so that only who asks for it waits for torchvision

    outputs = 4 * inside
    shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    first = Bottleneck(inputs, inside, stride, shortcut, dilation=before)
    return nn.Sequential(first, *(Bottleneck(outputs, inside, dilation=dilation) for _ in range(1, blocks)))


def _computed_again(block: nn.Module, x: Tensor) -> Tensor:
    """block(x), of which backward computes the inside again: to the bit the same, buffers included.

    'Training Deep Nets with Sublinear Memory Cost', Chen et al. 2016 (arXiv 1604.06174), section 3.
    """
    # Those of this forward: an outer functional_call or frozen_buffers is over before backward comes.
    parameters: dict[str, Tensor] = dict(block.named_parameters())
    averages = dict(block.named_buffers())
    frozen = not any(name.endswith("running_mean") for name in averages)
    first = True

    def forward(x: Tensor) -> Tensor:
        nonlocal first
        copies = (
            {} if first else {name: value.clone() for name, value in averages.items()}
        )  # the batch has counted
        first = False
        with frozen_buffers(block) if frozen else nullcontext():
            output: Tensor = functional_call(block, parameters | copies, (x,))
        return output

    # A block draws no random number.
    output: Tensor = checkpoint(forward, x, use_reentrant=False, preserve_rng_state=False)
    return output


def dense_head(inputs: int, channels: int, hidden: int, output_stride: int) -> nn.Sequential:
    """[B, inputs, h, w] to [B, channels, output_stride h, output_stride w]: DeepLab v3's head, then bilinear.

    Atrous spatial pyramid pooling ('Rethinking Atrous Convolution', Chen et al. 2017, arXiv 1706.05587, section
    3.3; torchvision's, with the rates 12, 24, 36), 3x3 convolution, 1x1 convolution, as LibMTL has it for NYU-v2
    (arXiv 2203.14338), where the corners of features and image are aligned.

    Its batch norm behind the global pooling needs batches of two or more in training.
    """
    from torchvision.models.segmentation.deeplabv3 import ASPP

    return nn.Sequential(
        ASPP(inputs, RATES, hidden),
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1),
        nn.Upsample(scale_factor=output_stride, mode="bilinear", align_corners=True),
    )


def image_head(inputs: int, channels: int) -> nn.Sequential:
    """[B, inputs, h, w] to [B, channels]: the mean over all pixels, then linear."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, channels))


def dilated_resnet(
    image_shape: tuple[int, int, int],
    heads: Mapping[str, HeadSpec],
    *,
    depth: int = 50,
    weights: str | None = None,
    output_stride: Literal[8, 16] = 8,
    hidden: int = 256,
    width: int = PRETRAINED_WIDTH,
    checkpointing: bool = False,
) -> MultiTaskNet:
    """Build the dilated ResNet with a DeepLab head for each dense task, and a linear one for each image task.

    Pretrained weights expect images as they were trained on: RGB from 0 to 1, from which (0.485, 0.456, 0.406) is
    taken, divided by (0.229, 0.224, 0.225). The network does not do that: the data does.

    Args:
        image_shape: (channels, H, W); H and W multiples of ``output_stride``. Images of other such sizes fit too.
        heads: what each task needs.
        depth: 50 or 101. Torchvision dilates blocks of three convolutions only, so there is no 18 and no 34.
        weights: of the trunk, by torchvision's name, such as ``IMAGENET1K_V2`` or ``DEFAULT``; they are downloaded
            once. None starts from random ones.
        output_stride: 8 or 16, image pixels between two pixels of the features.
        hidden: channels inside each dense head.
        width: channels of the stem, which all others of the trunk are multiples of.
        checkpointing: compute the residual blocks a second time in backward instead of keeping what is inside
            them: the same numbers, a third more arithmetic, less memory (for 8 images of 288 x 384 the trunk of
            depth 50 keeps 0.9 GiB instead of 3.1).

    Raises:
        NetworkError: where an argument is out of range, or the weights cannot be had.
    """
    channels, height, image_width = image_shape
    if depth not in BLOCKS:
        raise NetworkError(
            f"dilated_resnet needs blocks of three convolutions: `depth` 50 or 101, but got {depth}"
        )
    if output_stride not in STRIDES:
        raise NetworkError(f"`output_stride` must be 8 or 16, but got {output_stride}")
    if height % output_stride or image_width % output_stride:
        raise NetworkError(
            f"dilated_resnet needs image sides that are multiples of {output_stride}, "
            f"but got {height} x {image_width}: pad the images"
        )
    if width < 1 or hidden < 1:
        raise NetworkError(f"`width >= 1` and `hidden >= 1` must hold, but got width={width}, hidden={hidden}")
    trunk = DilatedResNet(channels, depth, width, output_stride, checkpointing)
    if weights is not None:
        if (channels, width) != (3, PRETRAINED_WIDTH):
            raise NetworkError(
                f"pretrained weights are for 3 channels and width={PRETRAINED_WIDTH}, but got {channels} channels "
                f"and width={width}: set weights=None"
            )
        trunk.load_state_dict(_pretrained(depth, weights))
    modules = {
        name: dense_head(trunk.out_channels, spec.channels, hidden, output_stride)
        if spec.dense
        else image_head(trunk.out_channels, spec.channels)
        for name, spec in heads.items()
    }
    branches = [f"{block}.conv{i}" for block, _ in trunk.blocks() for i in (1, 2, 3)]
    return MultiTaskNet(trunk, modules, removable=branches)


def _pretrained(depth: int, name: str) -> dict[str, Tensor]:
    """Torchvision's weights of a ResNet's trunk, from the cache or downloaded to it."""
    from torchvision.models import get_model_weights

    known = get_model_weights(f"resnet{depth}")
    if name not in known.__members__:
        raise NetworkError(f"resnet{depth} has no weights '{name}', but {', '.join(known.__members__)}")
    try:
        state: dict[str, Tensor] = known[name].get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # no network, a full disk, a damaged file: each library has its own
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NetworkError(
            f"cannot have the weights '{name}' ({reason}): download {known[name].url} into "
            f"{torch.hub.get_dir()}/checkpoints, or set weights=None"
        ) from error
    return {key: value for key, value in state.items() if not key.startswith("fc.")}
