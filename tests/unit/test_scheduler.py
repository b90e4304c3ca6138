"""The scheduler over all arms: order, budget, failures, stopping, retraining and going on, without a Ray."""

import math
import random

import pytest

from ms_automl.comparison.run import Role
from ms_automl.meta import Objective
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import DONE, WAIT
from ms_automl.tuning.run import LOST
from tests.unit.bench import PASS, REPORTS, UNIT, UNITS, Bench, folder
from tests.unit.driven import FREE

LISTED = {name for name, arm in ARMS.items() if arm.single} | {"dense-reg"}


def test_the_dense_references_come_first_and_nothing_else_before_its_own(tmp_path):
    bench = Bench(tmp_path, seeds=(0, 1), arms=("optuna", "meta"))
    first, second, third = bench.ask(), bench.ask(), bench.ask()
    assert [bench.state.trials[name].run for name, _ in (first, second)] == ["dense-0", "dense-1"]
    assert third[1] is WAIT
    bench.finish(second[0])
    name, answer = bench.ask()
    assert bench.state.trials[name].run.endswith("-1")
    loss = 1 + 1 / REPORTS
    assert answer.seed == 1 and answer.reference.losses == {"digit": loss}
    assert dict(answer.reference.course)[10 * REPORTS] == {"digit": 2 * loss}
    assert len(answer.reference.course) == REPORTS


@pytest.mark.parametrize("kind", ["tradeoff", "target"])
@pytest.mark.parametrize("space", ["scalar", "per_stage", "per_layer"])
@pytest.mark.parametrize("unit", ["passes", "flops"])
def test_each_arm_spends_no_more_than_its_limit_and_closes(tmp_path, kind, space, unit):
    bench = Bench(tmp_path, arms=FREE, objective=Objective(kind, target=0.5), space=space, unit=unit)
    bench.run(slots=3)
    for run in bench.state.runs.values():
        assert run.closed and run.trials
        row = bench.row(run.arm)
        assert row["overshoot"] == 0 and row["unit"] == unit
        assert row["limit"] is None or row["spent"] <= row["limit"] * (1 + 1e-9)
        told = (
            kind == "target" and run.role is Role.PRUNED and not run.arm.endswith("-tuned")
        )  # one trial suffices
        if run.arm not in LISTED and not told:
            assert row["spent"] > row["limit"] - 1.3 * UNITS[unit].total(PASS), "it gave up too early"
    counts = {row["arm"]: row["trials"] for row in bench.table()}
    assert counts["random-2x"] == 2 * counts["random"] == 8 and counts["grid"] == counts["path"] == 4
    assert counts["meta-search"] == counts["meta-optuna"] == 3


@pytest.mark.parametrize(("arm", "trials"), [("optuna-gp", 6), ("optuna-level", 4)])
def test_the_gaussian_process_is_an_arm_like_the_others(tmp_path, arm, trials):
    """One whose trials cost a quarter more has fewer of them."""
    bench = Bench(tmp_path, arms=(arm,), trials=6)
    bench.run(slots=1)
    assert bench.row(arm)["trials"] == trials
    assert bench.row(arm)["searcher_seconds"] > 0


def test_a_budget_that_is_met_exactly_is_spent(tmp_path):
    bench = Bench(tmp_path, arms=("random",), trials=3)
    bench.run(slots=1)
    assert bench.row("random")["spent"] == pytest.approx(3 * UNIT)


@pytest.mark.parametrize("slots", [2, 5])
@pytest.mark.parametrize("order", range(2))
def test_the_table_is_the_same_at_any_interleaving_of_streams(tmp_path, slots, order):
    tables = []
    for name, width, pick in (("one", 1, min), ("many", slots, random.Random(order).choice)):
        bench = Bench(folder(tmp_path, name), seeds=(0, 1), arms=FREE, retrain=1)
        bench.run(width, pick)
        tables.append(bench.table())
    assert tables[0] == tables[1]


def test_what_a_stream_does_in_the_end_does_not_depend_on_the_other_arms_failures(tmp_path):
    tables = []
    for name, broken in (
        ("whole", lambda *_: False),
        ("broken", lambda run, _: run.arm == "random" and "nan"),
    ):
        bench = Bench(folder(tmp_path, name), arms=FREE, broken=broken)
        bench.run(2)
        tables.append({row["arm"]: row for row in bench.table()})
    assert tables[1]["random"]["status"] == "failed" and tables[1]["random"]["failed_trials"] == 4
    assert {arm: row for arm, row in tables[0].items() if arm != "random"} == {
        arm: row for arm, row in tables[1].items() if arm != "random"
    }


