import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ms_automl.errors import ConfigError
from ms_automl.sparsity import GROUPINGS, ChannelGroups, measure, prox_

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(3, 4, 3), (4, 2, 1), (2, 5, 3)]


def each_group(groups: ChannelGroups) -> list[Tensor]:
    return [weight.detach()[:, c] for weight in groups.weights for c in range(weight.shape[1])]


def gradients(groups: ChannelGroups, seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(weight.shape, generator=generator) for weight in groups.weights]


def test_a_group_is_one_input_channel_of_one_convolution(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, removable=(1,))
    assert groups.names == ("0", "1", "2")
    assert groups.layer.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert groups.size.tolist() == [36, 36, 36, 2, 2, 2, 2, 45, 45]
    assert groups.total == 3 * 36 + 4 * 2 + 2 * 45
    assert groups.removable.tolist() == [False, True, False]


def test_norms_inner_products_and_sums_agree_with_loops_over_groups(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    other = gradients(groups)
    flat = [g[:, c] for g in other for c in range(g.shape[1])]
    expected = torch.stack([(a * b).sum() for a, b in zip(each_group(groups), flat, strict=True)])
    torch.testing.assert_close(groups.inner(groups.weights, other).detach(), expected)
    torch.testing.assert_close(groups.norms(), torch.stack([g.norm() for g in each_group(groups)]))
    values = torch.arange(9.0)
    assert groups.layer_sum(values).tolist() == [0 + 1 + 2, 3 + 4 + 5 + 6, 7 + 8]


def test_values_by_group_broadcast_over_the_weights_of_their_group(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    before, factors = each_group(groups), torch.arange(9.0)
    expected = [float(factor) * group.clone() for factor, group in zip(factors, before, strict=True)]
    groups.scale_(factors)
    assert all(torch.equal(a, b) for a, b in zip(each_group(groups), expected, strict=True))
    assert [tuple(part.shape) for part in groups.per_weight(factors)] == [(1, 3, 1, 1), (1, 4, 1, 1), (1, 2, 1, 1)]


def test_the_groups_are_the_live_weights_in_any_memory_format(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    norms = groups.norms()
    for weight in groups.weights:
        weight.data = weight.data.to(memory_format=torch.channels_last)
    torch.testing.assert_close(groups.norms(), norms)
    with torch.no_grad():
        groups.weights[1].mul_(2)
    torch.testing.assert_close(groups.norms()[3:7], 2 * norms[3:7])


def test_the_strongest_group_is_one_of_each_layer_that_must_pass_the_signal(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, removable=(1,))
    values = torch.tensor([1.0, 3.0, 2.0, 9.0, 1.0, 1.0, 1.0, 5.0, 4.0])
    assert groups.strongest(values).nonzero().flatten().tolist() == [1, 7]
    assert groups.strongest(torch.zeros(9)).nonzero().flatten().tolist() == [0, 7]


# ---- every kind -----------------------------------------------------------------------------------------

each_grouping = pytest.mark.parametrize("grouping", GROUPINGS)
CHAIN = {  # which of SHAPES' weights [out, in, kh, kw] make up the groups, written out
    "input_channel": [
        [(layer, np.s_[:, c])] for layer, (inputs, _, _) in enumerate(SHAPES) for c in range(inputs)
    ],
    "output_channel": [
        [(layer, np.s_[c])] for layer, (_, outputs, _) in enumerate(SHAPES) for c in range(outputs)
    ],
    "coupled": [
        [(layer, np.s_[c])] + ([(layer + 1, np.s_[:, c])] if layer + 1 < len(SHAPES) else [])
        for layer, (_, outputs, _) in enumerate(SHAPES)
        for c in range(outputs)
    ],
    "weight": [
        [(layer, np.s_[o, i, y, x])]
        for layer, (inputs, outputs, kernel) in enumerate(SHAPES)
        for o, y, x, i in itertools.product(range(outputs), range(kernel), range(kernel), range(inputs))
    ],
}


@each_grouping
def test_sizes_norms_and_inner_products_are_those_of_loops_over_the_groups(
    grouping: str, make_groups: MakeGroups
) -> None:
    groups, places = make_groups(SHAPES, grouping=grouping), CHAIN[grouping]
    other = gradients(groups)
    assert groups.names == ("0", "1", "2")
    assert groups.size.tolist() == [sum(other[i][at].numel() for i, at in group) for group in places]
    assert groups.total == sum(weight.numel() for weight in groups.weights)
    expected = [sum((groups.weights[i][at] * other[i][at]).sum() for i, at in group) for group in places]
    torch.testing.assert_close(groups.inner(groups.weights, other), torch.stack(expected))
    squares = [sum(groups.weights[i][at].square().sum() for i, at in group) for group in places]
    torch.testing.assert_close(groups.norms(), torch.stack(squares).sqrt())
    assert groups.layer.tolist() == [group[0][0] for group in places]


@each_grouping
def test_scaling_reaches_the_weights_of_the_group_and_no_other(grouping: str, make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, grouping=grouping)
    factors = torch.linspace(0.5, 2, len(groups.layer))
    factors[::3] = 0
    expected = [weight.detach().clone() for weight in groups.weights]
    for factor, group in zip(factors, CHAIN[grouping], strict=True):
        for i, at in group:
            expected[i][at] *= factor
    groups.scale_(factors)
    for found, wanted in zip(groups.weights, expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted)
        assert torch.equal(found == 0, wanted == 0)


@each_grouping
@pytest.mark.parametrize("seed", range(4))
def test_the_weights_that_an_order_zeroes_are_those_that_the_measure_finds(
    grouping: str, seed: int, make_groups: MakeGroups
) -> None:
    groups = make_groups(SHAPES, grouping=grouping)
    order = torch.randperm(len(groups.layer), generator=torch.Generator().manual_seed(seed))
    zeroed = groups.zeroed(order)
    for count in range(1, len(order) + 1, max(1, len(order) // 8)):
        factors = torch.ones_like(groups.size)
        factors[order[:count]] = 0
        groups.scale_(factors)
        assert sum(int((weight == 0).sum()) for weight in groups.weights) == int(zeroed[count - 1])
        assert measure(groups).param * groups.total == pytest.approx(float(zeroed[count - 1]))
    assert int(zeroed[-1]) == groups.total


@each_grouping
def test_an_extreme_strength_leaves_one_group_of_a_layer_that_must_pass_the_signal(
    grouping: str, make_groups: MakeGroups
) -> None:
    removable = () if grouping == "coupled" else (1,)  # what reads a stream that is gone is gone with it
    groups = make_groups(SHAPES, removable, grouping=grouping)
    prox_(groups, torch.full_like(groups.size, 1e6))
    kept = groups.layer_sum((groups.norms() > 0).float())
    assert kept.tolist() == [1, 0 if removable else 1, 1]


def test_an_unknown_grouping_is_refused_with_the_known_ones(make_groups: MakeGroups) -> None:
    with pytest.raises(
        ConfigError, match="unknown grouping 'couple': did you mean 'coupled'\\? Known: input_channel"
    ):
        make_groups(SHAPES, grouping="couple")
