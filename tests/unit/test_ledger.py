from pathlib import Path

import pytest

from ms_automl.comparison.events import EventLog, replay
from ms_automl.comparison.ledger import DEVICE_SECONDS, INTERRUPTED, PASSES, Charge, Ledger, flops
from ms_automl.models.cost import Cost, planned_cost


def charge(trial: str = "a", interval: int = 0, passes: float = 10.0, **changes: object) -> Charge:
    fields = {"run": "s", "attempt": 0, "kind": "train", "device_seconds": 0.5} | changes
    return Charge(trial=trial, interval=interval, passes=passes, **fields)  # type: ignore[arg-type]


def opened(folder: Path, limits: dict[str, float] | None = None) -> Ledger:
    """The ledger of a comparison, as a process finds it."""
    return Ledger(limits or {}, PASSES, replay(folder).charges, EventLog(folder).charged)


def test_a_forward_costs_a_third_of_a_pass_and_an_outer_sample_a_whole_one() -> None:
    assert Cost(train=6, outer=4, forward=9).passes == 13
    assert Cost(hessian=5).passes == 10  # a Hessian-vector product is two
    assert Cost().passes == 0


def test_a_plan_counts_training_outer_batches_every_report_and_one_test() -> None:
    cost = planned_cost(steps=10, batch_size=4, reports=3, val=5, test=7, outer_updates=2)
    assert cost == Cost(train=40, outer=8, forward=22)
    assert planned_cost(steps=1, batch_size=4, reports=0, val=0, test=0, products=3).hessian == 12
    assert Cost(**cost.to_dict()) == cost


def test_what_was_spent_since_is_known_by_kind() -> None:
    spent = Cost(train=10, outer=4, hessian=2, forward=9).since(Cost(train=6, outer=4, forward=3))
    assert spent == Cost(train=4, outer=0, hessian=2, forward=6)
    assert spent.by_kind() == {"train": 4, "outer": 0, "hessian": 4, "forward": 2}


def test_totals_are_sums_over_a_streams_charges(tmp_path: Path) -> None:
    ledger = Ledger({})
    for one in (charge("a"), charge("b", 1, 5.0), charge("c", run="other", passes=100.0)):
        ledger.add(one)
    assert ledger.totals("s").passes == 15
    assert ledger.totals("s").device_seconds == 1
    assert ledger.totals("nobody").passes == 0
    assert len(list(ledger)) == 3


def test_an_event_that_arrives_twice_counts_once_and_what_another_attempt_repeats_is_lost(tmp_path: Path) -> None:
    ledger = Ledger({})
    ledger.add(charge())
    ledger.add(charge())
    assert (ledger.totals("s").passes, ledger.totals("s").lost_passes) == (10, 0)
    ledger.add(charge(attempt=1))
    ledger.add(charge(kind="forward", passes=1.0))
    assert (ledger.totals("s").passes, ledger.totals("s").lost_passes) == (11, 10)
    assert len(list(ledger)) == 3


def test_a_ledger_opened_again_goes_on_where_it_ended(tmp_path: Path) -> None:
    opened(tmp_path).add(charge(interval=0))
    again = opened(tmp_path)
    again.add(charge(interval=0))
    again.add(charge(interval=1))
    assert again.totals("s").passes == 20
    assert list(opened(tmp_path)) == list(again) == [charge(interval=0), charge(interval=1)]


def test_a_limit_is_reached_exactly_and_not_passed(tmp_path: Path) -> None:
    ledger = Ledger({"s": 30.0})
    ledger.add(charge())
    assert ledger.affords("s", 20.0)
    assert ledger.affords("s", 20.0 + 1e-9)  # rounding
    assert not ledger.affords("s", 20.001)
    assert ledger.affords("unlimited", 1e12)


# ---- units ----------------------------------------------------------------------------------------------


def test_an_amount_in_each_unit() -> None:
    train = charge(passes=10.0, device_seconds=4.0)
    forward = charge(kind="forward", passes=2.0, device_seconds=0.0)
    searching = Charge("s", "a", 0, 0, "searcher/suggest", 0.0, searcher_seconds=0.25)
    expected = {
        # 2 passes of kind forward are 6 forwards
        flops(train=300.0, forward=90.0): 10 * 300 + 6 * 90,
        PASSES: 12.0,
        DEVICE_SECONDS: 4.25,
    }
    for unit, amount in expected.items():
        ledger = Ledger({}, unit)
        for one in (train, forward, searching):
            ledger.add(one)
        assert ledger.totals("s").spent == pytest.approx(amount)
        assert ledger.totals("s").searcher_seconds == 0.25
        assert ledger.totals("s").passes == 12.0


def test_a_plan_is_worth_in_a_unit_what_its_charges_will_be() -> None:
    plan = Cost(train=10, outer=2, hessian=1, forward=6).by_kind()
    assert PASSES.total(plan) == Cost(train=10, outer=2, hessian=1, forward=6).passes
    assert flops(train=300.0, forward=90.0).total(plan) == (10 + 2 + 2) * 300 + 6 * 90


def test_where_a_cost_is_not_known_beforehand_any_rest_of_the_budget_affords_a_trial(tmp_path: Path) -> None:
    ledger = Ledger({"s": 5.0}, DEVICE_SECONDS)
    ledger.add(charge(device_seconds=4.9))
    assert ledger.affords("s", 100.0)
    ledger.add(charge(interval=1, device_seconds=0.4))
    assert not ledger.affords("s", 0.0)
    assert ledger.overshoot("s") == pytest.approx(0.3)


def test_rounding_is_no_overshoot(tmp_path: Path) -> None:
    ledger = Ledger({"s": 0.3})
    for interval in range(3):
        ledger.add(charge(interval=interval, passes=0.1))
    assert ledger.totals("s").spent != 0.3 and ledger.overshoot("s") == 0.0


def test_what_is_done_again_is_shown_and_limits_nobody(tmp_path: Path) -> None:
    first = opened(tmp_path, {"s": 100.0})
    for one in (charge("ended"), charge("again", attempt=0), charge("again", attempt=1), charge("running", 3)):
        first.add(one)
    first.add(charge("again", 1, kind=INTERRUPTED, passes=7.0))
    for ledger in (first, opened(tmp_path, {"s": 100.0})):
        assert ledger.totals("s").spent == ledger.totals("s").passes == 30.0
        assert (ledger.totals("s").lost_passes, ledger.totals("s").lost_seconds) == (17.0, 1.0)
        assert ledger.attempts("again") == 2 and ledger.attempts("running") == 1 and ledger.attempts("new") == 0
        assert ledger.spent_on("again") == 10.0
