"""Which attribute says how long an axis is: the one that the code gives, and no other that has its value."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ms_automl.models import MultiTaskNet
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact, randomised
from ms_automl.sparsity.lengths import Length, known_lengths

SHAPE = (3, 8, 8)
WIDTH, HEADS = 16, 4  # as many heads as features each has


class Attention(nn.Module):
    """Heads as an attribute, beside others of the same value."""

    def __init__(self) -> None:
        super().__init__()
        self.every, self.head_dim, self.num_heads = 4, WIDTH // HEADS, HEADS
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.kept: object = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = x * (1 + 1 / self.every)
        q, k, v = self.heads_of(self.qkv(x))
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))

    def heads_of(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)


class Unflattened(Attention):
    def heads_of(self, x: Tensor) -> Tensor:
        self.kept = self.num_heads
        return x.unflatten(dim=-1, sizes=(3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)


class Listed(Attention):
    def heads_of(self, x: Tensor) -> Tensor:
        return torch.reshape(x, [*x.shape[:2], 3, self.num_heads, self.head_dim]).permute(2, 0, 3, 1, 4)


class Local(Attention):
    """Through a plain number: nobody sees where it comes from, and trying has to tell."""

    def heads_of(self, x: Tensor) -> Tensor:
        heads = int(str(self.num_heads))
        return x.reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)


class Scaling(Attention):
    """The number of heads is more than a length: they stay."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.num_heads**-0.5


class Net(nn.Module):
    def __init__(self, attention: nn.Module, patch: int) -> None:
        super().__init__()
        self.embed, self.attention, self.head = nn.Conv2d(3, WIDTH, patch, patch), attention, nn.Linear(WIDTH, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(x)).mean(1))


def half(attention: nn.Module, patch: int) -> MultiTaskNet:
    """Two heads at zero, written by hand."""
    torch.manual_seed(0)
    network = randomised(MultiTaskNet(Net(attention, patch), {"kind": nn.Linear(4, 2)}), zeros=False)
    gone = slice(2 * WIDTH // HEADS, WIDTH)
    with torch.no_grad():
        for part in network.trunk.attention.qkv.weight.chunk(3), network.trunk.attention.qkv.bias.chunk(3):
            for rows in part:
                rows[gone] = 0
        network.trunk.attention.proj.weight[:, gone] = 0
    return network


def copied_by_pickle(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    copy_of_it: nn.Module = torch.load(file, weights_only=False)
    return copy_of_it


@pytest.mark.parametrize("patch", [8, 2])  # one token, of which the sizes of heads show in nothing; 16
@pytest.mark.parametrize("attention", [Attention, Unflattened, Listed])
def test_the_number_of_heads_changes_and_nothing_else(attention, patch):
    sparse = half(attention(), patch)
    small, _ = compact(sparse, SHAPE)
    found = small.trunk.attention
    assert (found.num_heads, found.head_dim, found.every) == (2, 4, 4)
    assert all(type(value) is not Length for value in vars(found).values())
    one, other = copy.deepcopy(sparse).double(), copied_by_pickle(small).double()
    for training in (False, True):
        for side in (8, 16, 24):
            images = torch.randn(3, 3, side, side).double()
            expected, given = one.train(training)(images)["kind"], other.train(training)(images)["kind"]
            torch.testing.assert_close(expected, given)


def test_what_is_not_seen_is_found_by_trying():
    small, _ = compact(half(Local(), 2), SHAPE)
    assert (small.trunk.attention.num_heads, small.trunk.attention.head_dim) == (2, 4)


def test_a_number_that_scales_stays():
    sparse = half(Scaling(), 8)
    small, _ = compact(sparse, SHAPE)
    assert small.trunk.attention.num_heads == HEADS
    images = torch.randn(3, 3, 24, 24).double()
    torch.testing.assert_close(sparse.double()(images), small.double()(images))


def test_a_module_is_what_it_was_after_it_was_looked_at():
    module = Unflattened().eval()
    with torch.inference_mode(), known_lengths(module):
        assert isinstance(module.num_heads, Length)
        module(torch.randn(1, 2, WIDTH))
        assert F.one_hot(torch.tensor(1), module.num_heads).shape == (4,)
        assert type(copy.deepcopy(module).num_heads) is int
    assert type(module.num_heads) is int
    assert type(module.kept) is int


def test_groups_are_found_by_heads_where_they_are_as_many_as_features():
    network = MultiTaskNet(Net(Attention(), 8), {"kind": nn.Linear(4, 2)})
    groups = build_groups(network, "coupled", SHAPE)
    assert dict(zip(groups.names, groups.counts, strict=True))["attention.qkv"] == HEADS
