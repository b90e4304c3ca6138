"""What a sparsifier has made of a model: tables, a picture, the compact model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn

from ms_automl.errors import ConfigError
from ms_automl.models.copying import copied
from ms_automl.models.penalised import tried
from ms_automl.models.weights import Layer, channel_axis, is_transposed
from ms_automl.sparsifier.scope import as_network, unwrapped
from ms_automl.sparsity.compact import Leftover, compact, leftovers

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from ms_automl.models.network import MultiTaskNet
    from ms_automl.sparsifier.sparsifier import Sparsifier


def history(sparsifier: Sparsifier) -> pd.DataFrame:
    """A row for each step that was recorded."""
    return pd.DataFrame(sparsifier.rows)


def summary(sparsifier: Sparsifier) -> pd.DataFrame:
    """A row for each layer that has a λ, and one for all of the model."""
    groups = sparsifier.groups
    alive = (groups.norms() > 0).to(torch.float64)
    ones = torch.ones_like(alive)
    found = pd.DataFrame(
        {
            "layer": groups.names,
            "groups": [int(count) for count in groups.counts],
            "zero groups": (groups.layer_sum(ones) - groups.layer_sum(alive)).int().tolist(),
        }
    )
    values = sparsifier.rule.lambdas()
    found["lambda"] = float("nan") if values is None else values.tolist()
    if len(groups.weights) == len(groups.names):  # a stream of coupled channels has no weight of its own
        zeros = [int((weight == 0).sum()) for weight in groups.weights]
        sizes = [weight.numel() for weight in groups.weights]
        pixels = _pixels(sparsifier.network, sparsifier.image_shape)
        per_image = [pixels.get(name, 0) for name in groups.names]
        found["weights"], found["zero weights"] = sizes, zeros
        found["multiply-adds"] = [size * count for size, count in zip(sizes, per_image, strict=True)]
        found["multiply-adds left"] = [
            (size - zero) * count for size, zero, count in zip(sizes, zeros, per_image, strict=True)
        ]
    found = found.set_index("layer")
    found.attrs = {"grouping": sparsifier.grouping, "why": sparsifier.choice.why}
    return found


def _pixels(network: MultiTaskNet, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """By layer, how often each of its weights is multiplied for an image, over all its calls."""

    def look(twin: MultiTaskNet, images: Tensor) -> dict[str, int]:
        found: dict[str, int] = {}

        def see(name: str, layer: Layer, given: Tensor, made: Tensor) -> None:
            one = given if is_transposed(layer) else made  # what has a pixel, or token, for each product
            found[name] = found.get(name, 0) + one.numel() // one.shape[channel_axis(layer)] // len(images)

        for name, layer in twin.layers().items():
            layer.register_forward_hook(lambda made, given, out, name=name: see(name, made, given[0], out))
        with torch.no_grad():
            twin.eval().trunk(images)
        return found

    images = torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0))
    return tried(look, network, images, "the model fails")


def plot(sparsifier: Sparsifier) -> Figure:
    """Sparsity and losses by step above, λ by layer below."""
    from matplotlib.figure import Figure

    history = sparsifier.history
    columns = [str(name) for name in history]
    figure = Figure(figsize=(7, 6), layout="constrained")
    shares, lambdas = figure.subplots(2, 1, sharex=True)
    if len(history):
        layers = [name for name in columns if name.startswith("sparsity/layer/")]
        for name in layers:
            shares.plot(history["step"], history[name], color="0.8", linewidth=0.8)
        shares.plot(history["step"], history["sparsity"], color="C0", label="of all weights")
        shares.plot([], [], color="0.8", label="of a layer's groups")
        shares.legend(loc="upper left")
        names = [name for name in columns if name.startswith("lambda/")]
        for place, name in enumerate(names):
            shown = history[name].where((history[name] > 0) & (history["step"] <= sparsifier.prox_steps))
            colour = (0.1, 0.3, 0.3 + 0.7 * place / max(1, len(names) - 1))
            lambdas.plot(history["step"], shown, color=colour, linewidth=0.8)
    for axes in (shares, lambdas):
        axes.axvline(sparsifier.prox_steps, color="0.5", linestyle=":")
    shares.set(
        ylabel="share of zeros", ylim=(-0.02, 1.02), title="Sparsity, and λ from the first layer to the last"
    )
    lambdas.set(ylabel="λ", yscale="log", xlabel="optimiser steps; dotted: zeros are frozen")
    return figure


def compacted(sparsifier: Sparsifier, model: nn.Module | None) -> nn.Module:
    """The compact copy of a model, of the sparsifier's own or of one like it."""
    if sparsifier.grouping == "weight":
        raise ConfigError(
            "grouping='weight' zeroes single weights, which leave no channel to take out: take "
            "grouping='input_channel'"
        )
    if sparsifier.pattern is None:
        warnings.warn(
            f"the zeros are not final: {sparsifier.taken} of the {sparsifier.prox_steps} steps after which "
            "they are frozen were taken (steps, prox_share)",
            UserWarning,
            stacklevel=4,
        )
    own = sparsifier.model
    other = own if model is None else unwrapped(model) if isinstance(model, nn.Module) else model
    if type(other) is not type(own) or _shapes(other) != _shapes(own):
        raise ConfigError(
            f"`model` must be a {type(own).__name__} with weights of the shapes that were trained, but got a "
            f"{type(other).__name__}"
        )
    sparsifier.check_layers()
    alive = (sparsifier.groups.norms() > 0).to(sparsifier.groups.size.dtype)
    if sparsifier.pattern is not None and bool((alive > sparsifier.pattern).any()):
        warnings.warn(
            "some of the frozen zeros had come back (other weights were loaded, or sparsifier.step() was not "
            "called): they are zeroed again in the compact model",
            UserWarning,
            stacklevel=4,
        )
    first = next(own.parameters())
    with torch.autocast("cpu", enabled=False), torch.autocast(first.device.type, enabled=False):
        twin = copied(other)
        pattern = alive if sparsifier.pattern is None else sparsifier.pattern
        _zero(twin, own, sparsifier.groups.masks(pattern))
        network = as_network(twin, sparsifier.network.removable)
        small, surgery = compact(network, sparsifier.image_shape, sparsifier.example.detach().cpu())
    _tell_what_stays(leftovers(network, surgery))
    result = small if network is twin else small.trunk
    return _as_before(result.to(first.device), own)


