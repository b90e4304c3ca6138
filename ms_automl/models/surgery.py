"""What a compact network is built of, and how it is cut out of its dense form.

A :class:`Surgery` says which channels of which modules stay. It is applied to the trained network when it is
compacted, and to a new one when a compact model is loaded: its tensors alone do not say which channels they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models.attention import CutAttention, EmptyAttention
from ms_automl.models.replaced import SELECTED, CountedLayerNorm, EmptyConv, EmptyLinear, SelectedLinear
from ms_automl.models.weights import LAYERS, attends, has_own_weight, is_transposed

Kept = dict[str, list[int]]


@dataclass(frozen=True)
class Surgery:
    """The channels that stay, by the module's name; a module that is not named stays as it is.

    Attributes:
        outputs: entries along the first axis of a module's parameters: output channels, features, a batch norm's.
        inputs: input channels or features of convolutions and linear layers.
        selected: of convolutions and linear layers, the channels given to them that they read, after ``inputs``.
        empty: those without any weight left: their output is their bias.
        folded: batch norms that became part of the convolution before them, and its name.
        own: of parameters and buffers that stand by themselves, their axis and the entries that stay.
        sizes: of modules, the attributes by which their code gives axes of channels a length, such as heads.
        counted: layer norms that go on counting the zeros that were cut, and the axis of their channels.
        inside: convolutions in groups whose groups lose channels; others lose whole groups.
    """

    outputs: Kept = field(default_factory=dict)
    inputs: Kept = field(default_factory=dict)
    selected: Kept = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    folded: dict[str, str] = field(default_factory=dict)
    own: dict[str, tuple[int, list[int]]] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    inside: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Surgery:
        """Inverse.

        Raises:
            NetworkError: where something is missing or of another type.
        """
        try:
            outputs, inputs, selected = (_kept(values[name]) for name in ("outputs", "inputs", "selected"))
            empty, folded = values["empty"], values["folded"]
            if not isinstance(empty, list | tuple) or not all(isinstance(name, str) for name in empty):
                raise TypeError("`empty` must list names")
            if not isinstance(folded, dict) or not all(isinstance(name, str) for name in folded.values()):
                raise TypeError("`folded` must have names by name")
            own, counted, sizes = (values.get(name, {}) for name in ("own", "counted", "sizes"))  # new since 0.1
            if not isinstance(own, dict) or not isinstance(counted, dict) or not isinstance(sizes, dict):
                raise TypeError("`own`, `counted` and `sizes` must be by name")
            sizes = {str(name): {str(key): int(size) for key, size in one.items()} for name, one in sizes.items()}
            own = {str(name): (int(axis), [int(i) for i in kept]) for name, (axis, kept) in own.items()}
            counted = {str(name): int(axis) for name, axis in counted.items()}
            inside = tuple(map(str, values.get("inside", ())))  # type: ignore[call-overload]
        except (KeyError, TypeError, ValueError) as error:
            raise NetworkError(f"the description of the compact network is damaged ({error!r})") from error
        return cls(outputs, inputs, selected, tuple(empty), folded, own, counted, sizes, inside)


def _kept(value: object) -> Kept:
    if not isinstance(value, dict):
        raise TypeError(f"expected channels by name, but got {type(value).__name__}")
    return {str(name): [int(index) for index in indices] for name, indices in value.items()}


def operate(network: nn.Module, surgery: Surgery) -> None:
    """Cut a network in place.

    Args:
        network: in its dense form.
        surgery: what stays of it.

    Raises:
        NetworkError: where a name or an index is not there.
    """
    try:
        counts = {name: _counts(network.get_submodule(name)) for name in surgery.counted}
        attentions = _attentions(network, surgery)
        for name in dict.fromkeys([*surgery.outputs, *surgery.inputs]):
            stay = surgery.outputs.get(name), surgery.inputs.get(name)
            _cut(network.get_submodule(name), *stay, inside=name in surgery.inside)
        for name, (axis, kept) in surgery.own.items():
            _cut_own(network, name, axis, kept)
        for name, sizes in surgery.sizes.items():
            for key, size in sizes.items():
                setattr(network.get_submodule(name), key, size)
        for name, axis in surgery.counted.items():
            _count(network, name, counts[name], axis)
        for name in attentions:
            module = network.get_submodule(name)
            assert isinstance(module, nn.MultiheadAttention)
            _replace(network, name, CutAttention(module, surgery.outputs.get(name)))
        for name, selected in surgery.selected.items():
            _replace(network, name, _selected(network.get_submodule(name), selected))
        for name in surgery.empty:
            _replace(network, name, _empty(network.get_submodule(name)))
        for encoder in (one for one in network.modules() if isinstance(one, nn.TransformerEncoder)):
            if any(isinstance(one, CutAttention) for one in encoder.modules()):
                encoder.use_nested_tensor = False  # which has torch take the weights out of its layers
        for name, before in surgery.folded.items():
            _fold(network.get_submodule(name), network.get_submodule(before))
            _replace(network, name, nn.Identity().train(network.get_submodule(name).training))
    except (AttributeError, IndexError) as error:
        raise NetworkError(f"the compact network does not fit this architecture ({error})") from error


def _attentions(network: nn.Module, surgery: Surgery) -> list[str]:
    """Names of the attentions of which something is to be cut: torch's takes as many features as it gives."""
    cut = surgery.outputs.keys() | surgery.inputs.keys()
    whole = (name for name, one in network.named_modules() if attends(one))
    return [name for name in whole if cut & {name, f"{name}.out_proj".lstrip(".")}]


