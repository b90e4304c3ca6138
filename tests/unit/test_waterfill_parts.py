"""The parts of `waterfill` that can be taken out or put otherwise, for the question where the gain comes from."""

import pytest
import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import load_config
from ms_automl.errors import ConfigError
from ms_automl.meta import Reference, WaterfillSettings
from ms_automl.meta.bounds import GivenBounds
from ms_automl.meta.level import AskedLevel
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.samplers.arms import ARMS
from ms_automl.sparsifier import Sparsifier
from ms_automl.sparsity import MagnitudeImportance, RandomImportance, TaylorImportance
from tests.unit.steps import at

SMALL = [
    *(
        "training.steps=8",
        "training.report_every=4",
        "training.batch_size=4",
        "network.args={width: 4, hidden: 4}",
    ),
    *(
        "data.args.train=16",
        "data.args.val=8",
        "data.args.test=4",
        "objective.kind=target",
        "objective.target=0.5",
    ),
]


def built(*settings, seed=0):
    experiment = Experiment(load_config("smoke", settings=[*SMALL, *settings]))
    losses = dict.fromkeys((task.name for task in experiment.data(seed).tasks), 1.0)
    reference = Reference(losses, [(4, losses), (8, losses)])
    method, _ = experiment.build(ARMS["meta"].first, seed, reference)
    return experiment, method


def finished(method):
    while not method.done:
        report = method.step()
    return report


@pytest.mark.parametrize(
    ("order", "kind"),
    [
        ("taylor", TaylorImportance),
        ("validation", TaylorImportance),
        ("magnitude", MagnitudeImportance),
        ("random", RandomImportance),
    ],
)
@pytest.mark.parametrize("shrinks", ["chosen", "layer"])
def test_every_order_with_every_prox_reaches_what_is_asked_at_the_planned_cost(order, kind, shrinks):
    experiment, method = built(f"meta.order={order}", f"meta.shrinks={shrinks}")
    assert type(method.learner.importance) is kind
    report = finished(method)
    assert report["sparsity/trunk"] >= 0.5
    assert method.cost.by_kind() == experiment.planned_passes(ARMS["meta"].first, 0)
    assert (method.cost.outer > 0) == (order == "validation")


def test_the_validation_order_is_of_validation_gradients(make_groups):
    groups = make_groups([(6, 4, 1), (4, 3, 1)], removable=(0, 1))
    learned = WaterfillLearner(groups, AskedLevel(0.5), bounds=GivenBounds(1e4), by_validation=True)
    training, validation = ([torch.full_like(w, value) for w in groups.weights] for value in (3.0, 0.5))
    expected = groups.inner(validation, groups.weights).abs() / groups.size
    step = at(0, 0.0, 0.01, gradients=training.copy, outer=lambda: validation)
    learned.step(step)
    torch.testing.assert_close(learned.importance.cost(), expected, rtol=1e-5, atol=1e-8)


def test_a_random_order_is_drawn_by_the_seed_and_by_nothing_else():
    one, again, other = (built("meta.order=random", seed=seed)[1].learner.importance for seed in (0, 0, 1))
    assert torch.equal(one.cost(), again.cost()) and not torch.equal(one.cost(), other.cost())
    with torch.no_grad():
        for weight in one.groups.weights:
            weight.mul_(5)
    assert torch.equal(one.cost(), again.cost())


def test_on_the_whole_layer_lambda_shortens_groups_that_are_to_stay(make_groups):
    moved = {}
    for selective in (True, False):
        groups = make_groups([(12, 6, 1), (8, 9, 3)], removable=(0, 1))
        bounds = GivenBounds(1e4, 0.0)
        learned = WaterfillLearner(groups, AskedLevel(0.3), bounds=bounds, every=1, selective=selective)
        generator = torch.Generator().manual_seed(0)
        gradients = [torch.randn(weight.shape, generator=generator) for weight in groups.weights]
        norms = groups.norms()
        learned.step(at(0, 0.2, 0.01, gradients=gradients.copy))
        stays = ~learned.chosen
        moved[selective] = (groups.norms() < norms)[stays & (learned.lambda_[groups.layer] > 0)]
    assert not moved[True].any()
    assert moved[False].any()


def test_a_loop_of_ones_own_has_the_default_parts():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for settings in (WaterfillSettings(order="random"), WaterfillSettings(shrinks="layer")):
        with pytest.raises(ConfigError, match="waterfill's `order` and `shrinks` are for python"):
            Sparsifier(model, optimizer, example=torch.zeros(1, 3, 9, 9), steps=20, target=0.5, learner=settings)


def test_an_order_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"meta\.order"):
        load_config("smoke", settings=["meta.order=alphabetical"])