@torch.no_grad()
def _as_before(small: nn.Module, own: nn.Module) -> nn.Module:
    """Every tensor in the precision that it had: compaction computes in float32."""
    types = {name: value.dtype for name, value in [*own.named_parameters(), *own.named_buffers()]}
    for name, value in [*small.named_parameters(), *small.named_buffers()]:
        if value.is_floating_point() and name in types:
            value.data = value.data.to(types[name])
    return small


def _shapes(model: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, value.shape) for name, value in model.named_parameters()]


@torch.no_grad()
def _zero(twin: nn.Module, own: nn.Module, masks: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Multiply a copy's parameters by masks that belong to the model's."""
    names = {id(value): name for name, value in own.named_parameters()}
    theirs = dict(twin.named_parameters())
    for value, mask in masks:
        value_of_twin = theirs[names[id(value)]]
        value_of_twin.mul_(mask.to(value_of_twin.device))


def _tell_what_stays(left: Mapping[str, Leftover]) -> None:
    """Warn where more than half of the zeros could not be taken out."""
    zeros, stayed = sum(one.zeros for one in left.values()), sum(one.stayed for one in left.values())
    if stayed <= zeros / 2:
        return
    worst = max(left.items(), key=lambda item: item[1].stayed)
    warnings.warn(
        f"{stayed / zeros:.0%} of the zero weights stay in the compact model, such as in '{worst[0]}' "
        f"({worst[1].why or 'channels that the trace does not follow'})",
        UserWarning,
        stacklevel=5,
    )
