"""What each sampler proposes, and what it makes of what it is told."""

import math

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.arms import ARMS, SamplerInputs
from ms_automl.samplers.base import ListedTrials, RandomSearch, fixed_lambda, grid, pruned
from ms_automl.samplers.meta import STEP, MetaSparsitySearcher
from ms_automl.samplers.optuna import OptunaSearch
from search_spaces import SPACES
from tests.unit.driven import HIGH, LAYERS, LEARNED, LOW, lambdas, make_space


@pytest.fixture(params=sorted(SPACES))
def space(request):
    return make_space(request.param)


def drive(sampler, objective, count=12):
    """Values of `count` trials, each told `objective(values)`."""
    asked = []
    for index in range(count):
        suggestion = sampler.suggest(f"t{index}")["suggestion"]
        asked.append(suggestion)
        told = {"objective": objective(suggestion), "violation": 0.0, "schedule": None}
        if suggestion.method == "meta_sparsity":
            told["schedule"] = LEARNED.to_dict()
        sampler.on_trial_complete(f"t{index}", told)
    return asked


def log_distance(suggestion):
    """Smallest where every λ is 0.3."""
    values = suggestion.params["schedule"]["values"] if "schedule" in suggestion.params else [[1.0]]
    return sum(abs(math.log(value / 0.3)) for row in values for value in row)


def build(kind, space, seed):
    if kind == "random":
        return RandomSearch(space.parameters, fixed_lambda(space), seed)
    if kind == "optuna":
        return OptunaSearch(space.parameters, fixed_lambda(space), seed, 12)
    return MetaSparsitySearcher(space, seed)


KINDS = ("random", "optuna", "meta")


