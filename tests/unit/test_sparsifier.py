"""The sparsifier in a training loop of one's own."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError, DivergenceError
from ms_automl.meta import LambdaSchedule, Objective, Reference, WaterfillSettings
from ms_automl.meta.rule import Rule
from ms_automl.meta.settings import ForwardSettings
from ms_automl.sparsifier import Sparsifier
from ms_automl.training import TrainingLoop, TrainingSettings
from tests.unit.loops import SHAPE, STEPS, adamw, batches, classifier, example, trained, weights, zeros
from trainables import MetaSparsity

pytestmark = pytest.mark.filterwarnings("ignore:.* went at once")  # trainings of a few steps

LAYERS = ("stem.0", "body.0", "down")


def share_of_zeros(model: nn.Module) -> float:
    """In channels that are zero altogether, of all parameters."""
    total = sum(value.numel() for value in model.parameters())
    gone = 0
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            silent = (module.weight == 0).all(0).flatten(1).all(1)
            gone += int(silent.sum()) * module.weight[:, 0].numel()
    return gone / total


# ---- what it promises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0.3, 0.7])
def test_a_target_is_a_share_of_all_weights_and_is_met_to_within_a_group(target):
    model = classifier()
    sparsifier = trained(model, target=target)
    group = float(sparsifier.groups.size.max()) / sum(value.numel() for value in model.parameters())
    assert target <= share_of_zeros(model) < target + group
    assert sparsifier.sparsity == pytest.approx(share_of_zeros(model))


def test_zeros_are_frozen_after_the_phase_and_stay_through_the_optimisers_momentum():
    model, found = classifier(), []
    trained(model, after=lambda step, sparsifier: found.append(zeros(sparsifier)))
    frozen = found[int(0.75 * STEPS) - 1]
    assert any(frozen)
    assert all(one == frozen for one in found[int(0.75 * STEPS) :])


def test_the_trainables_and_a_loop_of_ones_own_end_with_the_same_weights(tiny_data: MultiTaskData, tiny_network):
    """The same rule, bounds and batches: one implementation."""
    settings = TrainingSettings(steps=16, batch_size=6, report_every=16, lr=5e-3)
    objective = Objective("target", target=0.5, cost="penalised_weights")
    reference = Reference({"depth": 1.0, "kind": 1.0})
    method = MetaSparsity(
        tiny_data, tiny_network(), settings, 3, objective=objective, reference=reference, bounds=(0.1, 50.0)
    )
    method.step()
    network = tiny_network()
    loop = TrainingLoop(tiny_data, network, settings, 3)  # for its order of batches, and its loss
    groups = loop.sparsifier.groups
    own = Sparsifier(
        network,
        loop.optimizer,
        example=tiny_data.train.batch(torch.arange(1)).images,
        steps=16,
        target=0.5 * groups.share,
        bounds=(0.1, 50.0),
        grouping="input_channel",
    )
    for step in range(16):
        batch = loop.feed.next()
        for group in loop.optimizer.param_groups:
            group["lr"] = settings.lr_at(step)
        loop.optimizer.zero_grad()
        loop.loss(network(batch.images), batch).backward()
        loop.optimizer.step()
        own.step()
    assert any(zeros(own))
    for (name, mine), theirs in zip(network.named_parameters(), method.loop.network.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_run_that_goes_on_from_its_state_equals_one_that_was_never_stopped():
    whole = classifier()
    straight = trained(whole, target=0.6)
    kept = {}

    def keep(step, sparsifier):
        if step == 17:
            kept["sparsifier"] = copy.deepcopy(sparsifier.state_dict())

    first = classifier()
    optimizer = adamw(first)
    loop = list(batches(STEPS))
    sparsifier = Sparsifier(first, optimizer, example=example(), steps=STEPS, target=0.6)

    def train(model, optimizer, sparsifier, samples):
        for images, labels in samples:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            sparsifier.step()

    train(first, optimizer, sparsifier, loop[:17])
    state = copy.deepcopy([first.state_dict(), optimizer.state_dict(), sparsifier.state_dict()])
    second = classifier(seed=5)
    optimizer = adamw(second)
    sparsifier = Sparsifier(second, optimizer, example=example(), steps=STEPS, target=0.6)
    for one, saved in zip((second, optimizer, sparsifier), state, strict=True):
        one.load_state_dict(saved)
    train(second, optimizer, sparsifier, loop[17:])
    assert torch.equal(weights(second), weights(whole))
    assert sparsifier.history.equals(straight.history)


# ---- how sparse -----------------------------------------------------------------------------------------


def test_a_given_schedule_is_followed():
    strong, none = (dict.fromkeys(LAYERS, value) for value in (300.0, 0.0))
    assert trained(classifier(), schedule=LambdaSchedule.constant(strong)).sparsity > 0.5
    assert trained(classifier(), schedule=LambdaSchedule.constant(none)).sparsity == 0


def test_a_price_learns_a_level_and_a_higher_one_ends_sparser():
    found = []
    for price in (0.001, 30.0):

        def tell(step, sparsifier):
            if step % 3 == 2:
                sparsifier.observe(1 / (1 + step))

        found.append(trained(classifier(), price=price, after=tell).sparsity)
    assert found[0] < found[1]


def test_under_a_price_that_is_told_no_loss_before_the_ramp_one_line_says_what_to_call():
    with pytest.raises(ConfigError, match=r"call sparsifier\.observe\(validation_loss\) at least once"):
        trained(classifier(), price=1.0)


def test_a_rule_of_ones_own_is_told_of_every_step_of_the_phase():
    seen = []

    class Mine(Rule):
        freezes = True

        def __init__(self, groups):
            self.groups = groups

        def step(self, now):
            seen.append((now.index, now.lr))
            factors = torch.ones_like(self.groups.size)
            factors[:2] = 0
            self.groups.scale_(factors)

    sparsifier = trained(classifier(), rule=Mine)
    assert seen == [(step, 3e-3) for step in range(30)]
    assert zeros(sparsifier)[:2] == [True, True]


def test_a_learner_by_gradient_takes_a_validation_loss_a_reference_and_bounds():
    model, (images, labels) = classifier(), next(batches(1, seed=4))
    sparsifier = trained(
        model,
        price=1.0,
        learner=ForwardSettings(lambda_lr=0.1),
        reference=Reference({"loss": 1.0}, [(step, {"loss": 1.0}) for step in range(STEPS)]),
        bounds=(0.01, 1000.0),
        outer_loss=lambda: F.cross_entropy(model(images), labels),
    )
    lambdas = sparsifier.rule.lambdas()
    assert lambdas is not None
    assert len(set(lambdas.tolist())) == len(LAYERS), "each layer has learned its own"
    assert sparsifier.rule.schedule().layers == LAYERS


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": None}, "none of them"),
        ({"price": 1.0}, "target and price together"),
        ({"target": 1.5}, r"`0 < target < 1` must hold.*1\.5"),
        ({"target": "a"}, "target='a'"),
        ({"target": 0.99}, r"`target <= .*λ can act on"),
        ({"steps": 0}, "`steps >= 1` must hold"),
        ({"steps": 2.5}, r"steps=2\.5"),
        ({"prox_share": 0}, "prox_share=0"),
        ({"example": torch.zeros(3, 8, 8)}, r"`example` must be images .* \(3, 8, 8\)"),
        ({"example": "images"}, "`example` must be images"),
        ({"bounds": (1.0, 0.1)}, r"`0 < low < high < inf`.*\(1\.0, 0\.1\)"),
        ({"bounds": 3}, r"bounds=\(low, high\), but got 3"),
        ({"prox_metric": "adamw"}, "unknown prox_metric 'adamw': did you mean 'adam'"),
        ({"prox_metric": "adam"}, "is of a given λ: give `schedule`"),
        ({"learner": "waterfil"}, "did you mean 'waterfill'"),
        ({"learner": "unrolled", "target": None, "price": 1.0}, "needs the training step as a function"),
        ({"learner": "forward", "target": None, "price": 1.0}, "needs reference, bounds, outer_loss"),
        ({"grouping": "input"}, "unknown grouping"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(arguments, says):
    model = classifier()
    with pytest.raises(ConfigError, match=says) as error:
        Sparsifier(model, adamw(model), **({"example": example(), "steps": 10, "target": 0.5} | arguments))
    assert "\n" not in str(error.value)


# ---- what one learns of it ------------------------------------------------------------------------------


def test_the_history_the_summary_and_the_plot_tell_of_the_run(tmp_path):
    model = classifier()
    sparsifier = trained(model, after=lambda step, one: one.observe({"class": 1.0}) if step % 10 == 9 else None)
    history = sparsifier.history
    assert history["step"].max() == STEPS
    assert history["loss/class"].notna().sum() == 4
    assert history["sparsity"].iloc[-1] == pytest.approx(sparsifier.sparsity)
    table = sparsifier.summary()
    assert tuple(table.index) == LAYERS
    assert int(table["zero weights"].sum()) == int(sum((w == 0).sum() for w in sparsifier.groups.weights))
    assert table.loc["down", "multiply-adds"] == model.down.weight.numel() * 25
    assert (table["multiply-adds left"] <= table["multiply-adds"]).all()
    sparsifier.plot().savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_weights_that_are_no_longer_finite_end_the_run():
    with pytest.raises(DivergenceError, match="weights are NaN or infinite by step"):
        model = classifier()
        trained(model, torch.optim.SGD(model.parameters(), lr=1e9))


def test_the_state_of_another_sparsifier_is_refused_and_a_state_is_a_copy():
    model = classifier()
    sparsifier = trained(model, steps=20)
    other = Sparsifier(model, adamw(model), example=example(), steps=30, target=0.5)
    for state in (sparsifier.state_dict(), {}, None):
        with pytest.raises(ConfigError, match="the state of another sparsifier"):
            other.load_state_dict(state)
    state = sparsifier.state_dict()
    before = repr(state)
    again = Sparsifier(model, adamw(model), example=example(), steps=20, target=0.5)
    sparsifier.load_state_dict(again.state_dict())
    assert repr(state) == before


def test_a_foretold_course_never_makes_zeros_cheaper_than_was_thought_and_losses_order_the_levels():
    found = []
    for rise in (-0.5, 0.0, 1e-9, 0.02, 0.2, 1.0):

        def tell(step, sparsifier, rise=rise):
            if step % 3 == 2:
                sparsifier.observe(1.0 if step < 7 else 1.0 + rise)

        found.append(trained(classifier(), price=0.3, after=tell).sparsity)
    assert found == sorted(found, reverse=True)
    assert found[0] == found[1] == found[2] < 0.7
    assert found[-1] < found[0]


@pytest.mark.parametrize("losses", ["1.5", None, [1.0, 2.0], {}, {"a": "x"}, float("nan"), {"a": float("inf")}])
def test_what_is_no_loss_is_refused(losses):
    model = classifier()
    sparsifier = Sparsifier(model, adamw(model), example=example(), steps=30, target=0.5)
    with pytest.raises(ConfigError, match="loss"):
        sparsifier.observe(losses)


def test_losses_become_plain_numbers():
    model = classifier()
    sparsifier = Sparsifier(model, adamw(model), example=example(), steps=30, price=0.5)
    sparsifier.observe({"a": torch.tensor(1.0, requires_grad=True), "b": np.float32(2.0)})
    assert {type(value) for value in sparsifier.rows[-1].values()} <= {int, float}
    with pytest.raises(ConfigError, match="of the same tasks each time"):
        sparsifier.observe({"a": 1.0})


def test_a_price_that_hears_nothing_of_the_zeros_is_said():
    with pytest.warns(UserWarning, match="no loss was told while zeros came"):
        trained(classifier(), price=0.5, after=lambda step, one: one.observe(1.0) if step == 1 else None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": None}, "`model` must be an nn.Module"),
        ({"optimizer": None}, "`optimizer` must be a torch.optim.Optimizer"),
        ({"optimizer": [3]}, "`optimizer` must be a torch.optim.Optimizer"),
        ({"example": torch.zeros(0, 3, 8, 8)}, "`example` must hold at least one image of finite floats"),
        ({"example": torch.full((1, 3, 8, 8), float("nan"))}, "`example` must hold"),
        ({"example": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, r"is torch\.uint8"),
        ({"prox_share": "a"}, "prox_share='a'"),
        ({"steps": True}, "steps=True"),
        ({"keep": 3}, "`keep` takes names of modules or a predicate, but got a int"),
        ({"only": nn.Linear(1, 1)}, "`only` takes names"),
        ({"target": None, "rule": 3}, "`rule` must be a Rule"),
        ({"target": None, "rule": lambda groups: 3}, "made a int"),
        ({"target": None, "schedule": 3}, "`schedule` must be a LambdaSchedule"),
        ({"target": None, "price": 1.0, "reference": 3}, "`reference` must be a Reference"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_one_line(arguments, says):
    model = classifier()
    given = {
        "model": model,
        "optimizer": adamw(model),
        "example": example(),
        "steps": 10,
        "target": 0.5,
    } | arguments
    with pytest.raises(ConfigError, match=says):
        Sparsifier(given.pop("model"), given.pop("optimizer"), **given)


def test_weights_of_low_precision_are_refused():
    model = classifier().bfloat16()
    with pytest.raises(ConfigError, match=r"weights must be float32.*torch\.bfloat16"):
        Sparsifier(model, adamw(model), example=example(), steps=9, target=0.1)


def test_the_settings_of_a_learner_are_taken():
    model = classifier()
    one = Sparsifier(
        model, adamw(model), example=example(), steps=9, target=0.1, learner=WaterfillSettings(decay=0.5)
    )
    assert one.rule.importance.decay == 0.5
    assert one.image_shape == SHAPE
