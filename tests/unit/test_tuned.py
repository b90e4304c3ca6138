"""Training settings that are searched besides λ: what can be named, who searches them, what a trial then is."""

from dataclasses import replace

import pytest

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config, parse
from ms_automl.driver.assembly import assemble, planned_passes
from ms_automl.errors import ConfigError
from ms_automl.samplers.arms import ARMS, check_names
from ms_automl.samplers.base import DONE, WAIT
from ms_automl.training import TrainingSettings
from tests.unit.driven import driven

SMALL = [
    *(
        "training.steps=8",
        "training.report_every=4",
        "training.batch_size=4",
        "network.args={width: 4, hidden: 4}",
    ),
    *("data.args.train=16", "data.args.val=8", "data.args.test=4"),
]
BOTH = ("tune.training.lr=0.001..0.1", "tune.training.batch_size=2,4,8")


# ---- what can be named -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("tune.training.lr=0.0003..0.03", (3e-4, 0.03, "log", ())),
        ("tune.training.lr=0.001..0.003", (1e-3, 3e-3, "linear", ())),
        ("tune.training.lr=", (3e-4, 0.03, "log", ())),
        ("tune.training.weight_decay=", (1e-6, 0.1, "log", ())),
        ("tune.training.warmup_share=0..0.2", (0.0, 0.2, "linear", ())),
        ("tune.training.batch_size=8,16,32", (8.0, 32.0, "linear", (8.0, 16.0, 32.0))),
        ("tune.training.batch_size=[8, 16]", (8.0, 16.0, "linear", (8.0, 16.0))),
        ("tune.training.batch_size=", (8.0, 32.0, "linear", (8.0, 16.0, 32.0))),
        ("tune.training.lr=0.001,0.01", (1e-3, 1e-2, "linear", (1e-3, 1e-2))),
    ],
)
def test_a_range_or_choices_or_the_usual_ones(setting, found):
    config = load_config("rooms", settings=[setting])
    (parameter,) = config.tuned
    low, high, scale, choices = found
    assert (parameter.low, parameter.high) == pytest.approx((low, high))
    assert (parameter.scale, parameter.choices) == (scale, choices)
    assert f"tune.{parameter.name}" == setting.partition("=")[0]
    assert parse(config.to_dict()) == config


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tune.training.rate=0.1..1", "unknown setting to tune 'training.rate'"),
        ("tune.lr=0.1..1", "unknown setting to tune 'lr': Known: training.lr,"),
        ("tune.training.steps=100..200", "unknown setting to tune 'training.steps'"),
        ("tune.training.lr=fast", "a range is LOW..HIGH and choices are A,B,C, in numbers, but got 'fast'"),
        ("tune.training.lr=0.1..0.001", "`LOW < HIGH` must hold"),
        ("tune.training.lr=0..0.1", "`lr > 0` must hold"),
        ("tune.training.lr=0.1", "at least two choices"),
        ("tune.training.batch_size=8..32", "whole numbers as in training.batch_size=8,16,32"),
        ("tune.training.batch_size=8,12.5", "whole numbers"),
        ("tune.training.batch_size=1,2", "`batch_size >= 2` must hold"),
        ("tune.training.momentum=", "training.momentum is of sgd"),
        ("tune.training.prox_share=0.5..1.5", "`0 < prox_share <= 1` must hold"),
        ("tune.training.lr=nan..1", "must hold"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_one_line(setting, said):
    with pytest.raises(ConfigError) as caught:
        load_config("rooms", settings=[setting])
    assert said in str(caught.value) and "\n" not in str(caught.value)


# ---- what a trial then is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 8, 16, 50, 256])
@pytest.mark.parametrize(("steps", "every"), [(900, 90), (100, 30), (7, 7), (40, 1)])
def test_another_batch_size_leaves_samples_and_reports_what_they_were(size, steps, every):
    base = TrainingSettings(steps=steps, batch_size=16, report_every=every)
    found = base.under({"training.batch_size": float(size)})
    assert found.batch_size == size and found.reports == base.reports
    # To half a step in each report; a report has a step at least.
    assert abs(found.steps * size - steps * 16) <= base.reports * max(size, 16)
    assert replace(found, batch_size=16, steps=steps, report_every=every) == base


def test_a_trial_trains_under_its_own_settings_and_is_planned_under_them():
    experiment = Experiment(load_config("smoke", settings=[*SMALL, *BOTH]))
    settings = {"training.lr": 0.02, "training.batch_size": 8.0}
    trial = Suggestion("dense", {"training": settings}, settings)
    method, _ = experiment.build(trial, 0)
    assert (method.loop.settings.lr, method.loop.settings.batch_size, method.loop.settings.steps) == (0.02, 8, 4)
    reports = 0
    while not method.done:
        method.step()
        reports += 1
    assert reports == experiment.config.training.reports
    planned = planned_passes(experiment)
    assert planned(trial, 0) == experiment.planned_passes(trial, 0)
    assert method.cost.train == planned(trial, 0)["train"] == planned(Suggestion("dense", {}, {}), 0)["train"]


# ---- who searches them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["random", "optuna", "optuna-gp", "optuna-asha", "topk", "smac"])
def test_searches_over_lambda_search_the_settings_too(arm):
    run = driven(arm, *BOTH, trials=6)
    for suggestion in run.run(5):
        settings = suggestion.params["training"]
        assert suggestion.method == "fixed_lambda" and 0.001 <= settings["training.lr"] <= 0.1
        assert settings["training.batch_size"] in (2, 4, 8)
        assert {key: suggestion.values[key] for key in settings} == settings
        assert any(key.startswith("lambda/") for key in suggestion.values)


def test_meta_in_optuna_learns_the_level_once_and_lambda_under_all_settings():
    run = driven("meta-in-optuna", *BOTH, trials=6)
    first, *others = run.run(5)
    assert (first.method, first.params, first.values) == ("meta_sparsity", {}, {})
    for suggestion in others:
        assert suggestion.method == "meta_sparsity"
        assert suggestion.params == {"level": 0.84, "training": suggestion.values}
        assert set(suggestion.values) == {"training.lr", "training.batch_size"}
    assert len({tuple(one.values.values()) for one in others}) == 4


def test_meta_in_optuna_waits_for_the_level_and_is_done_without_it():
    run = driven("meta-in-optuna", *BOTH)
    run.ask()
    assert run.sampler.ask(run.trials) is WAIT
    failed = driven("meta-in-optuna", *BOTH)
    failed.run(1, lambda suggestion: None)
    assert failed.sampler.ask(failed.trials) is DONE


def test_under_a_target_every_trial_of_meta_in_optuna_is_asked_for_it():
    run = driven("meta-in-optuna", *BOTH, "objective.kind=target", "objective.target=0.6")
    assert [suggestion.params["level"] for suggestion in run.run(3)] == [0.6] * 3


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_that_says_so_searches_them_and_no_other(arm):
    run = driven(arm, *BOTH, trials=6)
    suggestions = [one for one in run.run(2) if one is not DONE]
    assert ARMS[arm].tunes == any("training" in one.params for one in suggestions)


def test_settings_that_no_arm_would_search_are_refused():
    check_names(load_config("smoke", arms=["meta", "random"], settings=BOTH))
    with pytest.raises(ConfigError, match="none of the arms meta, grid searches training settings: add one of "):
        check_names(load_config("smoke", arms=["meta", "grid"], settings=BOTH))


@pytest.mark.parametrize("arm", ["meta", "fixed", "grid", "prune-taylor", "optuna-level"])
def test_other_arms_train_as_the_configuration_says(arm):
    assert "training" not in driven(arm, *BOTH).step().params


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), "searches training settings, but none is to be tuned: --tune training.lr"),
        ((*BOTH, "meta.learner=forward"), "set meta.learner=waterfill, or leave the arm out"),
    ],
)
def test_meta_in_optuna_says_before_anything_trains_what_it_lacks(settings, said):
    config = load_config("smoke", arms=["meta-in-optuna"], settings=[*SMALL, "lambda=auto", *settings])
    with pytest.raises(ConfigError, match=said):
        assemble(Experiment(config), None)
