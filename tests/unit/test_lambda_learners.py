from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ms_automl.data import Batch
from ms_automl.errors import ConfigError, DivergenceError
from ms_automl.meta import KNOTS, LearnerSettings, Reference
from ms_automl.meta.gradient import GradientLearner
from ms_automl.meta.hypergradients import Plan, Ties
from ms_automl.meta.hypergradients.forward import Forward
from ms_automl.meta.learners import LEARNERS, choose
from ms_automl.meta.level import AskedLevel
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.step import TrainingStep
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.sparsity import ChannelGroups, TaylorImportance, measure

MakeGroups = Callable[..., ChannelGroups]
SHAPES = [(4, 3, 1), (3, 4, 3), (4, 2, 1)]
REFERENCE = Reference({"task": 0.5}, [(10, {"task": 1.0}), (20, {"task": 0.5})])


def at(
    index: int,
    phase: float,
    lr: float,
    *,
    outer: Callable[[], list[Tensor]] = list,
    gradients: Callable[[], list[Tensor]] = list,
) -> TrainingStep:
    return TrainingStep(index, phase, lr, Batch(torch.empty(0), {}, {}), gradients, lambda parameters: outer())


# ---- learning by gradient -------------------------------------------------------------------------------


def learner(groups: ChannelGroups, price: float = 1.0, decay: float = 0.99, **changes: object) -> GradientLearner:
    arguments: dict[str, object] = {
        "bounds": (0.01, 1.0), "start": 0.1, "lr": 0.1, "every": 2, "warmup": 0.0, "reference": REFERENCE
    } | changes  # fmt: skip
    ties = Ties(groups, arguments.pop("ties", range(len(groups.names))))  # type: ignore[arg-type]
    return GradientLearner(groups, ties, Forward(groups, ties, decay), Pricing(groups, price), **arguments)  # type: ignore[arg-type]


def zeros(groups: ChannelGroups) -> Callable[[], list[Tensor]]:
    return lambda: [torch.zeros_like(weight) for weight in groups.weights]


def ones(groups: ChannelGroups) -> Callable[[], list[Tensor]]:
    return lambda: [torch.ones_like(weight) for weight in groups.weights]


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
        assert len(seen) == len(Plan(steps, every, unroll=1, lambdas=1).updates)
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


# ---- the table ------------------------------------------------------------------------------------------


def test_the_default_learner_fits_both_objectives() -> None:
    name = LearnerSettings().learner
    assert choose(name, "tradeoff") is choose(name, "target") is LEARNERS[name]


def test_a_learner_that_does_not_fit_the_objective_is_refused_with_those_that_do() -> None:
    with pytest.raises(
        ConfigError,
        match="learner 'forward' learns for the tradeoff objective, but this one is target: take waterfill",
    ):
        choose("forward", "target")
    with pytest.raises(ConfigError, match="unknown learner 'foward': did you mean 'forward'"):
        choose("foward", "tradeoff")


# ---- waterfill ------------------------------------------------------------------------------------------


def waterfill(groups: ChannelGroups, target: float, steps: int = 60, lambda_max: float = 1e4) -> WaterfillLearner:
    """Trains nothing: random gradients, and a little noise that moves every group a bit."""
    learned = WaterfillLearner(groups, AskedLevel(target), bounds=(1e-4, lambda_max), every=10, rest=0.0)
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


def test_waterfill_shrinks_the_smallest_groups_only(make_groups: MakeGroups) -> None:
    groups = make_groups([(12, 6, 1), (8, 9, 3)])
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=(1e-4, 1e4), every=1, rest=0.0)
    generator = torch.Generator().manual_seed(0)
    for index in range(10):
        norms = groups.norms()
        gradients = [torch.randn(w.shape, generator=generator) for w in groups.weights]
        learned.step(at(index, index / 10, 0.01, gradients=gradients.copy))
        touched = groups.norms() != norms
        for part, old in zip(torch.split(touched, groups.counts), torch.split(norms, groups.counts), strict=True):
            spared = ~part & (old > 0)
            if bool(part.any()) and bool(spared.any()):
                assert float(old[part].max()) <= float(old[spared].min())
    assert 0 < measure(groups).param < 0.6


def test_waterfill_takes_nothing_and_needs_no_lambda_at_the_start(make_groups: MakeGroups) -> None:
    groups = make_groups(SHAPES)
    before = [weight.clone() for weight in groups.weights]
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=(1e-4, 1e4), every=10, rest=0.0)
    learned.step(at(0, 0.0, 0.01, gradients=ones(groups)))
    assert learned.lambdas().tolist() == [0, 0, 0]
    assert all(torch.equal(a, b) for a, b in zip(before, groups.weights, strict=True))


def test_waterfills_lambda_is_what_removes_its_longest_chosen_group_up_to_the_bound(
    make_groups: MakeGroups,
) -> None:
    groups = make_groups([(6, 4, 1)], removable=(0,))
    for bound, expected in ((1e4, None), (2.0, 2.0)):
        learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=(1e-4, bound), every=1, rest=0.0)
        learned.importance = TaylorImportance(groups)
        norms = groups.norms().sort().values
        learned.step(at(1, 0.85, 0.01, gradients=ones(groups)))
        exact = float(norms[2]) / (0.01 * 2)
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
