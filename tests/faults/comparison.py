"""A comparison that faults are injected into, and what is wrong with it afterwards: nothing, if all is well."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import random
import shutil
import signal
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field

from mlflow import MlflowClient

from ms_automl.comparison.events import FILE
from ms_automl.comparison.run import Trial
from tests.faults.machine import family
from tests.integration.command import SMALL, Search, untimed

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
        forgotten: passes that were charged, in a ledger that went with its disk before it was copied.
        equal: whether the table is that of an undisturbed comparison.
        said: lines that the user was shown.
    """

    injected: int
    lost: list[str]
    doubled: list[str]
    wrong: list[str]
    charged: float
    done: float
    forgotten: float
    equal: bool
    said: list[str] = field(default_factory=list)

    @property
    def error(self):
        """Of the ledger, as a share of what was done."""
        return self.charged / self.done - 1

    @property
    def unexplained(self):
        """Of that error, what no lost disk took with it."""
        return (self.charged + self.forgotten) / self.done - 1


def charged(log):
    """Passes in the text of a log, but for a line that was not ended."""
    return sum(json.loads(line).get("passes", 0.0) for line in log[: log.rfind("\n") + 1].splitlines())


class Comparison:
    """A small comparison in a folder, which faults are injected into.

    Args:
        folder: empty.
        seed: of the random moments.
        out: link target of its results; None for a folder of its own.
        tracking: address of an MLflow server; None for the folder's own database.
        environment: of its processes.
        work: where its networks write down what they are asked for; None for a file of the folder.
        storage: where its trials leave their models; None for its own folder.
    """

    def __init__(self, folder, seed=0, out=None, tracking=None, environment=(), work=None, storage=None):
        self.folder, self.random, self.tracking = folder, random.Random(seed), tracking
        self.injected, self.said, self.forgotten = 0, [], 0.0
        (folder / "counted.py").write_text(COUNTED.replace("WHERE", str(work or folder / "work")))
        self.environment = dict(environment)
        self.storage = () if storage is None else ("--storage", storage)
        self.server = None
        if out is not None:
            (folder / "out").symlink_to(out)

    def start(self):
        self.search = Search(self.folder, "--arms", ARMS, *self.storage, settings=SETTINGS, **self._where())
        self._note_driver()
        return self

    def resume(self):
        self.search = Search(self.folder, "--resume", *self.storage, preset=None, settings=(), **self._where())
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
        return sum(charge["kind"] == "train" for charge in self.search.events("charge"))

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

    def lose_the_head(self, bucket):
        """SIGKILL for the driver and all its processes; its disk and MLflow's database are gone."""
        self.kill_the_driver(alone=False)
        with zipfile.ZipFile(io.BytesIO(bucket.read("record.zip"))) as copy:
            copied = copy.read(FILE).decode() if FILE in copy.namelist() else ""
        self.forgotten += self._charged() - charged(copied)
        shutil.rmtree(self.search.out)
        (self.folder / "mlflow.db").unlink(missing_ok=True)

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
        """As the log has them, the newest last; several times each."""
        return [Trial(**event["trial"]) for event in self.search.events("trial")]

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
            self._charged(), self._done(), self.forgotten, rows == undisturbed.rows(), self.said,
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
        log = self.search.out / FILE
        return charged(log.read_text()) if log.exists() else 0.0

    def _done(self):
        passes, drivers = 0.0, (self.folder / "driver").read_text().splitlines()
        for line in (self.folder / "work").read_text().splitlines():
            process, graded, samples = line.rsplit(maxsplit=2)
            if process not in drivers:  # they measure the selected models, and charge nobody
                passes += int(samples) if int(graded) else int(samples) / 3
        return passes
