"""Small trunks, each with something in its middle that a trace could misread."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

from ms_automl.models import MultiTaskNet

WIDTH = 8
SIDE = 8
SHAPE = (3, SIDE, SIDE)


def conv(inputs: int, outputs: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, **options)


class Middle(nn.Module):
    """a, something with its own layers, b; what the middle gives has a lazy number of channels."""

    def __init__(self, work: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.a, self.layers, self.work = conv(3, WIDTH), nn.ModuleDict(layers), work
        with torch.no_grad():
            found = self.work(self.a(torch.zeros(2, *SHAPE)), **self.layers)
        self.b = conv(found.shape[1], 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.b(self.work(self.a(images), **self.layers))


class Holder(nn.Module):
    """A parameter and a buffer by themselves."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.randn(shape))
        self.register_buffer("fixed", torch.randn(shape))


class Standardised(nn.Conv2d):
    """Weights of mean 0 and variance 1 by filter."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, padding=1)


class Activated(nn.Conv2d):
    """A convolution that rectifies what it gives."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x) - 0.1)


def hooked() -> nn.Conv2d:
    layer = conv(WIDTH, WIDTH)
    layer.register_forward_hook(lambda module, inputs, output: output.sigmoid() + inputs[0])
    return layer


def film(x: Tensor, scale: nn.Module, shift: nn.Module) -> Tensor:
    pooled = x.mean((2, 3))
    return torch.relu(x) * scale(pooled)[:, :, None, None] + shift(pooled).relu()[:, :, None, None]


def assigned(x: Tensor) -> Tensor:
    y = x.new_zeros(x.shape)
    y[:, :4] = x[:, 4:]
    y[:, 4:] = x[:, :4].relu()
    return y


