"""What operations do to channels, by their name in ATen. One that is not listed is not followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from ms_automl.sparsity.channels import ABSENT, Ids
from ms_automl.sparsity.tracer import (
    COMPUTED,
    NOTHING,
    OWN,
    Call,
    Mark,
    Mask,
    Rule,
    Statistic,
    Tracer,
    leaves,
    only,
)

STEADY = 1e-6
"""How much the pixels of a channel may differ that is the same in every pixel, relative to its value."""


def extremes(value: Tensor, axis: int) -> tuple[Any, Any]:
    """([channels] least, [channels] largest value of each channel); of complex ones their modulus."""
    others = [one for one in range(value.ndim) if one != axis]
    value = value.abs() if value.is_complex() else value.float()
    low, high = (value.amin(others), value.amax(others)) if others else (value, value)
    return low.double().numpy(), high.double().numpy()


def zeros(value: Tensor, mark: Mark) -> Mask:
    """[channels] which of a tensor's are 0 for every image."""
    if not mark.same.any():
        return mark.same
    low, high = extremes(value, mark.axis)
    nothing: Mask = mark.same & (low == 0) & (high == 0)
    return nothing


def elementwise(tracer: Tracer, call: Call) -> Mark | None:
    """out[i] depends on the entries [i] of the arguments, which broadcast."""
    out = leaves(call.out)[0]
    for one in call.tensors:
        if tracer.depends(one) and (mark := tracer.mark(one)) is not None:
            for other in call.tensors:
                tracer.beside(other, mark.axis - one.ndim)
    marks = [(one, tracer.mark(one)) for one in call.tensors]
    axes = {
        mark.axis - one.ndim
        for one, mark in marks
        if mark is not None and len(mark.ids) == out.shape[mark.axis - one.ndim]
    }
    if len(axes) != 1:
        return None
    axis, ids, stay = axes.pop(), None, ""
    size = out.shape[axis]
    same, zero, why = np.ones(size, np.bool_), np.zeros(size, np.bool_), tracer.place(call.name)
    for one, mark in marks:
        if mark is not None and mark.axis - one.ndim == axis and len(mark.ids) == size:
            if ids is not None:
                tracer.channels.join(ids, mark.ids, why)
            ids, zero = mark.ids, zero | zeros(one, mark)
            same &= mark.same
            continue
        depends = tracer.depends(one)
        tracer.fix([one], why if depends else OWN)  # a gate of one channel, say
        same &= not depends or (mark is not None and bool(mark.same.all()))
        if size > 1 and one.ndim >= -axis and one.shape[axis] == size:  # an entry for each, not followed
            stay = why if depends else OWN
    assert ids is not None
    if stay:
        tracer.channels.fix(ids, stay)
    return Mark(out.ndim + axis, ids, same | zero if call.name == "mul" else same)


def alike(tracer: Tracer, call: Call) -> Mark | None:
    """Of the shape of another, and the same everywhere."""
    mark = tracer.mark(call["self"])
    return mark and replace(mark, same=np.ones_like(mark.same))


def _axis(axis: int, ndim: int) -> int:
    return axis % ndim if ndim else 0


def convolution(tracer: Tracer, call: Call) -> Mark | None:
    """Ungrouped: reads all channels and writes others. Grouped: what a group reads and writes is one channel."""
    value, mark = only(tracer, call)
    weight, groups, turned = call["weight"], call["groups"], "transpose" in call.name
    axis = value.ndim - weight.ndim + 1
    if tracer.depends(weight) or (mark is not None and mark.axis != axis) or (turned and groups > 1):
        return None
    rows = tracer.rows(weight, int(turned))
    if rows is None:
        return computed(tracer, call, mark, axis) if groups == 1 else None
    alive = (weight.transpose(0, 1) if turned else weight).ne(0).flatten(2).any(2).numpy()
    if turned:
        tracer.found.turned.add(tracer.names[id(weight)])
    if groups == 1:
        same = mixing(tracer, call, value, mark, alive)
    elif tracer.holder([weight]) is None:
        return None
    else:
        same = by_group(tracer, mark, rows, alive, groups)
    biased(tracer, call, rows)
    return Mark(axis, rows, same)


