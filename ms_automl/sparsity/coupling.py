"""Which channels of a trunk are one: written together (through residual additions), read together.

Structural groups as of DepGraph (Fang et al. 2023, arXiv 2301.12900, section 3).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import Layer, MultiTaskNet, shared_weights
from ms_automl.models.copying import copied
from ms_automl.models.surgery import Surgery
from ms_automl.models.weights import attends, is_transposed, main_weight
from ms_automl.sparsity.channels import ABSENT as STAYS
from ms_automl.sparsity.channels import Ids
from ms_automl.sparsity.compact import prove, randomised, settled
from ms_automl.sparsity.groups import ChannelGroups
from ms_automl.sparsity.marks import Shrinking, Trace
from ms_automl.sparsity.silence import felt
from ms_automl.sparsity.trace import trace
from ms_automl.sparsity.unmovable import unmovable

ABSENT = -1
"""In an index: a channel that no convolution of the trunk writes, such as one of the images."""

PATTERNS = 2
"""Copies that are compacted to find what shrinks in whose code."""

INSTEAD = "use grouping=input_channel"


@dataclass(frozen=True)
class Coupling:
    """The channels that are one, as indices of groups; those of a stream lie next to each other.

    Attributes:
        streams: names of the streams, each that of the first convolution that writes it.
        counts: channels by stream.
        removable: by stream, whether all of it may go: everything that writes it has a skip around it, and no
            head reads it.
        outputs: by name of a penalised weight, one of a convolution of groups too, [out] the group of each channel
            that it writes.
        inputs: by name of such a weight, [in] the group of each channel it reads, or ABSENT.
        transposed: names of those that are [in, out, …].
        companions: by name of a parameter that is not penalised, an axis of it, and the group of each entry along
            that, or ABSENT. They are what a dead channel would still emit: biases, batch norm's γ and β.
        whole: by layer, why none of the channels that it writes has a group.

    A channel that something frozen or computed writes has no group, nor has one that passes through what is not
    followed: it is ABSENT, too.
    """

    streams: tuple[str, ...]
    counts: tuple[int, ...]
    removable: tuple[bool, ...]
    outputs: dict[str, Tensor]
    inputs: dict[str, Tensor]
    transposed: frozenset[str]
    companions: dict[str, tuple[int, Tensor]]
    whole: dict[str, str]

    def sides(self) -> tuple[list[int], list[int]]:
        """By weight, the axis of what it writes, and that of what it reads."""
        writes = [int(name in self.transposed) for name in self.outputs]
        return writes, [1 - axis for axis in writes]

    def zero_(self, trunk: nn.Module, gone: Tensor, read: float) -> None:
        """Zero what writes groups in a trunk, and multiply what reads them by a number.

        Args:
            trunk: the one that was coupled, or a copy.
            gone: [groups + 1] which; the last is False.
            read: the number.
        """
        parameters = dict(trunk.named_parameters(remove_duplicate=False))
        writes, reads = self.sides()
        rows = {name: (axis, index) for (name, index), axis in zip(self.outputs.items(), writes, strict=True)}
        for name, (axis, index) in (rows | self.companions).items():
            parameters[name].transpose(0, axis)[gone[index]] = 0
        for (name, index), axis in zip(self.inputs.items(), reads, strict=True):
            parameters[name].transpose(0, axis)[gone[index]] *= read


def couple(
    network: MultiTaskNet,
    image_shape: tuple[int, int, int],
    layers: Mapping[str, Layer] | None = None,
    kept: Mapping[str, str] = MappingProxyType({}),
) -> Coupling:
    """Find the coupled channels of a network's trunk; leaves the network as it is.

    A layer that the trunk does not reach in evaluation has no groups, and a channel that passes through something
    that is not followed has none.

    Args:
        network: its trunk is traced on random images.
        image_shape: (channels, H, W).
        layers: which of its layers are coupled; all ``penalised()`` ones where not given.
        kept: by name of a module or a parameter, why the channels that pass it stay.

    Raises:
        NetworkError: where the trunk cannot be traced, where a channel whose group is zero would still be felt, or
            where coupled layers share a weight.
    """
    layers = network.penalised() if layers is None else layers
    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    try:
        trunk = copied(network.trunk).cpu().eval()
        shrinking: Shrinking = {}
        immovable: dict[str, str] = {}
        while True:
            found = trace(trunk, images, shrinking=shrinking)
            _refuse_sharing(network, _passing(trunk, found))
            _keep(found, kept)
            if {type(head) for head in network.heads.values()} == {nn.Identity}:  # nobody could read less
                found.channels.fix(np.fromiter(found.seen, np.int64), "an output of the network itself")
            for name, weight in _writers(trunk, immovable).items():
                if weight in found.rows:
                    found.channels.fix(found.rows[weight], immovable[name])
            coupling = _number(network, layers, found, kept)
            before, (shrinking, stuck) = shrinking, _settled(network, coupling, images, shrinking)
            stuck -= _ends(trunk, coupling, found)
            whys = dict.fromkeys(stuck, "a place where its zeros cannot be taken out")
            if shrinking == before and not stuck:
                whys = dict.fromkeys(felt(trunk, coupling, images), "what gives something else than 0 for 0")
                if not whys:
                    break
            immovable |= whys
    except NetworkError as error:
        raise NetworkError(f"{error}{_instead(network, image_shape)}") from error
    except Exception as error:  # a stranger's trunk may not take every weight
        raise NetworkError(
            f"the trunk fails with random weights ({error}){_instead(network, image_shape)}"
        ) from error
    return coupling


def _passing(trunk: nn.Module, found: Trace) -> list[str]:
    """Names of the modules that write channels, or pass them on."""
    holders = dict.fromkeys(name.rpartition(".")[0] for name in found.rows)
    return [name for name in holders if name in found.reached]


def _refuse_sharing(network: MultiTaskNet, coupled: Collection[str]) -> None:
    for names in shared_weights(network):
        if any(name.removeprefix("trunk.") in coupled for name in names):
            tied = " and ".join(f"'{name}'" for name in names)
            raise NetworkError(f"{tied} share a weight or a bias, whose channels cannot go one by one")


def _instead(network: MultiTaskNet, image_shape: tuple[int, int, int]) -> str:
    """The remedy, where it is one."""
    try:
        half = randomised(copy.deepcopy(network).cpu(), zeros=False)
        groups = ChannelGroups(half)
        groups.scale_((torch.arange(len(groups.layer)) % 2).float())
        images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
        prove(half, [images])
    except Exception:  # then it is none
        return ""
    return f"; {INSTEAD}"


def _keep(found: Trace, kept: Mapping[str, str]) -> None:
    """Say that the channels stay that pass what is to be left alone."""
    for name, ids in [*found.rows.items(), *((name, mark.ids) for name, mark in found.own.items())]:
        one = next((one for one in (name.rpartition(".")[0], name) if one in kept), None)
        if one is not None:
            found.channels.fix(ids, f"'{one}' ({kept[one]})")


def _why_whole(layers: Mapping[str, Layer], found: Trace) -> dict[str, str]:
    """By layer, why none of the channels that it writes may go."""
    whys = {}
    for name, ids in ((name, found.rows.get(f"{name}.weight")) for name in layers):
        if ids is not None and found.channels.fixed(ids).all():
            whys[name] = found.channels.why[int(found.channels.find(ids[:1])[0])]
    return whys


@torch.no_grad()
def _settled(
    network: MultiTaskNet, coupling: Coupling, images: Tensor, shrinking: Shrinking
) -> tuple[Shrinking, set[str]]:
    """What has to shrink where, so that copies of which some groups are zero can be compacted.

    Streams lose different shares: sizes that code works out from one another fit where all lose the same.

    Returns:
        That, and the streams of which nothing was taken out.
    """
    counts = torch.tensor(coupling.counts, dtype=torch.int64)
    streams = torch.repeat_interleave(torch.arange(len(counts)), counts)
    within = {kind if isinstance(kind, type) else f"trunk.{kind}": part for kind, part in shrinking.items()}
    stuck: set[str] = set()
    for seed in range(PATTERNS):
        generator = torch.Generator().manual_seed(seed)
        shares = 0.2 + 0.5 * torch.rand(len(counts), generator=generator)
        gone = torch.cat([torch.rand(len(streams), generator=generator) < shares[streams], torch.zeros(1).bool()])
        some = randomised(copied(network).cpu(), seed, zeros=False)
        coupling.zero_(some.trunk, gone, 0)
        try:
            _, surgery, found = settled(some, [images], within)
        except Exception:  # it cannot be; who trains it is told before
            return shrinking, set()
        within = dict(found)
        stuck = {
            name
            for name, weight in _writers(network.trunk, coupling.streams).items()
            if _stays(surgery, name, gone[coupling.outputs[weight]])
        }
    return {
        kind if isinstance(kind, type) else kind.removeprefix("trunk."): part for kind, part in within.items()
    }, stuck


def _writers(trunk: nn.Module, names: Collection[str]) -> dict[str, str]:
    """By layer, or by attention, the name of the weight that writes its channels."""
    return {name: f"{name}.{main_weight(trunk.get_submodule(name))}" for name in names}


def _ends(trunk: nn.Module, coupling: Coupling, found: Trace) -> set[str]:
    """The streams that the trunk gives: heads read them, and of a trunk without any nobody."""
    seen = found.channels.find(np.fromiter(found.seen, np.int64))
    rows = {name: found.channels.find(found.rows[key]) for name, key in _writers(trunk, coupling.streams).items()}
    return {name for name, ids in rows.items() if np.isin(ids, seen).any()}


def _stays(surgery: Surgery, name: str, gone: Tensor) -> bool:
    """Whether all rows of a layer are there yet that are zero."""
    kept = surgery.outputs.get(f"trunk.{name}")
    whole = kept is None or bool(torch.isin(gone.nonzero().flatten(), torch.tensor(kept)).all())
    return whole and bool(gone.any()) and f"trunk.{name}" not in surgery.empty


def _others(trunk: nn.Module, found: Trace, kept: Mapping[str, str]) -> list[str]:
    """Names of the weights that go along: of convolutions of groups, and of attention, which has heads."""
    names = []
    for name, module in trunk.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
            names.append(f"{name}.weight")
        elif attends(module):
            names += [f"{name}.in_proj_weight", f"{name}.out_proj.weight"]
    trained = {name for name, parameter in trunk.named_parameters() if parameter.requires_grad}
    free = (name for name in names if not {name, name.rpartition(".")[0]} & kept.keys())
    return [name for name in free if name in found.rows and name in trained]


def _number(network: MultiTaskNet, layers: Mapping[str, Layer], found: Trace, kept: Mapping[str, str]) -> Coupling:
    trunk = network.trunk
    own = {f"{name}.weight": layer.weight for name, layer in layers.items()}
    others = {name: trunk.get_parameter(name) for name in _others(trunk, found, kept)}
    loud = set(unmovable(trunk, (own | others).values(), _passing(trunk, found)))
    entries = [found.channels.find(ids) for name, ids in found.rows.items() if name.rpartition(".")[0] in loud]
    trained = {name for name, parameter in trunk.named_parameters() if parameter.requires_grad}
    entries += [found.channels.find(mark.ids) for name, mark in found.own.items() if name not in trained]
    fixed = {int(root) for ids in entries for root in ids}
    group: dict[int, int] = {}
    counts: dict[str, int] = {}

    def index_of(ids: Ids | None, size: int) -> Tensor:
        roots = [STAYS] * size if ids is None else found.channels.find(ids).tolist()
        return torch.tensor([group.get(root, ABSENT) for root in roots])

    first = [
        name for name, module in trunk.named_modules() if name in layers or name in found.inside or attends(module)
    ]
    for name, key in _writers(trunk, first).items():
        ids = found.rows.get(key) if key in own or key in others else None
        roots = dict.fromkeys([] if ids is None else found.channels.find(ids[~found.channels.fixed(ids)]).tolist())
        new = [root for root in roots if root not in group and root not in fixed]
        group |= {root: len(group) + index for index, root in enumerate(new)}
        if new:
            counts[name] = len(new)
    sizes = {
        f"{name}.weight": [*layer.weight.shape[:2]][:: -1 if is_transposed(layer) else 1]
        for name, layer in layers.items()
    }
    outputs = {name: index_of(found.rows.get(name), size[0]) for name, size in sizes.items()}
    inputs = {name: index_of(found.columns.get(name), size[1]) for name, size in sizes.items()}
    for name, weight in others.items():
        index, read = index_of(found.rows[name], len(weight)), index_of(found.columns.get(name), weight.shape[1])
        if bool((torch.cat([index, read]) != ABSENT).any()):
            outputs[name], inputs[name] = index, read
    slopes = {id(one) for part in trunk.modules() if isinstance(part, nn.PReLU) for one in part.parameters()}
    companions = {}
    written = {name: (int(name in found.transposed), ids) for name, ids in found.rows.items()}
    written |= {name: (mark.axis, mark.ids) for name, mark in found.own.items()}
    for name, parameter in trunk.named_parameters():
        if name in written and name in trained and name not in outputs and id(parameter) not in slopes:
            axis, ids = written[name]
            index = index_of(ids, len(ids))
            if bool((index != ABSENT).any()):
                companions[name] = axis, index
    must_stay = {group.get(int(root), ABSENT) for root in found.channels.find(np.array([STAYS, *found.seen]))}
    may_go = network.removable or ()
    stay = [index for name, index in outputs.items() if name.removesuffix(".weight") not in may_go]
    must_stay |= {int(g) for index in stay for g in index}
    streams = torch.repeat_interleave(
        torch.arange(len(counts)), torch.tensor(list(counts.values()), dtype=torch.int64)
    )
    staying = {int(streams[g]) for g in must_stay if g != ABSENT}
    removable = tuple(index not in staying for index in range(len(counts)))
    whole = _why_whole(layers, found)
    transposed = frozenset(f"{name}.weight" for name, layer in layers.items() if is_transposed(layer))
    channels = tuple(counts.values())
    return Coupling(tuple(counts), channels, removable, outputs, inputs, transposed, companions, whole)
