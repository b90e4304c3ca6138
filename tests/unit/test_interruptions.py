"""Trials whose process, host or driver is lost, and what they left on the way."""

import math
import random
from dataclasses import replace

import pytest

from ms_automl.comparison.run import Assignment
from ms_automl.samplers.base import DONE, WAIT
from ms_automl.tuning.run import LOST
from tests.unit.bench import REPORTS, UNIT, Bench, folder

ARMS = ("topk", "path", "optuna", "optuna-asha", "meta-optuna", "random")


def disturbed(bench, slots, chance, seed):
    """Run to the end while processes are lost, and states are kept, at random moments; how many were lost."""
    rng, running, lost = random.Random(seed), [], 0
    while True:
        answer = None
        if len(running) < slots:
            name, answer = bench.ask()
            if answer is DONE:
                assert not running
                return lost
            if isinstance(answer, Assignment):
                running.append(name)
                continue
        name = rng.choice(running)
        draw = rng.random()
        if draw < chance and bench.state.trials[name].interruptions < bench.scheduler.retries:
            running.remove(name)
            bench.lose(name)
            lost += 1
        elif draw < 3 * chance:
            bench.store(name)
        elif bench.step(name):
            running.remove(name)


def broken_off(bench, slots, rng, turns):
    """Run for so many turns, states being kept at random moments; what runs then is lost with the driver."""
    running = []
    for _ in range(turns):
        name, answer = bench.ask() if len(running) < slots else (None, None)
        if isinstance(answer, Assignment):
            running.append(name)
        elif running:
            name = rng.choice(running)
            if rng.random() < 0.2:
                bench.store(name)
            elif bench.step(name):
                running.remove(name)


def all_charged(bench):
    ledger = bench.state.ledger
    payers = [*bench.state.runs, *(f"{name}/again" for name in bench.state.runs)]
    totals = [ledger.totals(payer) for payer in payers]
    assert sum(charge.passes for charge in ledger) == pytest.approx(
        sum(total.passes + total.lost_passes for total in totals)
    )
    for trial in bench.state.trials.values():
        assert trial.passes == pytest.approx(ledger.spent_on(trial.name))


