"""Building blocks of the YOLO family, and a detector of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.parts import conv


class Bottleneck(nn.Module):
    """Of the YOLO family: two convolutions and a shortcut."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(width, hidden), conv(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class C2f(nn.Module):
    """Of YOLOv8: a half passes, the other goes through bottlenecks, each of which is kept."""

    def __init__(
        self, inputs: int, outputs: int, repeats: int = 2, block: Callable[..., nn.Module] = Bottleneck
    ) -> None:
        super().__init__()
        self.c = outputs // 2
        self.cv1, self.cv2 = conv(inputs, 2 * self.c, 1), conv((2 + repeats) * self.c, outputs, 1)
        self.m = nn.ModuleList(block(self.c, self.c) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class C2fSplit(C2f):
    """The same by split, as its export does."""

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).split((self.c, self.c), 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class C3k(nn.Module):
    """Two branches, one through bottlenecks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs // 2
        self.cv1, self.cv2, self.cv3 = (
            conv(inputs, hidden, 1),
            conv(inputs, hidden, 1),
            conv(2 * hidden, outputs, 1),
        )
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    """Pooling over and over, all of it kept."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs // 2
        self.cv1, self.cv2, self.m = conv(inputs, hidden, 1), conv(hidden * 4, outputs, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))


class PixelAttention(nn.Module):
    """Of YOLO11: attention over pixels, keys half as wide as values, and a depthwise position."""

    def __init__(self, dim: int, num_heads: int = 2) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.key_dim = self.head_dim // 2
        self.scale = self.key_dim**-0.5
        self.qkv = nn.Conv2d(dim, dim + 2 * self.key_dim * num_heads, 1)
        self.proj, self.pe = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        images, width, *pixels = x.shape
        qkv = self.qkv(x).view(images, self.num_heads, self.key_dim * 2 + self.head_dim, -1)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.head_dim], dim=2)
        shares = ((q.transpose(-2, -1) @ k) * self.scale).softmax(-1)
        y = (v @ shares.transpose(-2, -1)).view(images, width, *pixels)
        y = y + self.pe(v.reshape(images, width, *pixels))
        return self.proj(y)


class Detector(nn.Module):
    """Backbone of three scales, a neck up and down (FPN, PAN), decoupled heads: a list of lists."""

    def __init__(self, block: Callable[..., nn.Module] = C2f) -> None:
        super().__init__()
        w = (16, 24, 32)
        self.stem = conv(3, 8, 3, 2)
        self.p3 = nn.Sequential(conv(8, w[0], 3, 2), block(w[0], w[0]))
        self.p4 = nn.Sequential(conv(w[0], w[1], 3, 2), block(w[1], w[1]))
        self.p5 = nn.Sequential(conv(w[1], w[2], 3, 2), block(w[2], w[2]), SPPF(w[2], w[2]))
        self.up4, self.up3 = block(w[1] + w[2], w[1]), block(w[0] + w[1], w[0])
        self.down4, self.down5 = conv(w[0], w[0], 3, 2), conv(w[1], w[1], 3, 2)
        self.out4, self.out5 = block(w[0] + w[1], w[1]), block(w[1] + w[2], w[2])
        self.boxes = nn.ModuleList(nn.Sequential(conv(i, 16), conv(16, 16), nn.Conv2d(16, 4 * 4, 1)) for i in w)
        self.kinds = nn.ModuleList(
            nn.Sequential(conv(i, i, groups=i), conv(i, 16, 1), nn.Conv2d(16, 5, 1)) for i in w
        )

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        c3 = self.p3(self.stem(images))
        c4 = self.p4(c3)
        c5 = self.p5(c4)
        f4 = self.up4(torch.cat([F.interpolate(c5, scale_factor=2), c4], 1))
        f3 = self.up3(torch.cat([F.interpolate(f4, scale_factor=2), c3], 1))
        f4 = self.out4(torch.cat([self.down4(f3), f4], 1))
        f5 = self.out5(torch.cat([self.down5(f4), c5], 1))
        scales = zip((f3, f4, f5), self.boxes, self.kinds, strict=True)
        return [(box(f), kind(f)) for f, box, kind in scales]
