"""Which channels of a trunk are one: written together (through residual additions), read together.

The trunk is traced by torch-pruning's dependency graph (DepGraph, Fang et al. 2023, arXiv 2301.12900,
section 3); this is the only file that knows it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, shared_weights
from ms_automl.models.copying import copied
from ms_automl.models.leaves import leaves
from ms_automl.sparsity.unmovable import unmovable

ABSENT = -1
"""In an index: a channel that no convolution of the trunk writes, such as one of the images."""

INSTEAD = "use training.grouping=input_channel"

Place = tuple[str, int]
"""A module's name and one of its output channels."""


@dataclass(frozen=True)
class Coupling:
    """The channels that are one, as indices of groups; those of a stream lie next to each other.

    Attributes:
        streams: names of the streams, each that of the first convolution that writes it.
        counts: channels by stream.
        removable: by stream, whether all of it may go: everything that writes it has a skip around it, and no
            head reads it.
        outputs: by penalised convolution, [out] the group of each channel it writes.
        inputs: by penalised convolution, [in] the group of each channel it reads, or ABSENT.
        companions: by name of a parameter that is not penalised, [its length] the group of each entry along its
            first axis, or ABSENT. They are what a dead channel would still emit: biases, batch norm's γ and β.

    A channel that something frozen or computed writes has no group: it is ABSENT, too.
    """

    streams: tuple[str, ...]
    counts: tuple[int, ...]
    removable: tuple[bool, ...]
    outputs: dict[str, Tensor]
    inputs: dict[str, Tensor]
    companions: dict[str, Tensor]


@dataclass
class Channels:
    """Union-find over output channels, and who reads them.

    Attributes:
        parent: of the forest; use :meth:`find`.
        readers: an input channel to an output channel that it reads.
        seen: output channels that reach the traced module's own output.
        fed: output channels that the images are added to.
    """

    parent: dict[Place, Place] = field(default_factory=dict)
    readers: dict[Place, Place] = field(default_factory=dict)
    seen: set[Place] = field(default_factory=set)
    fed: set[Place] = field(default_factory=set)

    def find(self, place: Place) -> Place:
        """The one that stands for all channels which are one with this."""
        while (up := self.parent.setdefault(place, place)) != place:
            self.parent[place] = place = self.parent[up]
        return place

    def join(self, one: Place, other: Place) -> None:
        """Say that two are one."""
        self.parent[self.find(one)] = self.find(other)


def couple(
    network: MultiTaskNet, image_shape: tuple[int, int, int], convs: Mapping[str, nn.Conv2d] | None = None
) -> Coupling:
    """Find the coupled channels of a network's trunk; leaves the network as it is.

    Args:
        network: its trunk is traced on random images.
        image_shape: (channels, H, W).
        convs: which of its convolutions are coupled; all ``penalised()`` ones where not given.

    Raises:
        NetworkError: where the trunk cannot be traced, mixes channels outside its ungrouped convolutions, where
            a channel whose group is zero would still be felt, or where coupled layers share a weight.
    """
    convs = network.penalised() if convs is None else convs
    trunk = copied(network.trunk).cpu().eval()
    images = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0))
    try:
        channels = follow(trunk, convs, images)
    except NetworkError as error:
        raise NetworkError(f"{error}; {INSTEAD}") from error
    _refuse_sharing(network, {name for name, _ in channels.parent})
    coupling = _number(network, convs, channels)
    try:
        _check(trunk, coupling, images)
    except NetworkError:
        raise
    except Exception as error:  # a stranger's trunk may not take every weight
        raise NetworkError(f"the trunk fails with random weights ({error}); {INSTEAD}") from error
    return coupling


def _refuse_sharing(network: MultiTaskNet, coupled: Collection[str]) -> None:
    for names in shared_weights(network):
        if any(name.removeprefix("trunk.") in coupled for name in names):
            tied = " and ".join(f"'{name}'" for name in names)
            raise NetworkError(f"{tied} share a weight, whose channels cannot go one by one; {INSTEAD}")


class _Fed(nn.Module):
    """A module and its images as a parameter: the tracer follows nothing else back to where it comes from."""

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.module, self.images = module, nn.Parameter(images)

    def forward(self, _: Tensor) -> Any:
        return leaves(self.module(self.images))


def follow(module: nn.Module, convs: Mapping[str, nn.Conv2d], images: Tensor) -> Channels:
    """Trace where the output channels of convolutions go: up to who mixes them, or out of the module.

    Args:
        module: a trunk or a whole network; it is changed on the way, so give a copy.
        convs: those of its convolutions that are followed, by name.
        images: [B, channels, H, W].

    Raises:
        NetworkError: where it cannot be traced, or mixes channels in what is no convolution or linear layer.
    """
    channels = Channels()
    for root, name, kind, index, root_index in _dependencies(module, convs, images):
        source = (root, root_index)
        if kind == "out":
            channels.seen.add(source)
        elif kind == "in":
            channels.fed.add(source)
        elif kind == "read":
            channels.readers[name, index] = source
        else:
            channels.join(source, (name, index))
    return channels


