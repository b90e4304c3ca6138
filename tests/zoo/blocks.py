"""What people's networks are made of, each in a network as small as it can be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.misc import SqueezeExcitation

from tests.zoo.convolutional import (
    CBAM,
    ECA,
    GLU,
    Ghost,
    LayerNorm2d,
    NonLocal,
    Pyramid,
    Recurrent,
    Scaled,
    SelectiveKernel,
    Signal,
    SuperResolution,
    TwoBranches,
    UNet,
    Volume,
)
from tests.zoo.detectors import SPPF, C2f, C2fSplit, C3k, Detector, PixelAttention
from tests.zoo.parts import WIDTH, Classifier, Function, Residual, conv
from tests.zoo.tokens import QKV, GroupedQuery, Mixer, SwiGLU, Tokens, Torchs


def norm_of(kind: str) -> Callable[[], nn.Module]:
    """A classifier with norms of a kind."""
    kinds: dict[str, Callable[[int], nn.Module]] = {
        "group": lambda width: nn.GroupNorm(4, width),
        "one group": lambda width: nn.GroupNorm(1, width),
        "instance": lambda width: nn.InstanceNorm2d(width, affine=True),
        "layer": LayerNorm2d,
        "frozen batch": FrozenBatchNorm2d,
        "none": lambda width: nn.Identity(),
    }
    norm = kinds[kind]
    return lambda: Classifier(
        conv(WIDTH, 24, norm=norm),  # type: ignore[arg-type]
        Residual(conv(24, 16, norm=norm), conv(16, 24, norm=norm)),  # type: ignore[arg-type]
        width=24,
    )


def mlp() -> nn.Module:
    """Pixels into a linear layer."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 64 * 64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: Classifier(conv(WIDTH, 24), Residual(conv(24, 16), conv(16, 24)), width=24),
    "no norm": norm_of("none"),
    "group norm": norm_of("group"),
    "group norm of one": norm_of("one group"),
    "instance norm": norm_of("instance"),
    "layer norm over channels": norm_of("layer"),
    "frozen batch norm": norm_of("frozen batch"),
    "layer norm over all": lambda: Classifier(
        nn.LayerNorm([WIDTH, 32, 32]), conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
    ),
    "depthwise separable": lambda: Classifier(conv(WIDTH, WIDTH, groups=WIDTH), conv(WIDTH, 24, 1), width=24),
    "grouped": lambda: Classifier(conv(WIDTH, 32, groups=4), conv(32, 24, 1), width=24),
    "two groups": lambda: Classifier(
        conv(WIDTH, 32), Residual(conv(32, 48, groups=2), nn.Conv2d(48, 32, 1)), conv(32, 24, groups=2), width=24
    ),
    "squeeze and excitation": lambda: Classifier(conv(WIDTH, 24), SqueezeExcitation(24, 6), conv(24, WIDTH)),
    "cbam": lambda: Classifier(conv(WIDTH, 24), CBAM(24), conv(24, WIDTH)),
    "eca": lambda: Classifier(conv(WIDTH, 24), ECA(), conv(24, WIDTH)),
    "non-local": lambda: Classifier(conv(WIDTH, 24), NonLocal(24), conv(24, WIDTH)),
    "selective kernel": lambda: Classifier(SelectiveKernel(WIDTH), conv(WIDTH, WIDTH)),
    "glu": lambda: Classifier(GLU(WIDTH), conv(WIDTH, WIDTH)),
    "ghost": lambda: Classifier(Ghost(WIDTH, 24), Ghost(24, WIDTH)),
    "channel shuffle": lambda: Classifier(
        conv(WIDTH, 24, 1, groups=2), nn.ChannelShuffle(2), conv(24, 24, groups=24), conv(24, WIDTH, 1, groups=2)
    ),
    "pixel shuffle": SuperResolution,
    "transposed": UNet,
    "transposed with group norm": lambda: UNet(lambda width: nn.GroupNorm(4, width)),  # type: ignore[arg-type]
    "c2f": lambda: Classifier(C2f(WIDTH, 24), C2f(24, WIDTH)),
    "c2f by split": lambda: Classifier(C2fSplit(WIDTH, 24), C2fSplit(24, WIDTH)),
    "c3k2": lambda: Classifier(C2f(WIDTH, 24, 1, C3k), C2f(24, WIDTH, 1, C3k)),
    "sppf": lambda: Classifier(conv(WIDTH, 24), SPPF(24, WIDTH)),
    "pixel attention": lambda: Classifier(Residual(PixelAttention(WIDTH)), conv(WIDTH, WIDTH)),
    "detector": Detector,
    "feature pyramid": Pyramid,
    "outputs by name": TwoBranches,
    "attention in torch": lambda: Tokens(Torchs),
    "attention in one layer": lambda: Tokens(QKV),
    "attention with grouped queries": lambda: Tokens(GroupedQuery, lambda width: SwiGLU(width, 64), nn.RMSNorm),
    "torch's encoder": lambda: Tokens(
        lambda width: nn.TransformerEncoderLayer(width, 4, 64, batch_first=True), lambda width: nn.Identity()
    ),
    "mixer": Mixer,
    "convnext block": lambda: Classifier(Scaled(WIDTH), conv(WIDTH, 24, 2, 2), Scaled(24), width=24),
    "three dimensions": Volume,
    "one dimension": Signal,
    "mlp": mlp,
    "weight norm": lambda: Classifier(
        conv(WIDTH, 24), nn.utils.parametrizations.weight_norm(nn.Conv2d(24, 24, 3)), conv(24, WIDTH)
    ),
    "lstm": Recurrent,
    "cosine": lambda: Classifier(nn.Conv2d(WIDTH, 24, 1), Function(torch.cos), conv(24, 24), conv(24, WIDTH)),
    "softplus": lambda: Classifier(nn.Conv2d(WIDTH, 24, 1), nn.Softplus(), conv(24, 24), conv(24, WIDTH)),
}
"""By what they show."""
