from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms_automl.sparsity import (
    GROUPINGS,
    ChannelGroups,
    measure,
    prox_,
    proximal,
    selective_thresholds,
    shrink_factors,
    smallest,
    thresholds,
)

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(3, 4, 3), (4, 2, 1), (2, 5, 3)]
shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3])), min_size=1, max_size=4)
given_fixtures = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def each_group(groups: ChannelGroups) -> list[Tensor]:
    return [weight.detach()[:, c] for weight in groups.weights for c in range(weight.shape[1])]


@given_fixtures
@given(shapes=shapes, strength=st.floats(0, 5), seed=st.integers(0, 99), data=st.data())
def test_the_prox_is_the_group_soft_threshold_with_one_survivor_where_the_signal_must_pass(
    make_groups: MakeGroups,
    shapes: list[tuple[int, int, int]],
    strength: float,
    seed: int,
    data: st.DataObject,
) -> None:
    removable = tuple(index for index in range(len(shapes)) if data.draw(st.booleans()))
    groups = make_groups(shapes, removable, seed)
    lambda_ = torch.tensor([strength * (index + 1) for index in range(len(shapes))])
    threshold = thresholds(groups, lambda_, lr=0.1)
    expected = []
    for index, weight in enumerate(groups.weights):
        columns = [weight.detach()[:, c].clone() for c in range(weight.shape[1])]
        norms = [float(column.norm()) for column in columns]
        bound = 0.1 * strength * (index + 1) * columns[0].numel() ** 0.5
        longest = norms.index(max(norms))
        for c, (column, norm) in enumerate(zip(columns, norms, strict=True)):
            if norm <= bound and c == longest and index not in removable:
                expected.append(column)
            else:
                expected.append(column * max(0.0, 1 - bound / norm))
    prox_(groups, threshold)
    for found, wanted in zip(each_group(groups), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    by_layer = groups.layer_sum((groups.norms() > 0).float())
    assert bool(((by_layer > 0) | groups.removable).all())


def test_the_prox_solves_the_penalised_least_squares_problem(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    start = each_group(groups)
    threshold = thresholds(groups, torch.full((3,), 0.5), lr=0.3)
    before = [group.clone() for group in start]
    prox_(groups, threshold)
    generator = torch.Generator().manual_seed(1)
    for z, x, t in zip(before, each_group(groups), threshold, strict=True):
        best = 0.5 * (x - z).square().sum() + t * x.norm()
        for _ in range(20):
            y = x + 0.05 * torch.randn(x.shape, generator=generator)
            assert 0.5 * (y - z).square().sum() + t * y.norm() >= best


def test_groups_below_the_threshold_become_exact_zeros_and_stay_without_nan(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, removable=(0, 1, 2))
    for _ in range(3):
        prox_(groups, torch.full((9,), 1e3))
        assert all(torch.equal(weight, torch.zeros_like(weight)) for weight in groups.weights)


def test_a_strength_of_zero_changes_no_bit_even_at_zero_groups(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    groups.scale_(torch.tensor([1.0, 0, 1, 0, 1, 1, 1, 1, 1]))
    before = [weight.clone() for weight in groups.weights]
    prox_(groups, thresholds(groups, torch.zeros(3), lr=0.1))
    assert all(torch.equal(a, b) for a, b in zip(before, groups.weights, strict=True))


def test_an_extreme_strength_leaves_the_longest_group_of_a_needed_layer_as_it_is(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, removable=(1,))
    before = [weight.clone() for weight in groups.weights]
    longest = [int(part.argmax()) for part in torch.split(groups.norms(), groups.counts)]
    prox_(groups, thresholds(groups, torch.full((3,), 1e6), lr=1.0))
    assert measure(groups).layers == pytest.approx({"0": 2 / 3, "1": 1.0, "2": 1 / 2})
    for index in (0, 2):
        kept = longest[index]
        assert torch.equal(groups.weights[index][:, kept], before[index][:, kept])


def test_of_groups_of_one_length_a_needed_layer_keeps_one(make_groups: MakeGroups) -> None:
    groups = make_groups([(4, 2, 1)])
    with torch.no_grad():
        groups.weights[0].fill_(1.0)
    prox_(groups, torch.full((4,), 100.0))
    assert measure(groups).group == 0.75


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_the_pure_step_is_the_one_in_place_and_its_derivative_that_of_differences(
    grouping: str, make_groups: MakeGroups
) -> None:
    groups = make_groups([(2, 3, 1), (3, 2, 1)], (1,), grouping=grouping)
    groups.size = groups.size.double()
    start = [weight.detach().double() for weight in groups.weights]
    start[0][0] = 0  # a group, or a part of one, that is gone
    rho = torch.full((len(groups.names),), 0.5, dtype=torch.float64, requires_grad=True)

    def run(rho: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(proximal(groups, tensors, thresholds(groups, rho.exp(), 0.4)))

    moved = run(rho, *start)
    for weight, value in zip(groups.weights, start, strict=True):
        weight.data = value.clone()
    prox_(groups, thresholds(groups, rho.detach().exp(), 0.4))
    assert 0 < int((groups.norms() == 0).sum()) < len(groups.size)
    for one, other in zip(moved, groups.weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(run, (rho, *(tensor.requires_grad_() for tensor in start)))


def test_shrink_factors_lie_between_zero_and_one(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    factors = shrink_factors(groups, groups.norms(), torch.linspace(0, 8, 9))
    assert 0 <= float(factors.min()) < float(factors.max()) <= 1


def test_smallest_counts_within_each_layer_from_the_shortest_group_up(make_groups: MakeGroups) -> None:
    groups = make_groups([(4, 1, 1), (2, 1, 1), (3, 1, 1)])
    norms = torch.tensor([4.0, 1.0, 3.0, 2.0, 7.0, 6.0, 5.0, 5.0, 5.0])
    chosen = smallest(groups, norms, torch.tensor([0.5, 0.0, 1 / 3]))
    assert chosen.nonzero().flatten().tolist() == [1, 3, 6]
    assert bool(smallest(groups, norms, torch.ones(3)).all())


def test_chosen_groups_feel_their_layers_lambda_and_the_others_the_rest(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    lambda_, chosen = torch.tensor([3.0, 5.0, 7.0]), torch.arange(len(groups.layer)) % 2 == 0
    found = selective_thresholds(groups, groups.norms(), lambda_, 0.1, chosen, rest=0.2)
    torch.testing.assert_close(found[chosen], thresholds(groups, lambda_, 0.1)[chosen])
    torch.testing.assert_close(found[~chosen], 0.1 * 0.2 * groups.size[~chosen].sqrt())


def test_a_rest_of_zero_leaves_the_others_alone(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    chosen = torch.zeros_like(groups.layer, dtype=torch.bool)
    chosen[0] = True
    found = selective_thresholds(groups, groups.norms(), torch.ones(3), 0.1, chosen, rest=0.0)
    assert bool((found[1:] == 0).all())
    assert float(found[0]) > 0


def test_a_huge_rest_halves_the_others_and_never_zeroes_one(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, removable=(0, 1, 2))
    chosen = torch.arange(len(groups.layer)) < 2
    norms = groups.norms()
    threshold = selective_thresholds(groups, norms, torch.full((3,), 1e6), 0.1, chosen, rest=1e9)
    prox_(groups, threshold)
    assert bool((groups.norms()[chosen] == 0).all())
    torch.testing.assert_close(groups.norms()[~chosen], norms[~chosen] / 2)


def test_a_group_at_zero_is_no_trouble_to_the_rest(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    groups.scale_((torch.arange(len(groups.layer)) > 0).float())
    none = torch.zeros_like(groups.layer, dtype=torch.bool)
    found = selective_thresholds(groups, groups.norms(), torch.ones(3), 0.1, none, rest=0.5)
    assert float(found[0]) == 0
    prox_(groups, found)
    assert bool(torch.isfinite(groups.norms()).all())
