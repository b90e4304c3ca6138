"""Bounds of λ that nobody gave: from the dense reference's own steps and weights."""

from dataclasses import replace

import pytest
import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.registry import METHODS
from ms_automl.config import load_config, parse
from ms_automl.errors import ConfigError
from ms_automl.meta import Reference
from ms_automl.meta.lambda_bounds import LambdaBounds
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import SamplerInputs
from ms_automl.training import TrainingLoop, TrainingSettings

SETTINGS = TrainingSettings(steps=24, batch_size=8, lr=0.01, report_every=12, warmup_share=0.0)


def dense(data, network, settings, **params):
    return METHODS["dense"].build(data, network, settings, 0, **params)


def finished(method):
    while not method.done:
        report = method.step()
    return report


# ---- what is measured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_step_is_what_the_optimiser_adds_and_the_shrinkage_is_of_the_rates_so_far(
    tiny_data, tiny_network, optimizer
):
    settings = replace(SETTINGS, optimizer=optimizer, weight_decay=0.0)
    found = finished(dense(tiny_data, tiny_network(), settings, probe=True))
    loop = TrainingLoop(tiny_data, tiny_network(), settings, 0)
    groups, by_hand, rms = loop.sparsifier.groups, [], None
    step = loop.optimizer.step

    @torch.no_grad()
    def watched():
        nonlocal rms
        before = [weight.detach().clone() for weight in groups.weights]
        step()
        if loop.steps_done < settings.prox_steps and loop.steps_done % 10 == 0:
            moved = [
                (after - old).square().mean().sqrt() for after, old in zip(groups.weights, before, strict=True)
            ]
            by_hand.append(torch.stack(moved) / loop.lr)
            rms = torch.stack([weight.square().mean().sqrt() for weight in groups.weights])

    loop.optimizer.step = watched
    finished_at = [loop.interval() for _ in range(2)]
    rates = sum(settings.lr_at(index) for index in range(settings.prox_steps))
    assert len(by_hand) == 2 and finished_at[-1]["step"] == 24
    step = {"sgd": 10, "adamw": 1}[optimizer] * float(torch.stack(by_hand).mean(0).quantile(0.5))
    assert found["bounds/step"] == pytest.approx(step, rel=1e-4)
    assert found["bounds/shrink"] == pytest.approx(float(rms.quantile(0.5)) / rates, rel=1e-4)


def test_measuring_changes_nothing_in_the_training(tiny_data, tiny_network):
    reference, plain = (dense(tiny_data, tiny_network(), SETTINGS, probe=probe) for probe in (True, False))
    ends = [finished(method) for method in (reference, plain)]
    assert all(ends[0][key] == value for key, value in ends[1].items())
    assert "bounds/step" not in ends[1]


def test_a_reference_that_goes_on_from_a_state_measures_the_same(tiny_data, tiny_network):
    whole = finished(dense(tiny_data, tiny_network(), SETTINGS, probe=True))
    first = dense(tiny_data, tiny_network(), SETTINGS, probe=True)
    first.step()
    second = dense(tiny_data, tiny_network(), SETTINGS, probe=True)
    second.load_state_dict(first.state_dict())
    assert finished(second) == whole


def test_adams_steps_are_a_share_of_its_rate_whatever_the_rate(tiny_data, tiny_network):
    found = []
    for lr in (0.001, 0.01):
        settings = replace(SETTINGS, steps=120, lr=lr, report_every=120)
        found.append(finished(dense(tiny_data, tiny_network(), settings, probe=True)))
    assert all(0.1 < each["bounds/step"] < 1 for each in found)
    assert found[0]["bounds/shrink"] > 5 * found[1]["bounds/shrink"]  # so a short way needs a larger λ


def test_in_adams_metric_a_step_is_as_long_as_the_averaged_gradient(tiny_data, tiny_network):
    settings = replace(SETTINGS, steps=12, report_every=12, prox_share=0.9, weight_decay=0.0, prox_metric="adam")
    found = finished(dense(tiny_data, tiny_network(), settings, probe=True))
    loop = TrainingLoop(tiny_data, tiny_network(), settings, 0)
    groups, by_hand, step = loop.sparsifier.groups, [], loop.optimizer.step

    def watched():
        step()
        taken = loop.steps_done
        if taken in (0, 10):  # η m̂ / d is added, so d times it is m̂
            moments = [loop.optimizer.state[weight]["exp_avg"] for weight in groups.weights]
            by_hand.append(torch.stack([m.square().mean().sqrt() / (1 - 0.9 ** (taken + 1)) for m in moments]))

    loop.optimizer.step = watched
    loop.interval()
    assert len(by_hand) == (2 if settings.prox_steps > 10 else 1)
    assert found["bounds/step"] == pytest.approx(float(torch.stack(by_hand).mean(0).quantile(0.5)), rel=1e-3)


