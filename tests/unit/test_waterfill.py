"""`waterfill`: one removal cost over all layers, below which every group goes."""

from collections.abc import Callable

import pytest
import torch

from ms_automl.meta import KNOTS
from ms_automl.meta.bounds import GivenBounds
from ms_automl.meta.level import AskedLevel, PricedLevel
from ms_automl.meta.step import Evaluation
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.sparsity import ChannelGroups, TaylorImportance, cubic_ramp, measure
from tests.unit.steps import REFERENCE, at, by_group, ones, zeros

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(4, 3, 1), (3, 4, 3), (4, 2, 1)]


def waterfill(
    groups: ChannelGroups, target: float, steps: int = 60, lambda_max: float = 1e4, rest: float = 0.0
) -> WaterfillLearner:
    """Trains nothing: random gradients, and a little noise that moves every group a bit."""
    learned = WaterfillLearner(groups, AskedLevel(target), bounds=GivenBounds(lambda_max, rest), every=10)
    generator = torch.Generator().manual_seed(3)
    for index in range(steps):
        gradients = [torch.randn(weight.shape, generator=generator) for weight in groups.weights]
        with torch.no_grad():
            for weight in groups.weights:
                weight += 1e-3 * torch.randn(weight.shape, generator=generator)
        learned.step(at(index, index / (steps - 1), 0.01, gradients=gradients.copy))
    return learned


@pytest.mark.parametrize("target", [0.1, 0.44, 0.8])
@pytest.mark.parametrize("lambda_max", [1e4, 1e-3])
def test_waterfill_reaches_its_target_and_overshoots_by_less_than_a_group(
    make_groups: MakeGroups, target: float, lambda_max: float
) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3), (16, 4, 1)], removable=(2,))
    waterfill(groups, target, lambda_max=lambda_max)
    found = measure(groups)
    assert target <= found.param < target + float(groups.size.max()) / groups.total
    assert found.layers["0"] < 1
    assert found.layers["1"] < 1


def test_waterfill_shrinks_the_cheapest_groups_only_however_long_they_are(make_groups: MakeGroups) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3)], removable=(0, 1))
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=GivenBounds(1e4), every=1)
    generator, steps = torch.Generator().manual_seed(0), 0
    for index in range(10):
        norms = groups.norms()
        gradients = [torch.randn(w.shape, generator=generator) for w in groups.weights]
        learned.step(at(index, index / 10, 0.01, gradients=gradients.copy))
        touched, cost = groups.norms() != norms, learned.importance.cost()
        if bool(touched.any()):
            steps += 1
            assert float(cost[touched].max()) <= float(cost[~touched & (norms > 0)].min())
    assert steps >= 3
    assert 0 < measure(groups).param < 0.6


def test_a_group_that_has_reached_zero_stays_there_whatever_its_gradient_says(
    make_groups: MakeGroups,
) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3)], removable=(0, 1))
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=GivenBounds(1e4), every=1)
    dead = torch.zeros(len(groups.layer), dtype=torch.bool)
    for index in range(12):
        generator = torch.Generator().manual_seed(index)  # the ranking is another one at every step
        with torch.no_grad():
            for weight in groups.weights:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
        gradients = [torch.randn(w.shape, generator=generator) for w in groups.weights]
        learned.step(at(index, index / 11, 0.01, gradients=gradients.copy))
        now = groups.norms() == 0
        assert bool(now[dead].all())
        dead = now
    assert 0.5 <= measure(groups).param < 0.6


def test_waterfill_takes_nothing_and_needs_no_lambda_at_the_start(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    before = [weight.clone() for weight in groups.weights]
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=GivenBounds(1e4), every=10)
    learned.step(at(0, 0.0, 0.01, gradients=ones(groups)))
    assert learned.lambdas().tolist() == [0, 0, 0]
    assert all(torch.equal(a, b) for a, b in zip(before, groups.weights, strict=True))


def test_waterfills_lambda_is_what_removes_its_longest_chosen_group_up_to_the_bound(
    make_groups: MakeGroups,
) -> None:
    groups = make_groups([(6, 4, 1)], removable=(0,))
    for bound, expected in ((1e4, None), (2.0, 2.0)):
        learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=GivenBounds(bound), every=1)
        learned.importance = TaylorImportance(groups)
        norms = groups.norms()
        learned.step(at(1, 0.85, 0.01, gradients=ones(groups)))
        exact = float(norms[learned.chosen].max()) / (0.01 * 2)
        assert learned.lambdas().item() == pytest.approx(expected or exact, rel=1e-4)
        if expected is None:
            assert measure(groups).group == 0.5
            groups = make_groups([(6, 4, 1)], removable=(0,))


