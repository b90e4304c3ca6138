"""What a store lacks of uptakes that are done is found and added by the next start, once."""

from dataclasses import asdict

import pytest

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.driver.transfer.tracker import TransferTracker
from ms_automl.driver.transfer.uptake import plan
from tests.unit.stores import store

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

FIRST, SECOND = plan({("dense", 0): "d0", ("meta", 0): "m0"}, ["bright"], ["joint"], [16], 1)


def row(uptake, value):
    metrics = {"step": 8.0, "val/bright/accuracy": value, "val/bright/f1": None}
    costs = {"passes": 40.0, "device_seconds": 2.0, "wall_seconds": 3.0}
    curve = [[4.0, 0.1], [8.0, value]]
    return asdict(uptake) | costs | {"status": "FINISHED", "error": None, "metrics": metrics, "curve": curve}


DONE = [(FIRST, row(FIRST, 0.5)), (SECOND, row(SECOND, 0.75))]


@pytest.fixture
def stage(tmp_path):
    """The address of a store with a comparison and its stage, and the comparison's run."""
    uri = store(tmp_path)
    tracker = Tracker(uri)
    tracker.begin("one", {}, {"a": 1})
    tracker.finish({}, {}, "FINISHED")
    assert started(uri, tracker.run_id) == 2  # nothing is there yet
    return uri, tracker.run_id


def started(uri, run_id):
    tracker = TransferTracker(uri)
    tracker.attach(run_id)
    count = tracker.add_lacking(DONE)
    tracker.close({}, "FINISHED")
    assert tracker.writer.lost is None
    return count


def runs(uri, run_id):
    tracker = TransferTracker(uri)
    tracker.run_id = run_id
    return tracker.client, {name: run for name, run in tracker._known().items() if name != "transfer"}


def test_what_lacks_nothing_is_left_as_it_is(stage):
    before = {name: run.info.end_time for name, run in runs(*stage)[1].items()}
    assert started(*stage) == 0
    assert {name: run.info.end_time for name, run in runs(*stage)[1].items()} == before


@pytest.mark.parametrize("damage", ["deleted", "never ended"])
def test_what_lacks_something_is_logged_as_it_ended(damage, stage):
    client, before = runs(*stage)
    hurt = next(name for name, run in before.items() if run.data.params["arm"] == "meta")
    if damage == "deleted":
        client.delete_run(before[hurt].info.run_id)
    else:
        client.set_terminated(before[hurt].info.run_id, "KILLED")
    assert started(*stage) == 1
    _, now = runs(*stage)
    assert now.keys() == before.keys() and {run.info.status for run in now.values()} == {"FINISHED"}
    told = now[hurt].data.metrics
    assert (told["val/bright/accuracy"], told["cost/passes"]) == (0.75, 40.0)
    assert now[hurt].data.params == before[hurt].data.params
    assert started(*stage) == 0
