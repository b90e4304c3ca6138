"""Which channels go, and what is cut out of the network for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
from torch import Tensor, nn

from ms_automl.models.surgery import Kept, Surgery
from ms_automl.models.weights import attends, main_weight
from ms_automl.sparsity.channels import ABSENT, Ids
from ms_automl.sparsity.marks import Mask, Shrinking, Way
from ms_automl.sparsity.trace import trace

PICKING = 32
"""What picking a channel costs, in multiplications per pixel: memory is slower than arithmetic."""


class Cutting:
    """Takes channels away until no more can go.

    Args:
        network: in evaluation mode; constants are moved between its weights.
        layers: names of those that may be replaced by ones that read less.
        images: [B, channels, H, W], for the trace.
        shrinking: as of :func:`~ms_automl.sparsity.trace.trace`.

    Attributes:
        written: by name of a layer's parameter or buffer, the channel of each entry along its outputs' axis.
        own: the same of those that stand by themselves.
        read: by name of a weight that mixes channels, [in] the channel that each input reads.
        gone: [channels] whether it goes.
        alike: by name of a module, attributes of an axis' length that its code was not seen to give, and what they
            would become.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: list[str],
        images: Tensor,
        shrinking: Shrinking = MappingProxyType({}),
    ) -> None:
        self.network, self.layers, self.images, self.shrinking = network, layers, images, shrinking
        tensors = [*network.named_parameters(), *network.named_buffers()]
        self.names = {id(tensor): name for name, tensor in tensors}
        self.found = trace(network, images, shrinking=shrinking)
        self.tensors = {name: tensor.detach() for name, tensor in tensors}  # weights as [out, in, …]
        self.tensors |= {name: self.tensors[name].transpose(0, 1) for name in self.found.transposed}
        channels = self.found.channels
        self.written = {name: channels.find(ids) for name, ids in self.found.rows.items()}
        self.read = {name: channels.find(ids) for name, ids in self.found.columns.items()}
        self.own = {name: channels.find(mark.ids) for name, mark in self.found.own.items()}
        tables = [*self.written.values(), *self.read.values(), *self.own.values()]
        everything = np.concatenate([np.zeros(1, np.int64), *tables])
        self.gone = np.zeros(int(everything.max()) + 1, np.bool_)
        self.stays = channels.fixed(np.arange(len(self.gone)))
        self.stays[channels.find(np.fromiter({ABSENT, *self.found.seen, *self.found.heard}, np.int64))] = True
        self.places: dict[int, list[tuple[str, int]]] = {}  # (weight, input) by the channel it reads
        for name, table in self.read.items():
            for column, channel in enumerate(table.tolist()):
                self.places.setdefault(channel, []).append((name, column))
        unread = np.ones(len(self.gone), np.bool_)
        unread[list(self.places)] = False
        self.alike: dict[str, dict[str, int]] = {}
        self.stays |= unread  # by anything that the trace has seen: then something else reads it, or nobody

    def run(self) -> Surgery:
        """Take away what can go; returns what stays."""
        self._drop_unread()
        while self._drop_constant():
            self._drop_unread()
            self.found = trace(self.network, self.images, shrinking=self.shrinking, known=self.found)
        return self._surgery()

    def kept_of_outputs(self) -> dict[str, tuple[int, Mask] | None]:
        """By module, the axis of the channels of what it gave and which of them stay; None where none is known."""
        alive = self._alive()
        return {
            name: None if mark is None else (mark.axis, alive[self.found.channels.find(mark.ids)])
            for name, mark in self.found.given.items()
        }

    def _drop_unread(self) -> None:
        before = -1
        while before != (before := int(self.gone.sum())):
            needed = self.stays.copy()
            for name, table in self.read.items():
                needed[table[used(self.tensors[name][~self.gone[self.written[name]]])]] = True
            needed[self._summed()] = True
            self.gone |= ~needed

    def _summed(self) -> Ids:
        """The channels that are not zero where they are summed up: in a mean, or in a product of matrices."""
        sums = [(one.ids, one.zero) for one in self.found.statistics.values()] + self.found.products
        return np.concatenate(
            [np.zeros(0, np.int64), *(self.found.channels.find(ids[~zero]) for ids, zero in sums)]
        )

    def _drop_constant(self) -> bool:
        """Give channels that are the same for every image to another one; whether any went."""
        values, summed = self.found.values, set(self._summed().tolist())
        by_readers: dict[tuple[str, ...], list[int]] = {}
        for g, places in self.places.items():
            if (
                g not in summed
                and not self.stays[g]
                and not self.gone[g]
                and all(self._known(*place) for place in places)
            ):
                by_readers.setdefault(tuple(name for name, _ in places), []).append(g)
        before = int(self.gone.sum())
        for group in by_readers.values():
            strengths = {g: min(abs(values[name][column]) for name, column in self.places[g]) for g in group}
            first = max(group, key=lambda g: strengths[g])
            for g in group:
                if all(values[name][column] == 0 for name, column in self.places[g]):
                    self.gone[g] = True
                elif g != first and strengths[first] > 0:
                    self._move(g, first)
                    self.gone[g] = True
        return int(self.gone.sum()) > before

    def _known(self, name: str, column: int) -> bool:
        values = self.found.values.get(name)
        return values is not None and bool(np.isfinite(values[column]))

    def _move(self, channel: int, other: int) -> None:
        for (name, column), (_, into) in zip(self.places[channel], self.places[other], strict=True):
            weight, values = self.tensors[name], self.found.values[name]
            weight[:, into] += weight[:, column] * (values[column] / values[into])
            weight[:, column] = 0

    def _surgery(self) -> Surgery:
        rows, columns, norms, own = self._kept()
        counted = {}
        outputs: Kept = {}
        inputs: Kept = {}
        for name, module in self.network.named_modules():
            if name in norms and not norms[name].all():
                outputs[name] = norms[name].nonzero()[0].tolist()
                if name in self.found.statistics:
                    counted[name] = self.found.statistics[name].axis
            for key, kept in ((key, rows[key]) for key in self._own(module) if key in rows):
                if not kept.all():
                    outputs[name] = kept.nonzero()[0].tolist()
                if key in columns and not columns[key].all():
                    inputs[name] = columns[key].nonzero()[0].tolist()
        selected: Kept = {}
        empty: list[str] = []
        for name in self.layers:
            key = next(self._own(self.network.get_submodule(name)), "")
            if key not in columns or key in self.found.foreign:
                continue  # not reached, or used by something else than its own forward
            weight = self.tensors[key][rows[key]][:, columns[key]]
            reads = used(weight)
            if name in self.found.inside:
                continue  # it reads other channels for each group
            if self.gone[self.written[key]].all() or not reads.any():
                empty.append(name)
            elif picking_pays(weight, reads):
                selected[name] = reads.nonzero()[0].tolist()
        for name, module in self.network.named_modules():
            key = f"{name}.{main_weight(module)}"
            if attends(module) and key in self.written and self.gone[self.written[key]].all():
                empty.append(name)
        sizes = self._sizes()
        cut = {
            n: (self.found.own[n].axis, kept.nonzero()[0].tolist()) for n, kept in own.items() if not kept.all()
        }
        inside = tuple(name for name in sorted(self.found.inside) if name in outputs or name in inputs)
        return Surgery(outputs, inputs, selected, tuple(empty), {}, cut, counted, sizes, inside)

    def sizes_of(self, kind: type[nn.Module] | str) -> set[str]:
        """The attributes that may say how long an axis is in the code of a class, or module, and were not seen."""
        ours = [name for name in self.alike if kind in (name, type(self.network.get_submodule(name)))]
        return {key for name in ours for key in self.alike[name]}

    def _sizes(self) -> dict[str, dict[str, int]]:
        """By module, the attributes that say how long axes are in its code, and what they become."""
        alive, seen = self._alive(), self.found.lengths

        def left(ids: Ids) -> int:
            return int(alive[self.found.channels.find(ids)].sum())

        sizes: dict[str, dict[str, int]] = {}
        for (name, key), ids in seen.items():
            if left(ids) < len(ids):
                sizes.setdefault(name, {})[key] = left(ids)
        for name, shaped in self.found.shaped.items():
            module = self.network.get_submodule(name)
            short = {len(ids): left(ids) for ids in shaped if left(ids) < len(ids)}
            self.alike[name] = {
                key: short[value]
                for key, value in vars(module).items()
                if type(value) is int and value in short and (name, key) not in seen
            }
            kind = self.shrinking.get(name) or self.shrinking.get(type(module)) or Way()
            chosen = {key: n for key, n in self.alike[name].items() if kind.sized in (key, "*")}
            if chosen:
                sizes[name] = chosen | sizes.get(name, {})
        return sizes

    def _own(self, module: nn.Module) -> Iterator[str]:
        """Names of a module's own tensors, the weight first; one name for a tensor of several modules."""
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        return (self.names[id(tensor)] for _, tensor in sorted(own, key=lambda one: one[0] != "weight"))

    def _alive(self) -> Mask:
        """[channels] whether it stays; where a tensor keeps one, all that share it and its readers do too."""
        alive: Mask = ~self.gone
        for table in (*self.written.values(), *self.own.values()):
            if not alive[table].any():
                alive[table[0]] = True  # a tensor needs a channel; nobody reads this one
        return alive

    def _kept(self) -> tuple[dict[str, Mask], ...]:
        """By tensor, which entries stay."""
        alive = self._alive()
        norms = self.found.norms | {name: one.ids for name, one in self.found.statistics.items()}
        norms = {name: self.found.channels.find(ids) for name, ids in norms.items()}
        tables = (self.written, self.read, norms, self.own)
        return tuple({name: alive[ids] for name, ids in table.items()} for table in tables)


def picking_pays(weight: Tensor, reads: Mask) -> bool:
    """Whether a convolution saves more by leaving inputs out than picking the others costs."""
    saved = int((~reads).sum()) * weight.shape[0] * weight[0, 0].numel()
    return saved > PICKING * int(reads.sum())


def used(weight: Tensor) -> Mask:
    """[in] whether any weight of an input is not zero."""
    alive: Mask = (weight != 0).transpose(0, 1).flatten(1).any(1).numpy()
    return alive
