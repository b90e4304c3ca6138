"""Which attribute of a module says how long an axis is in its code: numbers that know where they come from.

While a network is traced, the whole numbers among its modules' attributes are :class:`Length`, and every call of
a function of torch is seen with the arguments as the code gives them. ``x.view(b, n, self.heads, -1)`` thus tells
that ``heads`` is the length of the third axis. What is computed of attributes is a plain number again; it follows
from them when they change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

SIZED = ("view", "reshape", "unflatten", "expand")
"""Functions of torch that are given the lengths of axes one by one."""


class Length(int):
    """An attribute that is a whole number.

    Attributes:
        module: whose it is.
        key: its name.
        scales: the attributes that a number which is none of channels was computed of, by module's id and name.
    """

    module: nn.Module
    key: str
    scales: set[tuple[int, str]]

    @classmethod
    def of(cls, module: nn.Module, key: str, value: int, scales: set[tuple[int, str]]) -> Length:
        """The number with its origin."""
        self = cls(value)
        self.module, self.key, self.scales = module, key, scales
        return self

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)  # a copy is a plain number

    def _scales(self) -> None:
        self.scales.add((id(self.module), self.key))

    def __float__(self) -> float:
        self._scales()
        return float(int(self))

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        self._scales()
        return pow(int(self), other, modulo)

    def __truediv__(self, other: Any) -> Any:
        self._scales()
        return int(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        self._scales()
        return other / int(self)


class Listening(TorchFunctionMode):
    """Notes, of the call that runs, the lengths that its code gives for the axes of the result.

    Attributes:
        given: by axis of the result the number that the code gives; None in calls that are given none.
        scales: attributes that are more than lengths: something else is computed of them, such as a scale.
    """

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] | None = None
        self.scales: set[tuple[int, str]] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, self.given = self.given, _lengths(func, args, kwargs or {})
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.given = before

    def at(self, axis: int) -> Length | None:
        """The attribute that is given as the length of an axis of the result."""
        found = self.given[axis] if self.given is not None and axis < len(self.given) else None
        return found if isinstance(found, Length) else None


def _lengths(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Any] | None:
    """By axis of the result, the number that the code gives for it."""
    name = getattr(func, "__name__", "")
    if name not in SIZED:
        return None
    rest = list(args[1:])
    if name == "unflatten":
        dim = kwargs.get("dim", rest[0] if rest else 0)
        sizes = kwargs.get("sizes", rest[1] if len(rest) > 1 else ())
        dim = dim if dim >= 0 else args[0].ndim + dim
        return [*[None] * dim, *sizes]
    for key in ("shape", "size"):
        if key in kwargs:
            rest = [kwargs[key]]
    return list(rest[0]) if len(rest) == 1 and isinstance(rest[0], list | tuple) else rest


@contextmanager
def known_lengths(module: nn.Module) -> Iterator[Listening]:
    """Have the attributes of a module, and of all in it, be known where they are given as lengths."""
    listening = Listening()
    for part in module.modules():
        own = vars(part)
        for key, value in list(own.items()):
            if type(value) is int and not key.startswith("_"):
                own[key] = Length.of(part, key, value, listening.scales)
    try:
        with listening:
            yield listening
    finally:
        for part in module.modules():  # code may have put one into another attribute
            own = vars(part)
            own |= {key: int(value) for key, value in own.items() if isinstance(value, Length)}
