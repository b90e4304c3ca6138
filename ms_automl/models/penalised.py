"""Which weights of a trunk may go to zero, by what the trunk is and by what a forward and a backward show."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError, first_line
from ms_automl.models.copying import copied
from ms_automl.models.leaves import leaves
from ms_automl.models.network import MultiTaskNet
from ms_automl.models.overparam import FactoredConv2d
from ms_automl.models.probe import zeros_silence
from ms_automl.models.weights import (
    Layer,
    attends,
    overlapping_weights,
    plain_layer,
    thins_inside,
    uninitialised,
    why_not_penalised,
)

T = TypeVar("T")

NOTHING_TO_PENALISE = (
    "the trunk has no ungrouped convolution and no linear layer, so no channel can be driven to zero"
)
CHEAP = 1e10
"""Parameters times pixels up to which a network is run with values: to run one without needs seconds to begin."""


@dataclass(frozen=True)
class Penalised:
    """What may go to zero, and what may not.

    Attributes:
        layers: of the trunk by name, each weight once.
        left_out: why not, of every other layer that mixes channels.
        parameters: of the trunk, how many numbers; factors count as the weight that they are contracted to.
    """

    layers: Mapping[str, Layer]
    left_out: Mapping[str, str]
    parameters: int


@dataclass(frozen=True)
class _Seen:
    """Of a layer: the shape of what it is given, and whether a gradient reaches its weight."""

    shape: torch.Size
    learns: bool


DRAWS = 8
"""Times that a trunk is trained at the most to see a gradient in every layer: some leave layers out at random."""


class _FailsError(NetworkError):
    """A network does not run."""


def find_penalised(
    network: MultiTaskNet,
    image_shape: tuple[int, int, int],
    kept: Mapping[str, str] = MappingProxyType({}),
    *,
    single: bool = False,
    heads: bool = False,
) -> Penalised:
    """Find the layers of a trunk whose zeros mean something; leaves the network as it is.

    Left out are those whose weight is computed or frozen; those that evaluation does not reach, or that no
    gradient reaches, which would go to zero for nothing; and those that do more than their kind does and answer
    a channel whose weights are zero. A trunk that does not run is judged without that; ``check_network`` refuses
    it.

    Args:
        network: its trunk is run on random images, without values where that is much.
        image_shape: (channels, H, W).
        kept: by name, why a layer is left out besides.
        single: whether single weights or filters go to zero, and not the weights of input channels.
        heads: whether heads of ``nn.MultiheadAttention`` and channels of convolutions in few groups go, too, which
            are enough where nothing else is left.

    Raises:
        NetworkError: where nothing is left, or where a weight is not yet there, lies in the memory of another, or
            is computed by a hook.
    """
    check_weights(network)
    layers = network.layers()
    others = [
        name
        for name, one in network.trunk.named_modules()
        if heads and (attends(one) or thins_inside(one)) and name not in kept
    ]
    if not layers and not others:
        raise NetworkError(NOTHING_TO_PENALISE)
    left_out = {name: why for name, layer in layers.items() if (why := why_not_penalised(layer))}
    left_out |= {name: why for name, why in kept.items() if name in layers}
    taken = {name: layer for name, layer in network.penalised().items() if name not in left_out}
    if taken:
        images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
        with suppress(_FailsError):
            seen = tried(lambda twin, images: _looked_at(twin.trunk, list(taken), images), network, images, "")
            whys = {name: _why_not(layer, seen.get(name), single) for name, layer in taken.items()}
            left_out |= {name: why for name, why in whys.items() if why}
            taken = {name: layer for name, layer in taken.items() if not whys[name]}
    if not taken and not others:
        raise NetworkError(f"no channel of the trunk can be driven to zero: {told(left_out)}")
    return Penalised(taken, left_out, _parameters(network.trunk))


def _parameters(trunk: nn.Module) -> int:
    factored = (module for module in trunk.modules() if isinstance(module, FactoredConv2d))
    factors = {id(factor) for module in factored for factor in (module.left, module.core)}  # V stands for it
    return sum(parameter.numel() for parameter in trunk.parameters() if id(parameter) not in factors)


def _why_not(layer: Layer, seen: _Seen | None, single: bool) -> str:
    if seen is None:
        return "evaluation does not reach it"
    if not seen.learns:
        return "no gradient reaches it"
    if plain_layer(layer) or zeros_silence(layer, seen.shape, single):
        return ""
    return f"zeros of a {type(layer).__name__} are not seen to silence a channel"


def told(left_out: Mapping[str, str]) -> str:
    """The layers that are left out, by reason, in a line."""
    by_reason: dict[str, list[str]] = {}
    for name, why in left_out.items():
        by_reason.setdefault(why, []).append(f"'{name}'")
    return "; ".join(f"{_some(names)} ({why})" for why, names in by_reason.items())


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_weights(network: MultiTaskNet) -> None:
    """Raise NetworkError where a weight cannot be trained, copied or stored as what it is."""
    if lazy := uninitialised(network):
        raise NetworkError(
            f"'{lazy[0]}' is not initialised yet (a lazy module): call the network once on images in its factory"
        )
    if pairs := overlapping_weights(network):
        one, other = pairs[0]
        raise NetworkError(
            f"'{one}' and '{other}' are two parameters in the same memory, which training would part: share "
            "the parameter itself (b.weight = a.weight), or clone it"
        )
    for name, module in network.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and {f"{key}_orig", f"{key}_g"} & set(module._parameters):
                raise NetworkError(
                    f"'{key}' of '{name}' is computed by a hook (old weight_norm or spectral_norm, prune), which "
                    "copies of the network lose: make it a parameter (remove_weight_norm, remove_spectral_norm, "
                    "prune.remove), or use torch.nn.utils.parametrizations"
                )


def cheap(network: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Whether a forward takes a moment at most."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters * image_shape[1] * image_shape[2] < CHEAP


def _eagerly() -> AbstractContextManager[object]:
    """What is compiled calls no hooks; before the compiler is there nothing is, and to have it takes seconds."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def tried(work: Callable[[MultiTaskNet, Tensor], T], network: MultiTaskNet, images: Tensor, failure: str) -> T:
    """Do something with a copy of a network and with images, where it is much without any values.

    Args:
        work: is given a copy and images; what it draws is not drawn from torch's generator.
        network: any.
        images: [B, channels, H, W].
        failure: what is said before the shape of the images where it does not work.

    Raises:
        NetworkError: with the failure's first line.
    """
    channels, height, width = images.shape[1:]
    devices = ("cpu",) if cheap(network, (channels, height, width)) else ("meta", "cpu")  # some need values
    reason = ""
    for device in devices:
        twin = copied(network)
        twin.precision = "float32"
        try:
            with torch.random.fork_rng(devices=[]), _eagerly():
                return work(twin.to(device), images.to(device, copy=True))
        except Exception as error:  # whatever a stranger's network does
            reason = first_line(error)
    raise _FailsError(f"{failure} on images of shape {tuple(images.shape)}: {reason}")


def _looked_at(trunk: nn.Module, names: list[str], images: Tensor) -> dict[str, _Seen]:
    """By name, what is seen of the layers that evaluation reaches."""
    trunk.requires_grad_(True)
    layers = {name: trunk.get_submodule(name) for name in names}
    shapes: dict[str, torch.Size] = {}

    def see(name: str, inputs: tuple[object, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            shapes[name] = inputs[0].shape

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: see(name, inputs))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        trunk.eval()(images.clone())
    for hook in hooks:
        hook.remove()
    for _ in range(DRAWS):
        with torch.enable_grad():
            found = [leaf for leaf in leaves(trunk.train()(images.clone())) if leaf.requires_grad]
            if found:
                torch.autograd.backward([leaf.sum() for leaf in found])
        if all(layers[name].weight.grad is not None for name in shapes):
            break
    return {name: _Seen(shape, layers[name].weight.grad is not None) for name, shape in shapes.items()}
