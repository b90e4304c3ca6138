"""The router: order, budget and failures of streams, without a Ray."""

import math
import random

import pytest
from ray.tune.search import Searcher

from ms_automl.arms import ARMS
from ms_automl.budget import Ledger
from ms_automl.comparison import Comparison, Report, Stream
from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule, Objective
from ms_automl.tasks import classification
from ms_automl.tuning.streams import StreamRouter
from search_spaces import SPACES

LAYERS = ("stem", "conv")
UNIT = 100.0
COST = {"dense": UNIT, "fixed_lambda": UNIT, "pruned": UNIT, "meta_sparsity": 1.25 * UNIT}


class Bench:
    """All arms for some seeds; trials are run by hand, with numbers that depend on what was suggested only."""

    def __init__(self, folder, seeds=(0,), trials=4, broken=lambda stream, trial: False):
        config = load_config("smoke", settings=[f"budget.trials={trials}"])
        space = SPACES["per_layer"](LAYERS, (0.05, 5.0))
        streams, samplers = [], {}
        for seed in seeds:
            for name, arm in ARMS.items():
                limit = trials * UNIT if arm.limited else math.inf
                stream = Stream(name, seed, "per_layer", limit, arm.winners, 1 if arm.single else trials)
                streams.append(stream)
                samplers[stream.name] = arm.sampler(config, space, seed)
        ledger = Ledger(folder / "ledger.jsonl", {stream.name: stream.limit for stream in streams})
        self.state = Comparison(Objective(), [classification("digit", 10)], streams, ledger)
        self.router = StreamRouter(self.state, samplers, lambda method, seed: COST[method])
        self.broken = broken
        self.count = 0

    def ask(self):
        self.count += 1
        name = f"trial{self.count}"
        return name, self.router.suggest(name)

    def finish(self, name):
        trial = self.state.trials[name]
        stream = self.state.streams[trial.stream]
        error = self.broken(stream, trial) or None
        cost = 0.0 if error == "unbuilt" else COST[trial.method]
        passes = {"train": cost * 0.9, "outer": 0.0, "forward": cost * 0.1}
        loss = 1.0 + sum(abs(math.log(abs(v) + 1e-3)) for v in trial.values.values())
        metrics = {"step": 1.0, "density": 0.5, "sparsity/param": 0.5, "sparsity/group": 0.5}
        metrics["probe/digit/loss"] = 2 * loss
        for split in ("val", "test"):
            metrics |= {f"{split}/digit/loss": loss, f"{split}/digit/accuracy": 0.5}
        learned = LambdaSchedule.constant({"stem": 0.3, "conv": 0.6}).to_dict()
        schedule = learned if trial.method == "meta_sparsity" else None
        report = Report(0, 0, {} if error else metrics, passes, 1.0, 1.0, True, error, schedule)
        self.router.on_trial_complete(name, {"report": report})

    def run(self, slots, pick=min):
        """Run to the end with `slots` trials at a time; `pick` says which running one ends next."""
        running, history = [], []
        while True:
            answer = None
            if len(running) < slots:
                name, answer = self.ask()
                if answer == Searcher.FINISHED and not running:
                    return history
                if isinstance(answer, dict):
                    self.state.started(name)
                    running.append(name)
                    history.append(self.state.trials[name].name)
                    busy = [self.state.trials[trial].stream for trial in running]
                    assert len(set(busy)) == len(busy), "two trials of one stream at a time"
            if not isinstance(answer, dict):
                assert running, "nothing runs and nothing is suggested: the Tuner would wait for ever"
                name = pick(running)
                running.remove(name)
                self.finish(name)

    def table(self):
        timed = {"wall_seconds", "device_seconds", "searcher_seconds"}
        return [{key: value for key, value in row.items() if key not in timed} for row in self.state.rows()]


def test_the_dense_references_come_first_and_nothing_else_before_its_own(tmp_path):
    bench = Bench(tmp_path, seeds=(0, 1))
    first, second, third = bench.ask(), bench.ask(), bench.ask()
    assert [bench.state.trials[name].stream for name, _ in (first, second)] == ["dense-0", "dense-1"]
    assert third[1] is None
    bench.finish(second[0])
    name, answer = bench.ask()
    assert bench.state.trials[name].stream.endswith("-1")
    assert answer["seed"] == 1 and answer["reference"].losses == {"digit": 1.0}
    assert list(answer["reference"].course) == [(1, {"digit": 2.0})]


