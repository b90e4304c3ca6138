"""Layers of a compact network that stand for torch's: they read less, or nothing, or count what is gone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SelectedConv2d(nn.Conv2d):
    """A convolution that reads some of the channels it is given; others read the rest.

    Args:
        conv: gives geometry, weight [out, len(selected), kh, kw] and bias.
        selected: the channels it reads.
    """

    selected: Tensor

    def __init__(self, conv: nn.Conv2d, selected: Tensor) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            _pair(conv.kernel_size),
            _pair(conv.stride),
            conv.padding if isinstance(conv.padding, str) else _pair(conv.padding),
            _pair(conv.dilation),
            bias=False,
            padding_mode=conv.padding_mode,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.register_buffer("selected", selected)
        self.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, channels, H, W] to [B, out, H', W']."""
        output: Tensor = self._conv_forward(input.index_select(1, self.selected), self.weight, self.bias)
        return output


class SelectedLinear(nn.Linear):
    """A linear layer that reads some of the features it is given; others read the rest.

    Args:
        linear: gives weight [out, len(selected)] and bias.
        selected: the features it reads.
    """

    selected: Tensor

    def __init__(self, linear: nn.Linear, selected: Tensor) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("selected", selected)
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """[..., features] to [..., out]."""
        return nn.functional.linear(input.index_select(-1, self.selected), self.weight, self.bias)


class EmptyLinear(nn.Module):
    """A linear layer of which only the bias is left, whatever it reads.

    Args:
        linear: gives the bias.
    """

    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias.detach()
        self.register_buffer("bias", bias.clone())
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """[..., features] to [..., out]."""
        return self.bias.to(input.dtype).expand(*input.shape[:-1], -1).clone()  # what comes next may work in place


class EmptyConv2d(nn.Module):
    """A convolution of which only the bias is left: the same in every pixel, whatever it reads.

    Args:
        conv: gives geometry and bias.
    """

    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        same = isinstance(conv.padding, str) and conv.padding == "same"
        padding = (0, 0) if isinstance(conv.padding, str) else _pair(conv.padding)
        self.shrinks = (0, 0) if same else (reach[0] - 2 * padding[0], reach[1] - 2 * padding[1])
        self.stride = _pair(conv.stride)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.register_buffer("bias", bias.clone())
        self.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, channels, H, W] to [B, out, H', W']."""
        height, width = (
            (size - shrink - 1) // stride + 1
            for size, shrink, stride in zip(input.shape[2:], self.shrinks, self.stride, strict=True)
        )
        view = self.bias.to(input.dtype).view(1, -1, 1, 1).expand(input.shape[0], -1, height, width)
        return view.clone(memory_format=torch.contiguous_format)  # what comes next may work in place


class CountedLayerNorm(nn.Module):
    """A layer norm that counts channels of zeros which are no longer there; mean and variance are what they were.

    With x the c channels that are left and n how many there were: μ = Σ x / n, σ² = (Σ (x - μ)² + (n - c) μ²) / n,
    and γ (x - μ) / sqrt(σ² + ε) + β.

    Args:
        norm: gives γ [c], β [c] and ε.
        count: n.
        axis: of the channels.
    """

    def __init__(self, norm: nn.LayerNorm, count: int, axis: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.count, self.missing, self.axis = count, count - norm.normalized_shape[0], axis
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape, with c entries along the axis."""
        mean = input.sum(self.axis, keepdim=True) / self.count
        centred = input - mean
        square = (centred.square().sum(self.axis, keepdim=True) + self.missing * mean.square()) / self.count
        output: Tensor = centred * (square + self.eps).rsqrt()
        shape = [-1 if axis == self.axis else 1 for axis in range(input.ndim)]
        if self.weight is not None:
            output = output * self.weight.view(shape)
        return output if self.bias is None else output + self.bias.view(shape)


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    height, width = value
    return height, width