@pytest.mark.parametrize("arm", [arm for arm in FREE if arm not in LISTED and not arm.startswith("meta")])
def test_every_arm_survives_a_trial_that_fails(tmp_path, arm):
    bench = Bench(tmp_path, arms=(arm,), trials=6, broken=lambda run, trial: trial.index == 1 and "nan")
    bench.run(slots=1)
    row = bench.row(arm)
    assert (row["status"] == "ok" and "1 trial failed" in row["note"]) or row["stopped_trials"] > 0
    assert row["overshoot"] == 0


def test_a_failed_reference_closes_its_seed_with_a_note_and_leaves_the_other_alone(tmp_path):
    bench = Bench(tmp_path, seeds=(0, 1), arms=FREE, broken=lambda run, _: run.name == "dense-1" and "nan")
    bench.run(slots=2)
    for row in bench.table():
        if row["seed"] == 0:
            assert row["status"] == "ok"
        else:
            assert row["status"] == "failed"
            assert row["arm"] == "dense" or (row["trials"], row["note"]) == (0, "the dense reference failed")


def test_a_failed_meta_training_ends_the_arms_that_need_it_and_no_other(tmp_path):
    bench = Bench(tmp_path, arms=FREE, broken=lambda _, trial: trial.method == "meta_sparsity" and "nan")
    bench.run(slots=2)
    status = {row["arm"]: row["status"] for row in bench.table()}
    learned = {name for name, arm in ARMS.items() if name in FREE and arm.first.method == "meta_sparsity"}
    assert {arm for arm, word in status.items() if word == "failed"} == learned


def test_a_stream_whose_trials_fail_at_no_cost_gives_up(tmp_path):
    bench = Bench(tmp_path, arms=("random",), trials=3, broken=lambda run, _: run.arm == "random" and "unbuilt")
    bench.run(slots=2)
    row = bench.row("random")
    assert (row["status"], row["failed_trials"], row["passes"]) == ("failed", 3, 0.0)
    assert row["note"] == "gave up; 3 trials failed"


def test_a_report_that_arrives_again_is_charged_once(tmp_path):
    bench = Bench(tmp_path, arms=("random",))
    name, _ = bench.ask()
    early = bench.report(name, 0)
    for _ in range(2):
        assert not bench.scheduler.report(name, early)
    assert bench.state.trials[name].passes == pytest.approx(UNIT / REPORTS)
    assert bench.state.ledger.totals("dense-0").passes == pytest.approx(UNIT / REPORTS)


# ---- processes that die or hang ---------------------------------------------------------------------------


def test_a_trial_whose_process_dies_fails_is_charged_for_what_it_had_begun_and_the_stream_goes_on(tmp_path):
    bench = Bench(tmp_path, arms=("random",))
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    bench.step(name)
    bench.clock.now += 7.0
    bench.scheduler.end(name, lost=LOST)
    trial = bench.state.trials[name]
    assert trial.status == "FAILED" and "process died" in trial.error
    # A report's worth at most was done since the last one; the device was held all the time.
    assert trial.passes == pytest.approx(2 * UNIT / REPORTS)
    assert trial.device_seconds == pytest.approx(1.0 + 7.0)
    assert bench.state.ledger.totals("random-0").passes == pytest.approx(trial.passes)
    bench.run(slots=2)
    assert all(run.closed for run in bench.state.runs.values())
    assert bench.row("random")["overshoot"] == 0


# ---- a budget in seconds ----------------------------------------------------------------------------------


def test_in_seconds_the_limit_is_a_multiple_of_what_the_dense_reference_took(tmp_path):
    bench = Bench(tmp_path, arms=("random",), unit="device_seconds", slow={"dense": 2.0})
    bench.run(slots=1)
    assert bench.row("random")["limit"] == pytest.approx(4 * 2.0 * REPORTS, rel=1e-2)


