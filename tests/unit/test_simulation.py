"""A simulation costs what trials cost, keeps slots busy as they would, and ends as a real comparison ends."""

import math

import pytest

from ms_automl.comparison.events import EventLog, Replay, TrialEvents, replay
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion, Trial
from ms_automl.config import load_config
from ms_automl.driver.simulation import Script, simulate
from ms_automl.meta import LambdaSchedule, Reference
from ms_automl.models.cost import Cost
from tests.unit.driven import FREE, TUNED

TINY = ["data.args.train=32", "data.args.val=16", "data.args.test=16", "training.steps=12"]


def steady(trial, passes, first):
    """A second to start, a thousand passes a second."""
    return first + sum(passes.values()) / 1000


def experiment(*settings, arms=("random",), seeds=1):
    settings = [*TINY, "training.report_every=3", *settings]
    return Experiment(load_config("smoke", arms=list(arms), seeds=seeds, settings=settings))


def run(one, slots=None, replayed=None):
    return simulate(one, steady, slots, replayed)


@pytest.mark.parametrize(
    ("method", "learner"),
    [
        *((method, "waterfill") for method in ("dense", "dense, probed", "fixed_lambda", "pruned")),
        *(("meta_sparsity", learner) for learner in ("waterfill", "one_step", "implicit_cg")),
    ],
)
def test_made_up_reports_have_the_passes_and_the_metrics_of_real_ones(method, learner):
    one = experiment(f"meta.learner={learner}", "training.steps=10")
    data, network = one.data(0), one.network(0)
    layers = one.layers(network)
    params = {
        "dense": {},
        "dense, probed": {"probe": True},
        "fixed_lambda": {"schedule": LambdaSchedule.constant(dict.fromkeys(layers, 0.5)).to_dict()},
        "pruned": {"level": 0.5},
        "meta_sparsity": {},
    }[method]
    name = method.split(",")[0]
    losses = {task.name: 1.0 for task in data.tasks}
    reference = Reference(losses, tuple((step, losses) for step in (3, 6, 9, 10)))
    real, _ = one.build(Suggestion(name, params, {}), 0, reference)
    script = Script(one, lambda known: one.planned_passes(known, 0))
    trial, before = Trial("id", "random-0", 0, name, {}, params), Cost()
    for interval in range(4):
        metrics = real.step()
        cost = real.cost.since(before)
        before = Cost(**real.cost.to_dict())
        passes, made_up = script.passes(trial, interval), script.metrics(trial, interval)
        if learner == "waterfill":
            assert passes == pytest.approx(cost.by_kind())
        else:  # how many updates fall into an interval is not known, nor needed: these trials are never stopped
            assert passes["train"] == cost.train and passes["forward"] == pytest.approx(cost.by_kind()["forward"])
        assert made_up["step"] == metrics["step"] and 0 <= made_up["density"] <= 1
        unlike = {key for key in metrics.keys() - made_up.keys() if not key.startswith(("lambda/", "probe/"))}
        assert not unlike and all(math.isfinite(value) for value in made_up.values())
    assert real.done
    total = sum(sum(script.passes(trial, interval).values()) for interval in range(4))
    assert total == pytest.approx(real.cost.passes)


def test_a_simulation_is_the_same_whenever_it_is_held():
    arms = ("random", "optuna-asha", "topk", "meta-search")
    outcomes = []
    for slots in (3, 3, None):
        _, outcome = run(experiment("budget.trials=6", "budget.retrain=2", arms=arms), slots)
        outcomes.append(outcome)
    assert outcomes[0].arms == outcomes[1].arms and outcomes[0].seconds == outcomes[1].seconds
    for arm, share in outcomes[2].arms.items():
        assert share.passes == pytest.approx(outcomes[0].arms[arm].passes)
        assert (share.trials, share.stopped) == (outcomes[0].arms[arm].trials, outcomes[0].arms[arm].stopped)


