"""What a store lacks of adaptations that are done is found and added by the next start, once."""

import pytest

from ms_automl.callbacks.mlflow import Tracker
from tests.unit.stores import store
from tests.unit.test_transfer_stage import DENSE, META, Driven

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture
def stage(tmp_path):
    """The address of a store with a comparison and its stage, and the comparison's run."""
    Driven(tmp_path, [DENSE, META]).all_of_it()
    uri = store(tmp_path)
    tracker = Tracker(uri)
    tracker.begin("one", {}, {"a": 1})
    tracker.finish({}, {}, "FINISHED")
    assert started(uri, tracker.run_id, tmp_path) == 2  # nothing is there yet
    return uri, tracker.run_id, tmp_path


def started(uri, run_id, folder):
    run = Driven(folder, [DENSE, META]).stage.run
    tracker = Tracker(uri)
    tracker.attach(run_id, run)
    count = tracker.recall(run)
    tracker.stage_finished(run, {}, "FINISHED")
    assert tracker.writer.lost is None
    return count


def runs(uri, run_id, _):
    tracker = Tracker(uri)
    tracker.run_id = run_id
    return tracker.client, {name: run for name, run in tracker._search_runs().items() if name != "transfer"}


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
    assert (told["val/edges/ods_f1"], told["cost/passes"]) == (0.5, 48.0)
    assert now[hurt].data.params == before[hurt].data.params
    assert started(*stage) == 0
