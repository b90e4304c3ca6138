"""How sparse to become: the reference's rise, the level asked for and the level learned from a price."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ms_automl.errors import ConfigError
from ms_automl.meta import Reference
from ms_automl.meta.level import AskedLevel, PricedLevel
from ms_automl.meta.reference import FLOOR
from ms_automl.meta.step import Evaluation

COURSE = Reference({"a": 0.5, "b": 2.0}, [(10, {"a": 1.0, "b": 4.0}), (20, {"a": 0.5, "b": 2.0})])


def seen(density: float, rise: float, phase: float = 0.5, step: int = 10) -> Evaluation:
    """An evaluation whose losses lie ``rise`` over the dense network's at that step."""
    dense = dict(COURSE.course)[step]
    return Evaluation(step, phase, {name: (1 + rise) * loss for name, loss in dense.items()}, density)


def priced(price: float = 1.0, **changes: float) -> PricedLevel:
    return PricedLevel(price, COURSE, **changes)


# ---- the reference --------------------------------------------------------------------------------------


def test_the_rise_is_the_mean_ratio_to_the_dense_network_at_the_same_step_less_one() -> None:
    assert COURSE.rise(10, {"a": 1.5, "b": 2.0}) == pytest.approx((1.5 + 0.5) / 2 - 1)
    assert COURSE.rise(20, {"a": 1.5, "b": 2.0}) == pytest.approx((3.0 + 1.0) / 2 - 1)
    assert COURSE.rise(20, {"a": 0.5, "b": 2.0}) == 0


def test_the_rise_counts_the_tasks_that_were_evaluated_alone() -> None:
    assert COURSE.rise(10, {"b": 8.0}) == pytest.approx(1.0)


def test_a_step_the_reference_was_not_measured_at_is_refused_with_those_it_was() -> None:
    with pytest.raises(ConfigError, match=r"no probe at step 15 \(it has 10, 20\): train it with probe=True"):
        COURSE.rise(15, {"a": 1.0})
    with pytest.raises(ConfigError, match=r"no probe at step 15 \(it has none\)"):
        Reference({"a": 1.0}).rise(15, {"a": 1.0})


def test_a_dense_loss_near_zero_does_not_make_the_rise_explode() -> None:
    reference = Reference({"a": 1.0}, [(1, {"a": 1e-9})])
    assert reference.rise(1, {"a": FLOOR}) == 0
    assert reference.rise(1, {"a": 2 * FLOOR}) == pytest.approx(1.0)


# ---- the level that is asked for ------------------------------------------------------------------------


def test_an_asked_level_stays_what_it_is_whatever_is_observed() -> None:
    level = AskedLevel(0.44)
    level.observe(seen(0.1, 9.0))
    again = AskedLevel(0.44)
    again.load_state_dict(level.state_dict())
    assert level.share == again.share == 0.44


# ---- the level that a price sets ------------------------------------------------------------------------


@given(
    cost=st.floats(0.002, 2.0),
    densities=st.lists(st.floats(0.05, 0.9), min_size=1, max_size=8),
    guess=st.floats(0.01, 1.0),
)
def test_exact_measurements_give_back_what_remains_of_the_cost_as_the_doubt_goes_to_nothing(
    cost: float, densities: list[float], guess: float
) -> None:
    level = priced(guess=guess, doubt=1e-9)
    for index, density in enumerate(densities):
        level.observe(seen(density, cost * (1 / density - 1), phase=(index + 1) / 8))
    assert level.cost == pytest.approx(2 / 3 * cost, rel=1e-3)


def test_the_share_is_where_the_marginal_loss_is_the_price() -> None:
    for cost, price in ((0.05, 1.0), (0.2, 0.5), (0.01, 4.0)):
        share = priced(price, guess=cost).share
        assert share == pytest.approx(1 - math.sqrt(cost / price))

        def paid(share: float, cost: float = cost, price: float = price) -> float:
            return 1 + cost * (1 / (1 - share) - 1) + price * (1 - share)

        assert paid(share) < min(paid(share - 0.01), paid(share + 0.01))


@given(low=st.floats(0.0, 10.0), high=st.floats(0.0, 10.0), rise=st.floats(-0.2, 3.0))
def test_a_higher_price_never_gives_a_lower_share(low: float, high: float, rise: float) -> None:
    assume(low <= high)
    levels = priced(low), priced(high)
    for level in levels:
        level.observe(seen(0.5, rise))
        assert 0 <= level.share < 1
    assert levels[0].share <= levels[1].share


def test_a_price_that_can_be_afforded_moves_the_share_strictly() -> None:
    shares = [priced(price).share for price in (0.1, 0.5, 1.0, 5.0)]
    assert shares == sorted(set(shares))


@pytest.mark.parametrize("price", [0.0, 0.01, 0.05])
def test_where_the_first_weight_costs_more_than_the_price_nothing_goes(price: float) -> None:
    assert priced(price, guess=0.05).share == 0.0


def test_before_anything_is_measured_the_cost_is_the_guess() -> None:
    assert priced(guess=0.3, doubt=7.0).cost == pytest.approx(0.3)


def test_a_measurement_moves_the_cost_from_the_guess_towards_it_and_doubt_holds_it_back() -> None:
    costs = []
    for doubt in (0.01, 1.0, 100.0):
        level = priced(guess=0.1, doubt=doubt)
        level.observe(seen(0.5, 0.75, phase=1.0))  # a = 0.5 in the end
        costs.append(level.cost)
    assert 0.1 < costs[2] < costs[1] < costs[0] < 0.5
    assert costs[1] == pytest.approx(0.3), "a doubt of 1 is worth one whole measurement at half density"


def test_what_is_measured_early_counts_less() -> None:
    early, late = priced(guess=0.1), priced(guess=0.1)
    early.observe(seen(0.5, 0.5, phase=0.1))
    late.observe(seen(0.5, 0.5, phase=0.9))
    assert 0.1 < early.cost < late.cost
    beginning = priced(guess=0.1)
    beginning.observe(seen(0.5, 0.5, phase=0.0))
    assert beginning.cost == pytest.approx(0.1)


def test_a_dense_network_says_nothing_of_the_cost() -> None:
    level = priced(guess=0.1)
    level.observe(seen(1.0, 0.7))
    assert level.cost == pytest.approx(0.1)


def test_a_sparse_network_that_is_better_than_the_dense_one_is_no_licence() -> None:
    level = priced()
    for phase in (0.2, 0.5, 0.9):
        level.observe(seen(0.3, -0.5, phase))
    assert level.cost == 1e-3
    assert level.share == pytest.approx(1 - math.sqrt(1e-3))


def test_a_collapse_is_answered_by_a_lower_share() -> None:
    level = priced()
    before = level.share
    level.observe(seen(0.05, 40.0))
    assert level.share < before


def test_a_priced_level_goes_on_from_a_copy_of_its_state() -> None:
    level = priced()
    level.observe(seen(0.5, 0.2))
    state = level.state_dict()
    again = priced()
    again.load_state_dict(state)
    assert again.cost == level.cost != priced().cost
    level.observe(seen(0.4, 0.9, 0.9, 20))
    again.observe(seen(0.4, 0.9, 0.9, 20))
    assert again.share == level.share
    assert len(state["measured"]) == 1
