"""The presets of data sets of files, as a user runs them: prepare, look, search; on small made files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import ROOT, Search
from tests.made_files import faces, labelled_mat, task_folders

pytestmark = [pytest.mark.integration, pytest.mark.whole]
NETWORK = ["network.args.width=4", "network.args.hidden=4", "network.args.weights=null"]
SHORT = ["training.steps=6", "training.report_every=3", "training.batch_size=4", "training.prefetch=1"]
HERE = ["resources.gpus_per_trial=0", "resources.cpus_per_trial=1", "data.args.threads=2", "budget.trials=2"]
TINY = [*NETWORK, *SHORT, *HERE, "resources.onnx=false"]


def data(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ms_automl.data", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "make", "settings", "tasks"),
    [
        ("nyuv2", labelled_mat, ["height=48", "width=64"], ["segmentation", "depth", "normals"]),
        ("celebamask", faces, ["size=48"], ["segmentation", "male", "smiling", "young"]),
    ],
)
def test_files_are_prepared_looked_at_and_searched(name, make, settings, tasks, tmp_path):
    make(tmp_path / "files")
    sets = [part for setting in settings for part in ("--set", setting)]
    ready = data(tmp_path, "prepare", name, "--source", "files", "--out", "ready", *sets)
    assert ready.returncode == 0, ready.stderr
    assert "look at it: python -m ms_automl.data info" in ready.stdout
    shown = data(tmp_path, "info", name, "--data-dir", "ready", "--png", "sheet.png", "--verify")
    assert shown.returncode == 0, shown.stderr
    assert "every checksum is right" in shown.stdout
    assert all(f"\n{task} (trained)" in shown.stdout for task in tasks)
    assert (tmp_path / "sheet.png").stat().st_size > 20_000

    search = Search(tmp_path, "--data-dir", "ready", "--arms", "meta", settings=TINY, preset=name).wait()
    assert search.status == 0, search.shown + search.errors
    rows = search.rows
    assert {arm: row["status"] for arm, row in rows.items()} == dict.fromkeys(("dense", "meta"), "ok")
    assert 0 <= rows["meta"]["sparsity_param"] < 1
    metrics = search.runs()["meta-0"].data.metrics
    assert metrics["val/objective"] == rows["meta"]["objective"]
    assert all(any(key.startswith(f"test/{task}/") for key in metrics) for task in tasks)


def test_a_preset_of_files_asks_for_them(tmp_path):
    search = Search(tmp_path, settings=TINY, preset="nyuv2").wait()
    assert search.status == 2
    assert search.errors.startswith("error: the data set nyuv2 cannot be downloaded by a program: say where")
    assert len(search.errors.splitlines()) == 1


def test_damaged_files_end_a_search_before_anything_trains(tmp_path):
    folder = task_folders(tmp_path / "files", 6, 4)
    (folder / "val" / "depth" / "1.npy").unlink()
    sizes = ["data.args.height=48", "data.args.width=64"]
    search = Search(tmp_path, "--data-dir", "files", settings=[*TINY, *sizes], preset="nyuv2").wait()
    assert search.status == 2
    last = search.errors.splitlines()[-1]
    assert last.startswith("error: nyuv2: ") and "1.npy is missing; nothing was written" in last
