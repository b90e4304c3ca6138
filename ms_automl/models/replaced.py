"""Layers of a compact network that stand for torch's: they read less, or nothing, or count what is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class _Selecting(nn.Module):
    """A convolution that reads some of the channels it is given; others read the rest.

    Args:
        conv: gives geometry, weight and bias; its weight is of the channels that are read.
        selected: these.
    """

    selected: Tensor

    def __init__(self, conv: nn.Module, selected: Tensor) -> None:
        nn.Module.__init__(self)
        own = ("_reversed_padding_repeated_twice",)  # by which torch pads borders
        vars(self).update({key: value for key, value in vars(conv).items() if key in own or key[0] != "_"})
        for key, value in conv.named_parameters(recurse=False):
            self.register_parameter(key, value)
        if "bias" not in self._parameters:
            self.register_parameter("bias", None)
        self.register_buffer("selected", selected)
        self.train(conv.training)

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[B, channels, …] to [B, out, …], or without the first axis; further arguments as torch's takes them."""
        axis = input.ndim - self.get_parameter("weight").ndim + 1
        output: Tensor = super().forward(input.index_select(axis, self.selected), *args, **kwargs)
        return output


class SelectedConv1d(_Selecting, nn.Conv1d):
    """Over one axis."""


class SelectedConv2d(_Selecting, nn.Conv2d):
    """Over two."""


class SelectedConv3d(_Selecting, nn.Conv3d):
    """Over three."""


class SelectedConvTranspose1d(_Selecting, nn.ConvTranspose1d):
    """The transposed one over one axis."""


class SelectedConvTranspose2d(_Selecting, nn.ConvTranspose2d):
    """Over two."""


class SelectedConvTranspose3d(_Selecting, nn.ConvTranspose3d):
    """Over three."""


SELECTED: tuple[type[_Selecting], ...] = (
    SelectedConv1d,
    SelectedConv2d,
    SelectedConv3d,
    SelectedConvTranspose1d,
    SelectedConvTranspose2d,
    SelectedConvTranspose3d,
)


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


class EmptyConv(nn.Module):
    """A convolution of which only the bias is left: the same in every pixel, whatever it reads.

    Args:
        conv: over any axes, also a transposed one; gives geometry and bias.
    """

    bias: Tensor

    def __init__(self, conv: nn.modules.conv._ConvNd) -> None:
        super().__init__()
        self.reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        if isinstance(conv.padding, str):
            self.padding = self.reach if conv.padding == "same" else [0] * len(self.reach)
        else:
            self.padding = [2 * one for one in conv.padding]
        self.stride = list(conv.stride)
        self.more = list(conv.output_padding) if isinstance(conv, nn.modules.conv._ConvTransposeNd) else None
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        self.register_buffer("bias", bias.clone())
        self.train(conv.training)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """[B, channels, …] to [B, out, …], or without the first axis; of a size that a transposed one is told."""
        first = input.shape[: input.ndim - len(self.reach) - 1]
        geometry = zip(input.shape[len(first) + 1 :], self.reach, self.padding, self.stride, strict=True)
        if self.more is None:
            sizes = [(size + padding - reach - 1) // stride + 1 for size, reach, padding, stride in geometry]
        else:
            sizes = [
                (size - 1) * stride - padding + reach + more + 1
                for (size, reach, padding, stride), more in zip(geometry, self.more, strict=True)
            ]
        if output_size is not None:
            sizes = list(output_size)[-len(sizes) :]
        view = self.bias.to(input.dtype).view(-1, *[1] * len(sizes)).expand(*first, -1, *sizes)
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
