"""Convolutional networks, each with something in it that is not a plain convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, StochasticDepth

from tests.zoo.parts import WIDTH, Residual, conv


class Ghost(nn.Module):
    """Half of the channels are made of the others by a depthwise convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs // 2, 1)
        self.cheap = conv(outputs // 2, outputs // 2, 3, groups=outputs // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([x, self.cheap(x)], 1)


class UNet(nn.Module):
    """Down, and up by transposed convolutions."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8, norm=norm), conv(8, 16, 3, 2, norm=norm), conv(16, 24, 3, 2, norm=norm)
        self.up1, self.d = nn.ConvTranspose2d(24, 16, 2, 2), conv(32, 16, norm=norm)
        self.up2, self.e = nn.ConvTranspose2d(16, 8, 2, 2), conv(16, 8, norm=norm)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        a = self.a(images)
        b = self.b(a)
        x = self.up1(self.c(b))
        x = self.d(torch.cat([x, b], 1))
        x = self.e(torch.cat([self.up2(x), a], 1))
        return self.last(x)


class SuperResolution(nn.Module):
    """Channels become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.a = nn.PixelUnshuffle(2), conv(12, WIDTH)
        self.body = Residual(conv(WIDTH, WIDTH), nn.Conv2d(WIDTH, WIDTH, 3, padding=1))
        self.up, self.last = nn.Sequential(nn.Conv2d(WIDTH, 4 * 12, 3, padding=1), nn.PixelShuffle(2)), conv(12, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.up(self.body(self.a(self.down(images)))))


class Pyramid(nn.Module):
    """torchvision's feature pyramid: a dict of scales."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8, 3, 2), conv(8, 16, 3, 2), conv(16, 24, 3, 2)
        self.fpn = FeaturePyramidNetwork([8, 16, 24], 12)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        a = self.a(images)
        b = self.b(a)
        return self.fpn({"a": a, "b": b, "c": self.c(b)})


class CBAM(nn.Module):
    """A gate for each channel from mean and maximum, and one for each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width))
        self.pixel = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * gate.sigmoid()[:, :, None, None]
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.pixel(seen).sigmoid()


class ECA(nn.Module):
    """A gate from a convolution over neighbouring channels."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mix(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return x * gate[:, :, None, None]


class NonLocal(nn.Module):
    """Every pixel asks every other one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(width, width // 2, 1) for _ in range(3))
        self.last = nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (one(x).flatten(2) for one in (self.theta, self.phi, self.g))
        mixed = g @ (theta.transpose(1, 2) @ phi).softmax(-1).transpose(1, 2)
        return x + self.last(mixed.view(len(x), -1, *x.shape[2:]))


class SelectiveKernel(nn.Module):
    """Two branches and a softmax between them for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width, 3), conv(width, width, 5)
        self.squeeze, self.choose = nn.Linear(width, 8), nn.Linear(8, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.a(x), self.b(x)], 1)
        gate = self.choose(self.squeeze(both.sum(1).mean((2, 3))).relu()).unflatten(1, (2, -1)).softmax(1)
        return (both * gate[..., None, None]).sum(1)


class GLU(nn.Module):
    """Half of the channels open the other half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.glu(self.up(x), 1))


class Scaled(nn.Module):
    """A ConvNeXt block written by hand: depthwise, norm over the last axis, MLP, a scale for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma, self.drop = nn.Parameter(torch.full((width,), 0.1)), StochasticDepth(0.1, "row")

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + self.drop(y.permute(0, 3, 1, 2))


class Volume(nn.Module):
    """Three-dimensional convolutions over colours, with pooling, resizing and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(1, 24, 3, stride=(1, 4, 4), padding=1), nn.Conv3d(24, 16, 3, padding=1)
        self.c, self.norm = nn.ConvTranspose3d(16, 24, 2, 2), nn.BatchNorm3d(24)
        self.pool, self.up = nn.MaxPool3d(2), nn.Upsample(scale_factor=(1.5, 1, 1), mode="trilinear")
        self.head = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.a(images.unsqueeze(1))).relu()
        return self.head((self.up(self.c(self.b(self.pool(x)).relu())) + x).mean((2, 3, 4)))


class Signal(nn.Module):
    """One-dimensional convolutions over rows of pixels, with pooling and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(3, 24, 9, 4), nn.Conv1d(24, 16, 9, padding=4), nn.Conv1d(16, 24, 3)
        self.norm, self.pool, self.head = nn.BatchNorm1d(24), nn.MaxPool1d(2), nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.norm(self.a(images.flatten(2))).relu())
        return self.head((self.c(nn.functional.pad(self.b(x).relu(), (1, 1))) + x).mean(-1))


class TwoBranches(nn.Module):
    """Outputs by name, one of them a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, WIDTH, 3, 2), conv(WIDTH, 12), conv(WIDTH, 12, 3, 2)
        self.mask, self.kind = nn.Conv2d(12, 2, 1), nn.Linear(12, 5)

    def forward(self, images: Tensor) -> dict[str, object]:
        x = self.stem(images)
        a, b = self.a(x), self.b(x)
        return {"mask": self.mask(a), "kinds": [self.kind(a.mean((2, 3))), self.kind(b.mean((2, 3)))]}


class LayerNorm2d(nn.LayerNorm):
    """Over channels, which are not the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Recurrent(nn.Module):
    """An LSTM over pixels, whose code is torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.lstm, self.head = (
            conv(3, WIDTH, 8, 8),
            nn.LSTM(WIDTH, 12, batch_first=True),
            nn.Linear(12, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.lstm(self.stem(images).flatten(2).transpose(1, 2))[0].mean(1))
