"""What operations do to channels, by their name in ATen. One that is not listed is not followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from ms_automl.sparsity.channels import ABSENT
from ms_automl.sparsity.marks import OWN, Mark, Statistic, steady, zeros
from ms_automl.sparsity.tracer import Call, Rule, Tracer, leaves, only


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


def norm(tracer: Tracer, call: Call) -> Mark | None:
    """Statistics, γ and β by channel."""
    value, mark = only(tracer, call)
    own = [call[name] for name in ("weight", "bias", "running_mean", "running_var") if call[name] is not None]
    entries = [tracer.rows(one) for one in own]
    if mark is None or mark.axis != 1 or any(one is None for one in entries):
        return None
    for one in entries:
        tracer.channels.join(mark.ids, one, OWN)  # type: ignore[arg-type]
    flat = np.zeros_like(mark.same) if call["weight"] is None else (call["weight"] == 0).numpy()
    same = steady(value, mark) if call.name == "instance_norm" else mark.same  # that knows the other pixels
    return replace(mark, same=same | flat)


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
    """Over one to three of the last axes, each channel by itself: pooling, resizing, mirrored borders."""
    value, mark = only(tracer, call)
    axes = next(int(digit) for digit in call.name if digit.isdigit())
    if mark is None or mark.axis >= value.ndim - axes:
        return None
    padding = call.given.get("padding") or 0
    padded = call.name.startswith("avg_pool") and any([padding] if isinstance(padding, int) else padding)
    return replace(mark, same=zeros(value, mark) if padded else steady(value, mark))


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
    same = np.zeros_like(mark.same)
    if call.name in ("mean", "amax", "amin", "max.dim", "min.dim"):  # others know how many pixels there are
        same = steady(value, mark)
    elif call.name in ("sum", "var", "std", "prod.dim_int", "linalg_vector_norm"):  # but of zeros they are 0
        same = zeros(value, mark)
    return Mark(axis, mark.ids, same)


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
ALIKE = "zeros_like ones_like empty_like full_like"
PIXELS = """
    max_pool1d max_pool1d_with_indices avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d upsample_nearest1d
    _upsample_nearest_exact1d upsample_linear1d reflection_pad1d replication_pad1d
    max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d
    upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa reflection_pad2d replication_pad2d fractional_max_pool2d
    max_pool3d max_pool3d_with_indices avg_pool3d adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool3d
    upsample_nearest3d _upsample_nearest_exact3d upsample_trilinear3d reflection_pad3d replication_pad3d
"""
REDUCTIONS = "mean amax amin max.dim min.dim sum var std prod.dim_int logsumexp linalg_vector_norm argmax argmin"

COMPUTING: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE.split(), elementwise),
    **dict.fromkeys(ALIKE.split(), alike),
    **dict.fromkeys(("batch_norm", "instance_norm"), norm),
    "group_norm": group_norm,
    "prelu": prelu,
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "embedding": embedding,
    **dict.fromkeys(PIXELS.split(), pixels),
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(REDUCTIONS.split(), reduction),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "cumsum"), along),
}