def without_notes(rows):
    return [{key: value for key, value in row.items() if key != "note"} for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_the_table_is_the_same_whatever_processes_were_lost(tmp_path, seed):
    whole = Bench(folder(tmp_path, "whole"), arms=ARMS, retrain=1)
    whole.run(slots=3)
    bench = Bench(folder(tmp_path, "lost"), arms=ARMS, retrain=1, retries=1000)
    assert disturbed(bench, 3, 0.1, seed) > 10
    assert without_notes(bench.table()) == without_notes(whole.table())
    all_charged(bench)
    assert sum(row["lost_passes"] for row in bench.state.rows()) > 0


@pytest.mark.parametrize("seed", range(3))
def test_nor_does_it_matter_whether_the_driver_was_lost_as_well(tmp_path, seed):
    whole = Bench(folder(tmp_path, "whole"), arms=ARMS)
    whole.run(slots=3)
    cut = folder(tmp_path, "cut")
    rng = random.Random(seed)
    resumed = False
    for _ in range(4):
        bench = Bench(cut, arms=ARMS, retries=1000, resumed=resumed)
        broken_off(bench, 3, rng, rng.randrange(20, 80))
        resumed = True
    bench = Bench(cut, arms=ARMS, retries=1000, resumed=True)
    disturbed(bench, 3, 0.1, seed)
    assert without_notes(bench.table()) == without_notes(whole.table())
    all_charged(bench)


def test_a_trial_goes_on_from_the_last_state_it_left_and_its_sampler_hears_nothing_of_it(tmp_path):
    bench = Bench(tmp_path, arms=("random",), retries=1)
    bench.finish(bench.ask()[0])
    name, first = bench.ask()
    trial = bench.state.trials[name]
    for _ in range(3):
        bench.step(name)
    bench.store(name)
    bench.step(name)
    bench.lose(name)
    other, answer = bench.ask()
    assert other != name and answer == replace(first, states=trial.states) and len(trial.states) == 1
    assert bench.state.trials[other] is trial and name not in bench.state.trials
    bench.step(other)  # the fourth interval again
    assert trial.reports == 4 and trial.passes == pytest.approx(4 * UNIT / REPORTS)
    bench.finish(other)
    total = bench.state.ledger.totals("random-0")
    assert trial.status == "FINISHED" and trial.passes == pytest.approx(UNIT)
    assert total.passes == pytest.approx(UNIT)
    # A report's worth at most had begun, and one was done again.
    assert total.lost_passes == pytest.approx(2 * UNIT / REPORTS)
    bench.run(slots=1)
    assert bench.row("random")["note"] == "1 process lost, others went on"


def test_without_a_state_it_begins_anew_and_after_too_many_losses_it_has_failed(tmp_path):
    bench = Bench(tmp_path, arms=("random",), retries=2)
    bench.finish(bench.ask()[0])
    for loss in range(3):
        name, answer = bench.ask()
        trial = bench.state.trials[name]
        assert answer.states == () and trial.name == "random-0/00" and trial.interruptions == loss
        bench.step(name)
        bench.lose(name)
    assert trial.status == "FAILED" and "process died" in trial.error
    total = bench.state.ledger.totals("random-0")
    # Paid for: the interval that was reported, and the one in which it failed for good.
    assert total.passes == pytest.approx(2 * UNIT / REPORTS) and total.lost_passes == pytest.approx(
        4 * UNIT / REPORTS
    )
    bench.run(slots=1)
    assert bench.row("random")["note"] == "1 trial failed; 2 processes lost, others went on"


def test_where_every_process_died_it_is_not_said_that_others_went_on_and_ray_knows_why(tmp_path):
    bench = Bench(tmp_path, arms=("random",), retries=1)
    for _ in range(2):
        name, _ = bench.ask()
        bench.lose(name, "the trial's process died: memory ran out")
    trial = bench.state.runs["dense-0"].trials[0]
    assert trial.error == "the trial's process died: memory ran out"
    bench.run(slots=1)
    assert bench.row("dense")["note"] == "gave up; 1 trial failed; 1 process lost"


def test_what_a_lost_process_had_begun_is_reckoned_from_the_pace_it_had(tmp_path):
    bench = Bench(tmp_path, arms=("random",), retries=1)
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    bench.step(name)
    bench.step(name)  # a second each
    bench.clock.now += 0.25
    bench.scheduler.end(name, lost=LOST)
    total = bench.state.ledger.totals("random-0")
    assert total.lost_passes == pytest.approx(0.25 * UNIT / REPORTS)
    assert total.lost_seconds == pytest.approx(0.25)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("arm", ["random", "topk"])
def test_a_trial_that_has_ended_is_done_again_until_its_model_is_stored_and_judged_once(tmp_path, arm, stored):
    whole = Bench(folder(tmp_path, "whole"), arms=(arm,))
    whole.run(slots=1)
    bench = Bench(folder(tmp_path, "lost"), arms=(arm,), retries=1)
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    trial = bench.state.trials[name]
    while trial.status == "RUNNING":
        if stored and bench.at[name] == 1:
            bench.store(name)
        bench.scheduler.report(name, bench.report(name, bench.at[name]))
        bench.at[name] += 1
    assert trial.status == ("STOPPED" if arm == "topk" else "FINISHED")
    reports = trial.reports
    bench.lose(name)
    name, answer = bench.ask()
    assert bench.state.trials[name] is trial and len(answer.states) == stored
    for _ in range(reports - stored):
        assert trial.checkpoint is None
        assert bench.scheduler.silence(name) >= 0
        bench.step(name)
    assert trial.checkpoint is not None and trial.reports == reports
    total = bench.state.ledger.totals(trial.run)
    assert total.passes == pytest.approx(UNIT * reports / REPORTS)
    assert total.lost_passes == pytest.approx(UNIT * (reports - stored) / REPORTS)
    bench.run(slots=1)
    assert without_notes(bench.table()) == without_notes(whole.table())


def ended_but_not_stored(path, arm, retries=0):
    """A comparison whose second trial left a state after its first interval, and has ended; the trial's id."""
    bench = Bench(path, arms=(arm,), retries=retries)
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    while bench.state.trials[name].status == "RUNNING":
        if bench.at[name] == 1:
            bench.store(name)
        bench.scheduler.report(name, bench.report(name, bench.at[name]))
        bench.at[name] += 1
    return bench, name


@pytest.mark.parametrize("arm", ["random", "topk"])
def test_one_that_ended_as_the_driver_was_lost_comes_to_the_same_end_again(tmp_path, arm):
    whole = Bench(folder(tmp_path, "whole"), arms=(arm,))
    whole.run(slots=1)
    bench, name = ended_but_not_stored(folder(tmp_path, "cut"), arm)
    before = bench.state.trials[name]
    resumed = Bench(tmp_path / "cut", arms=(arm,), resumed=True)
    name, answer = resumed.ask()
    trial = resumed.state.trials[name]
    assert trial.name == before.name and len(answer.states) == 1 and trial.reports == 1
    resumed.finish(name)
    assert (trial.status, trial.reports, trial.metrics["val/objective"]) == (
        before.status, before.reports, before.metrics["val/objective"],
    )  # fmt: skip
    resumed.run(slots=1)
    assert without_notes(resumed.table()) == without_notes(whole.table())


def test_a_model_that_a_second_process_stored_is_known_to_the_next_driver(tmp_path):
    bench, name = ended_but_not_stored(tmp_path, "random", retries=1)
    trial = bench.state.trials[name]
    bench.lose(name)
    bench.finish(bench.ask()[0])
    resumed = Bench(tmp_path, arms=("random",), resumed=True)
    known = {other.name: other.checkpoint for other in resumed.state.trials.values()}
    assert known[trial.name] == trial.checkpoint


def test_a_model_that_could_not_be_stored_is_said(tmp_path):
    bench = Bench(tmp_path, arms=("fixed",))
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    for interval in range(REPORTS):
        bench.scheduler.report(name, bench.report(name, interval))
    bench.lose(name)
    bench.run(slots=1)
    assert bench.row("fixed")["note"] == "its model was not stored: --resume trains it again"
    resumed = Bench(tmp_path, arms=("fixed",), resumed=True)
    assert resumed.run(slots=1) == ["fixed-0/00"] and resumed.row("fixed")["note"] == ""


def test_a_process_that_hung_is_not_replaced(tmp_path):
    bench = Bench(tmp_path, arms=("random",), retries=2)
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    bench.step(name)
    bench.clock.now += 100
    assert bench.scheduler.silence(name) == 100
    bench.scheduler.give_up(name, "no report for 99 s")
    bench.scheduler.end(name, lost=LOST)
    assert bench.state.trials[name].status == "FAILED" and bench.ask()[1].states == ()
    assert bench.state.runs["random-0"].trials[-1].index == 1


def test_silence_is_counted_from_the_start_of_the_process_that_goes_on(tmp_path):
    bench = Bench(tmp_path, arms=("random",), retries=1)
    name, _ = bench.ask()
    bench.step(name)
    bench.lose(name)
    bench.clock.now += 50
    other = f"{name}-again"
    bench.scheduler.next(other)
    assert bench.scheduler.silence(other) == 0
    bench.scheduler.started(other)
    bench.clock.now += 3
    assert bench.scheduler.silence(other) == 3


def test_the_last_two_states_of_a_running_trial_are_kept_and_none_of_one_that_has_ended(tmp_path):
    bench = Bench(tmp_path, arms=("random",))
    name, _ = bench.ask()
    dropped = []
    for _ in range(4):
        bench.step(name)
        dropped.append(bench.store(name))
    trial = bench.state.trials[name]
    assert dropped[:2] == [(), ()] and len(dropped[2]) == len(dropped[3]) == 1
    assert [place.rpartition("@")[2] for place in trial.states] == ["3", "4"]
    assert [place[0].rpartition("@")[2] for place in dropped[2:]] == ["1", "2"]
    last = trial.states
    while not bench.scheduler.report(name, report := bench.report(name, bench.at[name])) and not report.done:
        bench.at[name] += 1
    assert bench.scheduler.stored(name, "model") == last and trial.states == () and trial.checkpoint == "model"


def test_a_driver_that_goes_on_hands_out_the_last_states_and_judges_nothing_twice(tmp_path):
    bench = Bench(tmp_path, arms=("random", "optuna"))
    bench.finish(bench.ask()[0])
    names = [bench.ask()[0] for _ in range(2)]
    for name in names:
        for _ in range(4):
            bench.step(name)
        bench.store(name)
        bench.step(name)
    resumed = Bench(tmp_path, arms=("random", "optuna"), resumed=True)
    for _ in names:
        name, answer = resumed.ask()
        trial = resumed.state.trials[name]
        before = next(other for other in bench.state.trials.values() if other.name == trial.name)
        assert answer.states == before.states and resumed.at[name] == 4
        assert trial.reports == 4 and trial.passes == pytest.approx(4 * UNIT / REPORTS)
        resumed.finish(name)
        assert trial.passes == pytest.approx(UNIT) and trial.reports == REPORTS
        # One interval was done again, and nobody knows how far the next one was.
        assert resumed.state.ledger.totals(trial.run).lost_passes == pytest.approx(1.5 * UNIT / REPORTS)
    assert resumed.run(slots=2, most=math.inf)


def test_the_useful_share_after_a_stop_is_that_of_the_driver_which_goes_on(tmp_path):
    Bench(tmp_path, arms=("random",)).run(slots=1, most=2 * REPORTS + 3)
    resumed = Bench(tmp_path, arms=("random",), resumed=True)
    resumed.run(slots=1)
    assert resumed.state.useful_share == pytest.approx(0.8)  # as the bench's reports have it


def test_what_was_suggested_goes_on_whatever_a_later_versions_sampler_would_have_drawn(tmp_path):
    bench = Bench(tmp_path, arms=("random",))
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    bench.step(name)
    bench.state.trials[name].values["lambda/stem"] = 0.123
    bench.store(name)
    answer = Bench(tmp_path, arms=("random",), resumed=True).ask()[1]
    assert answer.suggestion.values["lambda/stem"] == 0.123 and len(answer.states) == 1


def test_ray_is_not_told_of_the_end_while_a_process_may_still_be_lost(tmp_path):
    bench = Bench(tmp_path, arms=("random",), trials=1, retries=1)
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    bench.step(name)
    assert bench.ask()[1] is WAIT
    bench.lose(name)
    name, answer = bench.ask()
    assert isinstance(answer, Assignment)
    bench.finish(name)
    assert bench.ask()[1] is DONE
