"""What each sampler proposes, and what it makes of what it is told."""

import math

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ms_automl.arms import ARMS, Stage
from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule
from ms_automl.tuning.experiment import Start
from ms_automl.tuning.fidelity import TopK
from ms_automl.tuning.meta_search import STEP, MetaSparsitySearcher
from ms_automl.tuning.optuna_search import OptunaSearch, open_journal, rungs
from ms_automl.tuning.sampling import ListedTrials, RandomSearch, fixed_lambda, grid, pruned
from search_spaces import SPACES

LAYERS = ("stem", "block1.conv1", "block1.conv2")
LOW, HIGH = 0.01, 1.0
LEARNED = LambdaSchedule(LAYERS, ((0.1, 0.2, 0.05), (0.2, 0.4, 0.1)))


def make_space(name):
    return SPACES[name](LAYERS, (LOW, HIGH))


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


def lambdas(suggestion):
    return [value for row in suggestion.params["schedule"]["values"] for value in row]


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
    sampler = ARMS[name].sampler(Stage(config, make_space(config.space), 0))
    assert sampler.suggest("a")["suggestion"].method == ARMS[name].first


def test_pruning_under_a_target_is_one_trial_at_that_target():
    config = load_config("smoke", settings=["objective.kind=target", "objective.target=0.6"])
    for criterion in ("taylor", "magnitude"):
        sampler = ARMS[f"prune-{criterion}"].sampler(Stage(config, make_space("scalar"), 0))
        assert sampler.suggest("a")["suggestion"].params == {"level": 0.6, "criterion": criterion}
        assert sampler.suggest("b") == Searcher.FINISHED


class Driven:
    """An arm's sampler, told an objective that depends on what it suggests and on nothing else."""

    def __init__(self, arm, journal=None, trials=16, seed=0):
        config = load_config("smoke", settings=[f"budget.trials={trials}", "training.report_every=5"])
        stage = Stage(config, make_space("per_layer"), seed, journal)
        self.sampler, self.reports = ARMS[arm].sampler(stage), stage.reports
        self.records = []

    def step(self):
        name = f"t{len(self.records):02d}"
        answer = self.sampler.suggest(name)
        if not isinstance(answer, dict):
            return answer
        suggestion = answer["suggestion"]
        values = list(suggestion.values.values())
        told = {"objective": sum((v - 0.3) ** 2 for v in values) + len(values), "violation": 0.0, "schedule": None}
        if suggestion.method == "meta_sparsity":
            told["schedule"] = LEARNED.to_dict()
        last = suggestion.until or self.reports
        told["at_rungs"] = {}
        stopped = False
        for report in range(1, last + 1):
            stopped = self.sampler.on_report(name, report, told["objective"])
            if report in self.sampler.rungs:
                told["at_rungs"][report] = told["objective"]
            if stopped:
                break
        told["stopped"] = stopped or suggestion.until is not None
        self.records.append((name, suggestion, told))
        self.sampler.on_trial_complete(name, told)
        return suggestion

    def run(self, count):
        return [self.step() for _ in range(count)]


@pytest.mark.parametrize("journalled", [False, True])
@pytest.mark.parametrize("arm", [name for name in ARMS if name != "optuna-gp"])
def test_a_stream_that_goes_on_proposes_what_it_would_have(arm, journalled, tmp_path):
    whole = Driven(arm, tmp_path / "whole" if journalled else None)
    wanted = whole.run(14)
    journal = tmp_path / "cut" if journalled else None
    before = Driven(arm, journal)
    before.run(9)
    before.sampler.suggest("t09")  # was running when the driver died
    after = Driven(arm, journal)
    for name, suggestion, told in before.records:
        after.sampler.recall(name, suggestion, told)
    after.records = list(before.records)
    assert after.run(5) == wanted[9:14]


def test_a_study_lies_in_its_journal_as_optuna_keeps_them(tmp_path):
    driven = Driven("optuna", tmp_path / "optuna.journal", seed=3)
    driven.run(6)
    study = optuna.load_study(storage=open_journal(tmp_path / "optuna.journal"), study_name="optuna-3")
    assert [trial.value for trial in study.trials] == [told["objective"] for _, _, told in driven.records]
    assert [trial.user_attrs["trial"] for trial in study.trials] == [name for name, _, _ in driven.records]
    assert study.trials[0].constraints == {"target": 0.0}


def test_a_trial_that_no_process_ended_is_failed_in_the_study_and_none_is_doubled(tmp_path):
    before = Driven("optuna", tmp_path / "j")
    before.run(3)
    before.sampler.suggest("t03")
    after = Driven("optuna", tmp_path / "j")
    for name, suggestion, told in before.records:
        after.sampler.recall(name, suggestion, told)
    states = [trial.state for trial in after.sampler.study.trials]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.FAIL]


def test_a_study_that_grows_keeps_its_random_start(tmp_path):
    Driven("optuna", tmp_path / "j", trials=16).run(2)
    assert Driven("optuna", tmp_path / "j", trials=40).sampler.startup == 4
    assert Driven("optuna", tmp_path / "other", trials=40).sampler.startup == 10


def test_a_failed_and_a_stopped_trial_are_taken_over_as_what_they_were():
    space = make_space("scalar")
    sampler = OptunaSearch(space.parameters, fixed_lambda(space), 0, 12)
    suggestion = fixed_lambda(space)({"lambda": 0.1})
    sampler.recall("a", suggestion, None)
    sampler.recall("b", suggestion, {"objective": 0.1, "violation": 0.0, "schedule": None, "stopped": True})
    sampler.recall("c", suggestion, {"objective": 3.0, "violation": 0.0, "schedule": None, "stopped": False})
    assert [trial.state for trial in sampler.study.trials] == [
        TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE
    ]  # fmt: skip
    assert sampler.study.best_value == 3.0


