"""Faults that are really injected into a comparison, at random moments, each so many ``times``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.faults.bucket import KEYS, Bucket
from tests.faults.comparison import Comparison
from tests.faults.machine import fill
from tests.integration.command import ROOT, Search
from tests.integration.server import Server


def undisturbed(folder: Path) -> Comparison:
    """One that nothing is done to."""
    return Comparison(folder).start().wait()


def trials_killed(folder: Path, seed: int, times: int = 5) -> Comparison:
    """A trial's process is killed, at random moments."""
    comparison = Comparison(folder, seed).start()
    comparison.wait_for_reports(1)
    while comparison.injected < times and comparison.some_time(0.5, 8):
        comparison.kill_a_trial()
    return comparison.wait()


def driver_killed(folder: Path, seed: int, times: int = 2, alone: bool = False) -> Comparison:
    """The driver is killed, with all processes it has started or alone, at random moments."""
    comparison = Comparison(folder, seed).start()
    for _ in range(times):
        comparison.wait_for_reports(comparison.reports() + comparison.random.randrange(1, 60))
        if comparison.some_time(0, 2):
            comparison.kill_the_driver(alone)
            comparison.resume()
    return comparison.wait()


def driver_killed_alone(folder: Path, seed: int, times: int = 2) -> Comparison:
    """The driver alone is killed: what it has started finds that out."""
    return driver_killed(folder, seed, times, alone=True)


def states_truncated(folder: Path, seed: int, times: int = 3) -> Comparison:
    """A trial's newest state is cut off and its process killed."""
    comparison = Comparison(folder, seed).start()
    comparison.wait_for_reports(3)
    while comparison.injected < times and comparison.some_time(0.5, 4):
        comparison.truncate_a_state()
    return comparison.wait()


def second_driver(folder: Path, seed: int, times: int = 2) -> Comparison:
    """A second driver is started on the same folder; it is refused, and the first one goes on."""
    comparison = Comparison(folder, seed).start()
    comparison.wait_for_reports(2)
    for _ in range(times):
        second = Search(comparison.folder, "--resume", preset=None, settings=(), **comparison._where()).wait()
        comparison.injected += 1
        comparison.said += second.errors.splitlines()
        assert second.status == 2 and comparison.running
    return comparison.wait()


CLOCK = """
import os
import time
from pathlib import Path

real, real_ns = time.time, time.time_ns


def back():
    file = Path(os.environ["CLOCK"])
    return float(file.read_text() or 0) if file.exists() else 0.0


time.time = lambda: real() - back()
time.time_ns = lambda: real_ns() - int(back() * 1e9)
"""


def clock_back(folder: Path, seed: int, times: int = 3) -> Comparison:
    """The clock that all of its processes see steps back by hours."""
    (folder / "clock").mkdir()
    (folder / "clock" / "sitecustomize.py").write_text(CLOCK)
    environment = {"CLOCK": str(folder / "clock" / "back"), "PYTHONPATH": f"{ROOT}:{folder / 'clock'}"}
    comparison = Comparison(folder, seed, environment=environment).start()
    back = 0.0
    for _ in range(times):
        comparison.wait_for_reports(comparison.reports() + comparison.random.randrange(2, 40))
        back += comparison.random.uniform(600, 100_000)
        temporary = folder / "clock" / "new"
        temporary.write_text(str(back))
        temporary.replace(folder / "clock" / "back")
        comparison.injected += 1
    return comparison.wait()


def disk_full(folder: Path, seed: int, times: int = 2) -> Comparison:
    """The file system of its results is full at a random moment; once there is room it goes on."""
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", small], check=True)
    try:
        (small / "out").mkdir()
        comparison = Comparison(folder, seed, out=small / "out").start()
        for _ in range(times):
            comparison.wait_for_reports(comparison.reports() + comparison.random.randrange(2, 40))
            fill(small / "filler")
            comparison.injected += 1
            comparison.wait()
            (small / "filler").unlink()
            comparison.resume()
        comparison.wait()
        subprocess.run(["cp", "-r", small / "out", folder / "copy"], check=True)
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    (folder / "out").unlink()
    (folder / "copy").rename(folder / "out")
    return comparison


def server_stopped(folder: Path, seed: int, times: int = 2) -> Comparison:
    """The MLflow server and its PostgreSQL are stopped, and started again after a while."""
    server = Server().start()
    try:
        comparison = Comparison(folder, seed, tracking=server.uri)
        comparison.server = server
        comparison.start()
        for _ in range(times):
            comparison.wait_for_reports(comparison.reports() + comparison.random.randrange(1, 40))
            server.stop()
            server.stop_database()
            comparison.injected += 1
            comparison.some_time(5, 15)
            server.start_database()
            server.start()
        return comparison.wait()
    except BaseException:
        server.close()
        raise


def head_lost(folder: Path, seed: int, times: int = 2) -> Comparison:
    """The head is lost, with its disk and MLflow's database, at random moments; another one goes on."""
    bucket = Bucket()
    try:
        comparison = Comparison(folder, seed, environment=KEYS, storage=bucket.uri)
        comparison.server = bucket
        comparison.start()
        for _ in range(times):
            comparison.wait_for_reports(comparison.reports() + comparison.random.randrange(1, 60))
            if comparison.some_time(0, 2):
                comparison.lose_the_head(bucket)
                comparison.resume()
        return comparison.wait()
    except BaseException:
        bucket.close()
        raise


FAULTS: dict[str, Callable[..., Comparison]] = {
    "a trial's process killed": trials_killed,
    "driver killed with all its processes, --resume": driver_killed,
    "driver alone killed, --resume": driver_killed_alone,
    "a trial's newest state truncated": states_truncated,
    "a second driver on the same comparison": second_driver,
    "the clock steps back": clock_back,
    "the disk full, --resume": disk_full,
    "the head lost with its disk and MLflow, --resume": head_lost,
    "the MLflow server and its PostgreSQL stopped": server_stopped,
}
