"""The order of suggestions is that of sorting all runs every time, at a cost that does not grow with them."""

import random

import pytest

from ms_automl.driver.progress import RunQueue
from ms_automl.driver.scheduler import Scheduler
from ms_automl.samplers.base import DONE, WAIT
from tests.unit.bench import Bench, cost, folder

KINDS = ("fixed", "random", "path", "topk", "optuna", "optuna-asha", "meta", "meta-search")


class SortsAll(Scheduler):
    """The rule in its plainest form."""

    def next(self, trial_id):
        if self.interrupted:
            return super().next(trial_id)
        runs = self.comparison.runs.values()
        busy = {run.name for run in self.running.values()}
        for run in sorted(runs, key=lambda s: (s.arm != "dense", len(s.trials) - s.planned_trials)):
            if not run.closed and run.name not in busy and not self._waits_for_reference(run):
                assignment = self._next_of(self.progress[run.name], trial_id)
                if assignment is not None:
                    return assignment
        for run in runs:
            if run.closed and self._retrains(run):
                return self._retraining(run, trial_id)
        return DONE if all(run.closed for run in runs) else WAIT


def sometimes(run, trial):
    if run.name == "dense-1":
        return "nan"
    return run.arm == "optuna" and trial.index == 1 and "nan"


@pytest.mark.parametrize("slots", [1, 3, 20])
@pytest.mark.parametrize("broken", [lambda *_: False, sometimes], ids=["whole", "failures"])
def test_streams_are_asked_in_the_order_of_sorting_them_all(tmp_path, slots, broken):
    histories = []
    for name in ("sorted", "queued"):
        bench = Bench(folder(tmp_path, name), seeds=(0, 1, 2), arms=KINDS, retrain=2, broken=broken)
        if name == "sorted":
            old = bench.scheduler
            samplers = {name: progress.sampler for name, progress in old.progress.items()}

            def made(run, samplers=samplers):
                return samplers[run.name]

            bench.scheduler = SortsAll(
                old.comparison, made, lambda suggestion, _: cost(suggestion.method), old.reports, 2
            )
        histories.append(bench.run(slots, random.Random(slots).choice))
    assert histories[0] == histories[1]
    assert len(histories[0]) > 60


def test_a_comparison_that_goes_on_keeps_that_order(tmp_path):
    histories = []
    for name in ("sorted", "queued"):
        cut = folder(tmp_path, name)
        Bench(cut, seeds=(0, 1), arms=KINDS, retrain=1).run(slots=4, most=100)
        bench = Bench(cut, seeds=(0, 1, 2), arms=KINDS, retrain=1, resumed=True)
        if name == "sorted":
            bench.scheduler.__class__ = SortsAll
        histories.append(bench.run(slots=4))
    assert histories[0] == histories[1]


@pytest.mark.parametrize("seeds", [5, 40])
def test_how_many_streams_are_looked_at_grows_with_the_trials_alone(tmp_path, seeds, monkeypatch):
    taken = []
    pop = RunQueue.pop
    monkeypatch.setattr(RunQueue, "pop", lambda queue: taken.append(run := pop(queue)) or run)
    bench = Bench(tmp_path, seeds=range(seeds), arms=("random", "meta", "fixed"), trials=3)
    bench.run(slots=7)
    runs, trials = len(bench.state.runs), len(bench.state.trials)
    looked = sum(run is not None for run in taken)
    # To run a trial, once to wait for its reference, once to close; sorting looks at every run in every call.
    assert trials < looked <= trials + 2 * runs
    assert len(taken) > trials == seeds * (1 + 3 + 1 + 1)
