"""Compaction: channels that are zero, or that nobody reads, are taken out of the network for good.

What a zero group saves depends on who else needs the channel. The dependency graph (DepGraph, Fang et al. 2023,
arXiv 2301.12900, section 3) says which channels are one, written together and read together. A channel goes when

- nobody reads it: every reader's weights for it are zero, and it is no part of the network's input or output; or
- it is the same in every pixel of every image, because all that writes it is zero. Behind a batch norm with β ≠ 0
  such a channel still emits relu(β), and a constant cannot be folded into the reader's bias, because it ends at
  zero padding. Its readers' weights for it are added to those of another constant channel instead, scaled by the
  ratio of the two constants: exact at the borders too, and one constant channel of many stays.

A channel of a residual stream that one reader ignores and another needs stays; the convolution that ignores it
reads the others alone (:class:`~ms_automl.models.surgery.SelectedConv2d`), where picking them costs less than it
saves.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, contract
from ms_automl.models.surgery import Kept, Surgery, foldable, operate
from ms_automl.sparsity.coupling import ABSENT, Channels, follow

TOLERANCE = 1e-5
"""Largest difference of an output to the masked network's, relative to the largest value of that output."""

PICKING = 32
"""What picking a channel costs, in multiplications per pixel: memory is slower than arithmetic."""


@dataclass(frozen=True)
class Leftover:
    """Weights of a layer that are zero and stay.

    Attributes:
        zeros: how many were zero before.
        stayed: how many of them are in the compact network.
        why: the reasons, empty where none stayed.
    """

    zeros: int
    stayed: int
    why: str


def compact(
    network: MultiTaskNet, image_shape: tuple[int, int, int], images: Tensor | None = None
) -> tuple[MultiTaskNet, Surgery]:
    """The network without its dead channels, in evaluation mode, and what was cut.

    Batch norms become part of the convolutions before them, where that changes nothing.

    Its outputs are compared with the network's own, on random images and on those given.

    Args:
        network: it is copied; factored convolutions are contracted.
        image_shape: (channels, H, W).
        images: [B, channels, H, W] real ones, for the comparison.

    Raises:
        NetworkError: where the network cannot be traced, or where an output differs by more than `TOLERANCE`.
    """
    masked = contract(network).cpu().float().eval()
    noise = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    cut = copy.deepcopy(masked)
    plan = _Plan(cut, noise)
    plan.run()
    surgery = plan.surgery()
    operate(cut, surgery)
    batches = [noise] if images is None else [noise, images.float()]
    for batch in batches:
        check_equal(masked, cut, batch)
    folded = Surgery(folded=foldable(cut, noise))
    result = copy.deepcopy(cut)
    operate(result, folded)
    try:
        for batch in batches:
            check_equal(masked, result, batch)
    except NetworkError:  # something else needs what a convolution gives to a batch norm
        return cut, surgery
    return result, replace(surgery, folded=folded.folded)