def by_group(tracer: Tracer, mark: Mark | None, rows: Ids, alive: Mask, groups: int) -> Mask:
    """Join what each group of a convolution reads and writes, so that it goes as one.

    Args:
        tracer: whose channels they are.
        mark: the channels that are read.
        rows: [out] those that are written.
        alive: [out, in / groups] where the weight is not zero.
        groups: how many.

    Returns:
        [out] whether an output is the same for every image.
    """
    written = rows.reshape(groups, -1)
    tracer.channels.join(written, written[:, :1], OWN)
    if mark is None:
        tracer.channels.fix(rows, "the images")
        return np.asarray(~alive.any(1))
    read = mark.ids.reshape(groups, -1)
    tracer.channels.join(read, written[:, :1], OWN)
    still = mark.same.reshape(groups, -1).repeat(written.shape[1], 0)  # [out, in / groups]
    return np.asarray((~alive | still).all(1))


def computed(tracer: Tracer, call: Call, mark: Mark | None, axis: int) -> Mark:
    """By a weight that is no layer's own: it hears all channels, and those that it writes stay."""
    tracer.fix([one for one in (call["weight"], call["bias"]) if one is not None], COMPUTED)
    if mark is not None:
        tracer.found.heard |= set(mark.ids.tolist())
    ids = tracer.channels.new(call["weight"].shape[0])
    tracer.channels.fix(ids, COMPUTED)
    return Mark(axis, ids, np.zeros(len(ids), np.bool_))


def mixing(tracer: Tracer, call: Call, value: Tensor, mark: Mark | None, alive: Mask) -> Mask:
    """Read all channels by a weight.

    Args:
        tracer: whose channels they are.
        call: the operation.
        value: what it reads.
        mark: its channels.
        alive: [out, in] where the weight is not zero.

    Returns:
        [out] whether an output is the same for every image: where it reads nothing but zeros.
    """
    weight = call["weight"]
    columns = tracer.columns(weight, int("transpose" not in call.name))
    assert columns is not None
    tracer.used(weight)
    if mark is None:
        tracer.channels.fix(columns, "the images")
        return np.asarray(~alive.any(1))
    tracer.channels.join(columns, mark.ids, tracer.place(call.name))
    values = np.full(len(columns), np.nan)
    if mark.same.any() and not value.is_complex():
        low, high = extremes(value, mark.axis)
        steady = mark.same & (high - low <= STEADY * np.maximum(abs(low), abs(high)))
        values[steady] = ((low + high) / 2)[steady]
    tracer.give(weight, values)
    return np.asarray(~alive[:, values != 0].any(1))


def biased(tracer: Tracer, call: Call, rows: Ids) -> None:
    """One entry of the bias for each channel."""
    if (bias := call["bias"]) is None:
        return
    entries = tracer.rows(bias)
    if entries is None or tracer.depends(bias):
        tracer.fix([bias], OWN)
        tracer.channels.fix(rows, OWN)
    else:
        tracer.channels.join(rows, entries, OWN)


def linear(tracer: Tracer, call: Call) -> Mark | None:
    """Reads the last axis, whatever stands before it."""
    value, mark = only(tracer, call)
    weight, axis = call["weight"], value.ndim - 1
    rows = tracer.rows(weight)
    if rows is None or tracer.depends(weight):
        return None
    if mark is not None and mark.axis != axis:  # the same for each channel, as in an MLP over pixels
        tracer.fix([weight, *([] if call["bias"] is None else [call["bias"]])], tracer.place(call.name))
        return replace(mark, same=np.zeros_like(mark.same))
    same = mixing(tracer, call, value, mark, (weight != 0).numpy())
    biased(tracer, call, rows)
    return Mark(axis, rows, same)


def norm(tracer: Tracer, call: Call) -> Mark | None:
    """Statistics, γ and β by channel."""
    _, mark = only(tracer, call)
    own = [call[name] for name in ("weight", "bias", "running_mean", "running_var") if call[name] is not None]
    entries = [tracer.rows(one) for one in own]
    if mark is None or mark.axis != 1 or any(one is None for one in entries):
        return None
    for one in entries:
        tracer.channels.join(mark.ids, one, OWN)  # type: ignore[arg-type]
    flat = np.zeros_like(mark.same) if call["weight"] is None else (call["weight"] == 0).numpy()
    return replace(mark, same=mark.same | flat)


def group_norm(tracer: Tracer, call: Call) -> Mark | None:
    """Statistics of some channels together: these go as one, so that those of the others are what they were."""
    value, mark = only(tracer, call)
    own = [call[name] for name in ("weight", "bias") if call[name] is not None]
    place = tracer.holder(own)
    entries = [tracer.rows(one) for one in own]
    if mark is None or mark.axis != 1 or place is None or any(one is None for one in entries):
        return None
    for one in entries:
        tracer.channels.join(mark.ids, one, OWN)  # type: ignore[arg-type]
    together = mark.ids.reshape(call["num_groups"], -1)
    tracer.channels.join(together, together[:, :1], OWN)
    tracer.found.norms[place] = mark.ids
    nothing = zeros(value, mark).reshape(together.shape).all(1).repeat(together.shape[1])
    flat = np.zeros_like(mark.same) if call["weight"] is None else (call["weight"] == 0).numpy()
    return replace(mark, same=nothing | flat)


