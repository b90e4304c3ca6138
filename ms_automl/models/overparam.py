"""Overparameterised convolutions: trained as a product of factors, contracted to ordinary ones for inference.

Compact overparameterised multi-task networks (arXiv 2308.13300): factors are shared across tasks, and the product
is taken once after training. The paper's full text could not be had; what follows is our reading of that idea.

A weight [out, in, kh, kw], seen as a matrix [out, in·kh·kw], is W_t = U M_t V:

    U    [out, out]            shared by the T tasks
    M_t  [out, T·out]          of task t
    V    [T·out, in, kh, kw]   shared by the T tasks

The trunk is computed once for all tasks, so its layers have T = 1: U, M and V are all shared. Only layers that
belong to a task have an M_t each: the first convolution of every head, where all heads have one of one shape.

The start is the higher-order SVD (De Lathauwer et al. 2000) of the ordinary initialisation W_t0: with P the left
singular vectors of the stacked [W_10; …; W_T0] and P_t the rows of task t, V = Pᵀ [W_10; …; W_T0], U the left
singular vectors of [W_10 … W_T0], M_t = Uᵀ P_t. The product is then W_t0 exactly, and in the trunk M = I. The
singular values lie in V alone, because P is orthogonal: every input channel has ||V[:, c]|| = ||W[:, c]||, so that
a group of V starts as long as the group of W it stands for, and λ starts where it starts elsewhere. It does not
stay the same λ: U and M may grow while V shrinks. In the trunk V has the shape of W: group sizes and density are
the same, and V[:, c] = 0 gives W[:, c] = 0 exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from ms_automl.errors import NetworkError
from ms_automl.models.copying import copied
from ms_automl.models.heads import place
from ms_automl.models.network import MultiTaskNet
from ms_automl.models.weights import has_own_weight, plain_convolution


class FactoredConv2d(nn.Conv2d):
    """A convolution with W = U M V, contracted before it is applied: one convolution a forward.

    ``weight`` is V, so that the penalty groups of a network, which are read off ``weight``, are those of V.

    Args:
        conv: gives geometry and bias.
        left: U, [out, out].
        core: M, [out, R].
        right: V, [R, in, kh, kw].
    """

    def __init__(self, conv: nn.Conv2d, left: nn.Parameter, core: nn.Parameter, right: nn.Parameter) -> None:
        super().__init__(**_geometry(conv))
        self.left, self.core, self.weight, self.bias = left, core, right, conv.bias
        self.train(conv.training)

    def product(self) -> Tensor:
        """U M V: [out, in, kh, kw]."""
        product: Tensor = torch.einsum("or,rikl->oikl", self.left @ self.core, self.weight)
        return product

    def forward(self, input: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H', W']."""
        output: Tensor = self._conv_forward(input, self.product(), self.bias)
        return output

    def contracted(self) -> nn.Conv2d:
        """The ordinary convolution with the weight U M V."""
        conv = nn.Conv2d(**_geometry(self))
        conv.weight, conv.bias = nn.Parameter(self.product().detach()), self.bias
        return conv.train(self.training)


def overparameterise(network: MultiTaskNet) -> None:
    """Factor a network's convolutions in place: each of the trunk, and the heads' first ones together.

    Its outputs stay the same. Grouped and frozen convolutions, computed weights and classes of one's own stay as
    they are; so do the heads where one has no convolution, or one of another shape, or where there is one head
    only.

    Raises:
        NetworkError: where two convolutions share a weight, which factors of their own would untie.
    """
    convs = [m for _, m in network.named_modules(remove_duplicate=False) if isinstance(m, nn.Conv2d)]
    if max(Counter(id(conv.weight) for conv in convs if has_own_weight(conv)).values(), default=0) > 1:
        raise NetworkError("overparam cannot factor convolutions that share a weight: give each one its own")
    for name, conv in network.penalised().items():
        if _plain(conv):
            network.set_submodule(f"trunk.{name}", _factored([conv])[0])
    firsts = dict(_first_convs(network))
    if len(firsts) == len(network.heads) > 1 and len({conv.weight.shape for conv in firsts.values()}) == 1:
        for name, factored in zip(firsts, _factored(list(firsts.values())), strict=True):
            network.set_submodule(name, factored)


def contract(network: MultiTaskNet) -> MultiTaskNet:
    """A copy of the network with every factored convolution contracted: the same function, ordinary layers."""
    plain = copied(network)
    for name, module in list(plain.named_modules()):
        if isinstance(module, FactoredConv2d):
            plain.set_submodule(name, module.contracted())
    return plain


def _factored(convs: Sequence[nn.Conv2d]) -> list[FactoredConv2d]:
    shape = convs[0].weight.shape
    weights = torch.stack([conv.weight.detach().flatten(1) for conv in convs]).double()  # [T, out, in·kh·kw]
    rows = weights.flatten(0, 1)
    basis, left = _left_singular(rows), _left_singular(weights.transpose(0, 1).flatten(1))

    def parameter(value: Tensor) -> nn.Parameter:
        return nn.Parameter(value.to(convs[0].weight.dtype))

    shared, right = parameter(left), parameter((basis.T @ rows).reshape(-1, *shape[1:]))
    cores = [parameter(left.T @ part) for part in torch.split(basis, shape[0])]
    return [FactoredConv2d(conv, shared, core, right) for conv, core in zip(convs, cores, strict=True)]


def _left_singular(matrix: Tensor) -> Tensor:
    # Eigenvectors of A Aᵀ: a whole basis also where A has fewer columns than rows.
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors
    return vectors.flip(1)


def _first_convs(network: MultiTaskNet) -> Iterator[tuple[str, nn.Conv2d]]:
    """Path and module of the first convolution of each head that begins with one which can be factored."""
    for task, head in network.heads.items():
        convs = ((n, m) for n, m in head.named_modules(prefix=f"heads.{place(task)}") if isinstance(m, nn.Conv2d))
        name, conv = next(convs, ("", None))
        if conv is not None and _plain(conv):
            yield name, conv


def _plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return plain_convolution(layer) and layer.groups == 1 and layer.weight.requires_grad


def _geometry(conv: nn.Conv2d) -> dict[str, Any]:
    """Arguments of a convolution like this one, without bias; on `meta` no random number is drawn."""
    names = (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
    )
    return {name: getattr(conv, name) for name in names} | {"bias": False, "device": "meta"}
