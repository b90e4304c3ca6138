"""λ that nobody gave: the groups that stay by the optimiser's steps, the largest by the length of the weights."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from ms_automl.meta import LambdaSchedule
from ms_automl.meta.bounds import HIGH, REST, MeasuredBounds
from ms_automl.sparsifier import Sparsifier
from tests.unit.loops import STEPS, batches, classifier, example, weights

pytestmark = pytest.mark.filterwarnings("ignore:.* went at once")  # trainings of a few steps

OPTIMISERS = {
    "adamw": lambda values: torch.optim.AdamW(values, 1e-3),
    "adamw, fine-tuning": lambda values: torch.optim.AdamW(values, 1e-6),
    "sgd": lambda values: torch.optim.SGD(values, 0.05, momentum=0.9),
    "sgd, fine-tuning": lambda values: torch.optim.SGD(values, 1e-6, momentum=0.9),
}


def fitted(model, optimizer, sparsifier, steps, after=lambda step: None):
    for step, (images, labels) in enumerate(batches(steps)):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        sparsifier.step()
        after(step)


@pytest.fixture
def groups():
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Sparsifier(model, optimizer, example=example(), steps=STEPS, target=0.3).groups


def test_the_rest_is_a_fifth_of_a_step_and_the_largest_takes_a_group_out_in_a_60th_of_the_phase(groups):
    bounds = MeasuredBounds(groups, steps=120)
    moved = [torch.full_like(weight, 3e-4 * (place + 1)) for place, weight in enumerate(groups.weights)]
    bounds.observe(0.01, moved, torch.ones_like(groups.size))
    steps = torch.tensor([3e-4 * (place + 1) for place in range(len(groups.weights))])
    torch.testing.assert_close(bounds.rest * 0.01, REST * steps)
    lengths = [float(weight.detach().square().mean().sqrt()) for weight in groups.weights]
    typical = float(torch.quantile(torch.tensor(lengths), 0.5))
    assert bounds.high * 0.01 * 120 / HIGH == pytest.approx(typical, rel=1e-4)


def test_steps_between_two_measurements_feel_what_was_measured_last(groups):
    bounds = MeasuredBounds(groups, steps=120)
    bounds.observe(0.01, None, torch.ones_like(groups.size))
    assert not bounds.rest.any()
    bounds.observe(
        0.01, [torch.full_like(weight, 1e-3) for weight in groups.weights], torch.ones_like(groups.size)
    )
    bounds.observe(0.005, None, torch.ones_like(groups.size))  # the threshold η λ is as it was
    torch.testing.assert_close(bounds.rest * 0.005, torch.full_like(bounds.rest, REST * 1e-3))


def test_what_no_longer_moves_does_not_count(groups):
    bounds = MeasuredBounds(groups, steps=120)
    stays = torch.ones_like(groups.size)
    stays[::2] = 0.0
    masked = groups.per_weight(stays)
    moved = [torch.full_like(weight, 1e-3) * mask for weight, mask in zip(groups.weights, masked, strict=True)]
    bounds.observe(0.01, moved, stays)
    torch.testing.assert_close(bounds.rest * 0.01, torch.full_like(bounds.rest, REST * 1e-3))
    bounds.observe(0.01, moved, torch.zeros_like(stays))  # nothing stays
    assert not bounds.rest.any()


def test_a_learning_rate_for_each_layer_and_one_of_zero(groups):
    bounds = MeasuredBounds(groups, steps=120)
    lr = torch.where(groups.layer == 0, 0.0, torch.where(groups.layer == 1, 0.01, 0.02))
    moved = [torch.full_like(weight, 0.0 if not place else 1e-3) for place, weight in enumerate(groups.weights)]
    bounds.observe(lr, moved, torch.ones_like(groups.size))
    assert bounds.rest[0] == 0 and bounds.rest.isfinite().all()
    assert float(bounds.rest[1]) == pytest.approx(2 * float(bounds.rest[2]))
    assert float(bounds.high) == pytest.approx(HIGH * bounds.rms / (0.02 * 120))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_stays_is_shortened_by_no_more_than_the_optimiser_moves_it(name):
    """Whatever the optimiser and however small its steps; a λ by the learning rate alone takes all of it."""
    model = classifier()
    optimizer = OPTIMISERS[name](model.parameters())
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=STEPS, target=0.3)
    begun, moved, last = sparsifier.groups.norms(), torch.zeros(len(sparsifier.groups.size)), weights(model)

    def after(step):
        nonlocal last
        now = [weight.detach().clone() for weight in sparsifier.groups.weights]
        if step:
            moved.add_(sparsifier.groups.sum([(a - b).square() for a, b in zip(now, last, strict=True)]).sqrt())
        last = now

    fitted(model, optimizer, sparsifier, STEPS, after)
    stays = sparsifier.pattern.bool()
    lost = (begun - sparsifier.groups.norms())[stays]
    assert bool((lost <= 1.2 * moved[stays] + 1e-6).all())
    if "fine" in name:
        assert bool((lost < 0.01 * begun[stays]).all())


def test_the_steps_are_those_of_the_optimiser_alone_measured_every_tenth_time():
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=40, target=0.3)
    seen = []
    inner = sparsifier.rule.step

    def step(now):
        wanted = [0.1 * gradient for gradient in now.gradients()]
        if now.moved is not None:
            for change, value in zip(now.moved, wanted, strict=True):
                torch.testing.assert_close(-change, value, rtol=1e-3, atol=1e-6)
            seen.append(now.index)
        inner(now)

    sparsifier.rule.step = step
    fitted(model, optimizer, sparsifier, 40)
    assert seen == [0, 10, 20]


def test_a_given_lambda_and_bounds_measure_nothing():
    model = classifier()
    layers = ("stem.0", "body.0", "down")
    for how in (
        {"schedule": LambdaSchedule.constant(dict.fromkeys(layers, 0.1))},
        {"target": 0.3, "bounds": (0.1, 1.0)},
    ):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparsifier = Sparsifier(model, optimizer, example=example(), steps=8, **how)
        assert sparsifier.rule.measures_every == 0


def test_a_step_that_a_scaler_skips_is_not_measured():
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=STEPS, target=0.3)
    optimizer.found_inf = torch.tensor(1.0)  # as a GradScaler tells a fused optimiser
    (images, labels), *_ = batches(1)
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    sparsifier.step()
    assert sparsifier.taken == 0
    del optimizer.found_inf
    optimizer.step()
    sparsifier.step()
    assert sparsifier.taken == 1 and bool((sparsifier.rule.bounds.rest > 0).all())


def test_what_was_measured_goes_into_the_state():
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=STEPS, target=0.3)
    fitted(model, optimizer, sparsifier, 3)
    state = copy.deepcopy(sparsifier.state_dict())
    again = Sparsifier(model, optimizer, example=example(), steps=STEPS, target=0.3)
    again.load_state_dict(state)
    torch.testing.assert_close(again.rule.bounds.moved, sparsifier.rule.bounds.moved)
    assert again.rule.schedule().rest == sparsifier.rule.schedule().rest


def test_the_course_that_is_handed_on_has_the_rest_of_each_layer():
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=STEPS, target=0.3)
    fitted(model, optimizer, sparsifier, STEPS)
    schedule = sparsifier.rule.schedule()
    assert len(schedule.rest) == len(schedule.layers) and all(0 < rest < math.inf for rest in schedule.rest)
    again = LambdaSchedule.from_dict(schedule.to_dict())
    assert again == schedule
    torch.testing.assert_close(again.rest_of_layers(), torch.tensor(schedule.rest))
    other = classifier()
    optimizer = torch.optim.AdamW(other.parameters(), 1e-3)
    replayed = Sparsifier(other, optimizer, example=example(), steps=STEPS, schedule=again)
    fitted(other, optimizer, replayed, STEPS)
    assert replayed.sparsity == pytest.approx(sparsifier.sparsity, abs=0.1)
