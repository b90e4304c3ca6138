"""What operations that change shapes do to channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ms_automl.sparsity.channels import ABSENT, Ids
from ms_automl.sparsity.marks import Mark, Mask
from ms_automl.sparsity.tracer import Call, Rule, Tracer, leaves, only

T = TypeVar("T", bound=np.generic)


def regrouped(tracer: Tracer, call: Call) -> Mark | None:
    """A view of other axes."""
    value, mark = only(tracer, call)
    out = leaves(call.out)[0]
    return None if mark is None else _regroup(tracer, mark, tuple(value.shape), tuple(out.shape), call.name)


def _regroup(tracer: Tracer, mark: Mark, before: Sequence[int], after: Sequence[int], name: str) -> Mark | None:
    """The channels of a tensor in another shape; None where no axis has them.

    Channels that lie together with pixels on one axis stand there once for each pixel. Where their axis becomes
    several, as for a shuffle or the heads of attention, one of these shrinks (``Tracer.shrinking``): the channels
    of each of its entries are one, so that all parts stay alike.
    """
    if tracer.shrinking == "none" and tuple(before) != tuple(after):
        return None
    found = _segment(before, after, mark.axis)
    if found is None:
        return None
    first, old, start, new = found
    shape = [len(mark.ids) if axis == mark.axis - first else 1 for axis in range(len(old))]
    ids: Ids = np.broadcast_to(mark.ids.reshape(shape), old).reshape(new)
    same: Mask = np.broadcast_to(mark.same.reshape(shape), old).reshape(new)
    wide = [axis for axis in range(len(new)) if (ids != ids.take([0], axis)).any()]
    if not wide:  # one channel: on the only axis there is
        wide = [axis for axis in range(len(new)) if new[axis] > 1] or [0]
        if len(wide) > 1:
            return None
    chosen = wide[-1] if tracer.shrinking == "last" else wide[(len(wide) - 1) // 2]
    ids, same = _by(ids, chosen), _by(same, chosen)
    if len(wide) > 1:
        tracer.channels.join(ids, ids[:, :1], tracer.place(name))
    tracer.sized(start + chosen, ids[:, 0])
    return Mark(start + chosen, ids[:, 0], np.all(same, 1))


def _by(table: NDArray[T], axis: int) -> NDArray[T]:
    """[size of an axis, all others]."""
    return np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)


def _segment(
    before: Sequence[int], after: Sequence[int], axis: int
) -> tuple[int, tuple[int, ...], int, tuple[int, ...]] | None:
    """The fewest axes with a given one that become others: the first and their sizes, before and after."""
    i = j = 0
    while i < len(before) and j < len(after):
        first, start, old, new = i, j, before[i], after[j]
        i, j = i + 1, j + 1
        while old != new:
            if old < new:
                old, i = old * before[i], i + 1
            else:
                new, j = new * after[j], j + 1
        if i > axis:
            while j < len(after) and after[j] == 1 and before[axis] > 1 and i == len(before):
                j += 1
            return first, tuple(before[first:i]), start, tuple(after[start:j])
    return None


def permuted(tracer: Tracer, call: Call) -> Mark | None:
    """Axes in another order."""
    value, mark = only(tracer, call)
    if mark is None:
        return None
    order = list(range(value.ndim))
    if call.name == "permute":
        order = [one % value.ndim for one in call["dims"]]
    elif call.name == "t":
        order.reverse()
    else:
        first, second = call["dim0"] % value.ndim, call["dim1"] % value.ndim
        order[first], order[second] = second, first
    return replace(mark, axis=order.index(mark.axis))


def squeezed(tracer: Tracer, call: Call) -> Mark | None:
    """Without axes of length 1."""
    value, mark = only(tracer, call)
    axes = call.given.get("dim", range(value.ndim))
    gone = {one % value.ndim for one in ([axes] if isinstance(axes, int) else axes)}
    gone = {one for one in gone if value.shape[one] == 1}
    if mark is None or mark.axis in gone:
        return None
    return replace(mark, axis=mark.axis - sum(one < mark.axis for one in gone))


def unsqueezed(tracer: Tracer, call: Call) -> Mark | None:
    """With one more."""
    value, mark = only(tracer, call)
    new = call["dim"] % (value.ndim + 1)
    return mark and replace(mark, axis=mark.axis + (new <= mark.axis))


def expanded(tracer: Tracer, call: Call) -> Mark | None:
    """Repeated along axes of length 1, or whole."""
    value, mark = only(tracer, call)
    out = leaves(call.out)[0]
    if mark is None or out.shape[mark.axis - value.ndim] != len(mark.ids) or tracer.shrinking == "none":
        return None
    return replace(mark, axis=mark.axis + out.ndim - value.ndim)


def part(tracer: Tracer, call: Call) -> Mark | None:
    """Some of an axis, or pieces of it: followed where it is not the channels'."""
    value, mark = only(tracer, call)
    axis = call["dim"] % value.ndim
    if mark is None or axis == mark.axis:
        return None
    drops = call.name in ("select", "unbind") and axis < mark.axis
    return replace(mark, axis=mark.axis - drops)