def shuffled(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def attention(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module) -> Tensor:
    queries, keys, values = (layer(x).flatten(2) for layer in (q, k, v))
    weights = torch.softmax(queries.transpose(1, 2) @ keys, -1)
    return x + (values @ weights.transpose(1, 2)).view_as(x)


def mlp_over_last(x: Tensor, norm: nn.Module, up: nn.Module, down: nn.Module) -> Tensor:
    y = x.permute(0, 2, 3, 1)
    return x + down(F.gelu(up(norm(y)))).permute(0, 3, 1, 2)


def spatial_attention(x: Tensor, gate: nn.Module) -> Tensor:
    both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * gate(both).sigmoid()


def linears(*names: str) -> dict[str, nn.Module]:
    return {name: nn.Linear(WIDTH, WIDTH) for name in names}


SERVED: dict[str, Callable[[], nn.Module]] = {
    "a gate of one channel": lambda: Middle(lambda x, gate: x * gate(x).sigmoid(), gate=conv(WIDTH, 1)),
    "a gate of one pixel": lambda: Middle(lambda x, gate: x * gate(x).mean((2, 3), True), gate=conv(WIDTH, 1)),
    "where by a mask of one channel": lambda: Middle(
        lambda x, gate: torch.where(gate(x) > 0, x, -2 * x), gate=conv(WIDTH, 1)
    ),
    "FiLM": lambda: Middle(film, **linears("scale", "shift")),
    "squeeze and excite without sigmoid": lambda: Middle(
        lambda x, squeeze, excite: x * excite(squeeze(x.mean((2, 3), True)).relu()),
        squeeze=conv(WIDTH, 4, 1),
        excite=conv(4, WIDTH, 1),
    ),
    "linear over the last axis": lambda: Middle(
        lambda x, fc: fc(x.relu().permute(0, 2, 3, 1)).permute(0, 3, 1, 2), fc=nn.Linear(WIDTH, 5)
    ),
    "tokens": lambda: Middle(
        lambda x, fc: fc(x.relu().flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (SIDE, SIDE)),
        fc=nn.Linear(WIDTH, 5),
    ),
    "linear over pixels": lambda: Middle(
        lambda x, fc: fc(x.flatten(2)).unflatten(2, (SIDE, SIDE)), fc=nn.Linear(SIDE**2, SIDE**2)
    ),
    "chunk and add": lambda: Middle(lambda x: torch.add(*x.chunk(2, 1))),
    "GLU": lambda: Middle(lambda x: F.glu(x, 1)),
    "shuffle of channels": lambda: Middle(shuffled),
    "pixel shuffle": lambda: Middle(nn.PixelShuffle(2).forward),
    "pixel unshuffle": lambda: Middle(nn.PixelUnshuffle(2).forward),
    "flip over channels": lambda: Middle(lambda x: torch.cat([x, x.flip(1)], 1)),
    "shift of pixels": lambda: Middle(lambda x: F.pad(x[:, :, 1:], (0, 0, 0, 1))),
    "pooling of pixels around": lambda: Middle(lambda x: F.avg_pool2d(x.relu(), 3, 1, 1)),
    "channels of zeros": lambda: Middle(lambda x: F.pad(x, (0, 0, 0, 0, 1, 2))),
    "stack and sum": lambda: Middle(lambda x, c: torch.stack([x, c(x)]).sum(0), c=conv(WIDTH, WIDTH)),
    "largest of branches": lambda: Middle(
        lambda x, c, d: torch.stack([x, c(x), d(x)], 1).amax(1), c=conv(WIDTH, WIDTH), d=conv(WIDTH, WIDTH, 1)
    ),
    "stochastic depth": lambda: Middle(
        lambda x, c, drop: x + drop(c(x)), c=conv(WIDTH, WIDTH), drop=StochasticDepth(0.5, "row")
    ),
    "computed again": lambda: Middle(lambda x, c: x + checkpoint(c, x, use_reentrant=False), c=conv(WIDTH, WIDTH)),
    "in place": lambda: Middle(lambda x, c: x.relu_().add_(c(x)).mul_(2), c=conv(WIDTH, WIDTH)),
    "a weight used by a function": lambda: Middle(
        lambda x, c: F.conv2d(x, c.weight, c.bias, padding=1).relu(), c=conv(WIDTH, WIDTH)
    ),
    "instance norm": lambda: Middle(lambda x, n: n(x), n=nn.InstanceNorm2d(WIDTH, affine=True)),
    "slopes": lambda: Middle(lambda x, n: n(x), n=nn.PReLU(WIDTH)),
    "a class of one's own": lambda: Middle(lambda x, c: c(x), c=Activated(WIDTH, WIDTH, 3, padding=1)),
    "a hook": lambda: Middle(lambda x, c: c(x), c=hooked()),
    "the same convolution twice": lambda: Middle(lambda x, c: c(c(x).relu()), c=conv(WIDTH, WIDTH)),
    "a weight used twice": lambda: Middle(
        lambda x, c: c(x) + F.conv2d(x.relu(), c.weight, padding=1), c=conv(WIDTH, WIDTH)
    ),
    "the same convolution on two": lambda: Middle(
        lambda x, c, d: c(x) + c(d(x).relu()), c=conv(WIDTH, WIDTH), d=conv(WIDTH, WIDTH)
    ),
    "upsampled": lambda: Middle(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "group norm": lambda: Middle(lambda x, n: n(x), n=nn.GroupNorm(2, WIDTH)),
    "group norm without weights": lambda: Middle(lambda x, n: n(x).relu(), n=nn.GroupNorm(2, WIDTH, affine=False)),
    "groups": lambda: Middle(lambda x, c: c(x), c=conv(WIDTH, WIDTH, groups=4)),
    "two filters a channel": lambda: Middle(lambda x, c: c(x), c=conv(WIDTH, 2 * WIDTH, groups=WIDTH)),
    "transposed": lambda: Middle(lambda x, c: c(x), c=nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2)),
    "one axis": lambda: Middle(
        lambda x, c: c(x.flatten(2)).unflatten(2, (SIDE, SIDE)), c=nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
    ),
    "three axes": lambda: Middle(
        lambda x, c: c(x[:, :, None]).relu().squeeze(2), c=nn.Conv3d(WIDTH, WIDTH, 3, padding=1)
    ),
    "a parameter by channel": lambda: Middle(lambda x, p: x * p.value + p.fixed, p=Holder(1, WIDTH, 1, 1)),
    "positions": lambda: Middle(lambda x, p: x + p.fixed, p=Holder(1, WIDTH, SIDE, SIDE)),
    "an embedding": lambda: Middle(
        lambda x, e: x + e(torch.zeros(len(x), dtype=torch.int64))[:, :, None, None], e=nn.Embedding(3, WIDTH)
    ),
    "frozen batch norm": lambda: Middle(lambda x, n: n(x), n=FrozenBatchNorm2d(WIDTH)),
    "mirrored borders": lambda: Middle(
        lambda x, c: c(x), c=nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="reflect")
    ),
    "circular borders": lambda: Middle(
        lambda x, c: c(x), c=nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="circular")
    ),
}
"""Channels are followed through these: where all of them may go but one, they do."""

