"""Which module of a network that was cut does not compute what it did before."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ms_automl.models.surgery import plain
from ms_automl.models.weights import attends
from ms_automl.sparsity.marks import CUT, Mask

HOLDERS = (nn.ModuleList, nn.ModuleDict)  # nobody calls them: the code is further out
Outputs = dict[str, list[Tensor | None]]


def culprit(
    masked: nn.Module, cut: nn.Module, images: Tensor, kept: Mapping[str, tuple[int, Mask] | None]
) -> type[nn.Module] | str | None:
    """The class of the first module that fails or whose output differs; None where none can be blamed.

    Of an ``nn.Sequential``, whose class says nothing of what is in it, it is the name.

    A layer of a known kind computes what it should, but for what it is given: its holder is to blame.

    Args:
        masked: in evaluation mode.
        cut: the same without some channels.
        images: [B, channels, H, W].
        kept: by module, the axis of the channels of what it gives, and which of them the cut one still has.
    """
    before, _ = _watched(masked, images)
    after, failed = _watched(cut, images)
    for name, outputs in after.items():
        for old, new in zip(before.get(name, ()), outputs, strict=False):
            if old is not None and new is not None and not _alike(old, new, kept.get(name)):
                return _kind(masked, name)
    return None if failed is None else _kind(masked, failed)


def _watched(network: nn.Module, images: Tensor) -> tuple[Outputs, str | None]:
    """By module, in the order in which they end, what each call gave; and the innermost module that failed."""
    found: Outputs = {}
    running: list[str] = []
    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():

            def enter(*_: object, name: str = name) -> None:
                running.append(name)

            def leave(_: nn.Module, __: object, output: object, name: str = name) -> None:
                running.pop()
                known = isinstance(output, Tensor) and not output.is_nested
                found.setdefault(name, []).append(output.clone() if known else None)  # type: ignore[attr-defined]

            hooks.enter_context(module.register_forward_pre_hook(enter))
            hooks.enter_context(module.register_forward_hook(leave))
        try:
            network(images)
        except Exception:  # whatever sizes that do not fit lead to
            return found, running[-1] if running else ""
    return found, None


def _alike(old: Tensor, new: Tensor, kept: tuple[int, Mask] | None) -> bool:
    if kept is not None:
        axis, stay = kept
        if old.ndim <= axis or old.shape[axis] != len(stay):
            return True  # of another call
        old = old.index_select(axis, torch.from_numpy(stay).nonzero().flatten())
    elif old.shape != new.shape:
        return True  # nothing is known of its channels
    if old.shape != new.shape or not bool(old.isfinite().all()):
        return torch.equal(old.isfinite(), new.isfinite()) if old.shape == new.shape else False
    largest = float(old.abs().max()) if old.numel() else 0.0
    return torch.allclose(old, new, rtol=1e-3, atol=1e-4 * largest)


def _kind(network: nn.Module, name: str) -> type[nn.Module] | str | None:
    while name and _is_cut_right(network.get_submodule(name)):
        name = name.rpartition(".")[0]
    kind = type(network.get_submodule(name))
    return None if not name else name if kind is nn.Sequential else kind


def _is_cut_right(module: nn.Module) -> bool:
    return isinstance(module, (*CUT, *HOLDERS)) or attends(module) or plain(module)
