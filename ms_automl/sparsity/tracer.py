"""Where the channels of a network go: one forward, in which every operation says what it does to them.

Each tensor on the way may have one axis of channels, whose entries have numbers (:class:`Channels`). An operation
that ``mixing.py``, ``rules.py`` or ``shapes.py`` knows hands them on, makes channels one, or reads them; one that
none of them knows makes every channel that it is given one that must stay. So what the trace cannot follow is
kept, and nothing is decided about it. The idea of channels that are one is DepGraph's (Fang et al. 2023, arXiv
2301.12900).

What is the same for every image follows from the weights: a filter of zeros emits its bias, whatever it sees. Its
value is then read off the forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from ms_automl.models.surgery import plain
from ms_automl.models.weights import attends
from ms_automl.sparsity.channels import Ids
from ms_automl.sparsity.lengths import Listening
from ms_automl.sparsity.marks import (
    CUT,
    NOTHING,
    OWN,
    PER_CHANNEL,
    PER_HEAD,
    Mark,
    Shrinking,
    Statistic,
    Trace,
    Way,
)


class Tracer(TorchDispatchMode):
    """Gives every tensor of a forward its mark. In inference mode, so that operations come as they are called."""

    def __init__(
        self,
        module: nn.Module,
        rules: Mapping[str, Rule],
        shrinking: Shrinking,
        known: Trace | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rules, self._shrinking = rules, shrinking
        self.found = (
            Trace()
            if known is None
            else Trace(known.channels, known.rows, known.columns, known.transposed, own=known.own)
        )
        self.channels = self.found.channels
        self.stack: list[tuple[str, nn.Module, int | None]] = [("", module, None)]  # the axis of what it is given
        self.plain = {name for name, part in module.named_modules() if plain(part)}
        self.hooked = {n for n, part in module.named_modules() if part._forward_hooks or part._forward_pre_hooks}
        self.names = {id(tensor): name for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
        self.alive = [*module.parameters(), *module.buffers()]  # so that their ids stay theirs
        self.memory = {one.untyped_storage().data_ptr(): self.names[id(one)] for one in self.alive}
        self.rigid = set(_rigid(module))  # by id: a tensor may have several modules
        self.loose = {id(one) for one in self.alive if one.ndim} - {id(one) for one in _of_layers(module)}
        self.locked: dict[str, str] = {}
        self.axes: dict[tuple[str, int], int] = {}  # by name of a parameter and table, where its entries lie
        # By tensor its mark or None: of what depends on the images, and of what weights and constants alone give.
        self.marks: Any = WeakTensorKeyDictionary()
        self.free: Any = WeakTensorKeyDictionary()
        self.modules = {id(part): name for name, part in module.named_modules()}
        self.lengths: Listening | None = None
        self.whole = ""  # the name of a module whose code is not looked at, while it runs
        self._listening: Any = WeakTensorKeyDictionary()  # by tensor the channels that one answers who reads it

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and importing the compiler takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.whole:
            return func(*args, **kwargs)
        call = Call.of(self.rules, func, args, kwargs)
        if call.rule is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        call.out = func(*args, **kwargs)
        apply(self, call)
        return call.out

    def put(self, value: object, mark: Mark | None) -> None:
        """Give every tensor of a result its mark; None for one that depends on the images, without channels."""
        for leaf in leaves(value):
            self.marks[leaf] = mark

    def listens(self, value: Tensor, ids: Ids) -> None:
        """Have a tensor answer channels in a way that is not followed: who reads it has them stay."""
        self._listening[value] = ids
        self.marks[value] = None

    def hear(self, tensors: Iterable[Tensor], why: str) -> None:
        """What reads these has the channels stay that they answer."""
        for tensor in tensors:
            if (ids := self._listening.get(tensor)) is not None:
                self.channels.fix(ids, why)

    def depends(self, value: Tensor) -> bool:
        """Whether a tensor depends on the images."""
        return value in self.marks

    def mark(self, value: Tensor) -> Mark | None:
        """The channels of a tensor, or None."""
        found: Mark | None = self.marks.get(value) or self.free.get(value) or self._own(value)
        return found

    def beside(self, value: Tensor, axis: int) -> None:
        """Have a parameter's channels lie along an axis (-1 is its last), where it stands by itself and is new."""
        if id(value) in self.loose and value.ndim >= -axis and value.shape[axis] > 1:
            self._own(value, value.ndim + axis)

    def _own(self, value: Tensor, axis: int | None = None) -> Mark | None:
        """The channels of a parameter that no layer of a known kind holds; by default along its last axis."""
        axes = [axis for axis, size in enumerate(value.shape) if size > 1]
        if id(value) not in self.loose or not axes:
            return None
        name, axis = self.names[id(value)], axes[-1] if axis is None else axis
        if name not in self.found.own:
            ids = self.channels.new(value.shape[axis])
            self.found.own[name] = Mark(axis, ids, np.ones(len(ids), np.bool_))
            if name in self.locked:
                self.channels.fix(ids, self.locked[name])
        return self.found.own[name]

    def fix(self, tensors: Iterable[Tensor], why: str) -> None:
        """The channels of these stay, and so do the entries of those that are parameters."""
        for tensor in tensors:
            if (mark := self.mark(tensor)) is not None:
                self.channels.fix(mark.ids, why)
            name = self.names.get(id(tensor)) or self.memory.get(tensor.untyped_storage().data_ptr())
            if name is not None:
                self.locked.setdefault(name, why)
                self.found.foreign.add(name)
                for table in (self.found.rows, self.found.columns):
                    if name in table:
                        self.channels.fix(table[name], why)
                if name in self.found.own:
                    self.channels.fix(self.found.own[name].ids, why)

    def rows(self, tensor: Tensor, axis: int = 0) -> Ids | None:
        """The numbers of a parameter's entries along its first axis; None where it is none, or cannot be cut."""
        return self._entries(tensor, self.found.rows, axis)

    def columns(self, tensor: Tensor, axis: int = 1) -> Ids | None:
        """The same along its second axis."""
        return self._entries(tensor, self.found.columns, axis)

    def _entries(self, tensor: Tensor, table: dict[str, Ids], axis: int) -> Ids | None:
        name = self.names.get(id(tensor))
        if name is None or id(tensor) in self.rigid:
            return None
        if name not in table:
            table[name] = self.channels.new(tensor.shape[axis])
            self.axes[name, id(table)] = axis
            if name in self.locked:
                self.channels.fix(table[name], self.locked[name])
        if self.axes.get((name, id(table)), axis) != axis:  # of a convolution and of a transposed one, say
            self.channels.fix(table[name], "a weight that is read both ways")
            return None
        return table[name]

    def used(self, weight: Tensor) -> None:
        """Note whether the module that holds a weight is the one that uses it, by its class's own forward."""
        name = self.names[id(weight)]
        place, _, _ = self.stack[-1]
        if name != f"{place}.weight".lstrip(".") or place not in self.plain:
            self.found.foreign.add(name)

    def holder(self, tensors: Iterable[Tensor]) -> str | None:
        """The module that runs, where these are its own and its forward is its class's; None elsewhere."""
        place, module, _ = self.stack[-1]
        own = {id(one) for one in [*module.parameters(recurse=False), *module.buffers(recurse=False)]}
        return place if place in self.plain and all(id(one) in own for one in tensors) else None

    def statistics(self, place: str, found: Statistic) -> None:
        """Note what a layer normalises; what is not zero in one of its calls is not."""
        before = self.found.statistics.get(place, found)
        if before.axis != found.axis:
            self.channels.fix(found.ids, self.place("a mean"))
        self.found.statistics[place] = Statistic(found.ids, before.zero & found.zero, found.axis)

    def give(self, weight: Tensor, values: NDArray[np.float64]) -> None:
        """Note the values of a weight's inputs; those that differ from call to call are none."""
        name = self.names[id(weight)]
        before = self.found.values.get(name, values)
        self.found.values[name] = np.where(before == values, values, np.nan)

    @property
    def shrinking(self) -> str:
        """What shrinks where the module that runs makes parts of an axis: one of ``SHRINKING``."""
        chosen = self._shrinking
        ways = [chosen.get(name) or chosen.get(type(module)) or Way() for name, module, _ in self.stack]
        return "nowhere" if any(way.part == "nowhere" for way in ways) else ways[-1].part

    def sized(self, axis: int, ids: Ids) -> None:
        """Note whose length the code gives for an axis of what it makes."""
        given = None if self.lengths is None else self.lengths.at(axis)
        if given is not None and id(given.module) in self.modules and int(given) == len(ids):
            self.found.lengths[self.modules[id(given.module)], given.key] = ids
        else:
            self.found.shaped.setdefault(self.stack[-1][0], []).append(ids)

    def shared(self, value: Tensor) -> list[Tensor]:
        """All tensors that lie in the memory of this one."""
        place = value.untyped_storage().data_ptr()
        known = [*self.marks.keys(), *self.free.keys(), *self.alive]
        return [other for other in known if other.untyped_storage().data_ptr() == place]

    def place(self, operation: str) -> str:
        """Where something happens, in words."""
        name, module, _ = self.stack[-1]
        if name and not any(True for _ in module.children()):
            return f"'{name}' ({type(module).__name__})"
        return f"{operation} in '{name}'" if name else operation


