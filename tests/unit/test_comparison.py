"""Who is charged, who wins, and what the rows say."""

import json
import math

import pytest

from ms_automl.comparison.judge import Judge
from ms_automl.comparison.ledger import Ledger
from ms_automl.comparison.run import Report, Role, Run, Trial
from ms_automl.comparison.state import Comparison
from ms_automl.meta import Objective
from ms_automl.storage.files import write_json
from ms_automl.tasks import classification

TASK = classification("digit", 10)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Spy:
    def __init__(self):
        self.heard = []

    def trial_suggested(self, run, trial):
        pass

    def trial_started(self, run, trial):
        self.heard.append(("started", trial.name))

    def trial_reported(self, run, trial, metrics):
        self.heard.append(("reported", trial.name, metrics["step"]))

    def trial_ended(self, run, trial):
        self.heard.append(("ended", trial.name, trial.status))


class Bench:
    """A comparison of a dense run and an `optuna` run, driven by hand."""

    def __init__(self, folder, objective=None):
        self.clock, self.spy = Clock(), Spy()
        self.dense = Run("dense", 0, "scalar", math.inf, ("dense",), 1, Role.REFERENCE)
        self.arm = Run("optuna", 0, "scalar", 1000.0, ("fixed_lambda",), 3)
        ledger = Ledger({"optuna-0": 1000.0})
        self.state = Comparison(
            Judge(objective or Objective(), [TASK]), [self.dense, self.arm], ledger, [self.spy], self.clock
        )

    def begin(self, run, method="fixed_lambda", params=None):
        trial = Trial(f"{run.name}:{len(run.trials)}", run.name, len(run.trials), method, {}, params or {})
        self.state.register(trial)
        self.state.started(trial.id)
        return trial

    def run(self, run, loss=1.0, density=1.0, accuracy=0.5, method="fixed_lambda", params=None, test_loss=None):
        trial = self.begin(run, method, params)
        self.state.report(trial.id, report(loss, density, accuracy, test_loss=test_loss))
        return trial

    def reference(self, loss=1.0):
        return self.run(self.dense, loss=loss, method="dense")


def report(
    loss=1.0,
    density=1.0,
    accuracy=0.5,
    interval=0,
    done=True,
    error=None,
    test_loss=None,
    passes=100.0,
    warnings=(),
):
    metrics = {"step": 10.0 * (interval + 1), "density": density, "sparsity/param": 1 - density}
    metrics |= dict.fromkeys(("sparsity/trunk", "sparsity/group"), 1 - density)
    metrics |= {
        "val/digit/loss": loss,
        "val/digit/accuracy": accuracy,
    }
    metrics["probe/digit/loss"] = 2 * loss
    if done:
        metrics |= {"test/digit/loss": loss if test_loss is None else test_loss, "test/digit/accuracy": accuracy}
    spent = {"train": passes, "outer": 0.0, "forward": passes / 10}
    return Report(interval, {} if error else metrics, spent, 2.0, 1.5, done, error, warnings=warnings)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.reference()
    return bench


@pytest.fixture
def strict(tmp_path):
    bench = Bench(tmp_path, Objective("target", target=0.5))
    bench.reference()
    return bench


def test_the_dense_reference_is_relative_to_itself(bench):
    row = bench.state.row(bench.dense)
    assert (row["objective"], row["test_objective"], row["delta_m"]) == (2.0, 2.0, 0.0)


def test_the_objective_is_relative_to_the_final_dense_losses_of_the_same_split(bench):
    trial = bench.run(bench.arm, loss=1.5, test_loss=3.0, density=0.25, accuracy=0.4)
    assert trial.metrics["val/objective"] == pytest.approx(1.5 + 0.25)
    assert trial.metrics["test/objective"] == pytest.approx(3.0 + 0.25)
    assert trial.metrics["delta_m"] == pytest.approx(-20.0)


def test_a_report_on_the_way_has_no_test_value(bench):
    trial = bench.begin(bench.arm)
    bench.state.report(trial.id, report(done=False))
    assert trial.status == "RUNNING"
    assert not any(key.startswith("test/") or key == "delta_m" for key in trial.metrics)


def test_the_best_is_chosen_by_validation_and_never_by_test(bench):
    bench.run(bench.arm, loss=2.0, test_loss=0.1)
    better = bench.run(bench.arm, loss=1.0, test_loss=9.0)
    bench.run(bench.arm, loss=1.0, test_loss=0.1)  # a tie: the first one stays
    assert bench.arm.best is better