def rolled(tracer: Tracer, call: Call) -> Mark | None:
    """Around the ends of axes: followed where they are not the channels'."""
    value, mark = only(tracer, call)
    dims = [one % value.ndim for one in call["dims"]]
    return None if mark is None or not dims or mark.axis in dims else mark


def halves(tracer: Tracer, call: Call) -> Mark | list[Mark] | None:
    """Equal pieces of an axis: those of the channels' stay alike, so that each is what it was."""
    value, mark = only(tracer, call)
    axis = call["dim"] % value.ndim
    if mark is None or axis != mark.axis:
        return part(tracer, call)
    pieces = 2 if call.name == "glu" else len(call.out)
    if len(mark.ids) % pieces or pieces < (call.given.get("chunks") or 2):
        return None
    if tracer.shrinking == "none":
        return None
    ids, same = mark.ids.reshape(pieces, -1), mark.same.reshape(pieces, -1)
    tracer.channels.join(ids, ids[:1], tracer.place(call.name))
    if call.name == "glu":
        return Mark(axis, ids[0], np.all(same, 0))
    return [Mark(axis, numbers, steady) for numbers, steady in zip(ids, same, strict=True)]


def shuffled(tracer: Tracer, call: Call) -> Mark | None:
    """Channels to pixels, or pixels to channels."""
    value, mark = only(tracer, call)
    if mark is None or mark.axis != value.ndim - 3:
        return None
    if call.name == "pixel_unshuffle":
        often = call["downscale_factor"] ** 2
        return Mark(mark.axis, mark.ids.repeat(often), mark.same.repeat(often))
    ids = mark.ids.reshape(-1, call["upscale_factor"] ** 2)
    tracer.channels.join(ids, ids[:, :1], tracer.place(call.name))
    return Mark(mark.axis, ids[:, 0], np.all(mark.same.reshape(ids.shape), 1))


def interleaved(tracer: Tracer, call: Call) -> Mark | None:
    """The channels of equal blocks in turns, of which each loses the same."""
    _, mark = only(tracer, call)
    if mark is None or mark.axis != 1:
        return mark
    ids = mark.ids.reshape(call["groups"], -1)
    tracer.channels.join(ids, ids[:1], tracer.place(call.name))
    return Mark(1, ids.T.reshape(-1), mark.same.reshape(ids.shape).T.reshape(-1))


def flipped(tracer: Tracer, call: Call) -> Mark | None:
    """Backwards."""
    value, mark = only(tracer, call)
    if mark is not None and mark.axis in [one % value.ndim for one in call["dims"]]:
        mark = Mark(mark.axis, mark.ids[::-1], mark.same[::-1])
    return mark


def joined(tracer: Tracer, call: Call) -> Mark | None:
    """One after the other along an axis, or along a new one."""
    tensors, out = call["tensors"], call.out
    marks = [tracer.mark(one) for one in tensors]
    known = [mark for mark in marks if mark is not None]
    if len({mark.axis for mark in known}) != 1:
        return None
    axis, dim, why = known[0].axis, call["dim"] % out.ndim, tracer.place(call.name)
    tracer.fix([one for one, mark in zip(tensors, marks, strict=True) if mark is None], why)
    if call.name == "cat" and dim == axis:
        ids = [np.full(t.shape[dim], ABSENT) if m is None else m.ids for t, m in zip(tensors, marks, strict=True)]
        same = [
            np.zeros(t.shape[dim], np.bool_) if m is None else m.same for t, m in zip(tensors, marks, strict=True)
        ]
        return Mark(dim, np.concatenate(ids), np.concatenate(same))
    for mark in known:
        tracer.channels.join(known[0].ids, mark.ids, why)
    if len(known) < len(marks):
        tracer.channels.fix(known[0].ids, why)
    same = np.logical_and.reduce([mark.same for mark in known]) & (len(known) == len(marks))
    # Pixels of one value beside pixels of another: what is read finds out whether they are the same.
    return Mark(axis + (call.name == "stack" and dim <= axis), known[0].ids, same)


VIEWS = "view _unsafe_view reshape flatten unflatten view_as reshape_as"
PARTS = "slice narrow select unbind split split_with_sizes index_select"

SHAPES: dict[str, Rule] = {
    **dict.fromkeys(VIEWS.split(), regrouped),
    **dict.fromkeys(("permute", "transpose", "t"), permuted),
    "squeeze": squeezed,
    "unsqueeze": unsqueezed,
    **dict.fromkeys(("expand", "expand_as"), expanded),
    **dict.fromkeys(PARTS.split(), part),
    **dict.fromkeys(("chunk", "glu"), halves),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), shuffled),
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), interleaved),
    "flip": flipped,
    "roll": rolled,
    **dict.fromkeys(("cat", "concat", "stack"), joined),
}
