"""Arms as a stream asks them: what they propose when it goes on, and how those end that stop trials on the way."""

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from ms_automl.comparison.run import Start
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import fixed_lambda
from ms_automl.samplers.multi_fidelity import TopK
from ms_automl.samplers.optuna import OptunaSearch, open_journal, rungs
from tests.unit.driven import HIGH, LEARNED, LOW, Driven, lambdas, make_space


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