# ---- what follows from it ----------------------------------------------------------------------------------


def test_bounds_lie_two_decades_apart_around_the_unit_and_scale_with_it():
    bounds = LambdaBounds.measured(0.2, 0.05)
    assert (bounds.low, bounds.high) == pytest.approx((0.01, 1.0))
    assert bounds.fixed == pytest.approx(0.05, rel=0.01)
    twice = LambdaBounds.measured(0.1, 0.4)  # where the way is short, what it needs decides
    assert (twice.low, twice.high) == pytest.approx((0.02, 2.0))


def test_a_reference_knows_the_bounds_that_its_training_measured():
    metrics = {"val/left/loss": 0.5}
    assert Reference.of(metrics, ["left"]).bounds is None
    measured = metrics | {"bounds/step": 0.2, "bounds/shrink": 0.05}
    assert Reference.of(measured, ["left"]).bounds == LambdaBounds.measured(0.2, 0.05)


# ---- what a configuration states ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "bounds"),
    [
        (["lambda=auto"], None),
        (["lambda=auto", "lambda.fixed=0.3"], None),
        (["lambda=auto", "lambda.low=0.02"], (0.02, 2.0)),
        (["lambda=auto", "lambda.high=0.5"], (0.005, 0.5)),
        (["lambda.low=0.2", "lambda.high=0.5"], (0.2, 0.5)),
    ],
)
def test_what_is_stated_of_lambda_holds_and_the_rest_follows(settings, bounds):
    config = load_config("rooms", settings=settings)
    stated = config.lambda_.stated
    assert (stated is None) == (bounds is None)
    if bounds is not None:
        assert (stated.low, stated.high) == pytest.approx(bounds)
    assert parse(config.to_dict()) == config


def test_a_configuration_without_a_word_on_lambda_measures():
    values = load_config("rooms").to_dict()
    del values["lambda"]
    config = parse(values)
    assert config.lambda_.stated is None and config.to_dict()["lambda"] == "auto"


@pytest.mark.parametrize("factory", ["data", "network"])
def test_own_data_and_an_own_network_have_no_bounds_of_a_preset(factory):
    assert load_config("rooms", settings=[f"{factory}.factory=mine:{factory}"]).lambda_.stated is None
    stated = load_config("rooms", settings=[f"{factory}.factory=mine:{factory}", "lambda.low=0.1"])
    assert stated.lambda_.stated.low == 0.1


def test_a_word_that_means_nothing_is_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"lambda: 'auto' measures the bounds, .* state them \(got 'wide'\)"):
        load_config("rooms", settings=["lambda=wide"])


def test_bounds_the_wrong_way_round_are_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"`low < high` must hold, but got low=2.0, high=1.0"):
        load_config("rooms", settings=["lambda.low=2", "lambda.high=1"])


def test_stated_bounds_hold_against_measured_ones_and_none_at_all_are_an_error():
    measured = LambdaBounds.measured(0.4, 0.05)
    assert Experiment(load_config("smoke")).bounds(measured) == LambdaBounds(0.05, 5.0)
    auto = Experiment(load_config("smoke", settings=["lambda=auto"]))
    assert auto.bounds(measured) is measured
    with pytest.raises(ConfigError, match=r"measured no bounds of λ: set lambda\.low and lambda\.high"):
        auto.bounds(None)


@pytest.mark.parametrize(("settings", "fixed"), [([], 0.05), (["lambda.fixed=0.3"], 0.3)])
def test_the_one_lambda_of_fixed_is_the_stated_one_else_a_quarter_of_the_unit(settings, fixed):
    experiment = Experiment(load_config("smoke", settings=["lambda=auto", *settings]))
    bounds = LambdaBounds.measured(0.2, 0.05)
    given = SamplerInputs(experiment.config, experiment.space(bounds), bounds, 0, experiment.asked)
    assert ARMS["fixed"].sampler(given).ask([]).values["lambda"] == pytest.approx(fixed, rel=0.01)


def test_what_is_learned_within_is_the_references_bounds(tiny_data):
    experiment = Experiment(load_config("smoke", settings=["lambda=auto", "meta.learner=forward"]))
    losses = dict.fromkeys((task.name for task in experiment.data(0).tasks), 1.0)
    reference = Reference(losses, [(20, losses), (40, losses)], bounds=LambdaBounds.measured(0.3, 0.1))
    method, _ = experiment.build(ARMS["meta"].first, 0, reference)
    assert method.learner.bounds == pytest.approx((0.015, 1.5))
