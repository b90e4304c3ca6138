"""Faults that are really injected into a comparison, and what is wrong afterwards: nothing, if all is well."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient

from ms_automl.trials import Trial
from tests.faults.machine import family, fill
from tests.integration.command import ROOT, SMALL, Search, untimed
from tests.integration.server import Server

ARMS = "topk,meta-optuna"
TRIAL = "ray::ResourceTrainable"  # what Ray calls the process of one
# Every trial leaves a state at every report. The network writes down what it is really asked to do.
SETTINGS = [
    *SMALL, "training.steps=32", "training.report_every=4", "budget.trials=3", "budget.retrain=1",
    "resources.checkpoint_every=0", "resources.retries=100",
    "network.factory=counted:network", "network.args={}",
]  # fmt: skip
COUNTED = """
import os
import platform
from pathlib import Path

import torch

from ms_automl.models import MultiTaskNet
from ms_automl.models.resnet import small_resnet

WORK = Path("WHERE")


class Counted(MultiTaskNet):
    def forward(self, images):
        if len(images) > 2:  # what looks at its form takes two
            with WORK.open("a") as file:
                file.write(f"{platform.node()} {os.getpid()} {int(torch.is_grad_enabled())} {len(images)}\\n")
        return super().forward(images)


def network(image_shape, heads):
    net = small_resnet(image_shape, heads, width=8, hidden=8)
    return Counted(net.trunk, net.heads, net.removable)
"""


@dataclass
class Outcome:
    """What is left of a comparison.

    Attributes:
        injected: how often a fault was.
        lost: runs that MLflow lacks.
        doubled: runs that it has more than once.
        wrong: runs whose status is not the trial's.
        charged: passes in the ledger, lost ones with them.
        done: passes that the networks were really asked for.
        equal: whether the table is that of an undisturbed comparison.
        said: lines that the user was shown.
    """

    injected: int
    lost: list[str]
    doubled: list[str]
    wrong: list[str]
    charged: float
    done: float
    equal: bool
    said: list[str] = field(default_factory=list)

    @property
    def error(self):
        """Of the ledger, as a share of what was done."""
        return self.charged / self.done - 1


class Comparison:
    """A small comparison in a folder, which faults are injected into.

    Args:
        folder: empty.
        seed: of the random moments.
        out: link target of its results; None for a folder of its own.
        tracking: address of an MLflow server; None for the folder's own database.
        environment: of its processes.
        work: where its networks write down what they are asked for; None for a file of the folder.
    """

    def __init__(self, folder, seed=0, out=None, tracking=None, environment=(), work=None):
        self.folder, self.random, self.tracking = folder, random.Random(seed), tracking
        self.injected, self.said = 0, []
        (folder / "counted.py").write_text(COUNTED.replace("WHERE", str(work or folder / "work")))
        self.environment = dict(environment)
        self.server = None
        if out is not None:
            (folder / "out").symlink_to(out)

    def start(self):
        self.search = Search(self.folder, "--arms", ARMS, settings=SETTINGS, **self._where())
        self._note_driver()
        return self

    def resume(self):
        self.search = Search(self.folder, "--resume", preset=None, settings=(), **self._where())
        self._note_driver()
        return self

    def _note_driver(self):
        with (self.folder / "driver").open("a") as file:
            file.write(f"{platform.node()} {self.search.process.pid}\n")

    def _where(self):
        return {"tracking": self.tracking, "environment": self.environment}

    def wait(self):
        self.search.wait()
        self.said += [*self.search.shown.splitlines(), *self.search.errors.splitlines()]
        return self

    @property
    def running(self):
        return self.search.process.poll() is None

    def some_time(self, least, most):
        """Wait for a random time, or until the comparison has ended; whether it still runs."""
        deadline = time.monotonic() + self.random.uniform(least, most)
        while self.running and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.running

    def reports(self):
        """How many the ledger has."""
        ledger = self.search.out / "ledger.jsonl"
        return ledger.read_text().count('"train"') if ledger.exists() else 0

    def wait_for_reports(self, count):
        deadline = time.monotonic() + 240
        while self.running and self.reports() < count:
            assert time.monotonic() < deadline, "the comparison does not go on"
            time.sleep(0.02)

    def trials(self):
        """Process ids of the trials that run."""
        return [pid for pid, line in family(self.search.process.pid).items() if line.startswith(TRIAL)]

    def kill_a_trial(self):
        """SIGKILL for the process of a random trial."""
        if trials := self.trials():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(trials), signal.SIGKILL)
                self.injected += 1

    def kill_the_driver(self, alone):
        """SIGKILL for the driver; unless ``alone`` for all processes that it has started too."""
        if alone:
            self.search.process.kill()
        else:
            os.killpg(self.search.process.pid, signal.SIGKILL)
        self.injected += 1
        self.search.wait()

    def truncate_a_state(self):
        """Cut off the newest state of a trial, whose process is then killed; False where it was too late."""
        stopped = self.trials()
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)  # what it had said before is written down
        newest = {trial.name: trial for trial in self._trials()}
        states = [trial.states for trial in newest.values() if trial.status == "RUNNING"]
        there = [places for places in states if len(places) > 1 and (self.search.out / places[-1]).exists()]
        if there:
            file = self.search.out / there[-1][-1] / "state.safetensors"
            os.truncate(file, file.stat().st_size // 2)
            self.injected += 1
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if there else signal.SIGCONT)
        return bool(there)

    def _trials(self):
        """As the journal has them, the newest last; several times each."""
        text = (self.search.out / "trials.jsonl").read_text()
        lines = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
        return [Trial(**line["trial"]) for line in lines if "trial" in line]

    def outcome(self, undisturbed: Comparison) -> Outcome:
        """What is left, beside one that nothing was done to."""
        record = self.search.record
        status = {trial.name: trial.status for trial in self._trials()}
        runs = self._runs(record)
        names = Counter(name for name, _ in runs)
        wanted = {f"{row['arm']}-{row['seed']}" for row in record["rows"]} | set(status)
        self.said += [warning for trial in self._trials() for warning in trial.warnings]
        said = {"STOPPED": "KILLED"}  # MLflow has no word of its own for it
        found = dict(runs)
        wrong = [name for name in status if found.get(name) != said.get(status[name], status[name])]
        wrong += [name for name in wanted - set(status) if found.get(name) != "FINISHED"]
        rows = {row["arm"]: untimed(row) | {"note": ""} for row in record["rows"]}
        return Outcome(
            self.injected, sorted(wanted - set(names)), [name for name in names if names[name] > 1], wrong,
            self._charged(), self._done(), rows == undisturbed.rows(), self.said,
        )  # fmt: skip

    def _runs(self, record):
        """Names and statuses of its runs in MLflow, but for its own."""
        client = MlflowClient(self.tracking or f"sqlite:///{self.folder / 'mlflow.db'}")
        parent = record["mlflow"]["run_id"]
        experiment = client.get_experiment_by_name("ms_automl").experiment_id
        runs = client.search_runs([experiment], f"tags.`ms_automl.comparison` = '{parent}'", max_results=5000)
        return [(run.info.run_name, run.info.status) for run in runs]

    def close(self) -> None:
        """End the server that it had of its own."""
        if self.server is not None:
            self.server.close()

    def rows(self):
        return {row["arm"]: untimed(row) | {"note": ""} for row in self.search.record["rows"]}

    def _charged(self):
        lines = (self.search.out / "ledger.jsonl").read_text().splitlines()
        return sum(json.loads(line)["passes"] for line in lines)

    def _done(self):
        passes, drivers = 0.0, (self.folder / "driver").read_text().splitlines()
        for line in (self.folder / "work").read_text().splitlines():
            process, graded, samples = line.rsplit(maxsplit=2)
            if process not in drivers:  # they measure the selected models, and charge nobody
                passes += int(samples) if int(graded) else int(samples) / 3
        return passes


def undisturbed(folder: Path) -> Comparison:
    """One that nothing is done to."""
    return Comparison(folder).start().wait()


def trials_killed(folder: Path, seed: int) -> Comparison:
    """A trial's process is killed, at five random moments."""
    comparison = Comparison(folder, seed).start()
    comparison.wait_for_reports(1)
    while comparison.injected < 5 and comparison.some_time(0.5, 8):
        comparison.kill_a_trial()
    return comparison.wait()