def test_each_stream_spends_no_more_than_its_limit_and_closes(tmp_path):
    bench = Bench(tmp_path, seeds=(0, 1), trials=4)
    bench.run(slots=3)
    for stream in bench.state.streams.values():
        assert stream.closed
        assert bench.state.ledger.passes(stream.name) <= stream.limit
    trials = {row["arm"]: row["trials"] for row in bench.table()}
    assert trials == {
        "dense": 1, "fixed": 1, "random": 4, "optuna": 4, "prune-taylor": 4, "meta": 1, "meta-search": 3
    }  # fmt: skip


def test_a_budget_that_is_met_exactly_is_spent(tmp_path):
    bench = Bench(tmp_path, trials=3)
    bench.run(slots=1)
    assert bench.state.ledger.passes("random-0") == pytest.approx(300.0)


@pytest.mark.parametrize("slots", [2, 3, 8])
@pytest.mark.parametrize("order", range(4))
def test_the_table_is_the_same_at_any_interleaving_of_streams(tmp_path, slots, order):
    tables = []
    for name, width, pick in (("one", 1, min), ("many", slots, random.Random(order).choice)):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, seeds=(0, 1))
        bench.run(width, pick)
        tables.append(bench.table())
    assert tables[0] == tables[1]


def test_what_a_stream_does_in_the_end_does_not_depend_on_the_other_arms_failures(tmp_path):
    tables = []
    for name, broken in (
        ("whole", lambda *_: False),
        ("broken", lambda stream, _: stream.arm == "random" and "nan"),
    ):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, broken=broken)
        bench.run(2)
        tables.append({row["arm"]: row for row in bench.table()})
    assert tables[1]["random"]["status"] == "failed" and tables[1]["random"]["failed_trials"] == 4
    assert {arm: row for arm, row in tables[0].items() if arm != "random"} == {
        arm: row for arm, row in tables[1].items() if arm != "random"
    }


def test_a_failed_reference_closes_its_seed_with_a_note_and_leaves_the_other_alone(tmp_path):
    bench = Bench(tmp_path, seeds=(0, 1), broken=lambda stream, _: stream.name == "dense-1" and "nan")
    bench.run(slots=2)
    for row in bench.table():
        if row["seed"] == 0:
            assert row["status"] == "ok"
        else:
            assert row["status"] == "failed"
            assert row["arm"] == "dense" or (row["trials"], row["note"]) == (0, "the dense reference failed")


def test_a_failed_meta_training_ends_its_arm_and_no_other(tmp_path):
    bench = Bench(tmp_path, broken=lambda _, trial: trial.method == "meta_sparsity" and "nan")
    bench.run(slots=2)
    status = {row["arm"]: row["status"] for row in bench.table()}
    assert {arm for arm, word in status.items() if word == "failed"} == {"meta", "meta-search"}


def test_a_trial_whose_process_dies_fails_and_the_stream_goes_on(tmp_path):
    bench = Bench(tmp_path)
    bench.finish(bench.ask()[0])
    name, _ = bench.ask()
    bench.router.on_trial_complete(name, error=True)
    trial = bench.state.trials[name]
    assert trial.status == "FAILED" and "process died" in trial.error
    bench.run(slots=2)
    assert all(stream.closed for stream in bench.state.streams.values())


def test_a_stream_whose_trials_fail_at_no_cost_gives_up(tmp_path):
    bench = Bench(tmp_path, trials=3, broken=lambda stream, _: stream.arm == "random" and "unbuilt")
    bench.run(slots=2)
    (row,) = [row for row in bench.table() if row["arm"] == "random"]
    assert (row["status"], row["failed_trials"], row["passes"]) == ("failed", 3, 0.0)
    assert row["note"] == "gave up; 3 trials failed"


def test_a_report_that_arrives_again_at_the_end_is_charged_once(tmp_path):
    bench = Bench(tmp_path)
    name, _ = bench.ask()
    metrics = {
        "step": 1.0,
        "density": 1.0,
        "val/digit/loss": 1.0,
        "val/digit/accuracy": 0.5,
        "probe/digit/loss": 1.0,
    }
    early = Report(0, 0, metrics, {"train": 50.0}, 1.0, 1.0, False)
    for _ in range(2):
        bench.router.on_trial_result(name, {"report": early})
    assert bench.state.trials[name].passes == 50.0 == bench.state.ledger.passes("dense-0")