@pytest.mark.parametrize("kind", KINDS)
def test_every_lambda_lies_within_the_bounds(kind, space):
    asked = drive(build(kind, space, 0), log_distance, 20)
    proposed = [
        value for suggestion in asked if suggestion.method == "fixed_lambda" for value in lambdas(suggestion)
    ]
    assert len(proposed) >= 19 * len(LAYERS)
    assert all(LOW * (1 - 1e-12) <= value <= HIGH * (1 + 1e-12) for value in proposed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_what_is_proposed_and_another_changes_it(kind, space):
    first, again, other = (drive(build(kind, space, seed), log_distance) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_a_scalar_space_drives_all_layers_alike(kind):
    for suggestion in drive(build(kind, make_space("scalar"), 0), log_distance, 8):
        assert len(set(lambdas(suggestion))) == 1


def test_random_search_draws_on_a_log_scale():
    sampler = RandomSearch(make_space("scalar").parameters, fixed_lambda(make_space("scalar")), 0)
    below = sum(lambdas(sampler.suggest(str(i))["suggestion"])[0] < math.sqrt(LOW * HIGH) for i in range(400))
    assert 150 < below < 250


def test_a_listed_trial_is_proposed_once():
    sampler = ListedTrials([pruned("taylor")({"level": 0.4})])
    assert sampler.suggest("a")["suggestion"].params == {"level": 0.4, "criterion": "taylor"}
    assert sampler.suggest("b") == Searcher.FINISHED


def test_optuna_hears_of_a_failure_as_a_failure_and_goes_on(space):
    sampler = build("optuna", space, 0)
    sampler.suggest("a")
    sampler.on_trial_complete("a", error=True)
    assert sampler.study.trials[0].state == TrialState.FAIL and sampler.study.trials[0].value is None
    assert sampler.suggest("b")["suggestion"].method == "fixed_lambda"


def test_optuna_does_not_take_an_infeasible_trial_for_the_best(space):
    sampler = build("optuna", space, 0)
    for name, objective, violation in (("a", 0.1, 0.3), ("b", 5.0, 0.0)):
        sampler.suggest(name)
        sampler.on_trial_complete(name, {"objective": objective, "violation": violation, "schedule": None})
    assert sampler.study.best_value == 5.0


def test_optuna_comes_closer_to_the_optimum_than_it_began():
    space = make_space("scalar")
    distances = [
        log_distance(s)
        for s in drive(OptunaSearch(space.parameters, fixed_lambda(space), 0, 12), log_distance, 30)
    ]
    assert min(distances[10:]) < min(distances[:3])


# ---- the meta-sparsity searcher ---------------------------------------------------------------------------


def learned_searcher(space, seed=0):
    searcher = MetaSparsitySearcher(space, seed)
    assert searcher.suggest("meta")["suggestion"].method == "meta_sparsity"
    searcher.on_trial_complete("meta", {"objective": 1.0, "violation": 0.0, "schedule": LEARNED.to_dict()})
    return searcher


def test_it_is_a_searcher_of_ray_tune(space):
    assert isinstance(MetaSparsitySearcher(space, 0), Searcher)


def test_it_begins_with_meta_training_and_waits_for_what_is_learned(space):
    searcher = MetaSparsitySearcher(space, 0)
    assert searcher.suggest("meta")["suggestion"].method == "meta_sparsity"
    assert searcher.suggest("early") is None


def test_the_second_trial_is_the_learned_course_exactly(space):
    suggestion = learned_searcher(space).suggest("a")["suggestion"]
    assert suggestion.method == "fixed_lambda"
    assert LambdaSchedule.from_dict(suggestion.params["schedule"]) == LEARNED
    assert set(suggestion.values.values()) == {0.0}


def test_a_learned_course_keeps_the_shares_it_touched(space):
    learned = LambdaSchedule(LAYERS, LEARNED.values, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    searcher = MetaSparsitySearcher(space, 0)
    searcher.suggest("meta")
    searcher.on_trial_complete("meta", {"objective": 1.0, "violation": 0.0, "schedule": learned.to_dict()})
    for name in ("a", "b"):
        suggestion = searcher.suggest(name)["suggestion"]
        assert LambdaSchedule.from_dict(suggestion.params["schedule"]).shares == learned.shares


def test_then_it_tries_a_step_up_and_a_step_down(space):
    asked = drive(learned_searcher(space), lambda _: 1.0, 3)
    for suggestion, shift in zip(asked, (0.0, STEP, -STEP), strict=True):
        expected = [value * math.exp(shift) for row in LEARNED.values for value in row]
        assert lambdas(suggestion) == pytest.approx(expected)


def test_it_goes_further_where_that_helped(space):
    asked = drive(learned_searcher(space), lambda s: -sum(lambdas(s)), 4)
    assert set(asked[3].values.values()) == {2 * STEP}


def test_it_stays_around_the_best_where_no_direction_helps(space):
    asked = drive(learned_searcher(space), lambda s: sum(abs(v) for v in s.values.values()), 12)
    shifts = [value for suggestion in asked[3:] for value in suggestion.values.values()]
    assert max(map(abs, shifts)) < 6 * STEP and len(set(shifts)) == len(shifts)


def test_a_trial_that_misses_the_target_is_not_searched_around(space):
    searcher = learned_searcher(space)
    for name, objective, violation in (("a", 5.0, 0.0), ("b", 0.1, 0.2), ("c", 6.0, 0.0)):
        searcher.suggest(name)
        searcher.on_trial_complete(name, {"objective": objective, "violation": violation, "schedule": None})
    assert set(searcher.suggest("d")["suggestion"].values.values()) != {2 * STEP}


def test_failed_trials_do_not_stop_the_search(space):
    searcher = learned_searcher(space)
    for index in range(6):
        assert searcher.suggest(f"t{index}")["suggestion"].method == "fixed_lambda"
        searcher.on_trial_complete(f"t{index}", error=True)


def test_it_is_finished_where_meta_training_failed(space):
    searcher = MetaSparsitySearcher(space, 0)
    searcher.suggest("meta")
    searcher.on_trial_complete("meta", error=True)
    assert searcher.suggest("next") == Searcher.FINISHED


# ---- the arms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("kind", ["tradeoff", "target"])
def test_the_first_trial_of_an_arm_is_of_the_method_that_the_budget_reckons_with(name, kind):
    config = load_config("smoke", settings=[f"objective.kind={kind}"])
    sampler = ARMS[name].sampler(SamplerInputs(config, make_space(config.space), 0))
    assert sampler.suggest("a")["suggestion"].method == ARMS[name].first


def test_pruning_under_a_target_is_one_trial_at_that_target():
    config = load_config("smoke", settings=["objective.kind=target", "objective.target=0.6"])
    for criterion in ("taylor", "magnitude"):
        sampler = ARMS[f"prune-{criterion}"].sampler(SamplerInputs(config, make_space("scalar"), 0))
        assert sampler.suggest("a")["suggestion"].params == {"level": 0.6, "criterion": criterion}
        assert sampler.suggest("b") == Searcher.FINISHED


def test_a_grid_goes_from_bound_to_bound_evenly_in_the_logarithm_with_one_value_for_all_layers(space):
    asked = [
        s.params["schedule"]["values"][0]
        for s in drive(grid(space.parameters, fixed_lambda(space), 5), log_distance, 5)
    ]
    assert all(len(set(row)) == 1 for row in asked)
    assert [row[0] for row in asked] == pytest.approx([0.01, 0.01 * 10**0.5, 0.1, 10**-0.5, 1.0])
    (only,) = drive(grid(space.parameters, fixed_lambda(space), 1), log_distance, 1)
    assert lambdas(only) == pytest.approx([0.1] * len(LAYERS))