def test_in_seconds_a_running_trial_is_stopped_at_its_next_report_and_the_overshoot_is_shown(tmp_path):
    bench = Bench(tmp_path, arms=("random", "optuna"), unit="device_seconds", slow={"random": 1.5})
    bench.run(slots=1)
    row, seconds = bench.row("random"), 1.5
    assert row["trials"] == 3 and row["stopped_trials"] == 1 and row["status"] == "ok"
    assert row["limit"] <= row["spent"] < row["limit"] + seconds
    assert row["overshoot"] == pytest.approx(row["spent"] - row["limit"])
    stopped = bench.state.runs["random-0"].trials[-1]
    assert "the budget is spent" in stopped.error and "val/objective" in stopped.metrics
    assert bench.row("optuna")["stopped_trials"] <= 1  # the sampler's own seconds count


def test_a_stopped_trial_wins_only_where_no_whole_one_exists(tmp_path):
    bench = Bench(tmp_path, arms=("random",), unit="device_seconds", trials=1, slow={"random": 3.0})
    bench.run(slots=1)
    row = bench.row("random")
    assert (row["status"], row["trials"], row["stopped_trials"]) == ("partial", 1, 1)
    assert "no trial came to its end" in row["note"] and row["objective"] is not None

    bench = Bench(folder(tmp_path, "two"), arms=("random",), unit="device_seconds", slow={"random": 1.5})
    bench.run(slots=1)
    assert bench.state.runs["random-0"].best.status == "FINISHED"


def test_a_samplers_time_is_charged_in_seconds_and_shown_in_every_unit(tmp_path):
    for unit in UNITS:
        bench = Bench(folder(tmp_path, unit), arms=("optuna",), unit=unit)
        bench.run(slots=1)
        row = bench.row("optuna")
        assert row["searcher_seconds"] > 0
        expected = row["device_seconds"] + row["searcher_seconds"] if unit == "device_seconds" else None
        assert expected is None or row["spent"] == pytest.approx(expected)


# ---- rungs ------------------------------------------------------------------------------------------------


def test_stopped_candidates_are_charged_what_they_took_and_told_as_stopped(tmp_path):
    bench = Bench(tmp_path, arms=("optuna-asha",), trials=8)
    bench.run(slots=1)
    run = bench.state.runs["optuna-asha-0"]
    stopped = [trial for trial in run.trials if trial.status == "STOPPED"]
    assert stopped and len(run.trials) > 8
    for trial in stopped:
        assert trial.passes == pytest.approx(trial.reports * UNIT / REPORTS)
        assert trial.metrics["rung/objective"] == trial.at_rungs[trial.reports]
        assert "others were better" in trial.error
    assert run.best.status == "FINISHED" and "rung/objective" in run.best.metrics


def test_topk_goes_on_from_the_state_its_best_candidates_were_stopped_in(tmp_path):
    bench = Bench(tmp_path, arms=("topk",), trials=8)
    bench.run(slots=1)
    run = bench.state.runs["topk-0"]
    again = [trial for trial in run.trials if trial.start is not None]
    assert len(again) == 2 and all(trial.status == "FINISHED" for trial in again)
    for trial in again:
        origin = next(other for other in run.trials if other.name == trial.start["trial"])
        config = next(c for name, c in bench.configs.items() if bench.state.trials[name] is trial)
        assert config.start == ("state", origin.checkpoint)
        assert trial.passes + origin.passes == pytest.approx(UNIT)
        assert trial.metrics["rung/objective"] == origin.metrics["val/objective"]


def test_a_trial_waits_for_the_checkpoint_it_begins_from(tmp_path):
    bench = Bench(tmp_path, arms=("path",))
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    for interval in range(REPORTS):
        bench.scheduler.report(name, bench.report(name, interval))
    bench.scheduler.end(name, bench.report(name, REPORTS - 1))
    assert bench.ask()[1] is WAIT and bench.ask()[1] is WAIT
    bench.state.stored(name, str(tmp_path / "model"))
    assert bench.ask()[1].start == ("weights", str(tmp_path / "model"))


# ---- retraining -------------------------------------------------------------------------------------------


