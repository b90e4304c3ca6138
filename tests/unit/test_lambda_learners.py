from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ms_automl.errors import ConfigError, DivergenceError
from ms_automl.meta import KNOTS, WaterfillSettings
from ms_automl.meta.gradient import GradientLearner
from ms_automl.meta.hypergradients import Ties, updates
from ms_automl.meta.hypergradients.forward import Forward
from ms_automl.meta.learners import LEARNERS, choose
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.settings import ForwardSettings
from ms_automl.meta.step import Evaluation
from ms_automl.sparsity import ChannelGroups
from tests.unit.steps import REFERENCE, at, zeros

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(4, 3, 1), (3, 4, 3), (4, 2, 1)]


# ---- learning by gradient -------------------------------------------------------------------------------


def learner(groups: ChannelGroups, price: float = 1.0, decay: float = 0.99, **changes: object) -> GradientLearner:
    arguments: dict[str, object] = {
        "bounds": (0.01, 1.0), "start": 0.1, "lr": 0.1, "every": 2, "warmup": 0.0, "reference": REFERENCE
    } | changes  # fmt: skip
    ties = Ties(groups, arguments.pop("ties", range(len(groups.names))))  # type: ignore[arg-type]
    return GradientLearner(groups, ties, Forward(groups, ties, decay), Pricing(groups, price), **arguments)  # type: ignore[arg-type]


def harmed(groups: ChannelGroups) -> Callable[[], list[Tensor]]:
    return lambda: [-weight.detach() for weight in groups.weights]  # the loss falls as weights grow


def test_the_price_alone_raises_every_lambda_and_the_loss_alone_lowers_it(make_groups: MakeGroups) -> None:
    priced, cheap = make_groups(SHAPES), make_groups(SHAPES)
    raised, lowered = learner(priced), learner(cheap, price=0.0)
    for index in range(10):
        raised.step(at(index, index / 9, 0.01, outer=zeros(priced)))
        lowered.step(at(index, index / 9, 0.01, outer=harmed(cheap)))
    assert bool((raised.lambdas() > 0.11).all())
    assert bool((lowered.lambdas() < 0.09).all())


def test_lambda_rises_from_nothing_over_the_warm_up(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, price=0.0, warmup=0.5, every=1000)
    rises = []
    for phase in (0.0, 0.25, 0.5, 1.0):
        learned.step(at(1, phase, 0.001, outer=zeros(groups)))
        rises.append(learned.lambdas())
    for rise, expected in zip(rises, (0.0, 0.05, 0.1, 0.1), strict=True):
        torch.testing.assert_close(rise, torch.full_like(rise, expected))


def test_lambda_ends_at_its_bounds_and_never_outside(make_groups: MakeGroups) -> None:
    for price, gradient, end in ((1.0, zeros, 0.2), (0.0, harmed, 0.05)):
        groups = make_groups(SHAPES)
        learned = learner(groups, price=price, bounds=(0.05, 0.2), every=1, lr=0.3)
        for index in range(20):
            learned.step(at(index, index / 19, 1e-3, outer=gradient(groups)))
            assert bool(((learned.lambdas() >= 0.05 * (1 - 1e-6)) & (learned.lambdas() <= 0.2 * (1 + 1e-6))).all())
        assert learned.lambdas().tolist() == pytest.approx([end] * 3)


def test_tied_layers_share_one_lambda_learned_from_all_of_them(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, ties=[0, 1, 0])
    slopes = {0: -1.0, 1: -1.0, 2: 10.0}  # of the loss along each layer's weights, which λ shortens
    learned.pricing.price = 0.0
    learned.step(at(0, 0.0, 0.01, outer=lambda: [slopes[i] * w.detach() for i, w in enumerate(groups.weights)]))
    a, b, c = learned.lambdas().tolist()
    assert a == c
    assert b < 0.1 < a  # what gains by shrinking raises λ, and the third layer outweighs the first


def test_the_gradient_is_asked_for_as_often_as_planned_and_after_the_prox(make_groups: MakeGroups) -> None:
    for steps, every in ((9, 2), (10, 2), (7, 3), (1, 5)):
        groups = make_groups(SHAPES)
        learned, seen = learner(groups, every=every, start=1.0, bounds=(0.5, 1.0)), []

        def gradient(groups: ChannelGroups = groups, seen: list[float] = seen) -> list[Tensor]:
            seen.append(float(groups.norms().sum()))
            return zeros(groups)()

        before = float(groups.norms().sum())
        for index in range(steps):
            learned.step(at(index, index / max(1, steps - 1), 0.01, outer=gradient))
        assert len(seen) == len(updates(ForwardSettings(every=every), steps))
        assert seen[0] < before