def leaves(value: object) -> list[Tensor]:
    """The tensors in what a module returns."""
    if isinstance(value, Mapping):  # also one that torch does not know as such
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in leaves(one)]
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _rigid(module: nn.Module) -> Iterator[int]:
    """Parameters and buffers whose module cannot be cut along them."""
    for part in module.modules():
        tensors = dict([*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)])
        keys = PER_HEAD if attends(part) else PER_CHANNEL if isinstance(part, CUT) else set()
        if not tensors.keys() <= keys or hasattr(part, "parametrizations"):
            yield from map(id, tensors.values())


def _of_layers(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of the layers of known kinds, and of those whose weights are computed."""
    for part in module.modules():
        if (
            isinstance(part, CUT)
            or attends(part)
            or hasattr(part, "parametrizations")
            or "parametrizations" in type(part).__module__
        ):
            yield from part.parameters()
            yield from part.buffers()


Rule = Callable[[Tracer, "Call"], Mark | list[Mark] | None]
"""The mark of all that an operation gives, or of each part of it; None where it cannot be followed."""


@dataclass
class Call:
    """One operation with its arguments by name."""

    name: str
    given: dict[str, Any]
    rule: Rule | None
    written: list[Tensor]
    out: Any = None

    @classmethod
    def of(cls, rules: Mapping[str, Rule], func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Call:
        """What is called with what, and the rule for it: that of its overload, or of its name."""
        schema = func._schema
        given = {one.name: one.default_value for one in schema.arguments if one.has_default_value()}
        given |= {one.name: value for one, value in zip(schema.arguments, args, strict=False)} | kwargs
        name = schema.name.partition("::")[2]
        name = name if name in rules else name.removesuffix("_")
        name = f"{name}.{func._overloadname}" if f"{name}.{func._overloadname}" in rules else name
        mutated = (one.name for one in schema.arguments if one.alias_info is not None and one.alias_info.is_write)
        return cls(name, given, rules.get(name), leaves([given.get(one) for one in mutated]))

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    @property
    def tensors(self) -> list[Tensor]:
        """Those among the arguments."""
        return leaves(list(self.given.values()))


def apply(tracer: Tracer, call: Call) -> None:
    """Give the result of an operation its marks."""
    tracer.hear(call.tensors, tracer.place(call.name))
    others = [one for one in call.tensors if tracer.depends(one) and not any(one is w for w in call.written)]
    aliases = [one for into in call.written for one in tracer.shared(into) if one is not into] if others else []
    if aliases:  # such as an assignment to some of a tensor's entries: the others do not know of it
        why = tracer.place(call.name)
        tracer.fix([*call.tensors, *aliases], why)
        tracer.put([call.out, *call.written, *aliases], None)
    elif not any(tracer.depends(one) for one in call.tensors):
        free(tracer, call)
    else:
        marks = None if call.rule is None or tracer.shrinking == "nowhere" else call.rule(tracer, call)
        if marks is None:  # every channel that goes in stays
            tracer.fix(call.tensors, tracer.place(call.name))
            tracer.put(call.written, None)
        marks = None if marks is NOTHING else marks
        for one, mark in zip(call.out, marks, strict=True) if isinstance(marks, list) else [(call.out, marks)]:
            tracer.put(one, mark)


def free(tracer: Tracer, call: Call) -> None:
    """Of weights and constants alone."""
    marked = call.rule is not None and any(tracer.mark(one) is not None for one in call.tensors)
    marks = call.rule(tracer, call) if marked and call.rule is not None else None
    if marks is None:
        tracer.fix(call.tensors, OWN)
    for one, mark in zip(call.out, marks, strict=True) if isinstance(marks, list) else [(call.out, marks)]:
        for leaf in leaves(one):
            tracer.free[leaf] = mark


def only(tracer: Tracer, call: Call) -> tuple[Tensor, Mark | None]:
    """The tensor that an operation works on, and its channels."""
    name = "self" if "self" in call.given else "input"
    return call[name], tracer.mark(call[name])
