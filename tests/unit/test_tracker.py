"""What a comparison leaves in a real store, however late its writer comes to it."""

import threading

import pytest
from mlflow import MlflowClient

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.comparison.run import Run, Trial

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
REPORTS, METRICS = 12, 150


@pytest.fixture
def tracker(tmp_path):
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker.begin("one", {"preset": "none"}, {"a": 1})
    return tracker


def tell(tracker, names):
    """Trials of one arm that report by turns and end."""
    run = Run("arm", 0, "scalar", 10.0, ("m",), 3)
    tracker.run_opened(run)
    trials = [Trial(name, run.name, index, "m", {"lambda": 0.1}, {}) for index, name in enumerate(names)]
    for trial in trials:
        tracker.trial_started(run, trial)
    for step in range(REPORTS):
        for trial in trials:
            values = {f"metric/{number}": step + number / 1000 for number in range(METRICS)}
            tracker.trial_reported(run, trial, values | {"step": float(step)})
    for trial in trials:
        trial.status, trial.error, trial.interruptions = "STOPPED", "others were better", trial.index
        trial.warnings = ("one thing", "another")
        run.anytime.append((10.0 * (trial.index + 1), 1.0, 1.0, 1.0))
        tracker.trial_ended(run, trial)
    return trials


@pytest.mark.parametrize("late", [False, True])
def test_every_metric_of_every_report_is_there_once_however_late_it_is_written(tracker, late, tmp_path):
    gate, written = threading.Event(), []
    log = tracker.client.log_batch
    tracker.client.log_batch = lambda *args, **kwargs: (written.append(args[0]), log(*args, **kwargs))
    if late:
        tracker.writer.put(lambda attempt: gate.wait())
    else:
        gate.set()
    trials = tell(tracker, ["a", "b"])
    gate.set()
    tracker.finish({"rows": []}, {"useful_share": 1.0}, "FINISHED")
    assert tracker.writer.lost is None
    client = MlflowClient(tracker.uri)
    for trial in trials:
        run = client.get_run(tracker.runs[trial.name])
        history = client.get_metric_history(run.info.run_id, "metric/149")
        assert [(point.step, point.value) for point in history] == [
            (step, step + 0.149) for step in range(REPORTS)
        ]
        assert (len(run.data.metrics), run.info.status) == (METRICS, "KILLED")
        told = {key.removeprefix("ms_automl."): value for key, value in run.data.tags.items()}
        assert (told["outcome"], told["stopped"], told["arm"]) == ("stopped", "others were better", "arm")
        assert told["warnings"] == "one thing; another"
        assert told.get("interruptions") == (None if trial.index == 0 else "1") and "error" not in told
    arm = client.get_metric_history(tracker.runs["arm-0"], "anytime/objective")
    assert [point.step for point in arm] == [10, 20]
    own = [run_id for run_id in written if run_id == tracker.runs["arm-0/00"]]
    # Params, tags, and the metrics: 1,000 at a time where they had to wait for one another.
    assert len(own) <= (4 if late else 2 + REPORTS)


def test_a_store_that_lost_a_comparison_gets_its_trials_again(tracker, tmp_path):
    trials = tell(tracker, ["a", "b"])
    run = Run("arm", 0, "scalar", 10.0, ("m",), 3, trials=trials)
    run.anytime = [(10.0, 1.5, 1.6, 1.0), (20.0, 1.25, 1.3, 2.0)]
    trials[0].metrics = {"val/objective": 1.5, "step": 12.0}
    tracker.finish({"rows": []}, {}, "KILLED")
    other = Tracker(f"sqlite:///{tmp_path / 'other.db'}")
    assert tracker.knows(tracker.run_id) and not other.knows(tracker.run_id)
    other.begin("one", {"preset": "none"}, {"a": 1})
    other.run_opened(run)
    other.recall(run)
    other.finish({"rows": []}, {}, "FINISHED")
    assert other.writer.lost is None and len(run.anytime) == 2
    client = MlflowClient(other.uri)
    runs = {run.info.run_name: run for run in client.search_runs([other.experiment])}
    assert set(runs) == {"one", "arm-0", "arm-0/00", "arm-0/01"}
    first, second = runs["arm-0/00"], runs["arm-0/01"]
    assert first.info.status == second.info.status == "KILLED"  # as those that were stopped
    assert first.data.metrics == {"val/objective": 1.5} and first.data.params["value/lambda"] == "0.1"
    curve = client.get_metric_history(runs["arm-0"].info.run_id, "anytime/objective")
    assert [(point.step, point.value) for point in curve] == [(10, 1.5), (20, 1.25)]
