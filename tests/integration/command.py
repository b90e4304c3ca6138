"""`python -m ms_automl.search` and `.transfer` as a user runs them, in a folder of their own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient

from ms_automl.callbacks.mlflow.opening import sqlite
from ms_automl.comparison.events import FILE
from ms_automl.storage.files import json_lines
from tests.unit.stores import store

ROOT = Path(__file__).parents[2]
ONNX = "resources.onnx=true"
"""Models in MLflow, whose export takes a quarter of a small comparison: for tests that look at them."""
SMALL = ["data.args.train=64", "data.args.val=32", "data.args.test=32", "resources.onnx=false"]
TINY = [*SMALL, "training.steps=8", "training.report_every=4", "budget.trials=3"]


class Ended:
    """A comparison in a folder: what it left there."""

    def __init__(self, folder):
        self.folder = folder
        self.out = folder / "out"

    @property
    def record(self):
        return json.loads((self.out / "comparison.json").read_text())

    @property
    def rows(self):
        return {row["arm"]: row for row in self.record["rows"]}

    def client(self):
        return MlflowClient(sqlite(self.folder / "mlflow.db"))

    def runs(self):
        client = self.client()
        return {
            run.info.run_name: run
            for run in client.search_runs([client.get_experiment_by_name("ms_automl").experiment_id])
        }

    def events(self, kind):
        """Those of a kind in its log so far."""
        return [event for event in json_lines(self.out / FILE) if event["event"] == kind]


class Search(Ended):
    """One run of the command in a folder, and what it left there."""

    def __init__(self, folder, *options, settings=TINY, preset="smoke", tracking=None, environment=()):
        super().__init__(folder)
        sets = [part for setting in settings for part in ("--set", setting)]
        chosen = ["--preset", preset] if preset else []
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | dict(environment)
        environment.pop("MLFLOW_TRACKING_URI", None)
        environment |= {"MLFLOW_TRACKING_URI": tracking} if tracking else {}
        self.process = _started(
            "ms_automl.search", *chosen, "--out", "out", *options, *sets, folder=folder, environment=environment
        )

    def wait(self):
        self.shown, self.errors = self.process.communicate(timeout=550)  # below the limit of a test
        self.status = self.process.returncode
        return self


def transfer(folder, *options, environment=()):
    """A process of `python -m ms_automl.transfer` in a folder."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | dict(environment)
    environment.pop("MLFLOW_TRACKING_URI", None)
    return _started("ms_automl.transfer", *map(str, options), folder=folder, environment=environment)


def heed_ctrl_c():
    """In a process that begins: a shell that starts the tests in the background has them ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _started(module, *options, folder, environment):
    return subprocess.Popen(
        [sys.executable, "-m", module, *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )


def finished(folder, *options, settings=TINY):
    """One that has ended, with a database that is there already: to make one takes MLflow seconds."""
    store(folder)
    return Search(folder, *options, settings=settings).wait()


def has_trained(charges, trial):
    """Whether there is a charge for a trial's training."""
    return any((charge["trial"], charge["kind"]) == (trial, "train") for charge in charges)


def untimed(row):
    """A row without what differs from run to run."""
    timed = ("seconds", "latency")
    return {key: value for key, value in row.items() if key != "lost_passes" and not any(t in key for t in timed)}
