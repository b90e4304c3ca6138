"""Several trials of an arm and seed at a time: nothing depends on which of them ends first."""

import math
import random

import pytest

from ms_automl.comparison.run import Assignment
from ms_automl.samplers.base import WAIT
from tests.unit.bench import UNIT, Bench, folder
from tests.unit.driven import FREE
from tests.unit.test_interruptions import all_charged, broken_off, disturbed, without_notes

LEARN = ("topk", "path", "optuna", "optuna-asha", "meta-search", "meta-optuna", "random")


def in_any_order(seed):
    return random.Random(seed).choice


@pytest.mark.parametrize("at_a_time", [2, 3, 20])
def test_the_table_is_the_same_at_any_number_of_slots_and_in_any_order(tmp_path, at_a_time):
    tables = []
    for slots, order in ((1, min), (2, max), (5, in_any_order(0)), (50, in_any_order(1))):
        bench = Bench(folder(tmp_path, str(slots)), arms=FREE, retrain=1, trials=6, at_a_time=at_a_time)
        bench.run(slots, order)
        tables.append(without_notes(bench.table()))
        all_charged(bench)
    assert tables[0] == tables[1] == tables[2] == tables[3]
    assert all(row["spent"] <= (row["limit"] or math.inf) * (1 + 1e-9) for row in tables[0])


def test_so_many_run_at_a_time_but_for_trials_that_build_on_each_other(tmp_path):
    bench = Bench(tmp_path, arms=("random", "path"), at_a_time=3)
    bench.finish(bench.ask()[0])
    asked = [bench.ask() for _ in range(6)]
    names = [bench.state.trials[name].name for name, answer in asked if isinstance(answer, Assignment)]
    assert sorted(names) == ["path-0/00", "random-0/00", "random-0/01", "random-0/02"]


def test_a_sampler_knows_of_ends_in_order_and_no_more_than_it_would_with_all_slots(tmp_path):
    bench = Bench(tmp_path, arms=("random",), trials=8, at_a_time=3)
    known = []
    sampler = bench.scheduler.progress["random-0"].sampler
    ask = sampler.ask
    sampler.ask = lambda trials: known.append([one.name for one in trials if one.ended]) or ask(trials)
    bench.finish(bench.ask()[0])
    first, second, third = (bench.ask()[0] for _ in range(3))
    bench.finish(third)
    bench.finish(second)
    assert bench.ask()[1] is WAIT and known == [[], [], []]
    bench.finish(first)
    fourth = bench.ask()[0]
    assert known[3:] == [["random-0/00"]]  # and the fifth with two
    bench.finish(fourth)
    bench.run(slots=1)
    names = [f"random-0/{index:02d}" for index in range(8)]
    assert known == [[], [], [], *(names[:count] for count in range(1, 6))]


def test_best_and_curve_are_those_of_trials_in_their_order(tmp_path):
    curves = []
    for name, order in (("up", min), ("down", max)):
        bench = Bench(folder(tmp_path, name), arms=("random",), trials=6, at_a_time=3)
        bench.run(3, order)
        curves.append([point[:3] for point in bench.state.runs["random-0"].anytime])
    assert curves[0] == curves[1]
    assert [point[0] for point in curves[0]] == pytest.approx([UNIT * (index + 1) for index in range(6)])


@pytest.mark.parametrize("seed", range(4))
def test_the_table_is_the_same_whatever_was_lost(tmp_path, seed):
    options = {"arms": LEARN, "trials": 6, "retrain": 2, "retries": 1000, "at_a_time": 3}
    whole = Bench(folder(tmp_path, "whole"), **options)
    whole.run(slots=4)
    cut, rng, resumed = folder(tmp_path, "cut"), random.Random(seed), False
    for _ in range(5):
        bench = Bench(cut, **options, resumed=resumed)
        broken_off(bench, 5, rng, rng.randrange(10, 90))
        resumed = True
    bench = Bench(cut, **options, resumed=True)
    disturbed(bench, 5, 0.1, seed)
    assert without_notes(bench.table()) == without_notes(whole.table())
    all_charged(bench)


def test_a_retraining_that_was_lost_is_run_again_and_not_the_one_after_it(tmp_path):
    whole = Bench(folder(tmp_path, "whole"), arms=("random",), retrain=3)
    whole.run(slots=1)
    cut = folder(tmp_path, "cut")
    bench = Bench(cut, arms=("random",), retrain=3)
    while not bench.state.runs["random-0"].closed:
        name, _ = bench.ask()
        if bench.state.trials[name].training_seed is None:
            bench.finish(name)
    bench.finish(bench.ask()[0])  # the second one; the first is lost
    resumed = Bench(cut, arms=("random",), retrain=3, resumed=True)
    assert resumed.run(slots=1) == ["random-0/again-00", "random-0/again-02"]
    assert without_notes(resumed.table()) == without_notes(whole.table())
