"""Any model as the core knows networks: a trunk that λ acts on, and heads that it does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ms_automl.errors import ConfigError, NetworkError, unknown_name
from ms_automl.models import MultiTaskNet
from ms_automl.models.leaves import leaves
from ms_automl.models.penalised import tried
from ms_automl.models.weights import LAYERS, names_of_modules
from ms_automl.sparsity import GROUPINGS, PROX_METRICS, Groups

Chosen = Callable[[str], bool] | Collection[str]
MIXING_MODULES = (*LAYERS, nn.MultiheadAttention)
"""What ``only`` is of."""

WRAPPERS = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of ``DistributedDataParallel``, ``DataParallel``, an average and ``torch.compile``."""
    while True:
        inner = model._modules.get("module" if isinstance(model, WRAPPERS) else "_orig_mod")
        if inner is None:
            return model
        model = inner


def as_network(model: nn.Module, removable: Collection[str] | None = None) -> MultiTaskNet:
    """The model as it is where it is a MultiTaskNet; else a view of it, all of it trunk."""
    return model if isinstance(model, MultiTaskNet) else MultiTaskNet(model, {"output": nn.Identity()}, removable)


def as_optimizers(
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
) -> Sequence[torch.optim.Optimizer]:
    """One or several as several.

    Raises:
        ConfigError: for anything else.
    """
    several = (optimizer,) if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    kinds = [isinstance(one, torch.optim.Optimizer) for one in several] if isinstance(several, Sequence) else []
    if not kinds or not all(kinds):
        raise ConfigError(
            f"`optimizer` must be a torch.optim.Optimizer or several, but is a {type(optimizer).__name__}"
        )
    return several


def image_shape_of(example: Tensor) -> tuple[int, int, int]:
    """(channels, H, W) of the images that a model takes.

    Args:
        example: [B, channels, H, W].

    Raises:
        ConfigError: for anything else.
    """
    if not isinstance(example, Tensor) or example.ndim != 4:
        found = (
            f"a tensor of shape {tuple(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
        )
        raise ConfigError(f"`example` must be images [B, channels, H, W], such as images[:1], but got {found}")
    if (
        not example.is_floating_point()
        or example.is_meta
        or not example.numel()
        or not bool(example.isfinite().all())
    ):
        raise ConfigError(
            f"`example` must hold at least one image of finite floats, but is {example.dtype} of shape "
            f"{tuple(example.shape)} on {example.device}"
        )
    channels, height, width = example.shape[1:]
    return channels, height, width


def check_names(grouping: str | None, prox_metric: str) -> None:
    """Raise ConfigError for a kind of groups or a metric that nobody knows; no kind is one to be chosen."""
    if grouping is not None and grouping not in GROUPINGS:
        raise unknown_name("grouping", str(grouping), list(GROUPINGS))
    if prox_metric not in PROX_METRICS:
        raise unknown_name("prox_metric", str(prox_metric), list(PROX_METRICS))


def check_steps(steps: int, prox_share: float) -> None:
    """Raise ConfigError for a length of the training, or a share of it, that is none."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ConfigError(f"`steps >= 1` must hold, the optimiser steps of the training, but got steps={steps!r}")
    if not isinstance(prox_share, int | float) or not 0 < prox_share <= 1:
        raise ConfigError(f"`0 < prox_share <= 1` must hold, but got prox_share={prox_share!r}")


def check_precision(groups: Groups) -> None:
    """Raise ConfigError for weights of which norms are too coarse."""
    if any(weight.dtype not in (torch.float32, torch.float64) for weight in groups.weights):
        raise ConfigError(
            f"weights must be float32, whose norms are exact enough, but are {groups.weights[0].dtype}: keep them "
            "so, and compute in less by torch.autocast"
        )


def check_metric(name: str, optimizers: Sequence[torch.optim.Optimizer], given: bool) -> None:
    """Raise ConfigError where Adam's metric is asked for and there is no one Adam, or no given λ."""
    if name == "adam" and not given:
        raise ConfigError("prox_metric='adam' is of a given λ: give `schedule`, or take 'euclidean'")
    if name == "adam" and (len(optimizers) != 1 or not isinstance(optimizers[0], torch.optim.Adam)):
        kinds = ", ".join(type(one).__name__ for one in optimizers)
        raise ConfigError(f"prox_metric='adam' is that of one Adam or AdamW, but got {kinds}: take 'euclidean'")


