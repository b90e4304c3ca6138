"""The channels of a network, followed through one forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models.weights import attends
from ms_automl.sparsity.heads import heads
from ms_automl.sparsity.lengths import known_lengths
from ms_automl.sparsity.marks import Shrinking, Trace
from ms_automl.sparsity.mixing import MIXING
from ms_automl.sparsity.rules import COMPUTING
from ms_automl.sparsity.shapes import SHAPES
from ms_automl.sparsity.tracer import Tracer, leaves

RULES = MIXING | COMPUTING | SHAPES


def trace(
    module: nn.Module,
    images: Tensor,
    *,
    shrinking: Shrinking = MappingProxyType({}),
    known: Trace | None = None,
) -> Trace:
    """Follow the channels of every convolution and linear layer through one forward.

    Args:
        module: a trunk or a whole network in evaluation mode; it stays as it is.
        images: [B, channels, H, W].
        shrinking: of what code makes parts of.
        known: of the same network with other weights, whose numbers the channels keep.

    Raises:
        NetworkError: where the forward fails.
    """
    try:
        tracer = Tracer(module, RULES, shrinking, known)
        tracer.put(images, None)
        with torch.inference_mode(), _piecemeal(), _named(module, tracer), known_lengths(module) as lengths:
            tracer.lengths = lengths
            with tracer:
                outputs = module(images)
        for owner, key in lengths.scales:
            place = tracer.modules.get(owner, "")
            if (ids := tracer.found.lengths.pop((place, key), None)) is not None:
                tracer.channels.fix(ids, f"'{key}' of '{place}', of which more than a length is computed")
    except Exception as error:  # whatever a stranger's network does
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NetworkError(f"the channels cannot be traced ({reason})") from error
    tracer.hear(leaves(outputs), "what the network gives")
    for leaf in leaves(outputs):
        if (mark := tracer.mark(leaf)) is not None:
            tracer.found.seen |= set(mark.ids.tolist())
    return tracer.found


@contextmanager
def _piecemeal() -> Iterator[None]:
    """Have attention computed step by step: torch has one operation for all of it in evaluation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _named(module: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Tell the tracer which module runs."""
    attending = {name for name, part in module.named_modules() if attends(part) and name not in tracer.hooked}
    with ExitStack() as undo:
        for name, part in module.named_modules():

            def enter(found: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                given = [*args, *kwargs.values()]
                mark = tracer.mark(given[0]) if given and isinstance(given[0], Tensor) else None
                tracer.stack.append((name, found, None if mark is None else mark.axis))
                tracer.found.reached.add(name)
                if name in attending:
                    tracer.whole = name

            def leave(
                one: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], given: object, name: str = name
            ) -> None:
                if name in attending and given is not None:  # None after an error
                    heads(tracer, one, args, kwargs, given)  # type: ignore[arg-type]
                    tracer.whole = ""
                tracer.stack.pop()
                tracer.found.given[name] = tracer.mark(given) if isinstance(given, Tensor) else None

            undo.enter_context(part.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
            undo.enter_context(part.register_forward_hook(leave, always_call=True, with_kwargs=True))
        yield
