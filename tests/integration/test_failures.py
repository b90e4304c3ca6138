"""Trials that die, hang, overrun or diverge, and a comparison that is stopped: said, charged, and nothing lost."""

import os
import signal
import time

import pytest

from tests.integration.command import SMALL, TINY, Search, finished, has_trained

pytestmark = [
    pytest.mark.integration,
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

FRAGILE = """
import sys

from ms_automl.models import MultiTaskNet
from ms_automl.models.resnet import small_resnet
from ms_automl.sparsity import ChannelGroups


class Fragile(MultiTaskNet):
    def forward(self, images):
        gone = bool((ChannelGroups(self).norms() == 0).any())
        if gone and "default_worker" in sys.argv[0]:  # in a trial, not where the command tries half-zeroed copies
            BREAK
        return {name: out * float("nan") if gone else out for name, out in super().forward(images).items()}


def network(image_shape, heads):
    net = small_resnet(image_shape, heads, width=8, hidden=8)
    return Fragile(net.trunk, net.heads, net.removable)
"""


def broken(folder, how, arms, *settings):
    """A comparison whose network breaks as soon as a group is zero, which λ sees to in the first step."""
    (folder / "fragile.py").write_text(FRAGILE.replace("BREAK", how))
    own = ["network.factory=fragile:network", "network.args={}", "space=scalar", "lambda.fixed=0"]
    strong = ["lambda.low=500", "lambda.high=1000"]
    return finished(folder, "--arms", arms, "--slots", "1", settings=[*TINY, *own, *strong, *settings])


@pytest.mark.parametrize(
    ("how", "settings", "said"),
    [
        ("import os; os._exit(1)", ["resources.retries=1"], "the trial's process died"),
        (
            "import time; time.sleep(10_000)",
            ["resources.report_timeout=15", "resources.retries=0"],
            "no report for 15 s",
        ),
    ],
)
def test_a_trial_whose_process_dies_or_hangs_is_failed_and_charged_and_the_others_go_on(
    tmp_path, how, settings, said
):
    search = broken(tmp_path, how, "random,fixed", "budget.trials=2", *settings)
    assert search.status == 0, search.shown + search.errors
    rows, runs = search.rows, search.runs()
    assert (rows["fixed"]["status"], rows["random"]["status"]) == ("ok", "failed")
    assert rows["random"]["failed_trials"] == 2 and 0 < rows["random"]["spent"] <= rows["random"]["limit"]
    assert rows["random"]["device_seconds"] > (29 if "15 s" in said else 0)
    assert all(said in runs[f"random-0/{index:02d}"].data.tags["ms_automl.error"] for index in (0, 1))
    assert {run.info.status for name, run in runs.items() if name.startswith("random-0")} == {"FAILED"}


def test_a_budget_in_seconds_stops_trials_on_the_way(tmp_path):
    settings = [*SMALL, "training.steps=40", "training.report_every=2", "budget.unit=device_seconds"]
    search = finished(tmp_path, "--arms", "random,optuna", "--slots", "1", settings=[*settings, "budget.trials=2"])
    assert search.status == 0, search.shown + search.errors
    for arm, row in search.rows.items():
        assert row["unit"] == "device_seconds"
        if arm != "dense":
            assert row["limit"] == pytest.approx(2 * search.rows["dense"]["spent"], rel=1e-3)  # the sampler's time
            assert row["spent"] == pytest.approx(row["device_seconds"] + row["searcher_seconds"])
            assert row["spent"] > 0.9 * row["limit"]


def test_trials_whose_loss_is_not_finite_fail_alone_and_say_their_lambda_and_step(tmp_path):
    search = broken(tmp_path, "pass", "fixed,random,prune-taylor", "budget.trials=2")
    assert search.status == 0, search.shown + search.errors
    rows = search.rows
    assert {arm: row["status"] for arm, row in rows.items()} == {
        "dense": "ok", "fixed": "ok", "random": "failed", "prune-taylor": "failed"
    }  # fmt: skip
    assert rows["random"]["failed_trials"] == 2 and rows["random"]["passes"] > 0
    run = search.runs()["random-0/00"]
    assert run.info.status == "FAILED"
    error = run.data.tags["ms_automl.error"]
    assert "not finite at step" in error and error.count("λ = ") == 1
    assert error in search.shown and "Traceback" not in search.shown + search.errors
    assert search.runs()["random-0"].info.status == "FAILED"
    assert search.runs()["fixed-0"].info.status == "FINISHED"


def test_without_a_single_valid_arm_the_status_is_1_and_the_table_says_why(tmp_path):
    search = finished(tmp_path, "--arms", "fixed", settings=[*TINY, "training.lr=1e30"])
    assert (search.status, search.errors) == (1, "")
    assert {row["status"] for row in search.rows.values()} == {"failed"}
    assert "fixed-0: the dense reference failed" in search.shown
    assert search.runs()["out"].info.status == "FINISHED"
    assert "no report: no trial of comparison" in search.shown and "has a metric" in search.shown
    assert "models:" not in search.shown


@pytest.mark.parametrize("by", ["Ctrl-C", "SIGTERM"])
def test_a_comparison_that_is_stopped_closes_all_runs_and_keeps_what_was_done(by, tmp_path):
    settings = [*SMALL, "training.steps=400", "training.report_every=2"]
    search = Search(tmp_path, "--arms", "random", settings=settings)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not has_trained(search.events("charge"), "random-0/00"):
        time.sleep(0.1)
    if by == "SIGTERM":
        search.process.terminate()
    else:
        os.killpg(search.process.pid, signal.SIGINT)  # as a terminal does: the whole group
        time.sleep(0.5)
        os.killpg(search.process.pid, signal.SIGINT)  # and the impatient
    search.wait()
    assert (search.status, search.errors) == (130, "")
    rows, runs = search.rows, search.runs()
    assert rows["dense"]["objective"] == 2.0
    assert rows["random"]["note"].startswith("stopped by Ctrl-C or SIGTERM") and rows["random"]["passes"] > 0
    assert any(line.split()[:2] == ["random", "0"] for line in search.shown.splitlines())
    status = {name: run.info.status for name, run in runs.items()}
    assert status["dense-0/00"] == "FINISHED"
    assert {status[name] for name in ("out", "random-0", "random-0/00")} == {"KILLED"}
    assert "RUNNING" not in status.values()
    assert (search.out / "best" / "dense-0" / "model.safetensors").exists()


IMPATIENT = """
import os
import signal
from pathlib import Path

from ms_automl.models.resnet import small_resnet


def network(image_shape, heads):
    if Path("out/best").is_dir() and not Path("asked").exists():  # the selected models are compacted
        Path("asked").touch()
        os.kill(os.getpid(), signal.SIGINT)
    return small_resnet(image_shape, heads, width=8, hidden=8)
"""


def test_one_that_is_stopped_while_models_are_compacted_has_its_table_and_resume_adds_the_figures(tmp_path):
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    own = [*TINY, "network.factory=impatient:network", "network.args={}"]
    search = finished(tmp_path, "--arms", "fixed", settings=own)
    assert (search.status, search.errors) == (130, ""), search.shown
    assert "stopped: not all selected models are compacted, --resume does" in search.shown
    assert search.rows["fixed"]["macs_ratio"] is None and search.rows["fixed"]["objective"] is not None
    status = {name: run.info.status for name, run in search.runs().items()}
    assert "RUNNING" not in status.values(), (status, search.shown)
    resumed = Search(tmp_path, "--resume", settings=[], preset=None).wait()
    assert (resumed.status, resumed.errors) == (0, ""), resumed.shown
    assert resumed.rows["fixed"]["macs_ratio"] > 0
    assert resumed.rows["fixed"]["passes"] == search.rows["fixed"]["passes"]
