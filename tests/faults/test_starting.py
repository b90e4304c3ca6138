"""Machines that give trials no process or no memory, terminals that vanish, environments of uv."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import ROOT, TINY, Ended, Search

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

HANGS = """
import sys
import time

if any("default_worker.py" in part for part in sys.orig_argv):
    time.sleep(10_000)
"""


def test_where_no_process_starts_it_ends_in_one_line_and_goes_on_once_one_does(tmp_path):
    (tmp_path / "hangs").mkdir()
    (tmp_path / "hangs" / "sitecustomize.py").write_text(HANGS)
    hanging = {"PYTHONPATH": f"{ROOT}:{tmp_path / 'hangs'}"}
    settings = [*TINY, "resources.start_timeout=5"]
    search = Search(tmp_path, "--arms", "fixed", settings=settings, environment=hanging).wait()
    assert search.status == 2 and search.errors.count("\n") == 1
    assert "no trial has begun in" in search.errors and "resources.start_timeout" in search.errors
    assert {run.info.status for run in search.runs().values()} <= {"FAILED", "KILLED"}
    again = Search(tmp_path, "--resume", preset=None, settings=["resources.start_timeout=600"]).wait()
    assert (again.status, again.errors) == (0, ""), again.shown
    assert {row["status"] for row in again.record["rows"]} == {"ok"}


def test_trials_that_die_of_memory_say_so_and_no_others_went_on(tmp_path):
    short = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    settings = [*TINY, "resources.retries=1"]
    search = Search(tmp_path, "--arms", "fixed", settings=settings, environment=short).wait()
    assert (search.status, search.errors) == (1, "")
    assert "memory ran out on its host" in search.shown and "--slots" in search.shown
    assert "1 process lost" in search.rows["dense"]["note"] and "others" not in search.rows["dense"]["note"]


def test_a_comparison_outlives_its_terminal(tmp_path):
    here, there = pty.openpty()
    long = [
        *TINY,
        "training.steps=200",
        "training.report_every=2",
    ]  # so that the table shows a trial, however slow
    sets = [part for setting in long for part in ("--set", setting)]
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "ms_automl.search", "--preset", "smoke", "--arms",
         "fixed", "--out", "out", *sets],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=there, stdout=there, stderr=there,
    )  # fmt: skip
    os.close(there)
    shown = b""
    while b"step" not in shown:  # of the live table: a trial runs
        shown += os.read(here, 10_000)
    os.close(here)
    assert process.wait(500) == 0
    ended = Ended(tmp_path)
    assert {row["status"] for row in ended.record["rows"]} == {"ok"}
    assert {run.info.status for run in ended.runs().values()} == {"FINISHED"}


def test_trials_run_in_the_environment_of_uv_run(tmp_path):
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'own'\nversion = '0'\n")
    sets = [part for setting in [*TINY, "resources.start_timeout=60"] for part in ("--set", setting)]
    command = [
        Path(sys.executable).with_name("uv"),
        "run",
        "--no-sync",
        "--offline",
        "python",
        "-m",
        "ms_automl.search",
        "--preset",
        "smoke",
    ]
    own = os.environ | {"PYTHONPATH": str(ROOT), "UV_CACHE_DIR": str(tmp_path / "cache")}
    own.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        [*command, "--arms", "fixed", "--out", "out", *sets],
        cwd=tmp_path, env=own, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