def _dependencies(
    trunk: nn.Module, convs: Mapping[str, nn.Conv2d], images: Tensor
) -> Iterator[tuple[str, str, str, int, int]]:
    """(convolution, module, 'write' | 'read' | 'in' | 'out', the module's channel, the convolution's channel)."""
    import torch_pruning  # here, so that only a coupled training waits for it and needs it

    names = {module: name for name, module in trunk.named_modules()}
    fed = _Fed(trunk, images)
    for parameter in trunk.parameters():
        parameter.requires_grad_(True)  # it follows autograd's graph
    try:
        with torch.enable_grad():
            graph = torch_pruning.DependencyGraph().build_dependency(
                fed, (images,), unwrapped_parameters=[(fed.images, 1)], verbose=False
            )
        found = {
            name: graph.get_pruning_group(
                trunk.get_submodule(name), torch_pruning.prune_conv_out_channels, range(conv.out_channels)
            )
            for name, conv in convs.items()
        }
    except Exception as error:  # whatever a stranger's network does to the tracer
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NetworkError(f"the trunk's coupled channels cannot be traced ({reason})") from error
    for root, group in found.items():
        for item in group.items:
            module, name = item.dep.target.module, names.get(item.dep.target.module)
            if name is None and type(module).__name__ != "_OutputOp" and not isinstance(module, nn.Parameter):
                continue  # an addition, an activation
            if module is not fed.images:
                _refuse_mixing(name, module)
            reads = graph.is_in_channel_pruning_fn(item.dep.handler) and _mixes(module)
            kind = "in" if module is fed.images else "out" if name is None else "read" if reads else "write"
            for index, root_index in zip(item.idxs, item.root_idxs, strict=True):
                yield root, name or "", kind, index, root_index


def _mixes(module: object) -> bool:
    """Whether every output channel reads every input channel."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _refuse_mixing(name: str | None, module: object) -> None:
    depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels
    by_channel = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)
    if isinstance(module, nn.Parameter) or (
        name is not None and not (depthwise or _mixes(module) or isinstance(module, by_channel))
    ):
        what = "a parameter of its own" if name is None else f"'{name}' ({type(module).__name__})"
        raise NetworkError(f"the trunk's channels cannot be coupled through {what}")


def _number(network: MultiTaskNet, convs: Mapping[str, nn.Conv2d], channels: Channels) -> Coupling:
    loud = set(unmovable(network.trunk, convs, {name for name, _ in channels.parent}))
    fixed = {channels.find(place) for place in list(channels.parent) if place[0] in loud}
    group: dict[Place, int] = {}
    counts: dict[str, int] = {}
    for name, conv in convs.items():
        places = {channels.find((name, index)): None for index in range(conv.out_channels)}
        new = [place for place in places if place not in group and place not in fixed]
        group |= {place: len(group) + index for index, place in enumerate(new)}
        if new:
            counts[name] = len(new)

    def index_of(name: str, size: int) -> Tensor:
        return torch.tensor([group.get(channels.find((name, index)), ABSENT) for index in range(size)])

    outputs = {name: index_of(name, conv.out_channels) for name, conv in convs.items()}
    inputs = {}
    for name, conv in convs.items():
        sources = (channels.readers.get((name, index)) for index in range(conv.in_channels))
        inputs[name] = torch.tensor(
            [ABSENT if source is None else group.get(channels.find(source), ABSENT) for source in sources]
        )
    companions = {}
    for module_name, module in network.trunk.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            penalised = module_name in convs and key == "weight"
            if penalised or not parameter.ndim or not parameter.requires_grad or isinstance(module, nn.PReLU):
                continue
            index = index_of(module_name, len(parameter))
            if bool((index != ABSENT).any()):
                companions[f"{module_name}.{key}"] = index
    must_stay = {group.get(channels.find(place), ABSENT) for place in channels.seen}
    must_stay |= {int(g) for name, index in outputs.items() if name not in network.removable for g in index}
    must_stay.discard(ABSENT)
    streams = torch.repeat_interleave(
        torch.arange(len(counts)), torch.tensor(list(counts.values()), dtype=torch.int64)
    )
    kept = {int(streams[g]) for g in must_stay}
    removable = tuple(index not in kept for index in range(len(counts)))
    return Coupling(tuple(counts), tuple(counts.values()), removable, outputs, inputs, companions)


@torch.no_grad()
def _check(trunk: nn.Module, coupling: Coupling, images: Tensor) -> None:
    """Raise where the trunk's output answers what is read from channels whose groups are zero."""
    generator = torch.Generator().manual_seed(1)
    parameters = dict(trunk.named_parameters())
    for parameter in parameters.values():
        scale = max(1, parameter[0].numel() if parameter.ndim else 1) ** -0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    start = copy.deepcopy(trunk.state_dict())
    for parity in (0, 1):
        trunk.load_state_dict(start)
        gone = torch.arange(sum(coupling.counts) + 1) % 2 == parity
        gone[ABSENT] = False
        rows = {f"{name}.weight": index for name, index in coupling.outputs.items()} | coupling.companions
        for name, index in rows.items():
            parameters[name][gone[index]] = 0
        before = leaves(trunk(images))
        for name, index in coupling.inputs.items():
            parameters[f"{name}.weight"][:, gone[index]] *= -2
        for one, other in zip(before, leaves(trunk(images)), strict=True):
            if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max())):
                raise NetworkError(
                    f"in this trunk a channel whose group is zero is still felt by others; {INSTEAD}"
                )
