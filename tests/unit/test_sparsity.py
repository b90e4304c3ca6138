from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms_automl.sparsity import (
    ChannelGroups,
    TaylorImportance,
    cubic_ramp,
    measure,
    prox_,
    proximal,
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


def gradients(groups: ChannelGroups, seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(weight.shape, generator=generator) for weight in groups.weights]


# ---- groups ---------------------------------------------------------------------------------------------


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


# ---- prox -----------------------------------------------------------------------------------------------


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


def test_the_pure_prox_is_the_one_in_place_and_its_derivative_that_of_differences(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES, removable=(1,))
    start = [weight.detach().double() for weight in groups.weights]
    groups.size = groups.size.double()
    start[0][:, 2] = 0  # a group that is gone
    rho = torch.tensor([1.1, 0.2, 0.9], dtype=torch.float64, requires_grad=True)

    def run(rho: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(proximal(groups, tensors, thresholds(groups, rho.exp(), 0.3)))

    moved = run(rho, *start)
    for weight, value in zip(groups.weights, start, strict=True):
        weight.data = value.clone()
    threshold = thresholds(groups, rho.detach().exp(), 0.3)
    prox_(groups, threshold)
    assert 0 < int((groups.norms() == 0).sum()) < 12
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


# ---- measures -------------------------------------------------------------------------------------------


def test_group_and_parameter_sparsity_differ_where_groups_differ_in_size(make_groups: MakeGroups) -> None:
    groups = make_groups([(2, 4, 3), (2, 1, 1)])
    groups.scale_(torch.tensor([1.0, 1.0, 0.0, 1.0]))
    small = measure(groups)
    assert small.group == 0.25
    assert small.param == pytest.approx(1 / 74)
    assert small.density == pytest.approx(73 / 74)
    assert small.layers == {"0": 0.0, "1": 0.5}


def test_a_tiny_weight_is_no_zero(make_groups: MakeGroups) -> None:
    groups = make_groups([(2, 2, 1)])
    groups.scale_(torch.tensor([1e-12, 1.0]))
    assert measure(groups).group == 0


# ---- importance -----------------------------------------------------------------------------------------


def test_the_cost_is_the_root_of_the_averaged_squared_change_per_weight(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    importance = TaylorImportance(groups, decay=0.8)
    observed = [gradients(groups, seed) for seed in range(4)]
    for one in observed:
        importance.observe(one)
    position = 0
    for index, weight in enumerate(groups.weights):
        for c in range(weight.shape[1]):
            total = weights = 0.0
            for age, one in enumerate(reversed(observed)):
                change = float((one[index][:, c] * weight.detach()[:, c]).sum())
                total, weights = total + 0.8**age * change**2, weights + 0.8**age
            expected = (total / weights) ** 0.5 / weight[:, c].numel()
            assert float(importance.cost()[position]) == pytest.approx(expected, rel=1e-4)
            position += 1


@given_fixtures
@given(shapes=shapes, share=st.floats(0.01, 1), seed=st.integers(0, 99), everything=st.booleans())
def test_the_cheapest_groups_hold_the_share_and_no_needed_layer_is_emptied(
    make_groups: MakeGroups,
    shapes: list[tuple[int, int, int]],
    share: float,
    seed: int,
    everything: bool,
) -> None:
    groups = make_groups(shapes, tuple(range(len(shapes))) if everything else (), seed)
    importance = TaylorImportance(groups)
    importance.observe(gradients(groups, seed))
    cost, chosen = importance.cost(), importance.lowest(share)
    kept = groups.layer_sum((~chosen).float())
    assert everything or bool((kept >= 1).all())
    keepers = groups.strongest(cost)
    free = ~chosen & ~keepers
    held = float(groups.size[chosen].sum())
    if bool(free.any()):  # otherwise all that may go is gone
        assert held >= share * groups.total * (1 - 1e-6)
        assert not bool(chosen.any()) or float(cost[chosen].max()) <= float(cost[free].min())
    if bool(chosen.any()):
        assert held - float(groups.size[chosen].max()) < share * groups.total


def test_without_a_difference_in_cost_the_share_is_held_all_the_same(make_groups: MakeGroups) -> None:
    groups = make_groups([(8, 2, 1)])
    chosen = TaylorImportance(groups).lowest(0.5)
    assert int(chosen.sum()) == 4


def test_a_share_of_nothing_takes_nothing(make_groups: MakeGroups) -> None:
    importance = TaylorImportance(make_groups(SHAPES))
    assert not bool(importance.lowest(0.0).any())


def test_groups_that_are_gone_stay_among_the_cheapest(make_groups: MakeGroups) -> None:
    groups = make_groups([(8, 2, 1)])
    importance = TaylorImportance(groups)
    importance.observe(gradients(groups))
    order = importance.cost().argsort()
    gone = torch.zeros(8, dtype=torch.bool)
    gone[order[-2:]] = True  # what cost most when it was asked again
    assert bool(importance.lowest(2 / 8, gone)[gone].all())
    chosen = importance.lowest(3 / 8, gone)
    assert set(chosen.nonzero().flatten().tolist()) == {*order[-2:].tolist(), int(order[0])}
    assert not bool(importance.lowest(1.0, gone)[order[-3]])


def test_a_saved_average_goes_on_as_if_never_saved(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    one, other = TaylorImportance(groups), TaylorImportance(groups)
    one.observe(gradients(groups, 1))
    other.load_state_dict(one.state_dict())
    for importance in (one, other):
        importance.observe(gradients(groups, 2))
    assert torch.equal(one.cost(), other.cost())
    assert bool((one.cost() > 0).all())


def test_the_ramp_starts_at_nothing_reaches_its_level_before_the_end_and_never_falls() -> None:
    course = [cubic_ramp(0.8, phase / 100) for phase in range(101)]
    assert course[0] == 0
    assert course[85:] == [0.8] * 16
    assert course == sorted(course)
    assert cubic_ramp(0.8, 0.425) == pytest.approx(0.8 * (1 - 0.5**3))