def prelu(tracer: Tracer, call: Call) -> Mark | None:
    """One slope, or one for each channel."""
    _, mark = only(tracer, call)
    if call["weight"].numel() == 1:
        return mark
    entries = tracer.rows(call["weight"])
    if mark is None or mark.axis != 1 or entries is None:
        return None
    tracer.channels.join(mark.ids, entries, OWN)
    return mark


def layer_norm(tracer: Tracer, call: Call) -> Mark | None:
    """Over the last axes: each channel by itself where they are not among them, else statistics over all."""
    value, mark = only(tracer, call)
    own = [call[name] for name in ("weight", "bias") if call.given.get(name) is not None]
    if mark is None:
        return None
    if mark.axis < value.ndim - len(call["normalized_shape"]):
        tracer.fix(own, OWN)
        return replace(mark, same=np.zeros_like(mark.same))
    (place, module, axis), entries = tracer.stack[-1], [tracer.rows(one) for one in own]
    ours = {id(one) for one in module.parameters(recurse=False)}
    if len(call["normalized_shape"]) != 1 or not isinstance(module, nn.LayerNorm | nn.RMSNorm) or axis is None:
        return None
    if {id(one) for one in own} != ours or any(one is None for one in entries) or place in tracer.hooked:
        return None
    for one in entries:
        tracer.channels.join(mark.ids, one, OWN)  # type: ignore[arg-type]
    tracer.statistics(place, Statistic(mark.ids, zeros(value, mark), axis))
    flat = np.zeros_like(mark.same) if call["weight"] is None else (call["weight"] == 0).numpy()
    return replace(mark, same=flat)


def embedding(tracer: Tracer, call: Call) -> Mark | None:
    """Rows of a table by number."""
    mark = tracer.mark(call["weight"])
    if mark is None or mark.axis != 1:
        return None
    return replace(mark, axis=call.out.ndim - 1, same=np.zeros_like(mark.same))


def pixels(tracer: Tracer, call: Call) -> Mark | None:
    """Over the last axes, each channel by itself: pooling, resizing, mirrored borders."""
    value, mark = only(tracer, call)
    return None if mark is None or mark.axis >= value.ndim - 2 else mark


