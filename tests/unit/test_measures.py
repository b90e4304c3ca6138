from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ms_automl.sparsity import ChannelGroups, TaylorImportance, cubic_ramp, measure

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(3, 4, 3), (4, 2, 1), (2, 5, 3)]
shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3])), min_size=1, max_size=4)
given_fixtures = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def gradients(groups: ChannelGroups, seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(weight.shape, generator=generator) for weight in groups.weights]


def test_group_and_parameter_sparsity_differ_where_groups_differ_in_size(make_groups: MakeGroups) -> None:
    groups = make_groups([(2, 4, 3), (2, 1, 1)])
    groups.scale_(torch.tensor([1.0, 1.0, 0.0, 1.0]))
    small = measure(groups)
    assert small.group == 0.25
    assert small.param == pytest.approx(1 / 74)
    assert small.density == pytest.approx(73 / 74)
    assert small.layers == {"0": 0.0, "1": 0.5}


def test_the_share_of_the_whole_trunk_counts_what_is_not_penalised(make_groups: MakeGroups) -> None:
    groups = make_groups([(2, 4, 3), (2, 1, 1)])
    groups.share = 74 / 148
    groups.scale_(torch.tensor([1.0, 0.0, 0.0, 1.0]))
    found = measure(groups)
    assert found.param == pytest.approx(37 / 74)
    assert found.trunk == pytest.approx(37 / 148)
    assert found.density == pytest.approx(111 / 148)


def test_a_tiny_weight_is_no_zero(make_groups: MakeGroups) -> None:
    groups = make_groups([(2, 2, 1)])
    groups.scale_(torch.tensor([1e-12, 1.0]))
    assert measure(groups).group == 0


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