def driver_killed(folder: Path, seed: int, alone: bool = False) -> Comparison:
    """The driver is killed, with all processes it has started or alone, at two random moments."""
    comparison = Comparison(folder, seed).start()
    for _ in range(2):
        comparison.wait_for_reports(comparison.reports() + comparison.random.randrange(1, 60))
        if comparison.some_time(0, 2):
            comparison.kill_the_driver(alone)
            comparison.resume()
    return comparison.wait()


def driver_killed_alone(folder: Path, seed: int) -> Comparison:
    """The driver alone is killed: what it has started finds that out."""
    return driver_killed(folder, seed, alone=True)


def states_truncated(folder: Path, seed: int) -> Comparison:
    """A trial's newest state is cut off and its process killed, three times."""
    comparison = Comparison(folder, seed).start()
    comparison.wait_for_reports(3)
    while comparison.injected < 3 and comparison.some_time(0.5, 4):
        comparison.truncate_a_state()
    return comparison.wait()


def second_driver(folder: Path, seed: int) -> Comparison:
    """A second driver is started on the same folder; it is refused, and the first one goes on."""
    comparison = Comparison(folder, seed).start()
    comparison.wait_for_reports(2)
    for _ in range(2):
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


def clock_back(folder: Path, seed: int) -> Comparison:
    """The clock that all of its processes see steps back by hours, three times."""
    (folder / "clock").mkdir()
    (folder / "clock" / "sitecustomize.py").write_text(CLOCK)
    environment = {"CLOCK": str(folder / "clock" / "back"), "PYTHONPATH": f"{ROOT}:{folder / 'clock'}"}
    comparison = Comparison(folder, seed, environment=environment).start()
    back = 0.0
    for _ in range(3):
        comparison.wait_for_reports(comparison.reports() + comparison.random.randrange(2, 40))
        back += comparison.random.uniform(600, 100_000)
        temporary = folder / "clock" / "new"
        temporary.write_text(str(back))
        temporary.replace(folder / "clock" / "back")
        comparison.injected += 1
    return comparison.wait()


def disk_full(folder: Path, seed: int) -> Comparison:
    """The file system of its results is full at a random moment; once there is room it goes on."""
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", small], check=True)
    try:
        (small / "out").mkdir()
        comparison = Comparison(folder, seed, out=small / "out").start()
        for _ in range(2):
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


def server_stopped(folder: Path, seed: int) -> Comparison:
    """The MLflow server and its PostgreSQL are stopped, and started again after a while, twice."""
    server = Server().start()
    try:
        comparison = Comparison(folder, seed, tracking=server.uri)
        comparison.server = server
        comparison.start()
        for _ in range(2):
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


FAULTS: dict[str, Callable[[Path, int], Comparison]] = {
    "a trial's process killed": trials_killed,
    "driver killed with all its processes, --resume": driver_killed,
    "driver alone killed, --resume": driver_killed_alone,
    "a trial's newest state truncated": states_truncated,
    "a second driver on the same comparison": second_driver,
    "the clock steps back": clock_back,
    "the disk full, --resume": disk_full,
    "the MLflow server and its PostgreSQL stopped": server_stopped,
}