@torch.no_grad()
def check_equal(masked: MultiTaskNet, result: nn.Module, images: Tensor) -> float:
    """The largest relative difference between the outputs of two networks.

    Raises:
        NetworkError: where it is above `TOLERANCE`.
    """
    largest = 0.0
    outputs = result(images)
    for name, expected in masked(images).items():
        off = float((outputs[name] - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        if not off <= TOLERANCE:
            raise NetworkError(
                f"compaction changed the output '{name}' by {off:.1e} of its largest value: the network does "
                "something to its channels that the trace does not show"
            )
        largest = max(largest, off)
    return largest


def leftovers(network: MultiTaskNet, surgery: Surgery) -> dict[str, Leftover]:
    """What of the zeroed weights could not be taken out, by penalised layer.

    Args:
        network: before compaction.
        surgery: what :func:`compact` cut out of it.
    """
    plain = contract(network)
    found = {}
    for name, conv in plain.penalised().items():
        path = f"trunk.{name}"
        zero = conv.weight.detach() == 0
        rows = surgery.outputs.get(path, list(range(zero.shape[0])))
        columns = surgery.inputs.get(path, list(range(zero.shape[1])))
        columns = [columns[index] for index in surgery.selected.get(path, range(len(columns)))]
        kept = zero[:0] if path in surgery.empty else zero[rows][:, columns]
        why = []
        if kept.numel() and bool(kept.flatten(1).all(1).any()):
            why.append("filters that others of their residual stream need")
        if kept.numel() and bool(kept.transpose(0, 1).flatten(1).all(1).any()):
            why.append("inputs that cost more to pick from than they save")
        if int(kept.sum()) and not why:
            why.append("single weights")
        found[name] = Leftover(int(zero.sum()), int(kept.sum()), "; ".join(why))
    return found


class _Plan:
    """Which channels go. Every channel has a number; a module's tensors are indexed by tables of them."""

    def __init__(self, network: MultiTaskNet, images: Tensor) -> None:
        self.network, self.images = network, images
        self.convs = {f"trunk.{name}": conv for name, conv in network.penalised().items()}
        channels = follow(copy.deepcopy(network), self.convs, images)
        numbers: dict[tuple[str, int], int] = {}
        for name, conv in self.convs.items():
            for index in range(conv.out_channels):
                numbers.setdefault(channels.find((name, index)), len(numbers))
        self.written = self._tables(channels, numbers)
        self.read = self._reads(channels, numbers)
        self.readers: dict[int, list[tuple[str, int]]] = {}  # (module, input) by the channel it reads
        for name, table in self.read.items():
            for column, channel in enumerate(table.tolist()):
                self.readers.setdefault(channel, []).append((name, column))
        self.gone = torch.zeros(len(numbers), dtype=torch.bool)
        self.out = torch.zeros(len(numbers), dtype=torch.bool)
        self.out[[numbers[channels.find(place)] for place in channels.seen | channels.fed]] = True

    def _tables(self, channels: Channels, numbers: dict[tuple[str, int], int]) -> dict[str, Tensor]:
        """By module, [entries] the channel that each entry along its first axis is, or ABSENT."""
        sizes: dict[str, int] = {}
        for name, index in list(channels.parent):
            sizes[name] = max(sizes.get(name, 0), index + 1)
        tables = {}
        for name, size in sizes.items():
            module = self.network.get_submodule(name)
            for known in ("out_channels", "out_features", "num_features"):
                size = getattr(module, known, size)
            places = (channels.find((name, index)) for index in range(size))
            tables[name] = torch.tensor([numbers.get(place, ABSENT) for place in places])
        return tables

    def _reads(self, channels: Channels, numbers: dict[tuple[str, int], int]) -> dict[str, Tensor]:
        """By module that mixes channels, [inputs] the channel that each input reads, or ABSENT."""
        tables: dict[str, Tensor] = {}
        for (name, index), source in channels.readers.items():
            if name not in tables:
                size = self._weight(name).shape[1]
                tables[name] = torch.full((size,), ABSENT)
            tables[name][index] = numbers[channels.find(source)]
        return tables

    def _weight(self, name: str) -> Tensor:
        weight = self.network.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    def _kept(self, table: Tensor) -> Tensor:
        """[entries] whether the channel of each entry stays; one that has no number does."""
        return torch.cat([~self.gone, self.gone.new_ones(1)])[table]

    def run(self) -> None:
        """Take channels away until no more can go."""
        self._drop_unread()
        while self._drop_constant():
            self._drop_unread()

    def _drop_unread(self) -> None:
        while True:
            needed = self.out.clone()
            for name, table in self.read.items():
                weight = self._weight(name)
                if name in self.written:
                    weight = weight[self._kept(self.written[name])]
                used = _used(weight) & (table != ABSENT)
                needed[table[used]] = True
            if not bool((~needed & ~self.gone).any()):
                return
            self.gone |= ~needed

    def _constants(self) -> Tensor:
        """[channels] whether all that writes a channel is zero."""
        constant = ~self.gone & ~self.out
        for name in self.convs:
            table, weight = self.written[name], self._weight(name)
            columns = self._kept(self.read[name]) if name in self.read else slice(None)
            alive = weight[:, columns].flatten(1).abs().sum(1) > 0
            constant[table[alive]] = False
        return constant

    @torch.no_grad()
    def _drop_constant(self) -> bool:
        """Give constant channels to another one; whether any went."""
        constant = self._constants()
        if not bool(constant.any()):
            return False
        values = self._values()
        before = int(self.gone.sum())
        places = {g: self.readers.get(g, []) for g in constant.nonzero().flatten().tolist()}
        by_readers: dict[tuple[str, ...], list[int]] = {}
        for g, columns in places.items():
            if all(math.isfinite(values[name][column]) for name, column in columns):
                by_readers.setdefault(tuple(name for name, _ in columns), []).append(g)
        for group in by_readers.values():
            strengths = {g: min(abs(values[n][c]) for n, c in places[g]) for g in group}
            first = max(group, key=lambda g: strengths[g])
            for g in group:
                if all(values[name][column] == 0 for name, column in places[g]):
                    self.gone[g] = True
                elif g != first and strengths[first] > 0:
                    for (name, column), (_, other) in zip(places[g], places[first], strict=True):
                        weight = self._weight(name)
                        weight[:, other] += weight[:, column] * (values[name][column] / values[name][other])
                    self.gone[g] = True
        return int(self.gone.sum()) > before

    def _values(self) -> dict[str, list[float]]:
        """By module that mixes channels, [inputs] the value of an input that is constant; NaN for others."""
        seen: dict[str, list[Tensor]] = {name: [] for name in self.read}
        with ExitStack() as hooks:
            for name in self.read:

                def keep(_: nn.Module, inputs: tuple[Tensor, ...], kept: list[Tensor] = seen[name]) -> None:
                    others = [axis for axis in range(inputs[0].ndim) if axis != 1]
                    kept.append(torch.stack([inputs[0].amin(others), inputs[0].amax(others)]))

                hooks.enter_context(self.network.get_submodule(name).register_forward_pre_hook(keep))
            self.network(self.images)
        values = {}
        for name, found in seen.items():
            if not found:  # a module that this forward does not use
                values[name] = [math.nan] * len(self.read[name])
                continue
            low, high = torch.stack(found).amin(0)[0], torch.stack(found).amax(0)[1]
            steady = high - low <= 1e-6 * torch.maximum(low.abs(), high.abs())
            values[name] = torch.where(steady, (low + high) / 2, math.nan).tolist()
        return values

    def surgery(self) -> Surgery:
        """What stays, by module."""
        outputs: Kept = {}
        inputs: Kept = {}
        selected: Kept = {}
        empty: list[str] = []
        kept_outputs = {name: self._kept(table) for name, table in self.written.items()}
        for kept in kept_outputs.values():
            if not bool(kept.any()):
                kept[0] = True  # a tensor needs a channel; nobody reads this one
        kept_inputs = {name: self._kept(table) for name, table in self.read.items()}
        self._keep_one_reader(kept_outputs, kept_inputs)
        for name, kept in kept_outputs.items():
            if not bool(kept.all()):
                outputs[name] = kept.nonzero().flatten().tolist()
        for name, kept in kept_inputs.items():
            if not bool(kept.all()):
                inputs[name] = kept.nonzero().flatten().tolist()
        for name, conv in self.convs.items():
            weight = conv.weight.detach()[kept_outputs[name]]
            if name in kept_inputs:
                weight = weight[:, kept_inputs[name]]
            dead = bool(self._kept(self.written[name]).logical_not().all())
            used = _used(weight)
            if dead or not bool(used.any()):
                empty.append(name)
            elif self._pays(weight, used):
                selected[name] = used.nonzero().flatten().tolist()
        return Surgery(outputs, inputs, selected, tuple(empty))

    def _keep_one_reader(self, outputs: dict[str, Tensor], inputs: dict[str, Tensor]) -> None:
        """Where a tensor keeps a channel that nobody reads, all that share it and its readers keep it too."""
        alive = ~self.gone
        while True:
            for tables, kept in ((self.written, outputs), (self.read, inputs)):
                for name, table in tables.items():
                    alive[table[kept[name] & (table != ABSENT)]] = True
            both = torch.cat([alive, alive.new_ones(1)])
            new = [
                (kept, name, both[table])
                for tables, kept in ((self.written, outputs), (self.read, inputs))
                for name, table in tables.items()
            ]
            if all(torch.equal(kept[name], now) for kept, name, now in new):
                return
            for kept, name, now in new:
                kept[name] = now

    @staticmethod
    def _pays(weight: Tensor, used: Tensor) -> bool:
        """Whether a convolution saves more by leaving inputs out than picking the others costs."""
        saved = int((~used).sum()) * weight.shape[0] * weight.shape[2] * weight.shape[3]
        return saved > PICKING * int(used.sum())


def _used(weight: Tensor) -> Tensor:
    """[inputs] whether any weight of an input is not zero."""
    return (weight != 0).transpose(0, 1).flatten(1).any(1)
