"""Compaction: channels that are zero, or that nobody reads, are taken out of the network for good.

What a zero group saves depends on who else needs the channel. The trace says which channels are one, written
together and read together. A channel goes when

- nobody reads it: every reader's weights for it are zero, and it is no part of the network's input or output; or
- it is the same in every pixel of every image, because all that writes it is zero. Behind a batch norm with β ≠ 0
  such a channel still emits relu(β), and a constant cannot be folded into the reader's bias, because it ends at
  zero padding. Its readers' weights for it are added to those of another constant channel instead, scaled by the
  ratio of the two constants: exact at the borders too, and one constant channel of many stays.

A channel of a residual stream that one reader ignores and another needs stays; the convolution that ignores it
reads the others alone (:class:`~ms_automl.models.replaced.SelectedConv2d`), where picking them costs less than it
saves.

What goes follows from the weights and the trace. It is proved twice: on the network itself, and on a copy with
random weights that are zero where the network's are, in which nothing is closed or saturated by accident.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, contract
from ms_automl.models.copying import copied
from ms_automl.models.surgery import Surgery, foldable, operate
from ms_automl.models.weights import LAYERS, attends, is_transposed, main_weight
from ms_automl.sparsity.culprit import culprit
from ms_automl.sparsity.cutting import Cutting, picking_pays
from ms_automl.sparsity.equality import check_equal, probes
from ms_automl.sparsity.marks import Shrinking, Way


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

    Its outputs are compared with the network's own, on random images of several scales and on those given.

    Args:
        network: it is copied; factored convolutions are contracted.
        image_shape: (channels, H, W).
        images: [B, channels, H, W] real ones, for the comparison.

    Raises:
        NetworkError: where the network cannot be traced, or where an output differs by more than `TOLERANCE`.
    """
    try:
        masked = contract(network).cpu().float().eval()
        for module in masked.modules():
            if isinstance(module, nn.RMSNorm) and module.eps is None:  # else it is another one in each precision
                module.eps = torch.finfo(torch.float32).eps
        batches = probes(image_shape, images)
        real = [] if images is None else [images.float()]
        return _proved(masked, batches, real)
    except NetworkError:
        raise
    except Exception as error:  # a stranger's network may do anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NetworkError(f"the network cannot be compacted ({reason})") from error


def prove(network: MultiTaskNet, batches: Sequence[Tensor]) -> None:
    """Compact a network, and compare its outputs before and after.

    Args:
        network: in evaluation mode; it is copied.
        batches: of images [B, channels, H, W], as :func:`~ms_automl.sparsity.equality.probes` makes them.

    Raises:
        Exception: where an output differs, or whatever a stranger's network raises.
    """
    _check(network, settled(network, batches)[0], batches)


def randomised(network: MultiTaskNet, seed: int = 0, *, zeros: bool = True) -> MultiTaskNet:
    """A copy with random weights, biases and statistics of batch norms, in evaluation mode.

    Args:
        network: it stays as it is.
        seed: of the numbers.
        zeros: whether what is 0 stays 0.
    """
    network, generator = copied(network).eval(), torch.Generator().manual_seed(seed)

    def signs(tensor: Tensor) -> Tensor:  # none near 0
        return (0.5 + torch.rand(tensor.shape, generator=generator)) * (
            1 - 2 * torch.randint(2, tensor.shape, generator=generator)
        )

    with torch.no_grad():
        for parameter in (one for one in network.parameters() if one.is_floating_point()):
            value = signs(parameter)
            if parameter.ndim > 1:
                value = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
            parameter.copy_(torch.where((parameter == 0) & zeros, 0, value))
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.copy_(signs(module.running_mean))
                module.running_var.copy_(signs(module.running_var).abs())
    return network


def _proved(
    masked: MultiTaskNet, batches: Sequence[Tensor], real: Sequence[Tensor]
) -> tuple[MultiTaskNet, Surgery]:
    """The compact network, its batch norms folded where nothing else needs what they take in."""
    shrinking = settled(randomised(masked), batches)[2]
    cut, surgery, _ = settled(masked, batches, shrinking)
    folded, result = foldable(cut, batches[0]), copy.deepcopy(cut).eval()
    if folded:
        operate(result, Surgery(folded=folded))
        try:
            _check(masked, result, batches, real)
            return result, replace(surgery, folded=folded)
        except Exception:  # then without
            pass
    _check(masked, cut, batches, real)
    return cut, surgery


