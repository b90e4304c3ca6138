"""`removal`: λ by the balance of what the groups near zero cost and save."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from ms_automl.meta import KNOTS
from ms_automl.meta.hypergradients import Ties
from ms_automl.meta.removal import DEATHS, RemovalLearner
from ms_automl.meta.step import Evaluation
from ms_automl.sparsity import ChannelGroups
from tests.unit.steps import REFERENCE, at, by_group, ones, zeros

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(8, 3, 1), (6, 4, 3), (8, 2, 1)]


def learner(groups: ChannelGroups, ties: Any = None, **changes: Any) -> RemovalLearner:
    arguments = {"price": 1.0, "bounds": (1e-3, 10.0), "start": 0.1, "lr": 0.1, "every": 1, "warmup": 0.0}
    arguments["reference"] = REFERENCE
    own = Ties(groups, ties if ties is not None else range(len(groups.names)))
    return RemovalLearner(groups, own, **(arguments | changes))


def moved(learned: RemovalLearner, start: float = 0.1) -> list[float]:
    return [float(rho) - math.log(start) for rho in learned.rho]


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_price_alone_raises_lambda_and_a_cost_alone_lowers_it_by_one_whole_step(
    make_groups: MakeGroups, size: float
) -> None:
    groups = make_groups(SHAPES)
    priced, costly = learner(groups, price=size), learner(groups, price=0.0)
    priced.step(at(0, 0.0, 1e-6, gradients=zeros(groups)))
    costly.step(at(0, 0.0, 1e-6, gradients=by_group(groups, torch.full_like(groups.size, size))))
    assert moved(priced) == pytest.approx([0.1] * 3, rel=1e-4)
    assert moved(costly) == pytest.approx([-0.1] * 3, rel=1e-4)


def test_costs_against_savings_decide_layer_by_layer_and_no_step_is_longer_than_the_largest(
    make_groups: MakeGroups,
) -> None:
    groups = make_groups(SHAPES)
    level = 1 / groups.total  # the saving per weight at a price of 1
    cost = torch.tensor([0.2, 5.0, 1.0])[groups.layer] * level
    cost[groups.layer == 2] *= torch.tensor([0.5, 1.5]).repeat(4)
    learned = learner(groups)
    learned.step(at(0, 0.0, 1e-6, gradients=by_group(groups, cost)))
    cheap, dear, mixed = moved(learned)
    assert cheap == pytest.approx(0.1, rel=1e-4)
    assert dear == pytest.approx(-0.1, rel=1e-4)
    assert abs(mixed) < 0.0999


def test_a_higher_price_never_gives_a_lower_lambda(make_groups: MakeGroups) -> None:
    ends = []
    for price in (0.0, 0.5, 1.0, 2.0, 1e3):
        groups = make_groups(SHAPES)
        cost = torch.linspace(0.1, 2, len(groups.layer)) / groups.total
        learned = learner(groups, price=price)
        learned.step(at(0, 0.0, 1e-6, gradients=by_group(groups, cost)))
        ends.append(moved(learned))
    for lower, higher in pairwise(ends):
        assert all(a <= b + 1e-6 for a, b in zip(lower, higher, strict=True))
    assert ends[0] == pytest.approx([-0.1] * 3, rel=1e-4)
    assert ends[-1] == pytest.approx([0.1] * 3, rel=1e-4)


def test_groups_far_from_zero_and_groups_at_zero_have_no_say(make_groups: MakeGroups) -> None:
    groups = make_groups([(4, 5, 1)], removable=(0,))
    norms = groups.norms()
    groups.scale_(torch.tensor([0.0, 0.2, 3.0, 3.0]) / norms)
    cost = torch.tensor([0.0, 2.0, 0.0, 0.0]) / groups.total  # the second is near zero, and worth its weights
    learned = learner(groups)
    learned.step(at(0, 0.0, 1e-6, gradients=by_group(groups, cost)))
    assert moved(learned) == pytest.approx([-0.1], rel=1e-4)


def test_tied_layers_share_one_lambda(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, ties=[0, 1, 0])
    learned.step(at(0, 0.0, 1e-6, gradients=ones(groups)))
    first, _, last = learned.lambdas().tolist()
    assert first == last
    assert len(learned.rho) == 2


@pytest.mark.parametrize("count", [8, 100])
@pytest.mark.parametrize("regrown", [0.0, 1e-3])
def test_at_most_three_percent_of_a_layers_groups_die_in_a_step_and_at_least_one_may(
    make_groups: MakeGroups, count: int, regrown: float
) -> None:
    groups = make_groups([(count, 4, 1)])
    learned = learner(groups, start=10.0, price=0.0, every=1000)  # a λ that would take all at once
    allowed, dead = max(1, round(DEATHS * count)), []
    generator = torch.Generator().manual_seed(0)
    for index in range(count // allowed + 5):
        with torch.no_grad():  # an optimiser moves zeros, too: they are not the new dead of the next step
            for weight in groups.weights:
                weight += regrown * torch.randn(weight.shape, generator=generator)
        learned.step(at(index + 1, 0.5, 10.0, gradients=zeros(groups)))
        dead.append(int((groups.norms() == 0).sum()))
    steps = [now - before for before, now in zip([0, *dead], dead, strict=False)]
    assert max(steps) == allowed
    assert dead[-1] == count - 1, "and in time all go but the one that passes the signal"


def test_lambda_rises_from_nothing_over_the_warm_up(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned, found = learner(groups, warmup=0.5, every=1000), []
    assert learned.lambdas().tolist() == [0.0] * 3
    for phase in (0.0, 0.25, 0.5, 1.0):
        learned.step(at(1, phase, 1e-6, gradients=zeros(groups)))
        found.append(learned.lambdas()[0].item())
    assert found == pytest.approx([0.0, 0.05, 0.1, 0.1])


def test_lambda_moves_as_often_as_it_is_told(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned, seen = learner(groups, every=3), []
    for index in range(7):
        learned.step(at(index, index / 6, 1e-6, gradients=zeros(groups)))
        seen.append(learned.rho[0].item() - math.log(0.1))
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3], rel=1e-4)


def test_lambda_stays_within_its_bounds_and_says_where_it_ended_at_one(make_groups: MakeGroups) -> None:
    for price, cost, bound, word in ((1.0, 0.0, 0.2, "upper"), (0.0, 1.0, 0.05, "lower")):
        groups = make_groups(SHAPES)
        learned = learner(groups, price=price, bounds=(0.05, 0.2), lr=10.0)
        assert learned.warnings() == []
        for index in range(4):
            gradients = by_group(groups, torch.full_like(groups.size, cost))
            learned.step(at(index, index / 3, 1e-6, gradients=gradients))
            assert learned.lambdas().tolist() == pytest.approx([bound] * 3)
        assert learned.warnings() == [
            f"λ ended at its {word} bound {bound:g} in 0, 1, 2: widen lambda.low and lambda.high"
        ]


def test_its_course_is_a_schedule_of_all_groups(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups)
    for index in range(20):
        learned.step(at(index, index / 19, 1e-6, gradients=zeros(groups)))
    schedule = learned.schedule()
    assert (len(schedule.values), schedule.shares, schedule.rest) == (KNOTS, None, 0.0)
    assert list(schedule.values[-1]) == learned.lambdas().tolist()


def test_it_goes_on_from_its_state_as_if_nothing_had_happened(make_groups: MakeGroups) -> None:
    whole, half = make_groups([(50, 4, 1)]), make_groups([(50, 4, 1)])
    learned, first = learner(whole, start=5.0), learner(half, start=5.0)
    for index in range(6):
        learned.step(at(index, index / 5, 1.0, gradients=ones(whole)))
        if index == 3:
            other = learner(half, start=0.01)
            other.load_state_dict(first.state_dict())
            first = other
        first.step(at(index, index / 5, 1.0, gradients=ones(half)))
    assert torch.equal(first.rho, learned.rho)
    assert torch.equal(whole.weights[0], half.weights[0])
    assert first.schedule() == learned.schedule()


def test_a_report_of_a_collapse_halves_the_largest_lambda_for_good_and_says_so(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, price=1e6)
    learned.rho.copy_(torch.tensor([0.8, 0.3, 0.02]).log())
    assert learned.observe(Evaluation(10, 0.5, {"task": 1.9}, 0.5)) == []
    (line,) = learned.observe(Evaluation(10, 0.5, {"task": 2.1}, 0.5))
    assert "λ was held at 0.4 and below" in line
    for index in range(40):  # a price that would raise λ to its bound
        learned.step(at(index, 0.5, 1e-6, gradients=zeros(groups)))
    assert learned.lambdas().tolist() == pytest.approx([0.4] * 3)
