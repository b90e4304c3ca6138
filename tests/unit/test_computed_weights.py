"""A weight that is computed from others is in no group: a zero of it would be none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet, check_network
from ms_automl.sparsity import build_groups
from tests.unit.chains import SHAPE, TASK, chain, conv, kept_zero


class LowRank(nn.Module):
    """W + B A."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.randn(conv.out_channels, 2))
        self.a = nn.Parameter(torch.randn(2, conv.weight[0].numel()))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def low_rank(module: nn.Conv2d) -> nn.Module:
    return parametrize.register_parametrization(module, "weight", LowRank(module))


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "low rank": low_rank,
}


@pytest.mark.parametrize("computed", COMPUTED.values(), ids=COMPUTED)
def test_a_computed_weight_is_in_no_group_and_alone_it_is_refused(computed: Callable[..., nn.Module]) -> None:
    network = chain(computed(conv(8, 8)))
    check_network(network, SHAPE, [TASK])
    for grouping in ("input_channel", "output_channel", "weight"):
        groups = build_groups(network, grouping, SHAPE)
        assert groups.names == ("0", "4")
        assert "computed from other parameters" in groups.left_out["2"]
    kept_zero(groups, network)
    alone = MultiTaskNet(nn.Sequential(computed(conv(3, 8))), {"d": conv(8, 1)})
    for refuse in (lambda: check_network(alone, SHAPE, [TASK]), lambda: build_groups(alone, "weight", SHAPE)):
        with pytest.raises(NetworkError, match=r"no channel of the trunk can be driven to zero: '0' .*computed"):
            refuse()


@pytest.mark.parametrize("computed", COMPUTED.values(), ids=COMPUTED)
def test_coupled_channels_that_a_computed_weight_writes_stay(computed: Callable[..., nn.Module]) -> None:
    network = chain(computed(conv(8, 8))).eval()
    groups = build_groups(network, "coupled", SHAPE)
    assert groups.names == ("4",)  # what '2' writes has no group, nor has what it reads: its columns cannot be cut
    assert groups.counts == [8]
    assert groups.left_out["0"] == "it ends in a place where its zeros cannot be taken out"
    before = network.trunk[2].weight.detach().clone()
    groups.scale_((torch.arange(len(groups.layer)) % 2).float())
    assert torch.equal(network.trunk[2].weight, before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    "hooked",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda module: prune.l1_unstructured(module, "weight", amount=0.5),
        lambda module: prune.ln_structured(module, "weight", amount=0.5, n=2, dim=1),
    ],
    ids=["weight_norm", "spectral_norm", "pruned", "pruned channels"],
)
def test_a_weight_that_a_hook_computes_is_refused_with_what_to_do(hooked: Callable[..., nn.Module]) -> None:
    network = chain(hooked(conv(8, 8)))
    for _ in range(2):  # a forward leaves another tensor behind
        with pytest.raises(NetworkError, match=r"'weight' of 'trunk\.2' is computed by a hook.*make it a param"):
            check_network(network, SHAPE, [TASK])
        with pytest.raises(NetworkError, match=r"'weight' of 'trunk\.2' is computed by a hook"):
            build_groups(network, "input_channel", SHAPE)
        network(torch.randn(1, *SHAPE))
    head = MultiTaskNet(conv(3, 8), {"d": hooked(conv(8, 1))})
    with pytest.raises(NetworkError, match=r"'weight' of 'heads\.d' is computed by a hook"):
        check_network(head, SHAPE, [TASK])
