"""A comparison that is killed goes on with --resume and ends as if nothing had happened."""

import os
import signal
import time

import pytest

from ms_automl.search import main
from tests.integration.command import SMALL, Search, finished, has_trained, untimed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]
ARMS = "topk,optuna,meta-optuna"
SETTINGS = [
    *SMALL,
    "training.steps=12",
    "lambda=auto",
    "training.report_every=3",
    "budget.trials=3",
    "budget.retrain=1",
]


def kill_when(search, ready):
    """SIGKILL for the driver and all of its processes, as soon as `ready` holds of the charges so far."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and not ready(search.events("charge")):
        assert search.process.poll() is None, search.process.communicate()
        time.sleep(0.05)
    os.killpg(search.process.pid, signal.SIGKILL)
    search.wait()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a comparison that was killed while `meta-optuna` learned."""
    folder = tmp_path_factory.mktemp("killed")
    search = Search(folder, "--arms", ARMS, settings=SETTINGS)
    kill_when(search, lambda charges: has_trained(charges, "meta-optuna-0/00"))
    return folder


@pytest.fixture(scope="module")
def resumed(killed):
    search = Search(killed, "--resume", preset=None, settings=())
    return search.wait()


def test_it_ends_with_the_rows_of_one_that_was_left_alone(resumed, tmp_path_factory):
    assert resumed.status == 0, resumed.shown + resumed.errors
    whole = finished(tmp_path_factory.mktemp("whole"), "--arms", ARMS, settings=SETTINGS)
    assert {arm: untimed(row) for arm, row in resumed.rows.items()} == {
        arm: untimed(row) for arm, row in whole.rows.items()
    }


def test_every_trial_has_one_run_and_all_have_ended(resumed):
    client = resumed.client()
    experiment = client.get_experiment_by_name("ms_automl").experiment_id
    runs = client.search_runs([experiment])
    names = [run.info.run_name for run in runs]
    assert len(names) == len(set(names))
    assert "RUNNING" not in {run.info.status for run in runs}
    trials = sum(row["trials"] + len(row["retrained"]) for row in resumed.rows.values())
    assert len(runs) == 1 + len(resumed.rows) + trials
    assert resumed.runs()["out"].info.run_id == resumed.record["mlflow"]["run_id"]


def test_the_ledger_keeps_what_was_lost_and_limits_nobody_for_it(resumed):
    lines = resumed.events("charge")
    for arm, row in resumed.rows.items():
        charged = sum(line["passes"] for line in lines if line["run"] == f"{arm}-0")
        assert charged == pytest.approx(row["passes"] + row["lost_passes"])
    assert sum(row["lost_passes"] for row in resumed.rows.values()) > 0


def test_a_larger_budget_runs_only_what_is_new(resumed):
    before = resumed.runs()
    more = Search(resumed.folder, "--resume", preset=None, settings=["budget.trials=4"]).wait()
    assert more.status == 0, more.shown + more.errors
    assert (
        more.rows["optuna"]["trials"] == resumed.rows["optuna"]["trials"] + 1 or more.rows["optuna"]["trials"] == 4
    )
    after = more.runs()
    assert {name: run.info.run_id for name, run in before.items()}.items() <= {
        name: run.info.run_id for name, run in after.items()
    }.items()
    assert "optuna-0/03" in after and "optuna-0/03" not in before


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (["--resume"], ["training.lr=0.1"], "training.lr was 0.003 and cannot become 0.1 in the same comparison"),
        (["--resume"], ["budget.trials=1"], "budget.trials can grow from"),
        (["--resume", "--arms", "random"], [], "preset and arms are those of the comparison"),
        ([], [], "holds a comparison already: name a new folder, or go on with it by --resume"),
    ],
)
def test_what_cannot_go_on_is_refused_in_one_line(resumed, options, settings, said, monkeypatch, capsys):
    monkeypatch.chdir(resumed.folder)
    sets = [part for setting in settings for part in ("--set", setting)]
    assert main(["--out", "out", *(options or ["--preset", "smoke"]), *sets]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert said in errors


def test_a_folder_without_a_comparison_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--out", "out", "--resume"]) == 2
    assert "no comparison.json in out" in capsys.readouterr().err
