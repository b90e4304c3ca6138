"""A small MLflow store in the exact form of the records, read back and turned into a report."""

import json
import math
import random
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from pandas.testing import assert_frame_equal

from analysis.__main__ import main
from analysis.records import load
from analysis.report import report

# SQLAlchemy warns about MLflow's own models.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

LAYERS = ["stem", "stage1.conv1", "stage1.conv2", "stage2.conv1", "stage2.conv2"]
TRIAL_PASSES = 12_000
TRIALS = 8
GOALS = {
    "dense": 2.0,
    "meta": 1.52,
    "meta-search": 1.47,
    "optuna": 1.55,
    "prune-taylor": 1.50,
    "random": 1.62,
}


class FakeSearch:
    """Writes what `ms_automl.tracking` writes, with invented numbers."""

    def __init__(self, folder: Path, seeds: int, arms: tuple[str, ...] = tuple(GOALS), rng: int = 0):
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment = self.client.create_experiment("ms_automl", artifact_location=(folder / "art").as_uri())
        self.random = random.Random(rng)
        self.clock = 0
        self.out = folder / "comparisons" / "rooms"
        self.out.mkdir(parents=True)
        self.versions = {"python": "3.12.4", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0"}
        self.config = {
            "preset": "rooms",
            "seeds": seeds,
            "arms": list(arms),
            "budget": {"trials": TRIALS, "unit": "passes"},
            "objective": {"kind": "tradeoff", "price": 1.0},
        }
        tags = {
            "ms_automl.kind": "comparison",
            "ms_automl.format": "1",
            "ms_automl.preset": "rooms",
            "ms_automl.git_revision": "4f2a91c",
            "ms_automl.versions": json.dumps(self.versions),
            "ms_automl.out": "comparisons/rooms",
            "ms_automl.slots": "2",
        }
        self.parent = self.run(None, tags, {}, {"useful_share": 0.87, "cost/wall_seconds": 512.0})
        self.client.log_dict(self.parent, self.config, "config.json")
        self.rows = [self.arm(arm, seed) for seed in range(seeds) for arm in arms]
        self.client.set_terminated(self.parent)
        record = {
            "format": 1,
            "config": self.config,
            "versions": self.versions,
            "mlflow": {"run_id": self.parent, "tracking_uri": "sqlite:///mlflow.db"},
            "rows": self.rows,
        }
        (self.out / "comparison.json").write_text(json.dumps(record))

    def run(self, parent, tags, params, metrics, status=None, history=()):
        self.clock += 1
        if parent:
            tags = {**tags, "mlflow.parentRunId": parent}
        run = self.client.create_run(self.experiment, start_time=self.clock, tags=tags).info.run_id
        points = [Metric(name, value, self.clock, 0) for name, value in metrics.items()]
        points += [Metric(name, value, self.clock, step) for name, value, step in history]
        self.client.log_batch(run, points, [Param(key, str(value)) for key, value in params.items()])
        if status:
            self.client.set_terminated(run, status)
        return run

    def arm(self, arm, seed):
        number = 1 if arm in ("dense", "meta") else TRIALS
        cost = TRIAL_PASSES * (2.1 if arm == "meta" else 1.0)
        trials = [self.trial_metrics(arm, index, number, cost) for index in range(number)]
        failed = {3} if arm == "optuna" and seed == 0 else set()
        valid = [index for index in range(number) if index not in failed]
        best = min(valid, key=lambda index: trials[index]["val/objective"])
        row = self.row(arm, seed, trials, best, len(failed), cost)
        tags = {"ms_automl.kind": "arm", "ms_automl.row": json.dumps(row)}
        history = [] if arm == "dense" else self.history(trials, valid, cost)
        run = self.run(
            self.parent, tags, {"arm": arm, "seed": seed, "space": "per_stage"}, {}, "FINISHED", history
        )
        for index, metrics in enumerate(trials):
            params = {"method": "meta_sparsity" if arm == "meta" else "fixed_lambda"}
            tags = {"ms_automl.kind": "trial"}
            if index in failed:
                tags["ms_automl.error"] = "DivergenceError: the loss of task 'depth' <nan> at step 210"
                metrics = {"cost/passes": cost / 3}
            params |= {"index": index, "arm": arm, "seed": seed}
            self.run(run, tags, params, metrics, "FAILED" if index in failed else "FINISHED")
        return row

    def trial_metrics(self, arm, index, number, cost):
        goal, dense = GOALS[arm], arm == "dense"
        better = 0 if dense else 0.35 * math.exp(-2.5 * index / number) * self.random.uniform(0.2, 1)
        objective = goal if dense else goal + (better if number > 1 else 0) + self.random.gauss(0, 0.015)
        sparsity = 0.0 if dense else min(0.95, max(0.05, 0.72 - 0.9 * better * self.random.choice([-1, 1])))
        lambdas = {f"lambda/{layer}": 0.0 if dense else 10 ** self.random.uniform(-3.5, -2) for layer in LAYERS}
        return {
            "val/objective": objective,
            "test/objective": objective if dense else objective + self.random.gauss(0.01, 0.01),
            "val/depth/abs": self.random.uniform(0.2, 0.3),
            "delta_m": 0.0 if dense else self.random.gauss(-8, 4),
            "sparsity/group": sparsity,
            "sparsity/param": sparsity + 0.01,
            "density": 1 - sparsity,
            "cost/passes": cost,
            "cost/device_seconds": 30.0,
            "cost/wall_seconds": 31.0,
            **lambdas,
        }

    def history(self, trials, valid, cost):
        points, best = [], math.inf
        for index in valid:
            metrics = trials[index]
            if metrics["val/objective"] < best:
                best, step = metrics["val/objective"], int((index + 1) * cost)
                points.append(("anytime/objective", best, step))
                points.append(("anytime/test_objective", metrics["test/objective"], step))
                points.append(("anytime/wall_seconds", 31.0 * (index + 1), step))
        return points

    def row(self, arm, seed, trials, best, failed, cost):
        metrics = trials[best]
        lambdas = {name.removeprefix("lambda/"): metrics[name] for name in metrics if name.startswith("lambda/")}
        return {
            "arm": arm,
            "seed": seed,
            "space": "per_stage",
            "status": "ok",
            "objective": metrics["val/objective"],
            "test_objective": metrics["test/objective"],
            "delta_m": metrics["delta_m"],
            "sparsity_group": metrics["sparsity/group"],
            "sparsity_param": metrics["sparsity/param"],
            "macs_ratio": 1 - 0.8 * metrics["sparsity/group"],
            "latency_ratio": None,
            "lambda": None if arm in ("dense", "prune-taylor") else lambdas,
            "passes": cost * (len(trials) - failed * 2 / 3),
            "device_seconds": 30.0 * len(trials),
            "wall_seconds": 31.0 * len(trials),
            "searcher_seconds": 0.4,
            "trials": len(trials),
            "failed_trials": failed,
            "limit_passes": TRIALS * TRIAL_PASSES,
            "note": "",
        }


@pytest.fixture(scope="session")
def search(tmp_path_factory):
    return FakeSearch(tmp_path_factory.mktemp("store"), seeds=2, arms=("dense", "meta", "optuna"))


@pytest.fixture(autouse=True)
def no_other_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_folder_is_read_into_tidy_frames(search):
    comparison = load(search.out)
    assert len(comparison.rows) == 6
    assert len(comparison.trials) == 2 * (1 + 1 + TRIALS)
    assert set(comparison.anytime["arm"]) == {"meta", "optuna"}
    assert comparison.trials["status"].eq("FAILED").sum() == 1
    assert comparison.tags["git_revision"] == "4f2a91c"


def test_another_store_in_the_working_folder_is_not_taken_for_the_comparison_s_own(search, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").touch()
    monkeypatch.chdir(tmp_path)
    assert len(load(search.out).rows) == 6


def test_a_run_id_gives_the_same_as_its_folder(search, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", search.uri)
    by_id, by_folder = load(search.parent), load(search.out)
    assert by_id.config == by_folder.config
    assert by_id.versions == by_folder.versions
    assert_frame_equal(by_id.rows, by_folder.rows)


def test_the_report_is_one_page_that_needs_no_network(search):
    index = report(search.out)
    html = index.read_text(encoding="utf-8")
    assert index == search.out / "report" / "index.html"
    assert "&lt;nan&gt;" in html
    assert 'src="http' not in html and "<script" not in html and "href=" not in html
    assert str(search.out.parent) not in html
    names = {file.name for file in index.parent.iterdir()}
    assert {"table.csv", "table.md", "trials.csv", "anytime.png", "anytime.svg", "scatter.svg"} <= names


def test_the_report_is_logged_to_the_parent_run(search):
    report(search.out)
    logged = {artifact.path for artifact in search.client.list_artifacts(search.parent, "report")}
    assert "report/index.html" in logged


def test_other_runs_and_unknown_ids_are_refused_in_one_line(search, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", search.uri)
    arm = search.client.search_runs([search.experiment], "tags.`ms_automl.kind` = 'arm'")[0].info.run_id
    for given, words in {
        arm: "not a comparison",
        "0" * 32: "no MLflow run",
        "nowhere": "neither a folder",
    }.items():
        assert main(["report", "--comparison", given]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