def _counts(norm: nn.Module) -> int:
    if not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        raise AttributeError(f"a {type(norm).__name__} takes no mean over channels")
    return int(norm.normalized_shape[0])


@torch.no_grad()
def _count(network: nn.Module, name: str, count: int, axis: int) -> None:
    """Have a norm that has been cut compute the statistics of as many channels as there were."""
    norm = network.get_submodule(name)
    if isinstance(norm, nn.LayerNorm):
        _replace(network, name, CountedLayerNorm(norm, count, axis))
    elif isinstance(norm, nn.RMSNorm):  # Σ x² / n + ε = c/n (Σ x² / c + ε n/c)
        more = count / norm.normalized_shape[0]
        weight = torch.ones(norm.normalized_shape) if norm.weight is None else norm.weight.detach()
        norm.weight = nn.Parameter(weight * more**0.5)
        norm.eps = more * (torch.finfo(weight.dtype).eps if norm.eps is None else norm.eps)


@torch.no_grad()
def _cut_own(network: nn.Module, name: str, axis: int, kept: list[int]) -> None:
    """Keep entries of a parameter or buffer along an axis, wherever it stands."""
    place, _, key = name.rpartition(".")
    old = getattr(network.get_submodule(place), key)
    new = old.detach().index_select(axis, torch.tensor(kept, device=old.device))
    new = nn.Parameter(new) if isinstance(old, nn.Parameter) else new
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for other in [other for other, tensor in own.items() if tensor is old]:
                own[other] = new


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module in another's place, under every name that the other has."""
    old = network.get_submodule(name)
    for one in [one for one, found in network.named_modules(remove_duplicate=False) if found is old]:
        network.set_submodule(one, new)


@torch.no_grad()
def _fold(norm: nn.Module, conv: nn.Module) -> None:
    """γ (W x + b - μ) / σ + β as a convolution; σ² = running variance + ε."""
    if not isinstance(norm, nn.BatchNorm2d) or not isinstance(conv, nn.Conv2d | EmptyConv):
        raise AttributeError(f"a {type(norm).__name__} cannot become part of a {type(conv).__name__}")
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = (0 if conv.bias is None else conv.bias) - norm.running_mean
    bias = bias * scale if norm.bias is None else bias * scale + norm.bias
    if isinstance(conv, EmptyConv):
        conv.bias = bias
    else:
        conv.bias = nn.Parameter(bias)
        conv.weight = nn.Parameter(conv.weight * scale.view(-1, 1, 1, 1))  # another may share the weight


def plain(module: nn.Module) -> bool:
    """Whether a layer computes what its class in torch, or here, does, and nothing else."""
    known: tuple[type[nn.Module], ...] = (
        *LAYERS,
        nn.BatchNorm2d,
        nn.GroupNorm,
        *SELECTED,
        EmptyConv,
        SelectedLinear,
        EmptyLinear,
    )
    own = type(module).forward in {kind.forward for kind in known} and "forward" not in vars(module)
    inner = getattr(type(module), "_conv_forward", None)
    own = own and inner in (None, *(getattr(kind, "_conv_forward", None) for kind in LAYERS))
    return own and not module._forward_hooks and not module._forward_pre_hooks