def test_a_failed_trial_cannot_win_whatever_it_had_reached(bench):
    trial = bench.begin(bench.arm)
    bench.state.report(trial.id, report(loss=0.01, done=False))
    bench.state.report(trial.id, report(interval=1, error="loss not finite at step 12"))
    assert trial.status == "FAILED" and bench.arm.best is None
    row = bench.state.row(bench.arm)
    assert row["status"] == "failed" and row["objective"] is None and row["lambda"] is None
    assert row["passes"] == pytest.approx(220.0), "failed work is charged"
    assert "1 trial failed" in row["note"]


def test_a_method_that_is_not_among_the_winners_cannot_win(bench):
    bench.run(bench.arm, loss=0.1, method="meta_sparsity")
    winner = bench.run(bench.arm, loss=5.0)
    assert bench.arm.best is winner


def test_under_a_target_whoever_misses_it_loses_to_whoever_reaches_it(strict):
    strict.run(strict.arm, loss=0.1, density=0.9)
    reached = strict.run(strict.arm, loss=9.0, density=0.5)
    strict.run(strict.arm, loss=0.2, density=0.51)
    assert strict.arm.best is reached


def test_under_a_target_more_zeros_than_asked_are_no_advantage(strict):
    best = strict.run(strict.arm, loss=1.0, density=0.5)
    strict.run(strict.arm, loss=1.1, density=0.1)
    assert strict.arm.best is best


def test_a_row_that_misses_the_target_is_partial_and_says_so(strict):
    strict.run(strict.arm, loss=1.0, density=0.9)
    strict.arm.closed = True
    row = strict.state.row(strict.arm)
    assert row["status"] == "partial" and "target sparsity 0.5 not reached" in row["note"]


def test_a_row_is_ok_only_once_its_stream_is_closed(bench):
    bench.run(bench.arm)
    assert bench.state.row(bench.arm)["status"] == "partial"
    bench.arm.closed = True
    assert bench.state.row(bench.arm)["status"] == "ok"


@pytest.mark.parametrize("done", [False, True])
def test_a_report_that_arrives_twice_changes_nothing(bench, done):
    trial = bench.begin(bench.arm)
    bench.state.report(trial.id, report(done=done))
    before = (
        json.dumps(bench.state.row(bench.arm)),
        dict(trial.metrics),
        list(bench.spy.heard),
        list(bench.arm.anytime),
    )
    costs = trial.passes, trial.device_seconds, trial.busy_seconds
    bench.clock.now += 7
    bench.state.report(trial.id, report(done=done))
    assert (trial.passes, trial.device_seconds, trial.busy_seconds) == costs == (110.0, 2.0, 1.5)
    after = (
        json.dumps(bench.state.row(bench.arm)),
        dict(trial.metrics),
        list(bench.spy.heard),
        list(bench.arm.anytime),
    )
    assert after == before


def test_what_a_trial_cost_is_what_the_ledger_was_charged(bench):
    trial = bench.begin(bench.arm)
    for interval in range(3):
        bench.state.report(trial.id, report(interval=interval, done=interval == 2))
    assert trial.passes == bench.state.ledger.totals("optuna-0").passes == pytest.approx(330.0)
    assert trial.device_seconds == bench.state.ledger.totals("optuna-0").device_seconds == pytest.approx(6.0)


def test_the_anytime_curve_holds_the_best_so_far_against_what_was_spent(bench):
    for loss in (3.0, 1.0, 2.0):
        bench.clock.now += 10
        bench.run(bench.arm, loss=loss)
    spent, best, _, seconds = zip(*bench.arm.anytime, strict=True)
    assert spent == pytest.approx((110.0, 220.0, 330.0))
    assert best == pytest.approx((4.0, 2.0, 2.0))
    assert seconds == pytest.approx((10.0, 20.0, 30.0))


def test_a_failed_trial_moves_the_anytime_curve_to_the_right_only(bench):
    bench.run(bench.arm, loss=2.0)
    trial = bench.begin(bench.arm)
    bench.state.report(trial.id, report(error="broken"))
    assert [point[:2] for point in bench.arm.anytime] == [(110.0, 3.0), (220.0, 3.0)]


def test_the_useful_share_is_busy_time_over_the_time_of_the_trials(tmp_path):
    bench = Bench(tmp_path)
    assert bench.state.useful_share == 0.0
    bench.clock.now = 103.0  # starting up is not the trials' time
    trial = bench.begin(bench.dense, "dense")
    bench.clock.now = 106.0
    bench.state.report(trial.id, report())
    assert bench.state.useful_share == pytest.approx(1.5 / 3.0)


