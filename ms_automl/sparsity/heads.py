"""What ``nn.MultiheadAttention`` does to channels: its heads go one by one, and its width with its stream's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from ms_automl.sparsity.marks import OWN, Mark
from ms_automl.sparsity.mixing import biased, mixing
from ms_automl.sparsity.tracer import Call, Tracer


def heads(
    tracer: Tracer, module: nn.MultiheadAttention, args: Sequence[Any], kwargs: Mapping[str, Any], given: Any
) -> None:
    """Mark what attention gives: torch's code for it is taken as a whole.

    With W [3E, E] of queries, keys and values of H heads, the rows (3, H, E/H) of a head are one channel, of which
    the output's matrix reads E/H columns. A head is the same for every image where the rows of its values are
    zero: the weights of all tokens add up to 1.

    Args:
        tracer: whose channels they are.
        module: one that ``attends``.
        args: what it is given, in order.
        kwargs: the same, by name.
        given: (tokens, weights or None).
    """
    output, shares = given
    query, key, value = _three(args, kwargs)
    weight, last = module.in_proj_weight, module.out_proj
    rows, columns = tracer.rows(weight), tracer.columns(last.weight)
    marks = {id(one): tracer.mark(one) for one in (query, key, value)}
    if rows is None or columns is None or any(m and m.axis != query.ndim - 1 for m in marks.values()):
        tracer.fix([query, key, value, *module.parameters()], tracer.place("attention"))
        tracer.put(given, None)
        return
    alive = (weight != 0).numpy()
    bias = module.in_proj_bias
    steady = np.ones(len(rows), np.bool_)
    for one in {id(one): one for one in (query, key, value)}.values():
        steady &= mixing(tracer, _linear(one, weight, bias), one, marks[id(one)], alive)
    biased(tracer, _linear(query, weight, bias), rows)
    by_head = rows.reshape(3, module.num_heads, -1)
    tracer.channels.join(by_head, by_head[:1, :, :1], OWN)
    tracer.channels.join(columns, by_head[2].ravel(), OWN)
    tracer.used(last.weight)
    emitted = np.zeros(len(rows)) if bias is None else bias.double().numpy()
    values = np.where(steady, emitted, np.nan).reshape(3, -1)[2]
    tracer.give(last.weight, values)
    written = tracer.rows(last.weight)
    assert written is not None
    biased(tracer, _linear(query, last.weight, last.bias), written)
    still = np.asarray(~(last.weight != 0).numpy()[:, values != 0].any(1))
    tracer.put(output, Mark(output.ndim - 1, written, still))
    tracer.found.reached.add(f"{tracer.stack[-1][0]}.out_proj".lstrip("."))
    if shares is not None:
        tracer.listens(shares, by_head[0, :, 0])


def _three(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    names = ("query", "key", "value")
    found = dict(zip(names, args, strict=False)) | {name: kwargs[name] for name in names if name in kwargs}
    return found["query"], found["key"], found["value"]


def _linear(value: Tensor, weight: Tensor, bias: Tensor | None) -> Call:
    return Call("linear", {"input": value, "weight": weight, "bias": bias}, None, [])