def foldable(network: nn.Module, images: Tensor) -> dict[str, str]:
    """Batch norms that take in what a convolution puts out, and that convolution's name, found in one forward.

    Whether something else takes it in as well cannot be seen: compare outputs after folding.

    Args:
        network: in evaluation mode.
        images: [B, channels, H, W].
    """
    made: dict[int, tuple[str, Tensor]] = {}
    calls: Counter[str] = Counter()
    pairs: dict[str, str] = {}
    with torch.no_grad(), ExitStack() as hooks:
        for name, module in network.named_modules():
            if not isinstance(module, nn.Conv2d | EmptyConv | nn.BatchNorm2d) or not plain(module):
                continue
            if isinstance(module, nn.Conv2d) and not has_own_weight(module):
                continue  # a product cannot be written into what computes a weight

            def see(found: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
                calls[name] += 1
                if isinstance(found, nn.BatchNorm2d):
                    if id(inputs[0]) in made and found.running_mean is not None:
                        pairs[name] = made[id(inputs[0])][0]
                else:
                    made[id(output)] = name, output  # kept, so that no other tensor gets its id

            hooks.enter_context(module.register_forward_hook(see))
        network(images)
    once = {name: conv for name, conv in pairs.items() if calls[name] == calls[conv] == 1}
    return {name: conv for name, conv in once.items() if list(once.values()).count(conv) == 1}


@torch.no_grad()
def _selected(layer: nn.Module, selected: list[int]) -> nn.Module:
    """A layer that reads these of its inputs."""
    kind = next((kind for kind in SELECTED if isinstance(layer, kind.__bases__[1])), None)
    if isinstance(layer, nn.Linear):
        layer.weight = nn.Parameter(layer.weight.detach()[:, selected].clone())
        layer.in_features = len(selected)
        return SelectedLinear(layer, torch.tensor(selected))
    if kind is None or not isinstance(layer, nn.modules.conv._ConvNd):
        raise AttributeError(f"a {type(layer).__name__} cannot leave inputs out")
    weight = layer.weight.detach()
    layer.weight = nn.Parameter((weight[selected] if is_transposed(layer) else weight[:, selected]).clone())
    layer.in_channels = len(selected)
    return kind(layer, torch.tensor(selected))


def _empty(layer: nn.Module) -> nn.Module:
    """A layer that reads nothing, or attention without heads."""
    if isinstance(layer, nn.MultiheadAttention):
        return EmptyAttention(layer)
    if isinstance(layer, nn.Linear):
        return EmptyLinear(layer)
    if isinstance(layer, nn.modules.conv._ConvNd):
        return EmptyConv(layer)
    raise AttributeError(f"a {type(layer).__name__} cannot be left out")


@torch.no_grad()
def _cut(module: nn.Module, outputs: list[int] | None, inputs: list[int] | None, *, inside: bool) -> None:
    """Keep entries of a module's tensors: along the axis of what it writes, and of what its weight reads."""
    convolves = isinstance(module, nn.modules.conv._ConvNd)
    grouped = isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1 and not inside
    attention = isinstance(module, nn.MultiheadAttention)
    reads = isinstance(module, nn.Linear) or attention or (convolves and not grouped)
    main = "in_proj_weight" if attention else "weight"
    transposed = is_transposed(module) and not grouped
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if not tensor.ndim or (isinstance(module, nn.PReLU) and tensor.numel() == 1):
            continue  # batch norm's counter; one slope for all channels
        weighs = transposed and name == main
        kept = tensor.detach()
        if outputs is not None:
            kept = kept[:, outputs] if weighs else kept[outputs]
        if reads and inputs is not None and name == main:
            kept = kept[inputs] if weighs else kept[:, inputs]
        setattr(module, name, nn.Parameter(kept.clone()) if isinstance(tensor, nn.Parameter) else kept.clone())
    for name, size in _sizes(module, outputs, inputs, grouped).items():
        if hasattr(module, name):
            setattr(module, name, size)


def _sizes(
    module: nn.Module, outputs: list[int] | None, inputs: list[int] | None, grouped: bool
) -> dict[str, int]:
    """What a module that has been cut says of itself."""
    sizes: dict[str, int] = {}
    if outputs is not None:
        count = len(outputs)
        sizes |= {"out_channels": count, "out_features": count, "num_features": count}
        if getattr(module, "num_parameters", 1) > 1:
            sizes["num_parameters"] = count
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            module.normalized_shape = (count,)
        if isinstance(module, nn.GroupNorm):
            sizes |= {"num_channels": count, "num_groups": module.num_groups * count // module.num_channels}
        if grouped and isinstance(module, nn.modules.conv._ConvNd):  # whole groups are gone
            groups = module.groups * count // module.out_channels
            sizes |= {"groups": groups, "in_channels": module.in_channels // module.groups * groups}
    if inputs is not None and not grouped:
        sizes |= {"in_channels": len(inputs) * getattr(module, "groups", 1), "in_features": len(inputs)}
    return sizes
