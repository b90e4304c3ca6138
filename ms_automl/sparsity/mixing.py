"""What operations that mix channels do to them: those by a weight, and products of what the images give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from ms_automl.models.weights import thins_inside
from ms_automl.sparsity.channels import Ids
from ms_automl.sparsity.marks import COMPUTED, NOTHING, OWN, Mark, Mask, extremes, steady, zeros
from ms_automl.sparsity.tracer import Call, Rule, Tracer, only


def convolution(tracer: Tracer, call: Call) -> Mark | None:
    """Ungrouped: reads all channels and writes others. Grouped: what a group reads and writes is one channel."""
    value, mark = only(tracer, call)
    weight, groups, transposed = call["weight"], call["groups"], "transpose" in call.name
    axis = value.ndim - weight.ndim + 1
    if transposed and groups > 1:
        if not groups == weight.shape[0] == call.out.shape[axis]:
            return None
        transposed = False  # a channel for a channel, whose weight is that of one that is not transposed
    if tracer.depends(weight) or (mark is not None and mark.axis != axis):
        return None
    rows = tracer.rows(weight, int(transposed))
    if rows is None:
        return computed(tracer, call, mark, axis) if groups == 1 else None
    alive = (weight.transpose(0, 1) if transposed else weight).ne(0).flatten(2).any(2).numpy()
    if transposed:
        tracer.found.transposed.add(tracer.names[id(weight)])
    if groups == 1:
        same = mixing(tracer, call, value, mark, alive)
    elif (place := tracer.holder([weight])) is None:
        return None
    elif thins_inside(tracer.stack[-1][1]):
        tracer.found.inside.add(place)
        same = inside(tracer, call, mark, rows, alive)
    else:
        same = by_group(tracer, call, mark, rows, alive)
    biased(tracer, call, rows)
    return Mark(axis, rows, same)


def by_group(tracer: Tracer, call: Call, mark: Mark | None, rows: Ids, alive: Mask) -> Mask:
    """Join what each group of a convolution reads and writes, so that it goes as one.

    Args:
        tracer: whose channels they are.
        call: the convolution.
        mark: the channels that are read.
        rows: [out] those that are written.
        alive: [out, in / groups] where the weight is not zero.

    Returns:
        [out] whether an output is the same for every image.
    """
    groups = call["groups"]
    written = rows.reshape(groups, -1)
    tracer.channels.join(written, written[:, :1], OWN)
    if mark is None:
        tracer.channels.fix(rows, "the images")
        return np.asarray(~alive.any(1))
    read = mark.ids.reshape(groups, -1)
    tracer.channels.join(read, written[:, :1], OWN)
    return _same_by_group(call, mark, alive)


def inside(tracer: Tracer, call: Call, mark: Mark | None, rows: Ids, alive: Mask) -> Mask:
    """Join what the groups of a convolution read first, second, …, and what they write, so that all stay alike.

    Args:
        tracer: whose channels they are.
        call: the convolution.
        mark: the channels that are read.
        rows: [out] those that are written.
        alive: [out, in / groups] where the weight is not zero.

    Returns:
        [out] whether an output is the same for every image.
    """
    weight, groups, why = call["weight"], call["groups"], tracer.place(call.name)
    columns, written = tracer.columns(weight), rows.reshape(groups, -1)
    assert columns is not None
    tracer.used(weight)
    tracer.channels.join(written, written[:1], why)
    if mark is None:
        tracer.channels.fix(columns, "the images")
        return np.asarray(~alive.any(1))
    read = mark.ids.reshape(groups, -1)
    tracer.channels.join(read, columns[None], why)
    value, _ = only(tracer, call)
    nothing = zeros(value, mark).reshape(groups, -1).all(0)  # [in / groups] in every group
    tracer.give(weight, np.where(nothing, 0.0, np.nan))
    return _same_by_group(call, mark, alive)


def _same_by_group(call: Call, mark: Mark, alive: Mask) -> Mask:
    """[out] whether an output of a convolution in groups reads nothing but what is the same for every image.

    And in every pixel: at a border of zeros what is not 0 leaves another value than elsewhere, and how much of an
    image is border depends on its size.
    """
    value, groups = call["input"], call["groups"]
    padding = call["padding"]
    bordered = "transpose" in call.name or padding == "same" or (not isinstance(padding, str) and any(padding))
    even = zeros(value, mark) if bordered else steady(value, mark)
    still = even.reshape(groups, -1).repeat(len(alive) // groups, 0)  # [out, in / groups]
    return np.asarray((~alive | still).all(1))


def computed(tracer: Tracer, call: Call, mark: Mark | None, axis: int) -> Mark:
    """By a weight that is no layer's own: it hears all channels, and those that it writes stay."""
    tracer.fix([one for one in (call["weight"], call["bias"]) if one is not None], COMPUTED)
    if mark is not None:
        tracer.found.heard |= set(mark.ids.tolist())
    ids = tracer.channels.new(call["weight"].shape[int("transpose" in call.name)])
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
        even = steady(value, mark)
        values[even] = ((low + high) / 2)[even]
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
        tracer.fix([weight, *([] if call["bias"] is None else [call["bias"]])], "what mixes pixels or tokens")
        return replace(mark, same=np.zeros_like(mark.same))
    same = mixing(tracer, call, value, mark, (weight != 0).numpy())
    biased(tracer, call, rows)
    return Mark(axis, rows, same)


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


CONVOLUTIONS = "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"

MIXING: dict[str, Rule] = {
    **dict.fromkeys(CONVOLUTIONS.split(), convolution),
    "linear": linear,
    **dict.fromkeys(("matmul", "bmm"), product),
    "scaled_dot_product_attention": attention,
}