def test_the_recorded_course_spans_the_phase_in_the_schedules_knots(make_groups: MakeGroups) -> None:
    for steps in (3, 8, 50):
        groups = make_groups(SHAPES)
        learned, course = learner(groups, every=1), []
        for index in range(steps):
            learned.step(at(index, index / (steps - 1), 0.01, outer=zeros(groups)))
            course.append(learned.lambdas().tolist())
        schedule = learned.schedule()
        assert len(schedule.values) == KNOTS
        assert schedule.layers == groups.names
        assert list(schedule.values[0]) == course[0]
        assert list(schedule.values[-1]) == course[-1]


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_normalised_steps_keep_the_slopes_proportions_and_forget_their_size(
    make_groups: MakeGroups, size: float
) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, price=0.0, optimizer="normalised", decay=0.0)
    before = learned.rho.clone()
    learned.step(at(0, 0.0, 0.01, outer=lambda: [size * gradient for gradient in harmed(groups)()]))
    moved = learned.rho - before
    pull = learned.hypergradient.slope(learned.pricing.cotangent(groups.weights, harmed(groups)()))
    assert float(moved.abs().max()) == pytest.approx(0.1, rel=1e-4)
    torch.testing.assert_close(moved, -0.1 * pull / pull.abs().max(), rtol=1e-4, atol=1e-6)


def test_normalised_steps_stay_where_no_slope_is(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, price=0.0, optimizer="normalised")
    before = learned.rho.clone()
    learned.step(at(0, 0.0, 0.01, outer=zeros(groups)))
    assert torch.equal(learned.rho, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_slope_that_is_not_finite_ends_the_trial_and_never_reaches_lambda(
    make_groups: MakeGroups, value: float
) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups)
    with pytest.raises(DivergenceError, match=r"dJ/d log λ not finite at step 4: .*try a lower training\.lr"):
        learned.step(at(4, 0.0, 0.01, outer=lambda: [value * w.detach() for w in groups.weights]))
    assert learned.lambdas().tolist() == pytest.approx([0.1] * 3)


def test_an_unknown_step_rule_is_refused_with_the_known_ones(make_groups: MakeGroups) -> None:
    with pytest.raises(ConfigError, match="unknown lambda_optimizer 'sgd': Known: adam, normalised"):
        learner(make_groups(SHAPES), optimizer="sgd")


# ---- the guard ------------------------------------------------------------------------------------------


COLLAPSED = Evaluation(10, 0.5, {"task": 2.1}, 0.1)  # the dense network has 1.0 there
SOUND = Evaluation(10, 0.5, {"task": 1.9}, 0.1)


def rising(groups: ChannelGroups, learned: GradientLearner, steps: int) -> None:
    for index in range(steps):
        learned.step(at(index, 0.5, 1e-3, outer=zeros(groups)))


def test_a_report_of_a_collapse_halves_the_largest_lambda_for_good_and_says_so(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, every=1)
    learned.rho.copy_(torch.tensor([0.8, 0.3, 0.02]).log())
    (line,) = learned.observe(COLLAPSED)
    assert line == (
        "the network collapsed by step 10, so λ was held at 0.4 and below from there on (it had reached 0.8)"
    )
    assert learned.lambdas().tolist() == pytest.approx([0.4, 0.3, 0.02])
    rising(groups, learned, 40)  # the price alone, which would raise λ to its bound
    assert learned.lambdas().tolist() == pytest.approx([0.4] * 3)
    learned.observe(COLLAPSED)
    rising(groups, learned, 40)
    assert learned.lambdas().tolist() == pytest.approx([0.2] * 3)


def test_without_a_collapse_nothing_is_said_and_nothing_changes(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, every=1)
    before = learned.lambdas()
    assert learned.observe(SOUND) == []
    assert torch.equal(learned.lambdas(), before)
    rising(groups, learned, 40)
    assert learned.lambdas().tolist() == pytest.approx([1.0] * 3)


def test_the_guard_halves_what_lambda_has_reached_and_not_what_it_would_after_the_warm_up(
    make_groups: MakeGroups,
) -> None:
    groups = make_groups(SHAPES)
    learned = learner(groups, price=0.0, start=0.8, warmup=1.0, every=1000)
    learned.step(at(1, 0.25, 1e-3, outer=zeros(groups)))
    (line,) = learned.observe(COLLAPSED)
    assert "(it had reached 0.2)" in line
    learned.step(at(2, 1.0, 1e-3, outer=zeros(groups)))
    assert learned.lambdas().tolist() == pytest.approx([0.1] * 3)


def test_the_guard_never_goes_below_the_lower_bound(make_groups: MakeGroups) -> None:
    learned = learner(make_groups(SHAPES), start=0.015)
    learned.observe(COLLAPSED)
    assert learned.lambdas().tolist() == pytest.approx([0.01] * 3)
    assert any("lower bound 0.01" in line for line in learned.warnings())


def test_a_learner_that_goes_on_from_its_state_knows_what_the_guard_did(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    learned, again = learner(groups, every=1), learner(groups, every=1)
    learned.observe(COLLAPSED)
    again.load_state_dict(learned.state_dict())
    rising(groups, again, 40)
    assert again.lambdas().tolist() == pytest.approx([0.05] * 3)


# ---- the table ------------------------------------------------------------------------------------------


def test_the_default_learner_fits_both_objectives() -> None:
    name = WaterfillSettings().learner
    assert choose(name, "tradeoff") is choose(name, "target") is LEARNERS[name]


def test_a_learner_that_does_not_fit_the_objective_is_refused_with_those_that_do() -> None:
    with pytest.raises(
        ConfigError,
        match="learner 'forward' learns for the tradeoff objective, but this one is target: take waterfill",
    ):
        choose("forward", "target")
    with pytest.raises(ConfigError, match="unknown learner 'foward': did you mean 'forward'"):
        choose("foward", "tradeoff")
