"""Presets and --set: what is read, and the one line that says what is wrong."""

from dataclasses import fields
from typing import get_args

import pytest
import yaml

from ms_automl.config import Config, load_config, parse, presets, upgraded
from ms_automl.errors import ConfigError
from ms_automl.meta import Objective, WaterfillSettings
from ms_automl.meta.learners import LEARNERS
from ms_automl.meta.settings import SETTINGS
from ms_automl.samplers.arms import ARMS
from ms_automl.sparsity import GROUPINGS, PROX_METRICS
from ms_automl.training import TrainingSettings
from ms_automl.training.settings import Grouping, ProxMetric
from search_spaces import SPACES


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_and_names_only_what_exists(name):
    config = load_config(name)
    assert config.preset == name
    assert set(config.arms) <= set(ARMS)
    assert config.space in SPACES
    assert config.lambda_.low <= config.lambda_.fixed <= config.lambda_.high


@pytest.mark.parametrize("name", presets())
def test_a_configuration_survives_its_own_yaml(name):
    config = load_config(name)
    assert parse(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("metric", PROX_METRICS)
def test_every_grouping_and_metric_that_exists_can_be_set(grouping, metric):
    config = load_config("smoke", settings=[f"training.grouping={grouping}", f"training.prox_metric={metric}"])
    assert (config.training.grouping, config.training.prox_metric) == (grouping, metric)


def test_what_settings_name_is_what_there_is():
    assert get_args(Grouping) == tuple(GROUPINGS)
    assert get_args(ProxMetric) == tuple(PROX_METRICS)
    assert {name: entry.settings for name, entry in LEARNERS.items()} == SETTINGS


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_that_exists_can_be_set_with_all_of_its_settings_and_no_other(learner):
    config = load_config("smoke", settings=[f"meta.learner={learner}"])
    assert config.meta == LEARNERS[learner].settings(learner=learner)
    names = {field.name for field in fields(config.meta)}
    assert set(config.to_dict()["meta"]) == names
    others = {field.name for entry in LEARNERS.values() for field in fields(entry.settings)} - names
    assert others
    for name in others:
        with pytest.raises(ConfigError, match=rf"meta\.{name}: learner '{learner}' has no such setting"):
            load_config("smoke", settings=[f"meta.learner={learner}", f"meta.{name}=1"])


def test_what_earlier_versions_recorded_is_read_with_the_names_of_this_one():
    config = load_config("smoke", settings=["meta.learner=forward", "meta.every=3"])
    record = config.to_dict()
    record["meta"] |= {"rest": 0.33, "guess": 0.05, "doubt": 1.0, "unroll": 5}
    record["training"]["metric"] = record["training"].pop("prox_metric")
    record["resources"]["concurrency_per_stream"] = 3
    del record["resources"]["concurrency_per_run"], record["objective"]["scale"], record["objective"]["cost"]
    assert parse(upgraded(record)).meta == config.meta
    found = parse(upgraded(record))
    assert found.objective.cost == "penalised_weights"
    assert (found.objective.scale, found.training, found.resources.concurrency_per_run) == (
        "ratio",
        config.training,
        3,
    )
    record["meta"]["every_other"] = 1
    with pytest.raises(ConfigError, match=r"meta\.every_other"):
        parse(upgraded(record))


@pytest.mark.parametrize(
    ("setting", "found", "value"),
    [
        ("training.steps=123", lambda c: c.training.steps, 123),
        ("training.lr=1e-3", lambda c: c.training.lr, 1e-3),  # a string in YAML 1.1
        ("lambda.low=0.002", lambda c: c.lambda_.low, 0.002),
        ("meta.learner=unrolled", lambda c: c.meta.learner, "unrolled"),
        ("training.optimizer=sgd", lambda c: c.training.optimizer, "sgd"),
        ("objective.kind=target", lambda c: c.objective.kind, "target"),
        ("data.args.train=99", lambda c: c.data.args["train"], 99),
        ("data.args.own.deep=yes", lambda c: c.data.args["own"], {"deep": True}),
        ("network={factory: mine:net, args: {width: 4}}", lambda c: c.network.factory, "mine:net"),
        ("arms=[meta, optuna]", lambda c: c.arms, ("meta", "optuna")),
        ("data.factory=pkg.module:function", lambda c: c.data.factory, "pkg.module:function"),
        ("lambda.source=a sweep = a good one", lambda c: c.lambda_.source, "a sweep = a good one"),
    ],
)
def test_set_changes_one_key_with_a_value_in_yaml(setting, found, value):
    assert found(load_config("smoke", settings=[setting])) == value


def test_settings_that_the_trainables_take_have_the_same_defaults_here():
    smoke = load_config("smoke")
    assert Config(arms=(), **{name: smoke.to_dict()[name] for name in ("preset", "data", "lambda")}) == Config(
        arms=(), preset="smoke", data=smoke.data, **{"lambda": smoke.lambda_},
        training=TrainingSettings(), objective=Objective(), meta=WaterfillSettings(),
    )  # fmt: skip


def test_the_last_of_two_settings_of_a_key_wins():
    assert load_config("smoke", settings=["seeds=2", "seeds=3"]).seeds == 3


def test_arguments_of_the_command_line_replace_those_of_the_preset():
    config = load_config("smoke", arms=["meta"], seeds=3, settings=["first_seed=5"])
    assert config.arms == ("meta",)
    assert config.seed_numbers == (5, 6, 7)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.steps=0", ["training:", "`steps >= 1`", "steps=0"]),
        ("training.steps=2.5", ["training.steps", "integer", "2.5"]),
        ("training.steps=many", ["training.steps", "integer", "'many'"]),
        ("training.lr=-1", ["training:", "`lr > 0`", "lr=-1"]),
        ("training.lr=nan", ["training.lr", "finite"]),
        ("training.report_every=1000", ["training", "`report_every <= steps`", "report_every=1000", "steps=40"]),
        ("training.batch_size=1", ["training:", "`batch_size >= 2`", "batch_size=1"]),
        ("training=5", ["training", "5"]),
        ("training.grouping=filter", ["training.grouping", "'input_channel'", "'coupled'", "'filter'"]),
        ("training.prox_metric=l2", ["training.prox_metric", "'euclidean' or 'adam'", "'l2'"]),
        ("training.optimizer=adam", ["training.optimizer", "'adamw' or 'sgd'", "'adam'"]),
        ("meta={learner: forward, outer: test}", ["meta.outer", "'validation' or 'training'", "'test'"]),
        ("meta={learner: unrolled, unroll: 0}", ["meta:", "`unroll >= 1`", "unroll=0"]),
        ("meta.decay=1", ["meta:", "`0 <= decay < 1`", "decay=1"]),
        ("meta.learner=waterfal", ["meta.learner 'waterfal'", "did you mean 'waterfill'"]),
        ("meta.learner=5", ["meta.learner '5'", "waterfill"]),
        ("meta.every=3", ["meta.every", "'waterfill'", "meta.learner=one_step"]),
        ("meta.evry=3", ["meta.evry", "did you mean 'meta.every'"]),
        ("meta=waterfill", ["meta", "'waterfill'"]),
        ("lambda.low=7", ["lambda", "`low < high`", "low=7", "high=5"]),
        ("lambda.high=inf", ["lambda.high", "finite"]),
        ("budget.trials=0", ["budget.trials", "greater than or equal to 1"]),
        ("seeds=0", ["seeds", "greater than or equal to 1", "0"]),
        ("objective.kind=best", ["objective.kind", "'tradeoff' or 'target'", "'best'"]),
        ("objective.target=1", ["objective:", "`0 < target < 1`", "target=1"]),
        ("training.metric=adam", ["training.metric", "did you mean 'training.prox_metric'"]),
        ("resources.concurrency_per_stream=2", ["did you mean 'resources.concurrency_per_run'"]),
        ("training.stepps=5", ["training.stepps", "did you mean 'training.steps'", "budget.trials"]),
        ("trainning.steps=5", ["trainning", "Known:", "training.steps"]),
        ("arms=optuna", ["arms", "tuple", "'optuna'"]),
        ("data.args.day=2020-01-01", ["data.args.day", "JSON"]),
        ("data.args.day=2020-13-45", ["data.args.day", "is not a value"]),
        ("data.args={a: 1", ["data.args", "is not a value"]),
        ("data.args=!!python/object/apply:os.getcwd []", ["data.args", "is not a value"]),
        ("seeds.first=5", ["seeds", "single value"]),
        ("preset=rooms", ["--preset"]),
        ("training.steps", ["key=value", "'training.steps'"]),
        ("=5", ["key=value", "'=5'"]),
        ("", ["key=value"]),
    ],
)
def test_a_bad_setting_gives_one_line_with_key_value_and_what_is_allowed(setting, words):
    with pytest.raises(ConfigError) as caught:
        load_config("smoke", settings=[setting])
    message = str(caught.value)
    assert "\n" not in message and "pydantic" not in message
    for word in words:
        assert word in message


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown preset 'smok': did you mean 'smoke'\? Known: .*rooms"):
        load_config("smok")


def test_a_preset_is_a_name_and_never_a_path():
    with pytest.raises(ConfigError, match="unknown preset"):
        load_config("../presets/smoke")


def test_two_mistakes_are_both_named():
    with pytest.raises(ConfigError, match=r"training.*`steps >= 1`.*`lr > 0`.*budget\.trials"):
        load_config("smoke", settings=["training.steps=0", "training.lr=0", "budget.trials=0"])


def test_a_missing_key_says_how_to_give_it():
    values = load_config("smoke").to_dict()
    del values["data"]["factory"]
    with pytest.raises(ConfigError, match=r"data\.factory is missing: --set data\.factory=VALUE"):
        parse(values)