def test_a_grid_goes_from_bound_to_bound_evenly_in_the_logarithm_with_one_value_for_all_layers(space):
    asked = [
        s.params["schedule"]["values"][0]
        for s in drive(grid(space.parameters, fixed_lambda(space), 5), log_distance, 5)
    ]
    assert all(len(set(row)) == 1 for row in asked)
    assert [row[0] for row in asked] == pytest.approx([0.01, 0.01 * 10**0.5, 0.1, 10**-0.5, 1.0])
    (only,) = drive(grid(space.parameters, fixed_lambda(space), 1), log_distance, 1)
    assert lambdas(only) == pytest.approx([0.1] * len(LAYERS))


def test_a_path_begins_each_trial_from_the_last_that_came_to_its_end():
    driven = Driven("path", trials=4)
    first, second = driven.run(2)
    assert (first.start, second.start) == (None, Start("weights", "t00"))
    driven.sampler.suggest("t02")
    driven.sampler.on_trial_complete("t02", error=True)
    assert driven.sampler.suggest("t03")["suggestion"].start == Start("weights", "t01")


def test_topk_spends_its_budget_on_many_short_candidates_and_takes_the_best_to_the_end():
    driven = Driven("topk", trials=16)
    sampler = driven.sampler
    share = sampler.short["share"]
    spent, rest = sampler.candidates * share, sampler.kept * (1 - share)
    assert spent + rest <= 16 < spent + rest + share
    candidates = driven.run(sampler.candidates)
    assert {(one.until, one.share) for one in candidates} == {(sampler.rung, share)}
    last = driven.run(sampler.kept)
    ranked = sorted(driven.records[: sampler.candidates], key=lambda record: record[2]["objective"])
    assert [s.start for s in last] == [Start("state", name) for name, _, _ in ranked[: sampler.kept]]
    assert all(s.until is None and s.values == c.values for s, (_, c, _) in zip(last, ranked, strict=False))
    assert driven.step() == Searcher.FINISHED


def test_topk_waits_for_its_candidates_and_passes_over_those_that_failed():
    space = make_space("scalar")
    sampler = TopK(space.parameters, fixed_lambda(space), 0, trials=2, rung=1, share=0.5)
    names = [f"c{i}" for i in range(sampler.candidates)]
    for name in names:
        sampler.suggest(name)
    assert sampler.suggest("early") is None
    for name in names:
        sampler.on_trial_complete(name, error=True)
    assert sampler.suggest("late") == Searcher.FINISHED


def test_halving_lets_a_third_of_the_trials_go_on():
    assert rungs(10) == (1, 3) and rungs(2) == (1,) and rungs(40) == (4, 12)
    space = make_space("scalar")
    sampler = OptunaSearch(space.parameters, fixed_lambda(space), 0, 12, rungs=(1,))
    stopped = []
    for index, objective in enumerate([5.0, 1.0, 3.0, 9.0, 2.0, 8.0, 0.5, 7.0, 6.0]):
        sampler.suggest(f"t{index}")
        stopped.append(sampler.on_report(f"t{index}", 1, objective))
        assert not sampler.on_report(f"t{index}", 2, 1e9), "there is no rung at the second report"
        told = {"objective": objective, "violation": 0.0, "schedule": None, "stopped": stopped[-1]}
        sampler.on_trial_complete(f"t{index}", told)
    assert stopped[1] is False and stopped[6] is False  # the best so far goes on
    assert sum(stopped) >= 5
    assert {t.state for t in sampler.study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_optuna_around_the_learned_lambda_begins_with_it_and_stays_within_the_bounds():
    driven = Driven("meta-optuna")
    first, second, *others = driven.run(12)
    assert first.method == "meta_sparsity"
    assert LambdaSchedule.from_dict(second.params["schedule"]) == LEARNED and set(second.values.values()) == {0.0}
    assert len({tuple(s.values.values()) for s in others}) == len(others)
    assert all(LOW <= value <= HIGH for s in others for value in lambdas(s))


def test_dense_reg_tries_weight_decays_then_lambdas_whose_zeros_are_not_frozen():
    suggestions = Driven("dense-reg").run(8)
    assert [s.method for s in suggestions] == ["dense"] * 4 + ["fixed_lambda"] * 4
    assert all(s.params["freeze"] is False for s in suggestions[4:])
    assert Driven("dense-reg").run(9)[-1] == Searcher.FINISHED


def test_twice_the_budget_of_random_search_begins_with_the_same_draws():
    assert Driven("random-2x").run(6) == Driven("random").run(6)


def test_studies_in_one_journal_read_what_the_others_write_once(tmp_path, monkeypatch):
    read, space = [], make_space("per_layer")
    logs = JournalFileBackend.read_logs

    def counted(backend, number):
        for log in logs(backend, number):
            read.append(log)
            yield log

    monkeypatch.setattr(JournalFileBackend, "read_logs", counted)
    searches = [
        OptunaSearch(space.parameters, fixed_lambda(space), 0, 8, journal=tmp_path / "journal", name=f"s{number}")
        for number in range(6)
    ]
    for trial in range(3):
        for search in searches:
            search.suggest(f"trial-{trial}")
            search.on_trial_complete(f"trial-{trial}", {"objective": 1.0, "violation": 0.0})
    written = (tmp_path / "journal").read_text().count("\n")
    assert written <= len(read) <= 1.2 * written
