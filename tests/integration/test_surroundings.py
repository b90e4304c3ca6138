"""Folders, programs and screens that comparisons are started in."""

import os
import subprocess
import sys

import pytest

from tests.integration.command import ROOT, TINY, Ended

pytestmark = [
    pytest.mark.integration,
    pytest.mark.fault,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

OWN = """
import torch
from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.tasks import classification

print("Δ loaded: letters that the screen lacks, in the process of every trial too")


class Made:
    def __call__(self, seed, data_dir):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (32,), generator=generator)
        images = torch.randn(32, 3, 16, 16, generator=generator) + labels.view(-1, 1, 1, 1)
        split = TensorSplit(images, {"digit": labels})
        return MultiTaskData("own", split, split, split, [classification("digit", 3)])


data = Made()
"""


def environment(**values):
    """Of a process in a folder of a user's."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | values


def test_in_a_users_folder_with_a_screen_that_is_poor_and_goes_away(tmp_path):
    """Modules called as ours, one of them the factory's; a pipe that is closed; ASCII; the home folder's sign."""
    (tmp_path / "analysis.py").write_text("raise SystemExit('the script of the user')\n")
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "trainables").mkdir()
    (tmp_path / "trainables" / "__init__.py").write_text(OWN, encoding="utf-8")
    settings = [*TINY[3:], "data.factory=trainables:data", "data.args={}", "training.batch_size=8"]
    command = [sys.executable, "-m", "ms_automl.search", "--preset", "smoke", "--arms", "fixed", "--out", "~/out"]
    command += [part for setting in settings for part in ("--set", setting)]
    own = environment(PYTHONIOENCODING="ascii", HOME=str(tmp_path / "home"))
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=own, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        first = process.stdout.readline()
        process.stdout.close()  # as head -1 does
        status = process.wait(500)
    assert (status, (tmp_path / "errors").read_text()) == (0, "")
    assert first.startswith("smoke: dense, fixed") or first.startswith("? loaded")
    ended = Ended(tmp_path)
    ended.out = tmp_path / "home" / "out"
    assert {row["status"] for row in ended.record["rows"]} == {"ok"} and not (tmp_path / "~").exists()
    assert {run.info.status for run in ended.runs().values()} == {"FINISHED"}
    assert (ended.out / "report" / "index.html").exists()


LIBRARY = """
import signal
from pathlib import Path

import ray

from ms_automl.config import load_config
from ms_automl.errors import ConfigError
from ms_automl.driver.compare import run_comparison
from ms_automl.api import write_report

SETTINGS = {settings!r}


def compare(name, address=None):
    config = load_config("smoke", arms=["fixed"], settings=SETTINGS)
    ended = run_comparison(config, Path(name), report=write_report, address=address)
    return 0 if ended.valid and ended.stopped is None and not ended.lacks else 1


def mine(number, frame):
    raise SystemExit(5)


ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 * 2**20)
signal.signal(signal.SIGTERM, mine)
try:
    compare("address", address="auto")
except ConfigError as error:
    print("refused:", error)
print("status", compare("here"))
assert ray.is_initialized() and ray.get(ray.put(1)) == 1
assert signal.getsignal(signal.SIGTERM) is mine
print("status", ray.get(ray.remote(compare).remote("inside")))
"""


def test_a_ray_that_is_there_is_used_and_left_up_also_inside_of_a_task(tmp_path):
    (tmp_path / "program.py").write_text(LIBRARY.format(settings=TINY))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused: --address auto: this process has a Ray already" in done.stdout
    assert done.stdout.count("status 0") == 2
    for name in ("here", "inside"):
        ended = Ended(tmp_path)
        ended.out = tmp_path / name
        assert {row["status"] for row in ended.record["rows"]} == {"ok"}
        assert ended.record["machine"].endswith("2 slots")
