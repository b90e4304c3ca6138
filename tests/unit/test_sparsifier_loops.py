"""The sparsifier in the loops that people have: schedulers, accumulation, mixed precision, averages, wrappers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ms_automl.errors import ConfigError, NetworkError
from ms_automl.sparsifier import Sparsifier
from tests.unit.loops import STEPS, adamw, batches, classifier, example, trained, weights, zeros

pytestmark = pytest.mark.filterwarnings("ignore:.* went at once")  # trainings of a few steps


def sparsifier_of(model, optimizer, **arguments):
    return Sparsifier(model, optimizer, **({"example": example(), "steps": STEPS, "target": 0.6} | arguments))


@pytest.mark.parametrize("order", ["scheduler last", "scheduler first", "gradients gone"])
def test_eta_and_gradients_are_those_of_the_step_whatever_comes_in_between(order):
    def run(order):
        model = classifier()
        optimizer = adamw(model)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=STEPS + 1)
        sparsifier = sparsifier_of(model, optimizer)
        for images, labels in batches(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            if order == "scheduler first":
                scheduler.step()
            if order == "gradients gone":
                optimizer.zero_grad()
            sparsifier.step()
            if order != "scheduler first":
                scheduler.step()
        return model, sparsifier

    (expected, one), (found, other) = run("scheduler last"), run(order)
    assert any(zeros(one))
    assert torch.equal(weights(expected), weights(found))
    assert one.history.equals(other.history)


def test_gradients_that_were_set_to_zero_in_place_are_refused():
    model = classifier()
    optimizer = adamw(model)
    sparsifier = sparsifier_of(model, optimizer)
    images, labels = next(batches(1))
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    with pytest.raises(ConfigError, match=r"call sparsifier\.step\(\) right after optimizer\.step\(\)"):
        sparsifier.step()


def test_gradient_accumulation_counts_the_optimisers_steps():
    model = classifier()
    optimizer = adamw(model)
    sparsifier = sparsifier_of(model, optimizer, steps=10)
    for step, (images, labels) in enumerate(batches(STEPS)):
        (F.cross_entropy(model(images), labels) / 4).backward()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
        sparsifier.step()
    assert sparsifier.taken == 10
    assert 0.6 <= sparsifier.sparsity < 0.7


def test_clipped_gradients_are_those_that_count():
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = sparsifier_of(model, optimizer)
    for images, labels in batches(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        sparsifier.step()
    assert 0.6 <= sparsifier.sparsity < 0.7


def amp_run(dtype, scaler, fused=False, overflow_at=()):
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=fused)
    sparsifier = sparsifier_of(model, optimizer)
    for step, (images, labels) in enumerate(batches(STEPS)):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            loss = F.cross_entropy(model(images), labels)
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss * (float("inf") if step in overflow_at else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
        sparsifier.step()
    return sparsifier


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_without_a_scaler(dtype):
    assert 0.6 <= amp_run(dtype, None).sparsity < 0.7


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_changes_no_removal_and_the_steps_that_it_skips_are_none(fused):
    plain = amp_run(torch.float16, None, fused)
    importance = plain.rule.importance.cost()
    scaled = amp_run(torch.float16, torch.amp.GradScaler("cpu", init_scale=2.0**10), fused)
    assert scaled.taken == STEPS
    # Without a scaler small gradients are lost; ones that were not scaled back would be 1024 times as large.
    assert float((scaled.rule.importance.cost().sum() / importance.sum()).log().abs()) < 0.5
    skipping = amp_run(
        torch.float16, torch.amp.GradScaler("cpu", init_scale=2.0**10), fused, overflow_at=(3, 4, 9)
    )
    assert skipping.taken == STEPS - 3
    assert bool(skipping.rule.importance.cost().isfinite().all())
    assert 0.6 <= skipping.sparsity < 0.7


def test_groups_of_parameters_have_a_learning_rate_each():
    model = classifier()
    optimizer = torch.optim.SGD(
        [
            {"params": model.stem.parameters(), "lr": 0.2},
            {"params": [*model.body.parameters(), *model.down.parameters(), *model.head.parameters()]},
        ],
        lr=0.02,
    )
    seen = []
    sparsifier = sparsifier_of(model, optimizer)
    step = sparsifier.rule.step
    sparsifier.rule.step = lambda now: (seen.append(now.lr), step(now))
    for images, labels in batches(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        sparsifier.step()
    by_group = seen[0]
    torch.testing.assert_close(by_group[:3], torch.full((3,), 0.2))
    torch.testing.assert_close(by_group[3:], torch.full_like(by_group[3:], 0.02))
    assert 0.6 <= sparsifier.sparsity < 0.7


def test_a_learning_rate_of_zero_moves_nothing_and_breaks_nothing():
    model = classifier()
    optimizer = adamw(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 5))
    sparsifier = sparsifier_of(model, optimizer)
    for images, labels in batches(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        scheduler.step()
        sparsifier.step()
    assert 0.6 <= sparsifier.sparsity < 0.7
    assert bool(sparsifier.history.drop(columns=[]).filter(like="lambda/").notna().all().all())


def test_several_optimisers_are_one_training():
    model = classifier()
    optimizers = (
        torch.optim.SGD([*model.stem.parameters(), *model.body.parameters()], lr=0.05),
        torch.optim.AdamW([*model.down.parameters(), *model.head.parameters()], lr=3e-3),
    )
    sparsifier = sparsifier_of(model, optimizers)
    for images, labels in batches(STEPS):
        for one in optimizers:
            one.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        for one in optimizers:
            one.step()
        sparsifier.step()
    assert sparsifier.taken == STEPS
    assert 0.6 <= sparsifier.sparsity < 0.7


def test_a_compiled_model_is_thinned_out_as_it_is():
    plain = classifier()
    expected = trained(plain)
    model = classifier()
    compiled = torch.compile(model, backend="eager")
    found = trained(compiled, adamw(model))
    assert found.groups.names == expected.groups.names
    assert zeros(found) == zeros(expected)
    assert type(found.compact()) is type(model)


def test_frozen_and_computed_weights_are_left_alone_and_said():
    model = classifier()
    model.stem.requires_grad_(False)
    nn.utils.parametrizations.weight_norm(model.body[0])
    sparsifier = trained(model, target=0.2)
    assert sparsifier.groups.names == ("down",)
    assert sparsifier.groups.left_out == {
        "stem.0": "it is frozen (requires_grad=False)",
        "body.0": "its weight is computed from other parameters, zeros would not stay",
        "head": "its outputs are the model's own",
    }


def test_a_weight_of_two_layers_is_thinned_out_once():
    model = classifier()
    twin = nn.Conv2d(12, 12, 3, padding=1)
    twin.weight = model.body[0].weight
    model.body.append(twin)
    sparsifier = trained(model)
    assert sparsifier.groups.names == ("stem.0", "body.0", "down")
    assert 0.5 <= sparsifier.sparsity < 0.6
    sparsifier.compact()


def test_a_model_that_does_not_run_on_the_example_is_refused_in_one_line():
    model = classifier()
    with pytest.raises(NetworkError, match=r"the model fails on images of shape \(2, 5, 8, 8\)") as error:
        sparsifier_of(model, adamw(model), example=torch.zeros(1, 5, 8, 8))
    assert "\n" not in str(error.value)


def alternating(order):
    """Two optimisers, the sparsifier's step at places of the caller's choice."""
    model = classifier()
    one = torch.optim.SGD([*model.stem.parameters(), *model.body.parameters()], lr=0.05)
    other = torch.optim.AdamW([*model.down.parameters(), *model.head.parameters()], lr=3e-3)
    sparsifier = sparsifier_of(model, (one, other))
    for images, labels in batches(STEPS):
        one.zero_grad(), other.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        for act in order:
            {"one": one.step, "other": other.step, "sparsifier": sparsifier.step}[act]()
    return model, sparsifier


def test_a_step_of_several_optimisers_is_one_however_often_the_sparsifier_is_called():
    expected, once = alternating(("one", "other", "sparsifier"))
    found, often = alternating(("sparsifier", "one", "sparsifier", "other", "sparsifier", "sparsifier"))
    assert once.taken == often.taken == STEPS
    assert torch.equal(weights(expected), weights(found))


def test_a_layer_that_learns_slowly_reaches_its_zeros_too():
    model = classifier()
    optimizer = torch.optim.AdamW(
        [
            {"params": model.stem.parameters(), "lr": 3e-3},
            {"params": [*model.body.parameters(), *model.down.parameters(), *model.head.parameters()]},
        ],
        lr=3e-5,
    )
    sparsifier = sparsifier_of(model, optimizer)
    forced = []
    for images, labels in batches(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        sparsifier.step()
        forced.append(sparsifier.rule.forced)
    assert 0.6 <= sparsifier.sparsity < 0.7
    assert forced[-1] < 0.1


class Inside(nn.Module):
    """A model that computes in bfloat16 by itself."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        with torch.autocast("cpu", torch.bfloat16):
            return self.model(images).float()


def test_autocast_inside_of_a_model_hides_no_layer():
    sparsifier = trained(Inside(classifier()))
    assert sparsifier.groups.names == ("model.stem.0", "model.body.0", "model.down")


def test_autocast_around_changes_nothing_of_what_is_taken_out():
    model = classifier()
    plain = trained(model)
    with torch.autocast("cpu", torch.bfloat16):
        inside = plain.compact()
        fresh = classifier()
        other = sparsifier_of(fresh, adamw(fresh))
    shapes = [value.shape for value in plain.compact().parameters()]
    assert [value.shape for value in inside.parameters()] == shapes
    assert other.groups.names == plain.groups.names


def test_an_optimizer_that_never_steps_is_said():
    model = classifier()
    sparsifier = sparsifier_of(model, adamw(model))
    with pytest.warns(UserWarning, match="no optimizer that was given has stepped in the last 200 calls"):
        for _ in range(200):
            sparsifier.step()


@pytest.mark.parametrize("copying", [copy.deepcopy, copy.copy])
def test_a_sparsifier_is_not_copied(copying):
    model = classifier()
    with pytest.raises(ConfigError, match="cannot be copied or pickled"):
        copying(sparsifier_of(model, adamw(model)))