def kept_modules(
    network: MultiTaskNet,
    image_shape: tuple[int, int, int],
    keep: Chosen | str,
    only: Chosen | str | None,
    trained: Collection[Tensor],
    *,
    ends: bool,
) -> Mapping[str, str]:
    """What of the trunk shall be left alone, and why, by name of a module, or of a parameter of one.

    A layer mixes channels by its weight. Of everything else, such as a norm, it is what goes with the channels of
    coupled groups.

    Args:
        network: as :func:`as_network` gives it.
        image_shape: (channels, H, W).
        keep: what to leave alone: a predicate on names of modules, or names, which stand for all in them.
        only: the layers to take and no others; None takes all.
        trained: the parameters that an optimiser has.
        ends: whether what the trunk gives is the model's own output, which is left alone.

    Raises:
        NetworkError: for a name that no module has, or a model that does not run.
    """
    modules = {name for name, _ in network.trunk.named_modules(remove_duplicate=False)}
    kept, taken = _chooser(keep, modules, "keep"), None if only is None else _chooser(only, modules, "only")
    held = {id(value) for value in trained}
    last = _ends(network, image_shape) if ends else set()
    found: dict[str, str] = {}
    users, aliases = _users(network.trunk), names_of_modules(network.trunk)
    first = {id(value): name for name, value in network.trunk.named_parameters()}
    for name, module in network.trunk.named_modules():
        own = dict(module.named_parameters(recurse=False))
        weight = own.get("weight")
        names = aliases[module] if weight is None else users[weight]  # a weight of several is one thing
        if any(map(kept, names)):
            shared = (first[id(value)] for key, value in own.items() if key != "weight")  # by another name, maybe
            found |= dict.fromkeys([name, *shared], "it is in `keep`")
        elif taken is not None and isinstance(module, MIXING_MODULES) and not any(map(taken, names)):
            found[name] = "it is not in `only`"
        elif last.intersection(names):
            found[name] = "its outputs are the model's own"
        else:
            loose = [key for key, value in own.items() if value.requires_grad and id(value) not in held]
            whole = name if isinstance(module, LAYERS) else f"{name}.weight"
            keys = (whole if key == "weight" else f"{name}.{key}" for key in loose)
            found |= dict.fromkeys((key.lstrip(".") for key in keys), "no optimizer that was given trains it")
    return found


def _users(trunk: nn.Module) -> dict[Tensor, list[str]]:
    """By weight, the names of the modules that have it."""
    found: dict[Tensor, list[str]] = {}
    for name, module in trunk.named_modules(remove_duplicate=False):
        if (weight := module._parameters.get("weight")) is not None:
            found.setdefault(weight, []).append(name)
    return found


def _chooser(chosen: Chosen | str, modules: Collection[str], argument: str) -> Callable[[str], bool]:
    if callable(chosen) and not isinstance(chosen, nn.Module):
        return chosen
    if isinstance(chosen, nn.Module) or not isinstance(chosen, Collection):
        raise ConfigError(f"`{argument}` takes names of modules or a predicate, but got a {type(chosen).__name__}")
    wanted = [chosen] if isinstance(chosen, str) else list(chosen)
    if unknown := [one for one in wanted if one not in modules]:
        raise NetworkError(f"`{argument}` names {', '.join(map(repr, unknown))}, which the model does not have")
    return lambda name: any(name == one or name.startswith(f"{one}.") for one in wanted)


def _ends(network: MultiTaskNet, image_shape: tuple[int, int, int]) -> set[str]:
    """Names of the modules by whose weights the model's own outputs are made."""

    def look(twin: MultiTaskNet, images: Tensor) -> set[str]:
        twin.float().requires_grad_(True).eval()
        images.requires_grad_()
        with torch.enable_grad():
            weights = output_weights(images, twin.trunk(images))
        parts = dict(twin.trunk.named_modules()).items()
        return {name for name, part in parts if any(id(one) in weights for one in part.parameters(recurse=False))}

    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    return tried(look, network, images, "the model fails")


MIXING = ("Convolution", "Mkldnn", "Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "Cdist")
"""Beginnings of the names of operations in autograd's graph that mix channels by weights."""


def output_weights(images: Tensor, outputs: Any) -> set[int]:
    """Ids of the parameters of the layers that make outputs, and nothing that another layer reads.

    So the last layer that writes into a residual stream which is an output is one, and those before it are none.

    A layer is an operation that mixes channels, one of whose inputs comes of the images and another of parameters
    alone, as they are or computed.

    Args:
        images: what a forward was given; they require a gradient.
        outputs: what it gave, tensors, nested at will.
    """
    found: set[int] = set()
    ends = [leaf.grad_fn for leaf in leaves(outputs) if leaf.grad_fn is not None]
    following = _graph(ends)
    before = _reversed(following)
    live = _reached([node for node in following if getattr(node, "variable", None) is images], before)
    waiting = [node for node in ends if node in live]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        weights = [one for one in following[node] if one not in live]
        if _mixes(node, weights):
            readers = _reached([node], before) - {node}
            if not any(_mixes(one, [w for w in following[one] if w not in live]) for one in readers):
                found |= {id(one.variable) for one in _graph(weights) if hasattr(one, "variable")}
            continue
        ahead = {one for one in following[node] if one in live} - seen
        seen |= ahead
        waiting += ahead
    return found


def _graph(starts: Sequence[Any]) -> dict[Any, list[Any]]:
    """Every node that can be reached, and what comes after it."""
    found: dict[Any, list[Any]] = {}
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = [one for one, _ in node.next_functions if one is not None]
            waiting += found[node]
    return found


def _mixes(node: Any, weights: Sequence[Any]) -> bool:
    """Whether a node is a layer's: it mixes channels by weights, those of its inputs that no image made."""
    return node.name().startswith(MIXING) and bool(weights)


def _reversed(following: Mapping[Any, Sequence[Any]]) -> dict[Any, list[Any]]:
    """By node of autograd's graph, what is computed of it."""
    before: dict[Any, list[Any]] = {}
    for node, ahead in following.items():
        for one in ahead:
            before.setdefault(one, []).append(node)
    return before


def _reached(starts: Sequence[Any], before: Mapping[Any, Sequence[Any]]) -> set[Any]:
    """The nodes that are computed of these, and they themselves."""
    found: set[Any] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += before.get(node, [])
    return found