NORMALISED: dict[str, Callable[[], nn.Module]] = {
    "ConvNeXt": lambda: Middle(
        mlp_over_last, norm=nn.LayerNorm(WIDTH), up=nn.Linear(WIDTH, 16), down=nn.Linear(16, WIDTH)
    ),
    "root mean squares": lambda: Middle(
        lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.RMSNorm(WIDTH)
    ),
    "layer norm without weights": lambda: Middle(
        lambda x, n: n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).relu(),
        n=nn.LayerNorm(WIDTH, elementwise_affine=False),
    ),
    "layer norm over the first axis": lambda: Middle(lambda x, n: n(x).relu(), n=LayerNorm2d(WIDTH)),
}
"""A statistic is taken over all channels: those go that are zero in front of it."""

STAY: dict[str, Callable[[], nn.Module]] = {
    "spatial attention": lambda: Middle(spatial_attention, gate=conv(2, 1)),
    "largest channel": lambda: Middle(lambda x: x * x.amax(1, True).sigmoid()),
    "softmax over channels": lambda: Middle(lambda x: x.softmax(1)),
    "length 1 over channels": lambda: Middle(lambda x: F.normalize(x, dim=1)),
    "sums over channels": lambda: Middle(lambda x: x.cumsum(1)),
    "roll over channels": lambda: Middle(lambda x: x.roll(3, 1)),
    "einsum": lambda: Middle(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None]),
    "an expanded gate": lambda: Middle(lambda x, gate: x * gate(x).sigmoid().expand_as(x), gate=conv(WIDTH, 1)),
    "attention": lambda: Middle(attention, q=conv(WIDTH, 4, 1), k=conv(WIDTH, 4, 1), v=conv(WIDTH, WIDTH, 1)),
    "a slice (Ghost)": lambda: Middle(lambda x: torch.cat([x, x.relu()], 1)[:, :10]),
    "pieces of fixed sizes": lambda: Middle(lambda x: torch.add(*x.split(4, 1))),
    "assigned slices": lambda: Middle(assigned),
    "a shape written in the code": lambda: Middle(
        lambda x: x.view(-1, WIDTH, SIDE * SIDE).view(-1, WIDTH, SIDE, SIDE)
    ),
    "picked channels": lambda: Middle(lambda x: x[:, [0, 2, 1, 3, 7, 6, 5, 4]]),
    "out of torch": lambda: Middle(lambda x: torch.from_numpy(x.detach().numpy()[:, ::-1].copy())),
    "a weight's data": lambda: Middle(
        lambda x, c: c(x) + F.conv2d(x.relu(), c.weight.data, padding=1), c=conv(WIDTH, WIDTH)
    ),
    "many at once, in place": lambda: Middle(lambda x: (torch._foreach_mul_([x], [x.mean(1, True)]), x)[1]),
    "standardised weights": lambda: Middle(lambda x, c: c(x), c=Standardised(WIDTH, WIDTH, 3, padding=1)),
}
"""Nothing is decided about channels that pass through these: all of the first convolution's stay."""


def network(trunk: nn.Module) -> MultiTaskNet:
    return MultiTaskNet(trunk, {"d": nn.Conv2d(6, 1, 1)}).eval()


def halved(network: MultiTaskNet, axis: int, seed: int) -> MultiTaskNet:
    """Zero a random half of the inputs (axis 1) or filters (axis 0) of every convolution of the trunk."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.trunk.modules():
            if isinstance(module, nn.modules.conv._ConvNd):
                weight = module.weight.transpose(0, 1) if module.transposed else module.weight
                gone = torch.rand(weight.shape[axis], generator=generator) < 0.5
                weight[(slice(None),) * axis + (gone,)] = 0
                if axis == 0 and seed % 2 and module.bias is not None:
                    module.bias[gone] = 0
    return network
