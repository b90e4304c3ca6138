"""An accelerator that is none: its tensors hold their numbers on the CPU, and refuse to mix with the CPU's.

What a GPU refuses in one operation (operands of two devices, an index elsewhere than what it indexes) is refused
here as well, so code that forgets to move a tensor fails on machines without a GPU. Numbers are those of the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
"""What it is called: of the devices that torch knows everywhere, the only other one."""

COPIES = ("aten::copy_", "aten::_to_copy")
INDEXED = ("aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
"""By indices of the CPU too."""


class There(Tensor):
    """A tensor of the pretended device."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> There:
        made = Tensor._make_wrapper_subclass(
            cls, numbers.size(), numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype, device=DEVICE
        )
        made.numbers = numbers
        return made

    def __repr__(self) -> str:
        return f"There({self.numbers})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class _Numbers(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], There):  # which torch has for its own devices alone
            return args[0].numbers.tolist()
        if func is not torch.tensor:
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)  # below Python it is no operation with a device
        return func(*args, **kwargs) if device is None else func(*args, **kwargs).to(device)


@contextmanager
def pretended() -> Iterator[torch.device]:
    """Within it the device exists."""
    with _Numbers(), _Operations():
        yield DEVICE


def computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation gives, where its operands allow it."""
    name, tensors = func._schema.name, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = any(isinstance(x, There) for x in tensors)
    if there and name not in COPIES:
        elsewhere = [x for x in tensors if not isinstance(x, There)]
        by_index = name in INDEXED and isinstance(args[0], There)
        numbers_only = name not in ("aten::cat", "aten::stack") and all(x.ndim == 0 for x in elsewhere)
        first = not name.endswith("_") or isinstance(args[0], There) or not isinstance(args[0], Tensor)
        if elsewhere and not (by_index or (numbers_only and first)):
            raise RuntimeError(f"{name} of tensors of two devices, of which {len(elsewhere)} on the CPU")
    device = kwargs.get("device")
    if device is not None:
        there = torch.device(device) == DEVICE
        kwargs = kwargs | {"device": torch.device("cpu")}
    known = {id(x.numbers): x for x in tensors if isinstance(x, There)}
    given = tree_map(lambda x: x.numbers if isinstance(x, There) else x, (args, kwargs))
    found = func(*given[0], **given[1])

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if id(x) in known:  # it was changed in place
            return known[id(x)]
        return There(x) if there and not any(x is y for y in tensors) else x

    return tree_map(placed, found)
