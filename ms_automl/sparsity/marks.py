"""What a trace finds out: the channels of a tensor, and where those of a network are written and read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ms_automl.sparsity.channels import Channels, Ids

Mask = NDArray[np.bool_]

OWN = "a parameter of its own"
COMPUTED = "a weight that is computed"
PER_CHANNEL = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
PER_HEAD = {"in_proj_weight", "in_proj_bias"}
"""Of a module that ``attends``."""
SHRINKING = ("first", "last", "none", "nowhere")
"""Which part of an axis of channels shrinks where code makes two or three of it, such as heads and what each has:
the first of two and the middle of three, the last, or none; "nowhere" keeps all that a module is given, too."""


@dataclass(frozen=True)
class Way:
    """How code that gives channels another shape is dealt with.

    Attributes:
        part: which part of an axis shrinks, one of ``SHRINKING``.
        sized: what says how long the axis is: "" for the attributes that the code was seen to give, the name of
            another that has its value, "*" for all that have.
    """

    part: str = SHRINKING[0]
    sized: str = ""

    def next(self, sizes: Collection[str]) -> Way | None:
        """Another one to try, or None.

        Args:
            sizes: the attributes that have the value of an axis, and were not seen.
        """
        order = ["", *sorted(sizes), *(["*"] if len(sizes) > 1 else [])]
        place = order.index(self.sized) + 1 if self.sized in order else 1
        if place < len(order):
            return Way(self.part, order[place])
        parts = SHRINKING[SHRINKING.index(self.part) + 1 :]
        return Way(parts[0]) if parts else None


Shrinking = Mapping[type[nn.Module] | str, Way]
"""What shrinks, by class or name of the module whose code it is; a ``Way()`` where none is given."""
CUT = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.PReLU,
)
"""Layers that are cut as what they are; of others it is their parameters, one by one."""


@dataclass(frozen=True)
class Mark:
    """The channels of a tensor.

    Attributes:
        axis: along which they lie.
        ids: [size of the axis] their numbers, ABSENT where one is not followed.
        same: [size of the axis] whether a channel is the same for every image, because of the weights; its pixels
            may differ.
    """

    axis: int
    ids: Ids
    same: Mask


NOTHING = Mark(0, np.empty(0, np.int64), np.empty(0, np.bool_))
"""What an operation gives has no channels, and those that it reads may go."""


@dataclass(frozen=True)
class Statistic:
    """Channels that a layer norm takes a mean over: one of zeros may go, if it is counted on.

    Attributes:
        ids: [channels] their numbers.
        zero: [channels] which are 0 for every image, because of the weights.
        axis: of the channels in what the layer is given.
    """

    ids: Ids
    zero: Mask
    axis: int


@dataclass
class Trace:
    """What one forward showed.

    Attributes:
        channels: the numbers.
        rows: by name of a parameter or buffer, [its length] the channel of each entry along its first axis; of a
            transposed convolution's weight along its second.
        columns: by name of a weight that mixes channels, [in] the channel that each input reads.
        transposed: names of transposed convolutions' weights [in, out, …].
        inside: names of convolutions in groups of which each group loses channels (``thins_inside``).
        norms: by name of a group norm, [channels] theirs.
        statistics: by name of a layer norm, what it normalises.
        own: by name of a parameter or buffer of no layer that is known, the axis of its channels and these.
        products: channels that are multiplied with each other and summed up, and which are 0 on one side.
        shaped: by name of a module, the channels along each axis to which its code gives a length from elsewhere.
        lengths: by names of a module and of an attribute that is given as the length of an axis, its channels.
        given: by name of a module, the channels of what it gave at its last call.
        values: by name of such a weight, [in] the value of an input that is the same for every image and in every
            pixel; NaN for others.
        seen: numbers of the channels that reach the module's own output.
        heard: numbers of the channels that are read by a weight which is computed.
        reached: names of the modules that the forward called.
        foreign: names of weights that something else than the own forward of their module has used.
    """

    channels: Channels = field(default_factory=Channels)
    rows: dict[str, Ids] = field(default_factory=dict)
    columns: dict[str, Ids] = field(default_factory=dict)
    transposed: set[str] = field(default_factory=set)
    inside: set[str] = field(default_factory=set)
    norms: dict[str, Ids] = field(default_factory=dict)
    statistics: dict[str, Statistic] = field(default_factory=dict)
    own: dict[str, Mark] = field(default_factory=dict)
    products: list[tuple[Ids, Mask]] = field(default_factory=list)
    shaped: dict[str, list[Ids]] = field(default_factory=dict)
    lengths: dict[tuple[str, str], Ids] = field(default_factory=dict)
    given: dict[str, Mark | None] = field(default_factory=dict)
    values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    heard: set[int] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)


STEADY = 1e-6
"""How much the pixels of a channel may differ that is the same in every pixel, relative to its value."""


def extremes(value: Tensor, axis: int) -> tuple[Any, Any]:
    """([channels] least, [channels] largest value of each channel); of complex ones their modulus."""
    others = [one for one in range(value.ndim) if one != axis]
    value = value.abs() if value.is_complex() else value.float()
    low, high = (value.amin(others), value.amax(others)) if others else (value, value)
    return low.double().numpy(), high.double().numpy()


def steady(value: Tensor, mark: Mark) -> Mask:
    """[channels] which of a tensor's are the same for every image and in every pixel."""
    if not mark.same.any():
        return mark.same
    low, high = extremes(value, mark.axis)
    even: Mask = mark.same & (high - low <= STEADY * np.maximum(abs(low), abs(high)))
    return even


def zeros(value: Tensor, mark: Mark) -> Mask:
    """[channels] which of a tensor's are 0 for every image."""
    if not mark.same.any():
        return mark.same
    low, high = extremes(value, mark.axis)
    nothing: Mask = mark.same & (low == 0) & (high == 0)
    return nothing
