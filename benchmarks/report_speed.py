"""How long a report on thousands of trials takes, and how much memory.

    python benchmarks/report_speed.py [--trials 5000] [--steps 200] [--store DIR]

Makes an MLflow store (SQLite) in the form of a comparison's records: 16 arms with 5 seeds share the trials, each
with the objective at every step, about 60 metrics and the tags of a real one. Rows are inserted by SQL, since
MLflow's client would take an hour. With --store the store is kept and found again; one that was cut short is
completed. The report then runs in a process of its own and is measured from outside:

    seconds   of wall-clock, from the start of Python to the report logged to MLflow
    memory    largest resident size, GB

The bounds are 60 s and 2 GB on 2 cores, at 5,000 trials of 200 steps: the exit status is 1 above either. Measured,
niced, on 2 cores that two other trainings kept busy: 39.8 s and 0.43 GB, of which 16 s are
MLflow's reading of the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ARMS = (
    *("dense", "dense-reg", "prune-taylor", "prune-magnitude", "fixed", "random", "random-2x", "grid"),
    *("optuna", "optuna-gp", "optuna-asha", "topk", "path", "meta", "meta-search", "meta-optuna"),
)
SEEDS = 5
LAYERS = ["stem", *(f"block{block}.conv{conv}" for block in range(1, 7) for conv in (1, 2))]
TASKS = {
    "segmentation": ("loss", "miou", "pixel_accuracy"),
    "depth": ("loss", "abs_error", "rel_error"),
    "normals": ("loss", "mean_angle", "within_11"),
}
PASSES = 10_000
LIMIT_SECONDS, LIMIT_GB = 60.0, 2.0


def main() -> int:
    """Make the store, run the report, print what it took; 1 where it took too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=200, help="reports of the objective in each trial")
    parser.add_argument("--store", type=Path, help="a folder to keep the store in (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.store or Path(temporary)).absolute()
        began = time.perf_counter()
        comparison = make_store(folder, args.trials, args.steps)
        size = (folder / "mlflow.db").stat().st_size / 1e9
        print(f"store: {args.trials} trials, {args.steps} steps each, {size:.2f} GB", end="")
        print(f", made in {time.perf_counter() - began:.0f} s")
        seconds, memory, files = measure(folder, comparison)
    print(f"report: {seconds:.1f} s, {memory:.2f} GB, {files / 1e6:.1f} MB of files")
    return int(seconds > LIMIT_SECONDS or memory > LIMIT_GB)


def measure(folder: Path, comparison: Path) -> tuple[float, float, int]:
    """Seconds, GB and bytes written of one report, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "analysis", "report", "--comparison", str(comparison)]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return seconds, memory, sum(file.stat().st_size for file in (comparison / "report").iterdir())


def make_store(folder: Path, trials: int, steps: int) -> Path:
    """Make or complete the store; returns the comparison's folder."""
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    database, comparison = folder / "mlflow.db", folder / "comparisons" / "speed"
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    found = client.get_experiment_by_name("ms_automl")
    location = (folder / "artifacts").as_uri()
    experiment = found.experiment_id if found else client.create_experiment("ms_automl", location)
    config = {
        "objective": {"kind": "tradeoff", "price": 1.0},
        "budget": {"trials": trials // (SEEDS * len(ARMS))},
    }
    if (comparison / "comparison.json").exists():
        return comparison
    tags = {"ms_automl.kind": "comparison", "ms_automl.format": "1", "ms_automl.preset": "speed"}
    parent = next(iter(client.search_runs([experiment], "tags.`ms_automl.kind` = 'comparison'")), None)
    parent = parent or client.create_run(experiment, tags=tags, run_name="speed")
    run_id = parent.info.run_id
    rows = []
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for number, (arm, seed) in enumerate((arm, seed) for arm in ARMS for seed in range(SEEDS)):
            streams = SEEDS * len(ARMS)
            count = trials // streams + (number < trials % streams)
            rows.append(Stream(arm, seed, count, steps, run_id, int(experiment)).write(connection))
    record = {"format": 1, "config": config, "versions": {}, "rows": rows}
    record["mlflow"] = {"run_id": run_id, "tracking_uri": f"sqlite:///{os.path.relpath(database, comparison)}"}
    client.set_terminated(run_id)
    comparison.mkdir(parents=True, exist_ok=True)
    (comparison / "comparison.json").write_text(json.dumps(record), encoding="utf-8")
    return comparison


class Stream:
    """One arm with one seed: the same numbers whenever it is made, so that it can be made again."""

    def __init__(self, arm: str, seed: int, trials: int, steps: int, parent: str, experiment: int) -> None:
        self.arm, self.seed, self.steps = arm, seed, steps
        self.parent, self.experiment = parent, experiment
        self.name = f"{arm}-{seed}"
        self.run = self._id(self.name)
        rng = np.random.default_rng([seed, ARMS.index(arm)])
        self.trials = [self._trial(rng, index) for index in range(trials)]

    def _id(self, name: str) -> str:
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.parent}/{name}").hex

    def _trial(self, rng: np.random.Generator, index: int) -> dict[str, float]:
        dense = self.arm == "dense"
        sparsity = 0.0 if dense else float(rng.uniform(0, 0.95))
        loss = 1.0 if dense else 1 + 0.2 * sparsity**3 / (1.05 - sparsity) + float(abs(rng.normal(0, 0.02)))
        test = loss + float(rng.normal(0.01, 0.01))
        metrics = {
            "val/objective": loss + 1 - sparsity,
            "test/objective": test + 1 - sparsity,
            "delta_m": -100 * (test - 1),
            "sparsity/group": 0.9 * sparsity,
            "sparsity/param": sparsity,
            "density": 1 - sparsity,
            "cost/passes": float(PASSES),
            "cost/device_seconds": 60.0,
            "cost/wall_seconds": 61.0,
            "cost/peak_memory_mb": 900.0,
        }
        metrics |= {f"sparsity/layer/{layer}": sparsity for layer in LAYERS}
        metrics |= {f"lambda/{layer}": 0.01 + sparsity for layer in LAYERS}
        for split in ("val", "test"):
            metrics |= {
                f"{split}/{task}/{name}": loss * (1 + 0.01 * float(rng.normal()))
                for task, names in TASKS.items()
                for name in names
            }
        return metrics

    def write(self, connection: sqlite3.Connection) -> dict[str, Any]:
        """Insert what is not there yet, all of it or nothing; returns the row."""
        best = min(range(len(self.trials)), key=lambda index: self.trials[index]["val/objective"])
        row = self._row(best)
        there = connection.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (self.run,)).fetchone()
        if not there:
            with connection:
                self._insert(connection, self.run, self.name, "arm", {"space": "per_layer"}, self.parent, row)
                self._metrics(connection, self.run, list(self._curve()))
                for index, metrics in enumerate(self.trials):
                    name = f"{self.name}/{index:02d}"
                    run = self._id(name)
                    params = {"method": "fixed_lambda", "index": str(index)}
                    self._insert(connection, run, name, "trial", params, self.run)
                    self._metrics(connection, run, list(self._course(metrics)))
        return row

    def _insert(
        self,
        connection: sqlite3.Connection,
        run: str,
        name: str,
        kind: str,
        params: dict[str, str],
        parent: str,
        row: dict[str, Any] | None = None,
    ) -> None:
        connection.execute(
            "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time,"
            " lifecycle_stage, artifact_uri, experiment_id)"
            " VALUES (?, ?, 'LOCAL', '', 'FINISHED', 1, 2, 'active', '', ?)",
            (run, name, self.experiment),
        )
        tags = {"mlflow.parentRunId": parent, "mlflow.runName": name, "ms_automl.kind": kind}
        tags |= {"ms_automl.comparison": self.parent, "ms_automl.arm": self.arm, "ms_automl.seed": str(self.seed)}
        if row is not None:
            tags["ms_automl.row"] = json.dumps(row)
        params = params | {"arm": self.arm, "seed": str(self.seed)}
        for table, values in (("tags", tags), ("params", params)):
            statement = f"INSERT INTO {table} (run_uuid, key, value) VALUES (?, ?, ?)"
            connection.executemany(statement, [(run, *pair) for pair in values.items()])

    def _metrics(self, connection: sqlite3.Connection, run: str, points: list[tuple[str, float, int]]) -> None:
        insert = "INSERT INTO {} (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)"
        rows = [(key, value, 1, run, step) for key, value, step in points]
        connection.executemany(insert.format("metrics"), rows)
        latest = {row[0]: row for row in rows}
        connection.executemany(insert.format("latest_metrics"), list(latest.values()))

    def _course(self, metrics: dict[str, float]) -> Iterator[tuple[str, float, int]]:
        """A trial's metrics at its last step, and the objective at all of them."""
        for step in range(1, self.steps):
            yield "val/objective", metrics["val/objective"] + 1 / step, step
        for name, value in metrics.items():
            yield name, value, self.steps

    def _curve(self) -> Iterator[tuple[str, float, int]]:
        """The arm's own curve, a point for every trial that ended, as the search logs it."""
        best = self.trials[0]
        for index, metrics in enumerate(self.trials):
            best = min(best, metrics, key=lambda trial: trial["val/objective"])
            step = (index + 1) * PASSES
            yield "anytime/objective", best["val/objective"], step
            yield "anytime/test_objective", best["test/objective"], step
            yield "anytime/wall_seconds", 61.0 * (index + 1), step

    def _row(self, best: int) -> dict[str, Any]:
        metrics, count = self.trials[best], len(self.trials)
        lambdas = {layer: metrics[f"lambda/{layer}"] for layer in LAYERS}
        course = [lambdas, {layer: 2 * value for layer, value in lambdas.items()}]
        retrained = [
            {"training_seed": seed, "test_objective": metrics["test/objective"] + 0.01 * seed} for seed in range(3)
        ]
        return {
            "arm": self.arm,
            "seed": self.seed,
            "space": "per_layer",
            "status": "ok",
            "objective": metrics["val/objective"],
            "test_objective": metrics["test/objective"],
            "delta_m": metrics["delta_m"],
            "sparsity_group": metrics["sparsity/group"],
            "sparsity_param": metrics["sparsity/param"],
            "lambda": course if self.arm.startswith("meta") else lambdas,
            "retrained": None if self.arm == "dense" else retrained,
            "passes": float(PASSES * count),
            "limit_passes": float(PASSES * count),
            "device_seconds": 60.0 * count,
            "training_seconds": 50.0 * count,
            "evaluation_seconds": 5.0 * count,
            "startup_seconds": 1.0 * count,
            "wall_seconds": 61.0 * count,
            "searcher_seconds": 1.0,
            "trials": count,
            "failed_trials": 0,
            "selected_trial": f"{self.name}/{best:02d}",
            "note": "",
        }


if __name__ == "__main__":
    sys.exit(main())