def test_the_selected_lambda_is_trained_again_on_fresh_seeds_that_all_arms_share_and_nobody_pays(tmp_path):
    bench = Bench(tmp_path, seeds=(0, 1), arms=("random", "topk", "meta"), retrain=3)
    bench.run(slots=2)
    seeds = {}
    for row in bench.state.rows():
        again = row["retrained"]
        assert len(again) == (0 if row["arm"] == "dense" else 3)
        seeds.setdefault(row["seed"], set()).add(tuple(run["training_seed"] for run in again))
        if again:
            mean = sum(run["test_objective"] for run in again) / 3
            assert row["retrained_test_objective"] == pytest.approx(mean)
        assert row["limit"] is None or row["spent"] <= row["limit"] * (1 + 1e-9)
    assert len(seeds[0] - {()}) == 1 and seeds[0] & seeds[1] == {()}
    configs = [c for name, c in bench.configs.items() if bench.state.trials[name].training_seed is not None]
    assert {c.training_seed for c in configs} >= {1_000_000, 1_001_000}
    assert bench.state.ledger.totals("random-0/again").passes == pytest.approx(3 * UNIT)


def test_a_retraining_that_fails_is_left_out_of_the_mean(tmp_path):
    broken = lambda run, trial: trial.training_seed == 1_000_001 and "nan"  # noqa: E731
    bench = Bench(tmp_path, arms=("random",), retrain=2, broken=broken)
    bench.run(slots=1)
    assert [run["training_seed"] for run in bench.row("random")["retrained"]] == [1_000_000]


# ---- going on after a kill --------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [1, 25, 90, 180, 260])
def test_a_comparison_that_was_killed_ends_with_the_table_of_one_that_was_not(tmp_path, killed):
    whole = Bench(folder(tmp_path, "whole"), arms=FREE, retrain=1)
    whole.run(slots=3)
    cut = folder(tmp_path, "cut")
    Bench(cut, arms=FREE, retrain=1).run(slots=3, most=killed)
    resumed = Bench(cut, arms=FREE, retrain=1, resumed=True)
    before = {trial.name for trial in resumed.state.trials.values() if trial.status != "RUNNING"}
    history = resumed.run(slots=3)
    assert not before & set(history), "a trial that had ended was run again"
    assert resumed.table() == whole.table()
    charged = sum(charge.passes for charge in resumed.state.ledger)
    runs = [*resumed.state.runs, *(f"{name}/again" for name in resumed.state.runs)]
    totals = [resumed.state.ledger.totals(name) for name in runs]
    assert charged == pytest.approx(sum(total.passes + total.lost_passes for total in totals))


def test_it_may_be_killed_again_and_again(tmp_path):
    whole = Bench(folder(tmp_path, "whole"), arms=("topk", "meta-optuna", "optuna-asha"))
    whole.run(slots=2)
    cut, resumed = folder(tmp_path, "cut"), False
    for killed in (7, 3, 11, 2, 30, math.inf):
        bench = Bench(cut, arms=("topk", "meta-optuna", "optuna-asha"), resumed=resumed)
        bench.run(slots=2, most=killed)
        resumed = True
    assert bench.table() == whole.table()


def test_a_larger_budget_runs_only_what_is_new(tmp_path):
    bench = Bench(tmp_path, arms=("optuna", "random", "meta"), trials=4)
    first = bench.run(slots=2)
    more = Bench(tmp_path, seeds=(0, 1), arms=("optuna", "random", "meta"), trials=6, resumed=True)
    second = more.run(slots=2)
    assert not set(first) & set(second)
    assert {name for name in second if "-0/" in name} == {
        "optuna-0/04", "optuna-0/05", "random-0/04", "random-0/05"
    }  # fmt: skip
    assert more.row("optuna")["trials"] == 6 and more.row("optuna", 1)["trials"] == 6


def test_a_comparison_that_had_ended_has_nothing_more_to_do(tmp_path):
    bench = Bench(tmp_path, arms=FREE)
    bench.run(slots=2)
    again = Bench(tmp_path, arms=FREE, resumed=True)
    assert again.run(slots=2) == [] and again.table() == bench.table()
    assert again.ask()[1] is DONE


def test_an_interrupted_trial_that_waits_has_ended_when_the_comparison_is_stopped(tmp_path):
    bench = Bench(tmp_path, arms=("random",), retries=1)
    name, _ = bench.ask()
    bench.step(name)
    bench.lose(name)
    bench.state.stop("KILLED", "stopped by Ctrl-C")
    assert [trial.status for trial in bench.state.trials.values()] == ["KILLED"]