def settled(
    masked: MultiTaskNet,
    batches: Sequence[Tensor],
    shrinking: Shrinking = MappingProxyType({}),
) -> tuple[MultiTaskNet, Surgery, Shrinking]:
    """The network cut so that it works, and what shrinks in which class for that.

    Where what is cut fails or computes something else, sizes are written in some class's code: another part of its
    axes shrinks instead, or nothing that passes through it.
    """
    while True:
        cut = copy.deepcopy(masked).eval()
        layers = [f"trunk.{name}" for name, one in cut.layers().items() if _may_be_replaced(cut, name, one)]
        cutting = Cutting(cut, layers, batches[0], shrinking)
        surgery = cutting.run()
        try:
            operate(cut, surgery)
            _check(masked, cut, batches)
            return cut, surgery, shrinking
        except Exception:
            kept = cutting.kept_of_outputs()
            kinds = (culprit(masked, cut, batch, kept) for batch in batches)
            kind = next((one for one in kinds if one is not None), None)
            if kind is None or (way := shrinking.get(kind, Way()).next(cutting.sizes_of(kind))) is None:
                raise
            shrinking = {**shrinking, kind: way}


def _may_be_replaced(network: MultiTaskNet, name: str, layer: nn.Module) -> bool:
    """Whether another layer may stand in its place: torch's own encoder layers take weights out of theirs."""
    holder = network.trunk.get_submodule(name.rpartition(".")[0])
    encodes = isinstance(holder, nn.TransformerEncoderLayer)
    return isinstance(layer, LAYERS) and not encodes


def _check(
    masked: MultiTaskNet, result: MultiTaskNet, batches: Sequence[Tensor], real: Sequence[Tensor] = ()
) -> None:
    """In float64, where rounding is no excuse; whole batches of real images as they will be computed."""
    if real:
        check_equal(masked, result, real)
    try:
        precise = copy.deepcopy(masked).double().eval()
        with torch.no_grad():
            precise(batches[0].double())
    except Exception:  # a type that is written in the code
        check_equal(masked, result, batches)
        return
    check_equal(precise, copy.deepcopy(result).double().eval(), [batch.double() for batch in batches])


def _with_zeros(network: MultiTaskNet) -> dict[str, nn.Module]:
    """By name, what of a trunk mixes channels by weights that may be zero; attention and its output one by one."""
    found: dict[str, nn.Module] = dict(network.penalised())
    attention = {name: one for name, one in network.trunk.named_modules() if attends(one)}
    return found | attention | {f"{name}.out_proj": one.out_proj for name, one in attention.items()}


def leftovers(network: MultiTaskNet, surgery: Surgery) -> dict[str, Leftover]:
    """What of the zeroed weights could not be taken out, by layer.

    Args:
        network: before compaction.
        surgery: what :func:`compact` cut out of it.
    """
    found = {}
    for name, module in _with_zeros(contract(network)).items():
        path = f"trunk.{name}"
        zero = module.get_parameter(main_weight(module)).detach() == 0
        zero = zero.transpose(0, 1) if is_transposed(module) else zero
        rows = surgery.outputs.get(path, list(range(zero.shape[0])))
        columns = surgery.inputs.get(path, list(range(zero.shape[1])))
        columns = [columns[index] for index in surgery.selected.get(path, range(len(columns)))]
        gone = path in surgery.empty or path.removesuffix(".out_proj") in surgery.empty
        kept = zero[:0] if gone else zero[rows][:, columns]
        why = []
        if kept.numel() and bool(kept.flatten(1).all(1).any()):
            why.append("filters that others of their residual stream need")
        if kept.numel() and bool((unread := kept.transpose(0, 1).flatten(1).all(1)).any()):
            other = "inputs that other code than the layer's own reads"
            why.append(
                other
                if picking_pays(kept, ~unread.numpy())
                else "inputs that cost more to pick from than they save"
            )
        if int(kept.sum()) and not why:
            why.append("single weights")
        found[name] = Leftover(int(zero.sum()), int(kept.sum()), "; ".join(why))
    return found
