"""Arms as a run asks them: what they propose when it goes on, and how those end that stop trials on the way."""

from dataclasses import replace

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ms_automl.comparison.run import Start
from ms_automl.meta import LambdaSchedule
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import DONE, WAIT, Observation, RandomSearch, Result, TopK, fixed_lambda
from ms_automl.samplers.optuna import OptunaSearch, open_journal, rungs
from tests.unit.driven import HIGH, LEARNED, LOW, Driven, driven, lambdas, make_space


@pytest.mark.parametrize("arm", ARMS)
def test_what_is_proposed_depends_on_seed_and_trials_alone(arm):
    """A sampler that is made anew for every question, or was asked other questions before, says the same."""
    whole = driven(arm)
    wanted = whole.run({"optuna-gp": 8, "smac": 6, "smac-level": 6}.get(arm, 14))  # some take seconds to answer
    other = driven(arm)
    other.run(3, lambda suggestion: 7.0)
    other.ask()
    for count in range(len(whole.trials)):
        assert driven(arm).sampler.ask(whole.trials[:count]) == wanted[count]
        assert other.sampler.ask(whole.trials[:count]) == wanted[count]


@pytest.mark.parametrize("arm", ["random", "optuna", "optuna-asha", "prune-taylor"])
def test_a_trial_that_runs_says_no_more_than_one_that_failed(arm):
    run = driven(arm)
    run.run(8)
    failed = [replace(trial, result=None, at_rungs={}) for trial in run.trials[6:]]
    running = [replace(trial, ended=False) for trial in failed]
    assert run.sampler.ask([*run.trials[:6], *running]) == run.sampler.ask([*run.trials[:6], *failed])


def test_a_recorded_suggestion_wins_over_what_would_be_suggested():
    """A trial of another version of Optuna, or of ours, is one like any other."""
    space = make_space("scalar")
    foreign = [fixed_lambda(space)({"lambda": value}) for value in (0.02, 0.5, 0.31, 0.9)]
    runs = [Driven(OptunaSearch(space.parameters, fixed_lambda(space), seed, 8)) for seed in (0, 0)]
    for run in runs:
        for index, suggestion in enumerate(foreign):
            run.trials.append(Observation(f"t{index:02d}", suggestion, index))
            run.end(index, float(index))
    assert runs[0].ask() == runs[1].ask()
    assert [trial.params["lambda"] for trial in runs[0].sampler.study.trials[:4]] == [0.02, 0.5, 0.31, 0.9]
    assert runs[0].ask() != Driven(OptunaSearch(space.parameters, fixed_lambda(space), 0, 8)).ask()


def test_a_draw_depends_on_its_number_alone():
    space, trials = make_space("per_layer"), [None] * 9
    forward, backward, other = (RandomSearch(space.parameters, fixed_lambda(space), seed) for seed in (3, 3, 4))
    drawn = [forward.ask(trials[:n]) for n in range(9)]
    assert drawn == [backward.ask(trials[:n]) for n in reversed(range(9))][::-1]
    assert drawn[0] != other.ask([])


def test_a_study_lies_in_its_journal_as_optuna_keeps_them(tmp_path):
    run = driven("optuna", journal=tmp_path / "optuna.journal", seed=3)
    run.run(6)
    study = optuna.load_study(storage=open_journal(tmp_path / "optuna.journal"), study_name="optuna-3")
    assert [trial.value for trial in study.trials] == [trial.result.objective for trial in run.trials]
    assert [trial.user_attrs["trial"] for trial in study.trials] == [trial.name for trial in run.trials]
    assert [trial.params for trial in study.trials] == [trial.suggestion.values for trial in run.trials]
    assert study.trials[0].constraints == {"target": 0.0}


def test_a_study_in_a_journal_changes_nothing_and_keeps_each_trial_once(tmp_path):
    before = driven("optuna", journal=tmp_path / "j")
    before.run(3)
    before.ask()
    after = driven("optuna", journal=tmp_path / "j")
    for trial in before.trials[:3]:
        after.sampler.record(trial)
    after.trials = before.trials[:3]
    assert after.run(5) == driven("optuna").run(8)[3:]
    study = optuna.load_study(storage=open_journal(tmp_path / "j"), study_name="optuna-0")
    assert [trial.user_attrs["trial"] for trial in study.trials] == [f"t{index:02d}" for index in range(8)]


def test_a_trial_that_an_earlier_version_left_running_in_a_study_is_failed(tmp_path):
    study = optuna.create_study(storage=open_journal(tmp_path / "j"), study_name="optuna-0")
    study.ask().set_user_attr("trial", "t00")
    driven("optuna", journal=tmp_path / "j").run(1)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_study_that_grows_keeps_its_random_start(tmp_path):
    driven("optuna", journal=tmp_path / "j", trials=16).run(2)
    assert driven("optuna", journal=tmp_path / "j", trials=40).sampler.startup == 4
    assert driven("optuna", journal=tmp_path / "other", trials=40).sampler.startup == 10