def test_waterfills_schedule_records_lambda_and_shares(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    schedule = waterfill(groups, 0.5).schedule()
    assert len(schedule.values) == KNOTS
    assert schedule.shares is not None
    assert len(schedule.shares) == KNOTS
    assert set(schedule.shares[0]) == {0.0}
    assert max(schedule.shares[-1]) > 0


# ---- the groups that stay -------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [0.0, 0.7, 1e9])
def test_the_groups_that_stay_feel_the_rest_alone_and_are_never_zeroed_by_it(
    make_groups: MakeGroups, rest: float
) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3)], removable=(0, 1))
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=GivenBounds(1e4, rest), every=1)
    for index in range(8):
        norms = groups.norms()
        cost = torch.arange(len(norms)) + 1.0  # the first groups of the first layer go first
        learned.step(at(index, index / 7, 0.01, gradients=by_group(groups, cost)))
        now, living = groups.norms(), norms > 0
        kept = torch.minimum(0.01 * rest * groups.size.sqrt(), norms / 2)
        stays = living & (now > 0)
        chosen = learned.chosen
        torch.testing.assert_close(now[stays & ~chosen], (norms - kept)[stays & ~chosen])
        assert bool(chosen[living & (now == 0)].all()), "only what is chosen dies"
    assert 0.5 <= measure(groups).param < 0.6


def test_no_rest_is_needed_to_reach_the_level_and_a_huge_one_takes_nothing_more(make_groups: MakeGroups) -> None:
    for rest in (0.0, 1.0, 1e9):
        groups = make_groups([(12, 6, 1), (8, 9, 3)], removable=(0, 1))
        waterfill(groups, 0.5, rest=rest)
        assert 0.5 <= measure(groups).param < 0.5 + float(groups.size.max()) / groups.total


# ---- the level ------------------------------------------------------------------------------------------


def test_the_ramp_follows_a_level_that_rises_and_stands_still_where_it_falls(make_groups: MakeGroups) -> None:
    groups = make_groups([(40, 6, 1), (30, 9, 1)], removable=(0, 1))
    level = AskedLevel(0.2)
    learned = WaterfillLearner(groups, level, bounds=GivenBounds(1e6), every=1)
    generator = torch.Generator().manual_seed(0)
    highest = 0.0
    for index in range(21):
        level.share = 0.2 if index < 8 else 0.7 if index < 15 else 0.3
        highest = max(highest, cubic_ramp(level.share, index / 20))
        gradients = [torch.randn(w.shape, generator=generator) for w in groups.weights]
        with torch.no_grad():
            for weight in groups.weights:
                weight += 1e-3 * torch.randn(weight.shape, generator=generator)
        learned.step(at(index, index / 20, 0.01, gradients=gradients.copy))
        assert measure(groups).param == pytest.approx(highest, abs=0.04)
    assert highest > 0.6


def test_a_report_reaches_the_level_and_a_loss_that_rises_lowers_it(make_groups: MakeGroups) -> None:
    level = PricedLevel(1.0, REFERENCE)
    learned = WaterfillLearner(make_groups(SHAPES), level, bounds=GivenBounds(1e4), every=10)
    before = level.share
    assert learned.observe(Evaluation(10, 0.5, {"task": 1.6}, 0.5)) == []
    assert level.share < before
    again = WaterfillLearner(make_groups(SHAPES), PricedLevel(1.0, REFERENCE), bounds=GivenBounds(1e4), every=10)
    again.load_state_dict(learned.state_dict())
    assert again.level.share == level.share


def test_costs_are_watched_at_every_step_and_not_only_where_the_level_is_set(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=GivenBounds(1e4), every=10)
    learned.step(at(0, 0.0, 0.01, gradients=zeros(groups)))
    learned.step(at(1, 0.1, 0.01, gradients=ones(groups)))
    assert float(learned.importance.cost().max()) > 0


# ---- the end --------------------------------------------------------------------------------------------


def test_what_a_bounded_lambda_left_goes_at_once_and_the_warning_says_how_much(make_groups: MakeGroups) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3)])
    learned = waterfill(groups, 0.5, lambda_max=1e-3)
    forced, bound = learned.warnings()
    assert forced.startswith(f"{100 * learned.forced:.0f} % of the weights were not at zero")
    assert "raise lambda.high (now 0.001) or training.steps" in forced
    assert learned.forced == pytest.approx(measure(groups).param, abs=1e-6)
    assert "λ ended at its upper bound 0.001 in" in bound


def test_a_lambda_that_is_large_enough_ends_without_a_word(make_groups: MakeGroups) -> None:
    learned = waterfill(make_groups([(12, 6, 1), (8, 9, 3)]), 0.5)
    assert learned.forced == 0
    assert learned.warnings() == []
