"""Channels that zero weights do not silence: something that is not penalised would still write into them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor, nn

from ms_automl.models.weights import main_weight, mixes, thins_inside


def unmovable(trunk: nn.Module, weights: Iterable[Tensor], known: Collection[str]) -> list[str]:
    """Names of modules in whose output channels a frozen or computed value stays when their group is zero.

    A channel is silent once all that writes it is zero: the rows of penalised layers, and biases and batch
    norm's γ and β, which are zeroed with them. Where one of those is frozen, where it is no parameter, or where a
    layer that is not penalised writes too, the channel says something all the same.

    Args:
        trunk: as it trains.
        weights: those that are penalised.
        known: names of the modules that write coupled channels, or pass them on.
    """
    modules, penalised = dict(trunk.named_modules()), {id(weight) for weight in weights}
    return [name for name in known if not _silent(modules[name], penalised)]


def _silent(module: nn.Module, penalised: Collection[int]) -> bool:
    grouped = isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1 and not thins_inside(module)
    key = main_weight(module)
    if id(module._parameters.get(key)) in penalised or grouped:  # zero weights, or zeros given: the bias is left
        return _zeroable(module, key.replace("weight", "bias"))
    if key != "weight":
        return False
    if isinstance(module, nn.PReLU):
        return True
    if isinstance(module, nn.modules.batchnorm._NormBase):
        # Running averages outlive the channel: without γ they are still subtracted.
        return (module.affine or not module.track_running_stats) and _zeroable(module, "weight", "bias")
    if mixes(module) or thins_inside(module):
        return False
    return _zeroable(module, "weight", "bias")


def _zeroable(module: nn.Module, *keys: str) -> bool:
    parameters = [module._parameters.get(key) for key in keys]
    computed = [key for key in keys if key not in module._parameters and getattr(module, key, None) is not None]
    return not computed and all(parameter is None or parameter.requires_grad for parameter in parameters)