def test_a_failed_and_a_stopped_trial_are_to_optuna_what_they_were():
    space = make_space("scalar")
    run = Driven(OptunaSearch(space.parameters, fixed_lambda(space), 0, 12))
    for index, result in enumerate((None, Result(0.1, stopped=True), Result(3.0))):
        trial = Observation(f"t{index:02d}", fixed_lambda(space)({"lambda": 0.1}), index, True, result)
        run.trials.append(trial)
    run.ask()
    states = [trial.state for trial in run.sampler.study.trials[:3]]
    assert states == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert run.sampler.study.best_value == 3.0


def test_a_path_begins_each_trial_from_the_last_that_came_to_its_end():
    run = driven("path", trials=4)
    first, second = run.run(2)
    assert (first.start, second.start) == (None, Start("weights", "t00"))
    run.ask()
    run.end(2)
    assert run.ask().start == Start("weights", "t01")


def test_topk_spends_its_budget_on_many_short_candidates_and_takes_the_best_to_the_end():
    run = driven("topk", trials=16)
    sampler = run.sampler
    share = sampler.short["share"]
    spent, rest = sampler.candidates * share, sampler.kept * (1 - share)
    assert spent + rest <= 16 < spent + rest + share
    candidates = run.run(sampler.candidates)
    assert {(one.until, one.share) for one in candidates} == {(sampler.rung, share)}
    last = run.run(sampler.kept)
    ranked = sorted(run.trials[: sampler.candidates], key=lambda trial: trial.result.objective)
    assert [s.start for s in last] == [Start("state", trial.name) for trial in ranked[: sampler.kept]]
    both = zip(last, ranked, strict=False)
    assert all(s.until is None and s.values == trial.suggestion.values for s, trial in both)
    assert run.step() is DONE


def test_topk_waits_for_its_candidates_and_passes_over_those_that_failed():
    space = make_space("scalar")
    run = Driven(TopK(RandomSearch(space.parameters, fixed_lambda(space), 0), trials=2, rung=1, share=0.5))
    for _ in range(run.sampler.candidates):
        run.ask()
    assert run.ask() is WAIT
    for index in range(run.sampler.candidates):
        run.end(index)
    assert run.ask() is DONE


def test_halving_lets_a_third_of_the_trials_go_on():
    assert rungs(10) == (1, 3) and rungs(2) == (1,) and rungs(40) == (4, 12)
    space = make_space("scalar")
    run = Driven(OptunaSearch(space.parameters, fixed_lambda(space), 0, 12, rungs=(1,)))
    stopped = []
    for index, objective in enumerate([5.0, 1.0, 3.0, 9.0, 2.0, 8.0, 0.5, 7.0, 6.0]):
        run.ask()
        stopped.append(run.rung(index, 1, objective))
        assert not run.rung(index, 2, 1e9), "there is no rung at the second report"
        run.end(index, objective, stopped=stopped[-1])
    run.ask()
    assert stopped[1] is False and stopped[6] is False  # the best so far goes on
    assert sum(stopped) >= 5
    ended = [trial for trial in run.sampler.study.trials if trial.state != TrialState.FAIL]
    assert [trial.state == TrialState.PRUNED for trial in ended] == stopped


def test_halving_compares_with_those_that_were_known_when_a_trial_was_suggested():
    space = make_space("scalar")
    sampler = OptunaSearch(space.parameters, fixed_lambda(space), 0, 12, rungs=(1,))
    suggestion = fixed_lambda(space)({"lambda": 0.1})
    better = [Observation(f"t{n}", suggestion, n, True, Result(0.1), {1: 0.1}) for n in range(4)]
    assert sampler.stops([*better, Observation("t4", suggestion, 4)], 4, 1, 0.5)
    assert not sampler.stops([*better, Observation("t4", suggestion, 0)], 4, 1, 0.5)


def test_optuna_around_the_learned_lambda_begins_with_it_and_stays_within_the_bounds():
    first, second, *others = driven("meta-optuna").run(12)
    assert first.method == "meta_sparsity"
    assert LambdaSchedule.from_dict(second.params["schedule"]) == LEARNED and set(second.values.values()) == {0.0}
    assert len({tuple(s.values.values()) for s in others}) == len(others)
    assert all(LOW <= value <= HIGH for s in others for value in lambdas(s))


def test_dense_reg_tries_weight_decays_then_lambdas_whose_zeros_are_not_frozen():
    suggestions = driven("dense-reg").run(9)
    assert [s.method for s in suggestions[:8]] == ["dense"] * 4 + ["fixed_lambda"] * 4
    assert all(s.params["freeze"] is False for s in suggestions[4:8])
    assert suggestions[8] is DONE


def test_twice_the_budget_of_random_search_begins_with_the_same_draws():
    assert driven("random-2x").run(6) == driven("random").run(6)


def test_studies_in_one_journal_read_what_the_others_write_once(tmp_path, monkeypatch):
    read, space = [], make_space("per_layer")
    logs = JournalFileBackend.read_logs

    def counted(backend, number):
        for log in logs(backend, number):
            read.append(log)
            yield log

    monkeypatch.setattr(JournalFileBackend, "read_logs", counted)
    runs = [
        Driven(
            OptunaSearch(
                space.parameters, fixed_lambda(space), 0, 8, journal=tmp_path / "journal", name=f"s{number}"
            )
        )
        for number in range(6)
    ]
    for _ in range(3):
        for run in runs:
            run.step()
    written = (tmp_path / "journal").read_text().count("\n")
    assert written <= len(read) <= 1.2 * written
