"""What nothing reaches is left out, and it is said what λ acts on."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ms_automl.models import MultiTaskNet, check_network
from ms_automl.sparsity import build_groups, remark
from tests.unit.chains import SHAPE, TASK, apart, chain, conv, half


class Branches(nn.Module):
    """Beside what is used: spare, for training alone, under no_grad, and a weight that another module applies."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.last = conv(3, 8), conv(8, 8)
        self.spare, self.training_only, self.constant = conv(8, 8), conv(8, 8), conv(8, 8)
        self.applied = conv(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.used(images))
        with torch.no_grad():
            y = self.constant(x)
        x = x + y + F.conv2d(x, self.applied.weight + 1, padding=1)
        return self.last(x) + (self.training_only(x) if self.training else 0)


@apart
def test_what_evaluation_or_no_gradient_reaches_is_left_out(grouping: str) -> None:
    network = MultiTaskNet(Branches(), {"d": conv(8, 1)})
    groups = build_groups(network, grouping, SHAPE)
    assert set(groups.names) <= {"used", "last"}
    # What a computed weight, or one without a gradient, writes is heard beside it: such channels have no group.
    assert build_groups(network, "coupled", SHAPE).names == ("last",)
    assert groups.left_out == {
        "spare": "evaluation does not reach it",
        "training_only": "evaluation does not reach it",
        "applied": "evaluation does not reach it",
        "constant": "no gradient reaches it",
    }
    check_network(network, SHAPE, [TASK])


# ---- what is said ---------------------------------------------------------------------------------------


class Patches(nn.Module):
    """A small mixer: a patch embedding, and a table of positions that λ cannot act on."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.embed, self.mix = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16)
        self.positions = nn.Parameter(torch.zeros(positions, 16))

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        tokens = x.flatten(2).mT
        return self.mix(tokens + self.positions[: tokens.shape[1]]).mT.unflatten(2, x.shape[2:])


def test_it_is_said_where_lambda_acts_on_less_than_half_of_the_trunk_or_leaves_something_out() -> None:
    whole = build_groups(chain(conv(8, 8)), "input_channel", SHAPE)
    assert whole.share > 0.9
    assert remark(whole) == ""
    assert remark(build_groups(MultiTaskNet(Patches(16), {"d": nn.Identity()}), "input_channel", SHAPE)) == ""
    trunk = Patches(200)
    groups = build_groups(MultiTaskNet(trunk, {"d": nn.Identity()}), "input_channel", SHAPE)
    parameters = sum(parameter.numel() for parameter in trunk.parameters())
    assert groups.share == (16 * 3 * 16 + 16 * 16) / parameters
    assert remark(groups) == (
        f"λ can act on {100 * groups.share:.3g} % of the trunk's parameters, and no more of them can go to zero"
    )
    half_frozen = build_groups(half(["two"]), "input_channel", SHAPE)
    assert remark(half_frozen).endswith("; left out: 'two' (it is frozen (requires_grad=False))")


def test_the_projection_of_torchs_attention_is_left_out_and_the_rest_of_its_layer_is_not() -> None:
    trunk = nn.Sequential(
        nn.Conv2d(3, 16, 4, 4), nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 64, batch_first=True)
    )
    groups = build_groups(MultiTaskNet(trunk, {"d": nn.Identity()}), "input_channel", SHAPE)
    assert groups.names == ("0", "2.linear1", "2.linear2")
    assert "nn.MultiheadAttention" in groups.left_out["2.self_attn.out_proj"]


class Skipping(nn.Module):
    """Leaves its middle layers out at random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.first(images))
        for layer in self.middle:
            if not self.training or float(torch.rand(())) < 0.5:
                x = x + torch.relu(layer(x))
        return x


@pytest.mark.parametrize("seed", range(6))
def test_layers_that_training_leaves_out_at_random_are_penalised_whatever_is_drawn(seed: int) -> None:
    torch.manual_seed(seed)
    network = MultiTaskNet(Skipping(), {"d": nn.Identity()})
    groups = build_groups(network, "input_channel", SHAPE)
    assert groups.names == ("first", "middle.0", "middle.1", "middle.2")
    assert not groups.left_out