@pytest.mark.parametrize("unit", ["passes", "flops", "device_seconds"])
def test_every_arm_closes_within_its_limit_and_what_is_counted_is_what_the_ledger_has(unit):
    arms = FREE
    settings = ("budget.trials=4", "budget.retrain=1", f"budget.unit={unit}", TUNED)
    one = experiment(*settings, arms=arms, seeds=2)
    comparison, outcome = run(one, slots=4)
    for row in comparison.rows():
        assert row["status"] in ("ok", "partial") and row["failed_trials"] == 0
        assert row["overshoot"] <= (1.2 if unit == "device_seconds" else 0)  # a start and a report at most
    charged = sum(charge.passes for charge in comparison.ledger)
    assert outcome.whole.passes == pytest.approx(charged)
    assert outcome.whole.trials == sum(row["trials"] for row in comparison.rows())
    assert outcome.whole.stopped == sum(row["stopped_trials"] for row in comparison.rows())
    again = sum(len(row["retrained"]) for row in comparison.rows())
    assert outcome.whole.retrainings == again >= 2 * (len(arms) - 2)
    spent = sum(comparison.ledger.totals(name).spent for name in comparison.runs)
    spent += sum(comparison.ledger.totals(f"{name}/again").spent for name in comparison.runs)
    searched = outcome.searcher_seconds if unit == "device_seconds" else 0
    assert outcome.whole.spent == pytest.approx(spent, abs=searched + 1e-9)


def test_slots_are_busy_with_one_trial_of_each_stream_at_a_time():
    one = experiment("budget.trials=3", arms=("random", "fixed"), seeds=2)
    wide, single = run(one)[1], run(one, slots=1)[1]
    busy = single.whole.device_seconds
    assert wide.concurrency == 4 and single.concurrency == 1  # random and fixed of two seeds
    assert single.seconds == pytest.approx(busy) and wide.whole.device_seconds == pytest.approx(busy)
    dense = wide.arms["dense"].device_seconds / 2
    assert wide.seconds == pytest.approx(dense + wide.arms["random"].device_seconds / 2)
    some = run(one, slots=4)[1]
    assert some.seconds == pytest.approx(wide.seconds), "more slots than runs change nothing"


def test_a_stopped_trial_is_paid_for_up_to_its_last_report():
    one = experiment("budget.trials=6", arms=("topk",))
    comparison, outcome = run(one)
    stopped = [trial for trial in comparison.trials.values() if trial.status == "STOPPED"]
    assert outcome.arms["topk"].stopped == len(stopped) > 1
    steps, val = 3 * 16, 16 / 3
    assert {round(trial.passes, 6) for trial in stopped} == {round(steps + val, 6)}
    went_on = [trial for trial in comparison.trials.values() if trial.start is not None]
    assert {round(trial.passes, 6) for trial in went_on} == {round(3 * (steps + val) + 16 / 3, 6)}


def test_halving_stops_a_realistic_share_of_its_trials():
    one = experiment("budget.trials=30", "training.report_every=1", "training.steps=18", arms=("optuna-asha",))
    _, outcome = run(one)
    share = outcome.arms["optuna-asha"].stopped / outcome.arms["optuna-asha"].trials
    assert 0.5 < share < 0.95


@pytest.mark.parametrize(("steps", "every"), [(12, 3), (10, 3), (7, 3), (4, 3), (3, 3), (2, 1)])
def test_topks_candidates_leave_the_best_of_them_the_rest_of_a_trial(steps, every):
    settings = (f"training.steps={steps}", f"training.report_every={every}", "budget.trials=8")
    comparison, _ = run(experiment(*settings, arms=("topk",)))
    topk = comparison.runs["topk-0"]
    assert [trial.status for trial in topk.trials].count("FINISHED") >= 2 and topk.best.status == "FINISHED"
    assert comparison.ledger.overshoot("topk-0") == 0


def test_what_had_ended_before_is_not_simulated_again(tmp_path):
    one = experiment("budget.trials=4", arms=("random", "topk", "optuna"))
    whole, all_of_it = run(one)
    journal = TrialEvents(EventLog(tmp_path), whole)
    for trial in list(whole.trials.values())[:6]:
        journal.trial_ended(whole.runs[trial.run], trial)
        journal.trial_stored(whole.runs[trial.run], trial)
    done = {trial.name for trial in list(whole.trials.values())[:6]}
    charges = [charge for charge in whole.ledger if charge.trial in done]
    resumed, rest = run(one, replayed=Replay(charges, replay(tmp_path).ended))
    spent = sum(trial.passes for trial in list(whole.trials.values())[:6])
    assert rest.whole.passes == pytest.approx(all_of_it.whole.passes - spent)
    assert rest.whole.trials == all_of_it.whole.trials - 6
    assert [row["trials"] for row in resumed.rows()] == [row["trials"] for row in whole.rows()]