def pad(tracer: Tracer, call: Call) -> Mark | None:
    """Borders; around the channels they are more of them."""
    value, mark = only(tracer, call)
    amounts, mode = call["pad"], call.given.get("mode", "constant")
    if mark is None or (mark.axis >= value.ndim - len(amounts) // 2 and mode != "constant"):
        return None
    around = amounts[2 * (value.ndim - 1 - mark.axis) :][:2] or (0, 0)
    if min(around) < 0:
        return None
    ids = np.pad(mark.ids, around, constant_values=ABSENT)
    return Mark(mark.axis, ids, np.pad(mark.same, around))


def reduction(tracer: Tracer, call: Call) -> Mark | None:
    """Over axes that are not the channels'."""
    value, mark = only(tracer, call)
    axes = call.given.get("dim")
    axes = [axes] if isinstance(axes, int) else list(axes or range(value.ndim))
    axes = [_axis(one, value.ndim) for one in axes]
    if mark is None or mark.axis in axes:
        return None
    axis = mark.axis if call.given.get("keepdim") else mark.axis - sum(one < mark.axis for one in axes)
    keeps = call.name in ("mean", "amax", "amin", "max.dim", "min.dim")  # others know how many pixels there are
    return Mark(axis, mark.ids, mark.same if keeps else np.zeros_like(mark.same))


def product(tracer: Tracer, call: Call) -> Mark | None:
    """Matrices [..., n, k] and [..., k, m], of each index before them by itself."""
    one, other = call["self"], call.given["other" if "other" in call.given else "mat2"]
    if min(one.ndim, other.ndim) < 2:
        return None
    first, second = tracer.mark(one), tracer.mark(other)
    places = [None if mark is None else mark.axis - x.ndim for x, mark in ((one, first), (other, second))]
    if places == [-1, -2]:
        return summed(tracer, call, (one, first), (other, second))
    if places in ([-2, None], [None, -1]):
        mark, axis = (first, call.out.ndim - 2) if second is None else (second, call.out.ndim - 1)
        assert mark is not None
        return Mark(axis, mark.ids, np.zeros_like(mark.same))
    return by_index(tracer, call, [one, other], 2)


def attention(tracer: Tracer, call: Call) -> Mark | None:
    """softmax(q k^T) v: heads by themselves; entries of q and k where the scale does not follow from how many."""
    query, key, value, mask = (call[name] for name in ("query", "key", "value", "attn_mask"))
    marks = [tracer.mark(one) for one in (query, key, value)]
    last = [
        mark is not None and mark.axis == one.ndim - 1
        for one, mark in zip((query, key, value), marks, strict=True)
    ]
    if call.given.get("enable_gqa") or (any(last[:2]) and call["scale"] is None):
        return None
    if all(last[:2]):
        summed(tracer, call, (query, marks[0]), (key, marks[1]))
        marks[:2] = None, None
    if any(last[:2]) or not last[2]:
        return by_index(tracer, call, [query, key, value] + ([] if mask is None else [mask]), 2)
    mark = marks[2]
    return None if mark is None or any(marks[:2]) else replace(mark, same=np.zeros_like(mark.same))


def summed(tracer: Tracer, call: Call, one: tuple[Tensor, Mark | None], other: tuple[Tensor, Mark | None]) -> Mark:
    """Products of channels, summed up: one goes where it is zero on either side."""
    (a, first), (b, second) = one, other
    assert first is not None and second is not None
    tracer.channels.join(first.ids, second.ids, tracer.place(call.name))
    tracer.found.products.append((first.ids, zeros(a, first) | zeros(b, second)))
    return NOTHING


def by_index(tracer: Tracer, call: Call, tensors: Sequence[Tensor], inner: int) -> Mark | None:
    """Each index along an axis by itself, which all have, or have once.

    Args:
        tracer: whose channels they are.
        call: the operation.
        tensors: what it takes.
        inner: how many of the last axes are mixed.
    """
    found = {mark.axis - x.ndim for x in tensors if (mark := tracer.mark(x)) is not None}
    if len(found) != 1 or (axis := found.pop()) >= -inner:
        return None
    size, ids = call.out.shape[axis], None
    for x in tensors:
        if (mark := tracer.mark(x)) is not None and len(mark.ids) == size:
            if ids is not None:
                tracer.channels.join(ids, mark.ids, tracer.place(call.name))
            ids = mark.ids
        elif x.ndim >= -axis and x.shape[axis] > 1:
            return None
    return None if ids is None else Mark(call.out.ndim + axis, ids, np.zeros(size, np.bool_))


def along(tracer: Tracer, call: Call) -> Mark | None:
    """Mixes the entries of one axis, which keeps its length: followed where it is not the channels'."""
    value, mark = only(tracer, call)
    if mark is None or _axis(call["dim"], value.ndim) == mark.axis:
        return None
    return replace(mark, same=np.zeros_like(mark.same))


ELEMENTWISE = """
    abs acos add addcdiv addcmul alias alpha_dropout asin atan atan2 bitwise_and bitwise_not bitwise_or ceil
    celu clamp clamp_max clamp_min clone contiguous copy copy_ cos cosh detach div dropout elu eq erf erfc exp
    exp2 expm1 feature_alpha_dropout feature_dropout fill fill_ float_power floor floor_divide fmod frac ge
    gelu gt half hardshrink hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp log log10
    log1p log2 log_sigmoid logaddexp logical_and logical_not logical_or lt masked_fill max.other maximum
    min.other minimum mish mul nan_to_num ne neg positive pow reciprocal relu relu6 remainder round rsqrt rsub
    selu sigmoid sign silu sin sinh softplus softshrink sqrt square sub tan tanh threshold to _to_copy trunc
    type_as where zero zero_
"""
CONVOLUTIONS = "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
ALIKE = "zeros_like ones_like empty_like full_like"
PIXELS = """
    max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d
    upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa reflection_pad2d replication_pad2d
"""
REDUCTIONS = "mean amax amin max.dim min.dim sum var std prod.dim_int logsumexp linalg_vector_norm argmax argmin"

COMPUTING: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(ALIKE.split(), alike),
    **dict.fromkeys(CONVOLUTIONS.split(), convolution),
    "linear": linear,
    **dict.fromkeys(("batch_norm", "instance_norm"), norm),
    "group_norm": group_norm,
    "prelu": prelu,
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "embedding": embedding,
    **dict.fromkeys(PIXELS.split(), pixels),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(REDUCTIONS.split(), reduction),
    **dict.fromkeys(("matmul", "bmm"), product),
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "cumsum"), along),
}
