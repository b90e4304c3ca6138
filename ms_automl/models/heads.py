"""Modules by task name, whatever the task is called."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping
from keyword import iskeyword
from typing import Any

from torch import nn

_TAKEN = (nn.ModuleDict(), nn.ParameterDict())


def place(task: str) -> str:
    """The name under which a module or a parameter of a task is registered in a torch container.

    It is the task's own, but for what every module has already, such as ``type``, ``training`` and ``values``,
    which torch refuses, and for Python's keywords, which its exports cannot have. Those get a hyphen, which no
    task's name has.
    """
    return f"{task}-" if iskeyword(task) or any(hasattr(container, task) for container in _TAKEN) else task


class Heads(nn.ModuleDict):
    """A mapping from task names to modules.

    Args:
        modules: by task name.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.update(modules)
        self.register_load_state_dict_pre_hook(_renamed)  # type: ignore[no-untyped-call]

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(place(key))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        super().__setitem__(place(key), module)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(place(key))

    def __contains__(self, key: str) -> bool:
        return super().__contains__(place(key))

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix("-") for name in super().__iter__())

    def keys(self) -> KeysView[str]:
        """Task names, in order."""
        return dict(zip(self, self.values(), strict=True)).keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Task names and modules, in order."""
        return dict(zip(self, self.values(), strict=True)).items()


def _renamed(heads: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Have a state fit that was saved by an earlier version, or where torch had other attributes than here."""
    for name, _module in heads.named_children():
        other = name.removesuffix("-") if name.endswith("-") else f"{name}-"
        start = f"{prefix}{other}."
        for key in [key for key in state if key.startswith(start)]:
            state[f"{prefix}{name}.{key.removeprefix(start)}"] = state.pop(key)