def test_an_interrupt_kills_what_runs_and_keeps_what_ended(bench):
    done, running = bench.run(bench.arm), bench.begin(bench.arm)
    bench.state.stop("KILLED", "stopped by Ctrl-C")
    assert (done.status, running.status) == ("FINISHED", "KILLED")
    assert bench.spy.heard[-1] == ("ended", running.name, "KILLED")
    row = bench.state.row(bench.arm)
    assert bench.arm.best is done
    assert (row["status"], row["note"]) == ("partial", "stopped by Ctrl-C")


def test_a_trial_whose_process_never_came_up_has_a_record_all_the_same(bench):
    trial = Trial("late", "optuna-0", 0, "fixed_lambda", {}, {})
    bench.state.register(trial)
    bench.state.failed("late", "the process died")
    assert bench.spy.heard[-2:] == [("started", trial.name), ("ended", trial.name, "FAILED")]
    assert trial.seconds == 0.0


def test_a_trial_that_began_at_second_zero_has_begun(tmp_path):
    bench = Bench(tmp_path)
    bench.clock.now = 0.0
    trial = bench.begin(bench.dense, "dense")
    bench.clock.now = 4.0
    bench.state.report(trial.id, report())
    assert trial.seconds == 4.0
    assert [event[0] for event in bench.spy.heard] == ["started", "reported", "ended"]


def test_rows_are_json_even_where_a_metric_has_no_value(bench, tmp_path):
    bench.run(bench.arm, accuracy=math.nan)
    write_json(tmp_path / "comparison.json", {"rows": bench.state.rows()})
    rows = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    assert rows[1]["delta_m"] is None and rows[1]["objective"] == 2.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.1, 0.2]], {"a": 0.1, "b": 0.2}),
        ([[0.1, 0.2], [0.3, 0.4]], [{"a": 0.1, "b": 0.2}, {"a": 0.3, "b": 0.4}]),
    ],
)
def test_a_constant_lambda_is_one_dict_and_a_course_is_one_per_knot(bench, values, expected):
    bench.run(bench.arm, params={"schedule": {"layers": ["a", "b"], "values": values}})
    assert bench.state.row(bench.arm)["lambda"] == expected


def test_a_limit_without_bound_is_null_in_the_row(bench):
    assert bench.state.row(bench.dense)["limit"] is None
    assert bench.state.row(bench.arm)["limit"] == 1000.0


def test_the_reference_of_a_seed_holds_its_final_losses_and_the_probes_on_the_way(tmp_path):
    bench = Bench(tmp_path)
    trial = bench.begin(bench.dense, "dense")
    bench.state.report(trial.id, report(loss=3.0, done=False))
    assert bench.state.judge.reference(0) is None, "not before it is trained"
    bench.state.report(trial.id, report(loss=1.0, interval=1))
    reference = bench.state.judge.reference(0)
    assert reference.losses == {"digit": 1.0}
    assert list(reference.course) == [(10, {"digit": 6.0}), (20, {"digit": 2.0})]
    assert reference.rise(10, {"digit": 9.0}) == pytest.approx(0.5)
    assert bench.state.judge.reference(1) is None


def test_what_the_selected_trial_warns_of_ends_up_in_the_rows_note(bench):
    for loss, words in (
        (2.0, ("λ ended at its lower bound",)),
        (1.0, ("the network collapsed", "raise the bound")),
    ):
        trial = bench.begin(bench.arm)
        bench.state.report(trial.id, report(loss=loss, done=False, warnings=words[:1]))
        bench.state.report(trial.id, report(loss=loss, interval=1, warnings=words))
        assert trial.warnings == words
    bench.arm.note = "stopped by Ctrl-C"
    assert bench.state.row(bench.arm)["note"] == "stopped by Ctrl-C; the network collapsed; raise the bound"


def test_a_selected_network_that_is_all_but_gone_is_noted_for_every_arm(bench):
    trial = bench.begin(bench.arm)
    bench.state.report(trial.id, report(loss=1.0, density=0.019))
    said = "the network is all but gone: 98.1 % of the weights that λ acts on are zero"
    assert bench.state.row(bench.arm)["note"] == said
    better = bench.begin(bench.arm)
    bench.state.report(better.id, report(loss=0.1, density=0.021))
    assert bench.state.row(bench.arm)["note"] == ""
