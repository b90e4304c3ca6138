"""Whose weights are whose: modules of several names, weights of several modules, plain convolutions."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeGuard, get_args

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Layer = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear
)
"""What mixes channels by a weight [out, in, …], a transposed convolution by one of [in, out, …]."""
LAYERS: tuple[type[nn.Module], ...] = get_args(Layer)


def mixes(module: nn.Module) -> TypeGuard[Layer]:
    """Whether a module reads all channels for each that it writes: of convolutions an ungrouped one."""
    return isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1


def thins_inside(module: nn.Module) -> bool:
    """Whether a convolution in groups loses channels of each group, the same of all, and no whole groups.

    The finer of the two, and where both are as fine the one that leaves less arithmetic: with c channels in each
    group and at most c groups, all groups lose c-ths.
    """
    if not isinstance(module, nn.modules.conv._ConvNd) or is_transposed(module) or module.groups == 1:
        return False
    return min(module.in_channels, module.out_channels) // module.groups >= module.groups


def attends(module: nn.Module) -> TypeGuard[nn.MultiheadAttention]:
    """Whether a module is torch's attention with one matrix for queries, keys and values, and nothing besides."""
    return (
        isinstance(module, nn.MultiheadAttention)
        and type(module).forward is nn.MultiheadAttention.forward
        and "forward" not in vars(module)
        and module._qkv_same_embed_dim
        and module.bias_k is None
        and not module.add_zero_attn
        and not (module._forward_hooks or module._forward_pre_hooks)
        and has_own_weight(module, "in_proj_weight")
        and plain_layer(module.out_proj)
    )


def main_weight(module: nn.Module) -> str:
    """The name of the weight by which a module mixes channels first."""
    return "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"


def is_transposed(module: nn.Module) -> bool:
    """Whether the weight of a layer is [in, out, …]."""
    return isinstance(module, nn.modules.conv._ConvTransposeNd)


def channel_axis(layer: Layer) -> int:
    """Of the channels in what a layer is given and gives."""
    return -1 if isinstance(layer, nn.Linear) else 1 - layer.weight.ndim


def names_of_modules(network: nn.Module) -> dict[nn.Module, tuple[str, ...]]:
    """Every name of each module, in the order of `named_modules`: a module that stands twice has two."""
    names: dict[nn.Module, tuple[str, ...]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        names[module] = (*names.get(module, ()), name)
    return names


def shared_weights(network: nn.Module) -> list[tuple[str, ...]]:
    """Which modules share a weight: by weight that several have, the first name of each of them.

    Any parameter counts, a bias too. A module that has several names shares nothing by that.

    Args:
        network: any module; names are those inside of it.
    """
    users: dict[Tensor, list[str]] = {}
    for name, module in network.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None and name not in users.setdefault(parameter, []):
                users[parameter].append(name)
    return list(dict.fromkeys(tuple(names) for names in users.values() if len(names) > 1))


def overlapping_weights(network: nn.Module) -> list[tuple[str, str]]:
    """Pairs of different parameters that lie in the same memory, as by ``b.weight.data = a.weight.data``.

    Such a tie holds until one of them is moved, to a device or into another memory format.
    """
    places = sorted(
        (*_extent(parameter), name)
        for name, parameter in network.named_parameters()
        if not is_lazy(parameter) and parameter.numel() and not parameter.is_meta
    )
    return [(one[-1], other[-1]) for one, other in pairwise(places) if one[0] == other[0] and other[1] < one[2]]


def _extent(tensor: Tensor) -> tuple[str, int, int]:
    """Device, first byte, and the byte behind the last."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.element_size()


def plain_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is nothing but the convolution of its `weight`: another Conv2d may stand in its place."""
    return isinstance(module, nn.Conv2d) and plain_layer(module)


def plain_layer(module: nn.Module) -> bool:
    """Whether a module is nothing but the convolution or the product of its `weight`.

    A subclass is plain where it brings neither a forward nor hooks of its own, and its weight is a parameter.
    """
    ways = ("forward", "_conv_forward", "__call__")
    kind = next((kind for kind in LAYERS if isinstance(module, kind)), None)
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return (
        kind is not None
        and all(getattr(type(module), way, None) is getattr(kind, way, None) for way in ways)
        and not set(ways) & set(vars(module))
        and not any(hooks)
        and has_own_weight(module)
    )


def has_own_weight(module: nn.Module, key: str = "weight") -> bool:
    """Whether `weight`, or what has another name, is a parameter that the module holds and does not compute."""
    return isinstance(module._parameters.get(key), nn.Parameter) and key not in dir(type(module))


def uninitialised(network: nn.Module) -> list[str]:
    """Parameters and buffers that a lazy module has not made yet, by name."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return [name for name, tensor in tensors if is_lazy(tensor)]


def why_not_penalised(layer: Layer) -> str:
    """Why the weight of a layer cannot go to zero; empty where it can."""
    if not has_own_weight(layer):
        return "its weight is computed from other parameters, zeros would not stay"
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "it is called by the code of nn.MultiheadAttention, which keeps its width"
    return "" if layer.weight.requires_grad else "it is frozen (requires_grad=False)"
