"""What the small networks of the zoo share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

WIDTH = 16


def conv(
    inputs: int,
    outputs: int,
    size: int = 3,
    stride: int = 1,
    groups: int = 1,
    norm: type[nn.Module] = nn.BatchNorm2d,
) -> nn.Sequential:
    """Convolution, norm, SiLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), norm(outputs), nn.SiLU()
    )


class Classifier(nn.Module):
    """A stem, something, and a head on the mean over pixels."""

    def __init__(self, *middle: nn.Module, width: int = WIDTH, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.middle = conv(3, WIDTH, 3, 2), nn.Sequential(*middle)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(images)).flatten(2).mean(-1))


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Function(nn.Module):
    """A function without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
