"""The papers' own methods, and the hard search, as arms of a comparison."""

import pytest

from ms_automl.comparison.experiment import Experiment
from ms_automl.config import load_config
from ms_automl.driver.assembly import assemble
from ms_automl.errors import ConfigError
from ms_automl.meta import Reference
from ms_automl.meta.gradient import GradientLearner
from ms_automl.meta.level import AskedLevel
from ms_automl.meta.waterfill import WaterfillLearner
from ms_automl.models.overparam import FactoredConv2d
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import DONE, SamplerInputs
from tests.unit.driven import driven

SMALL = [
    *("training.steps=4", "training.report_every=2", "training.batch_size=4"),
    *("data.args.train=16", "data.args.val=4", "data.args.test=4"),
]


def experiment(*settings: str) -> Experiment:
    return Experiment(load_config("smoke", settings=[*SMALL, *settings]))


def first(arm: str, one: Experiment):
    """The first trial that an arm suggests, built."""
    bounds = one.config.lambda_.stated
    sampler = ARMS[arm].sampler(SamplerInputs(one.config, one.space(bounds), bounds, 0, one.asked))
    tasks = one.data(0).tasks
    losses = dict.fromkeys((task.name for task in tasks), 1.0)
    reference = Reference(losses, [(2, losses), (4, losses)])
    suggestion = sampler.ask([])
    return (*one.build(suggestion, 0, reference), suggestion)


@pytest.mark.parametrize(("arm", "own"), [("meta-gradient", True), ("meta-scalar", False)])
def test_lambda_is_learned_by_gradient_by_layer_or_as_one(arm, own):
    one = experiment("space=per_stage")  # which is not what counts
    trial, network, _ = first(arm, one)
    assert isinstance(trial.learner, GradientLearner)
    layers = one.layers(network)
    assert len(trial.learner.rho) == (len(layers) if own else 1)
    while not trial.done:
        trial.step()
    assert trial.schedule.layers == layers


PAPERS = ("meta-gradient", "meta-scalar", "single-sparse", "mtml", "overparam", "overparam-sparse")


RIVALS = (
    "iht",
    "l0",
    "hesso",
    "greg",
    "group-norm",
    "pat",
    "d-gating",
    "dsd",
    "l0-tuned",
    "d-gating-tuned",
    "overparam-tuned",
)


@pytest.mark.parametrize("arm", [*PAPERS, *RIVALS, "fixed-adam", "smac-level", "single-task", "optuna-level"])
def test_a_trial_costs_what_was_planned(arm):
    one = experiment()
    trial, _, suggestion = first(arm, one)
    while not trial.done:
        trial.step()
    assert trial.cost.passes == pytest.approx(sum(one.planned_passes(suggestion, 0).values()))


def test_factors_are_dense_or_sparse_at_the_lambda_that_the_preset_states():
    one = experiment("lambda.fixed=0.7")
    trial, network, suggestion = first("overparam-sparse", one)
    assert any(isinstance(part, FactoredConv2d) for part in network.modules())
    assert trial.schedule.lambda_at(0.5).unique().tolist() == pytest.approx([0.7])
    assert suggestion.values == {"lambda": 0.7}
    trial, network, _ = first("overparam", one)
    assert any(isinstance(part, FactoredConv2d) for part in network.modules())
    assert not hasattr(trial, "schedule")


@pytest.mark.parametrize("arm", ["iht", "l0", "hesso", "greg", "group-norm", "pat"])
def test_a_rival_is_told_the_target_or_its_level_is_searched(arm):
    asked = driven(arm, "objective.kind=target", "objective.target=0.5").run(3)
    assert asked[1] is DONE  # one trial is the whole search
    assert asked[0].params == {"rule": arm, "level": 0.5}
    searched = driven(arm).run(5)
    assert len({one.params["level"] for one in searched}) == 5


@pytest.mark.parametrize(
    ("arm", "knob"),
    [("iht", "period"), ("l0", "gate_lr"), ("hesso", "length"), ("greg", "delta"), ("group-norm", "reg")],
)
def test_a_tuned_rivals_knob_is_searched(arm, knob):
    target = ("objective.kind=target", "objective.target=0.5")
    for settings, names in ((target, {knob}), ((), {"level", knob})):
        for one in driven(f"{arm}-tuned", *settings).run(4):
            assert names <= one.values.keys() <= {"level", knob}
            assert one.params[knob] == one.values[knob]


def test_gates_are_at_a_hundredth_of_the_presets_lambda_or_it_is_searched():
    only, done = driven("d-gating", "lambda.fixed=0.7").run(2)
    assert only.params == {"rule": "d-gating", "lambda_": pytest.approx(0.007)} and done is DONE
    assert len({one.params["lambda_"] for one in driven("d-gating-tuned").run(5)}) == 5


def test_factors_have_a_lambda_of_their_own_where_it_is_searched():
    tried = driven("overparam-tuned", trials=40).run(12)
    values = [one.values["lambda"] for one in tried]
    high = load_config("smoke").lambda_.high
    assert {one.method for one in tried} == {"overparam"} and max(values) > high and max(values) <= 100 * high
    assert tried[0].params["schedule"]["values"][0][0] == values[0]


def test_the_hard_search_is_over_level_and_lambda_of_the_rest():
    suggested = driven("optuna-level").run(6)
    assert all(one.values.keys() == {"level", "rest"} for one in suggested)
    assert all(one.params["level"] == one.values["level"] for one in suggested)
    assert len({one.values["level"] for one in suggested}) == 6


def test_what_the_hard_search_asks_for_is_what_the_rule_takes_out():
    one = experiment()
    trial, _, suggestion = first("optuna-level", one)
    assert isinstance(trial.learner, WaterfillLearner)
    assert isinstance(trial.learner.level, AskedLevel)
    while not trial.done:
        metrics = trial.step()
    assert metrics["sparsity/param"] == pytest.approx(suggestion.values["level"], abs=0.05)


def test_a_level_beyond_what_can_be_zero_is_the_most_that_can():
    one = experiment()
    learned = one._learning({"learning": {"learner": "waterfill"}, "level": 1.0})["objective"]
    assert learned.target == pytest.approx(one._first_groups.most)


def test_under_a_target_the_hard_search_has_lambda_of_the_rest_alone():
    one = experiment("objective.kind=target", "objective.target=0.5")
    _, _, suggestion = first("optuna-level", one)
    assert suggestion.values.keys() == {"level", "rest"}
    assert suggestion.params["level"] == pytest.approx(one.asked.target)


@pytest.mark.parametrize(
    ("arm", "setting", "line"),
    [
        ("meta-gradient", "objective.kind=target", "learns for the tradeoff objective, .* or leave the arm"),
        ("meta-scalar", "training.grouping=coupled", "do not overlap, .* or leave the arm 'meta-scalar' out"),
        ("overparam", "training.grouping=coupled", "zeros of input channels alone, .* the arm 'overparam' out"),
    ],
)
def test_what_an_arm_cannot_do_is_said_before_anything_trains(arm, setting, line):
    one = Experiment(load_config("smoke", arms=[arm], settings=[*SMALL, setting]))
    with pytest.raises(ConfigError, match=line):
        assemble(one, None)


def test_the_papers_own_methods_are_marked_as_such():
    papers = [name for name, arm in ARMS.items() if arm.role == "literature"]
    assert set(papers) == {*PAPERS, "overparam-tuned", "d-gating", "d-gating-tuned", "dsd"}
    assert [name for name in papers if not ARMS[name].single] == ["d-gating-tuned", "overparam-tuned"]
