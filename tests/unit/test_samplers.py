"""What each sampler proposes, and what it makes of how its trials end."""

import math

import pytest
from optuna.trial import TrialState

from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import DONE, WAIT, ListedTrials, RandomSearch, SamplerInputs, fixed_lambda, grid
from ms_automl.samplers.meta import STEP, MetaSparsity
from ms_automl.samplers.optuna import OptunaSearch
from search_spaces import SPACES
from tests.unit.driven import HIGH, LAYERS, LEARNED, LOW, Driven, lambdas, make_space


@pytest.fixture(params=sorted(SPACES))
def space(request):
    return make_space(request.param)


def drive(sampler, objective, count=12):
    """What is suggested in `count` trials, each with `objective(suggestion)`."""
    return Driven(sampler).run(count, objective)


def log_distance(suggestion):
    """Smallest where every λ is 0.3."""
    values = suggestion.params["schedule"]["values"] if "schedule" in suggestion.params else [[1.0]]
    return sum(abs(math.log(value / 0.3)) for row in values for value in row)


def build(kind, space, seed):
    if kind == "random":
        return RandomSearch(space.parameters, fixed_lambda(space), seed)
    if kind == "optuna":
        return OptunaSearch(space.parameters, fixed_lambda(space), seed, 12)
    return MetaSparsity(space, seed)


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
    below = sum(lambdas(one)[0] < math.sqrt(LOW * HIGH) for one in drive(sampler, log_distance, 400))
    assert 150 < below < 250


def test_a_listed_trial_is_proposed_once():
    sampler = Driven(ListedTrials([Suggestion("pruned", {"level": 0.4}, {"level": 0.4})]))
    assert sampler.step().params == {"level": 0.4}
    assert sampler.step() is DONE


def test_optuna_has_a_failure_as_a_failure_and_goes_on(space):
    driven = Driven(build("optuna", space, 0))
    driven.ask()
    driven.end(0)
    assert driven.ask().method == "fixed_lambda"
    failed = driven.sampler.study.trials[0]
    assert failed.state == TrialState.FAIL and failed.value is None


def test_optuna_does_not_take_an_infeasible_trial_for_the_best(space):
    driven = Driven(build("optuna", space, 0))
    for index, (objective, violation) in enumerate(((0.1, 0.3), (5.0, 0.0))):
        driven.ask()
        driven.end(index, objective, violation=violation)
    driven.ask()
    assert driven.sampler.study.best_value == 5.0


def test_optuna_comes_closer_to_the_optimum_than_it_began():
    space = make_space("scalar")
    distances = [
        log_distance(s)
        for s in drive(OptunaSearch(space.parameters, fixed_lambda(space), 0, 12), log_distance, 30)
    ]
    assert min(distances[10:]) < min(distances[:3])


# ---- the meta-sparsity sampler ---------------------------------------------------------------------------


def learned_first(space, seed=0):
    driven = Driven(MetaSparsity(space, seed))
    assert driven.ask().method == "meta_sparsity"
    driven.end(0, 1.0)
    return driven


def test_it_begins_with_meta_training_and_waits_for_what_is_learned(space):
    driven = Driven(MetaSparsity(space, 0))
    assert driven.ask().method == "meta_sparsity"
    assert driven.ask() is WAIT


def test_the_second_trial_is_the_learned_course_exactly(space):
    suggestion = learned_first(space).ask()
    assert suggestion.method == "fixed_lambda"
    assert LambdaSchedule.from_dict(suggestion.params["schedule"]) == LEARNED
    assert set(suggestion.values.values()) == {0.0}


def test_a_learned_course_keeps_the_shares_it_touched(space):
    learned = LambdaSchedule(LAYERS, LEARNED.values, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    driven = Driven(MetaSparsity(space, 0))
    driven.ask()
    driven.end(0, 1.0, schedule=learned.to_dict())
    for _ in range(2):
        assert LambdaSchedule.from_dict(driven.ask().params["schedule"]).shares == learned.shares


def test_then_it_tries_a_step_up_and_a_step_down(space):
    asked = learned_first(space).run(3, lambda _: 1.0)
    for suggestion, shift in zip(asked, (0.0, STEP, -STEP), strict=True):
        expected = [value * math.exp(shift) for row in LEARNED.values for value in row]
        assert lambdas(suggestion) == pytest.approx(expected)


def test_it_goes_further_where_that_helped(space):
    asked = learned_first(space).run(4, lambda s: -sum(lambdas(s)))
    assert set(asked[3].values.values()) == {2 * STEP}


def test_it_stays_around_the_best_where_no_direction_helps(space):
    asked = learned_first(space).run(12, lambda s: sum(abs(v) for v in s.values.values()))
    shifts = [value for suggestion in asked[3:] for value in suggestion.values.values()]
    assert max(map(abs, shifts)) < 6 * STEP and len(set(shifts)) == len(shifts)


def test_a_trial_that_misses_the_target_is_not_searched_around(space):
    driven = learned_first(space)
    for index, (objective, violation) in enumerate(((5.0, 0.0), (0.1, 0.2), (6.0, 0.0)), 1):
        driven.ask()
        driven.end(index, objective, violation=violation)
    assert set(driven.ask().values.values()) != {2 * STEP}


def test_failed_trials_do_not_stop_the_search(space):
    driven = learned_first(space)
    for index in range(1, 7):
        assert driven.ask().method == "fixed_lambda"
        driven.end(index)


@pytest.mark.parametrize("learned", [{}, {"objective": 1.0, "schedule": None}])
def test_it_is_done_where_meta_training_failed_or_learned_nothing(space, learned):
    driven = Driven(MetaSparsity(space, 0))
    driven.ask()
    driven.end(0, **learned)
    assert driven.ask() is DONE


# ---- the arms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("kind", ["tradeoff", "target"])
def test_the_first_trial_of_an_arm_is_of_the_kind_that_the_budget_reckons_with(name, kind):
    tuned = ["tune.training.lr="] if name == "meta-in-optuna" else []
    config = load_config("smoke", settings=[f"objective.kind={kind}", *tuned])
    sampler = ARMS[name].sampler(
        SamplerInputs(config, make_space(config.space), config.lambda_.stated, 0, config.objective)
    )
    assert sampler.ask([]).kind == ARMS[name].first.kind


def test_pruning_under_a_target_is_one_trial_at_that_target():
    config = load_config("smoke", settings=["objective.kind=target", "objective.target=0.6"])
    for criterion in ("taylor", "magnitude"):
        given = SamplerInputs(config, make_space("scalar"), config.lambda_.stated, 0, config.objective)
        driven = Driven(ARMS[f"prune-{criterion}"].sampler(given))
        assert driven.step().params == {"level": 0.6, "criterion": criterion}
        assert driven.step() is DONE


def test_a_grid_goes_from_bound_to_bound_evenly_in_the_logarithm_with_one_value_for_all_layers(space):
    asked = [
        s.params["schedule"]["values"][0]
        for s in drive(ListedTrials(grid(space.parameters, fixed_lambda(space), 5)), log_distance, 5)
    ]
    assert all(len(set(row)) == 1 for row in asked)
    assert [row[0] for row in asked] == pytest.approx([0.01, 0.01 * 10**0.5, 0.1, 10**-0.5, 1.0])
    (only,) = drive(ListedTrials(grid(space.parameters, fixed_lambda(space), 1)), log_distance, 1)
    assert lambdas(only) == pytest.approx([0.1] * len(LAYERS))
