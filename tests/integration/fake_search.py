"""A small MLflow store in the exact form of the records, of a search that nobody ran."""

import json
import math
import random
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

LAYERS = ["stem", *(f"block{block}.conv{conv}" for block in (1, 2, 3) for conv in (1, 2))]
TRIAL_PASSES = 12_000
TRIALS = 8
SINGLE = ("dense", "fixed", "meta")
# How good an arm's best trial is in loss, and how far its trials lie around their best sparsity.
ARMS = {
    "dense": (1.0, 0.0),
    "fixed": (1.04, 0.1),
    "random": (1.03, 0.25),
    "grid": (1.03, 0.3),
    "optuna": (1.01, 0.12),
    "optuna-asha": (1.01, 0.15),
    "prune-taylor": (1.02, 0.15),
    "meta": (1.0, 0.03),
    "meta-search": (1.0, 0.05),
}
OLD = ("retrained", "retrained_objective", "retrained_test_objective", "unit", "limit", "spent", "overshoot")
OLD += ("training_seconds", "evaluation_seconds", "startup_seconds", "stopped_trials", "selected_trial")


class FakeSearch:
    """Writes what `ms_automl.callbacks.mlflow` writes, with invented numbers.

    Args:
        folder: where the store and the comparison are made.
        seeds: how many.
        arms: which of `ARMS`.
        target: the parameter sparsity asked for; None prices density.
        old: leave out what records of earlier versions lack.
    """

    def __init__(self, folder: Path, seeds: int, arms=tuple(ARMS), target: float | None = None, old=False):
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.experiment = self.client.create_experiment("ms_automl", artifact_location=(folder / "art").as_uri())
        self.random = random.Random(0)
        self.clock = 0
        self.target, self.old = target, old
        self.out = folder / "comparisons" / "rooms"
        self.out.mkdir(parents=True)
        self.versions = {"python": "3.12.4", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0"}
        self.config = {
            "preset": "rooms",
            "seeds": seeds,
            "arms": list(arms),
            "budget": {"trials": TRIALS, "unit": "passes"},
            "objective": {"kind": "target", "target": target} if target else {"kind": "tradeoff", "price": 1.0},
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
        self.parent = self.run(None, tags, {}, {"useful_share": 0.87, "cost/wall_seconds": 5120.0})
        self.client.log_dict(self.parent, self.config, "config.json")
        self.rows = [self.arm(arm, seed) for seed in range(seeds) for arm in arms]
        self.client.set_terminated(self.parent)
        record = {
            "format": 1,
            "config": self.config,
            "versions": self.versions,
            "machine": "Linux x86_64, 2 slots",
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
        number = 1 if arm in SINGLE else TRIALS
        cost = TRIAL_PASSES * (2.1 if arm == "meta" else 1.0)
        trials = [self.trial(arm, seed, index, number, cost) for index in range(number)]
        failed = {3} if (arm, seed) == ("optuna", 0) else set()
        early = {index for index in (2, 4, 5) if arm == "optuna-asha" and not self.old}
        for index in early:
            trials[index] = {**trials[index], "val/objective": trials[index]["rung/objective"]}
            trials[index] |= {"cost/passes": cost / 3, "cost/device_seconds": 27.0, "cost/wall_seconds": 27.5}
        whole = [index for index in range(number) if index not in failed | early]
        best = min(whole, key=lambda index: self.rank(trials[index]))
        row = self.row(arm, seed, trials, best, failed, early)
        history = [] if arm == "dense" else self.history(trials, whole)
        tags = {"ms_automl.kind": "arm", "ms_automl.row": json.dumps(row)}
        params = {"arm": arm, "seed": seed, "space": "per_layer"}
        run = self.run(self.parent, tags, params, {}, "FINISHED", history)
        for index, metrics in enumerate(trials):
            params = {"method": "meta_sparsity" if arm == "meta" else "fixed_lambda"}
            tags = {"ms_automl.kind": "trial"}
            if index in failed:
                tags["ms_automl.error"] = "DivergenceError: the loss of task 'depth' <nan> at step 210"
                metrics = {"cost/passes": cost / 3, "cost/wall_seconds": 30.0}
            if index in early:
                tags["ms_automl.outcome"] = "stopped"
            params |= {"index": index, "arm": arm, "seed": seed}
            self.run(run, tags, params, metrics, "FAILED" if index in failed else "FINISHED")
        return row

    def trial(self, arm, seed, index, number, cost):
        base, spread = ARMS[arm]
        noise = self.random.gauss
        wanted = 0.62 if arm != "grid" else 0.05 + 0.9 * index / (number - 1)
        learnt = math.exp(-1.5 * index / number) if arm not in ("random", "grid") else 1.0
        jitter = noise(0, spread) * learnt if arm != "grid" else noise(0, 0.02)
        sparsity = 0.0 if arm == "dense" else min(0.97, max(0.0, wanted + jitter))
        loss = base + 0.25 * sparsity**3 / (1.05 - sparsity) + (abs(noise(0, 0.01)) if sparsity else 0)
        strength = 0.1 * 10 ** ((wanted if arm == "grid" else sparsity) * 1.6 - 0.8)
        lambdas = [strength * (1 if arm == "grid" else 2 ** noise(0, 1)) for _ in LAYERS]
        zeros = [min(0.98, max(0.0, sparsity * (0.4 + 0.18 * place))) for place in range(len(LAYERS))]
        price = 0.0 if self.target else 1.0
        test = loss + (noise(0.012, 0.008) if sparsity else 0)
        metrics = {
            "val/objective": loss + price * (1 - sparsity),
            "test/objective": test + price * (1 - sparsity),
            "val/depth/abs_error": 0.2 * loss,
            "test/segmentation/loss": 1.5 * test,
            "test/segmentation/miou": 0.41 / test,
            "test/depth/abs_error": 0.21 * test * (1 + noise(0, 0.01)),
            "test/normals/mean_angle": 24.0 * test,
            "delta_m": -100 * (test - 1),
            "sparsity/group": 0.92 * sparsity,
            "sparsity/param": sparsity,
            "density": 1 - sparsity,
            "cost/passes": cost,
            "cost/device_seconds": 80.0 * cost / TRIAL_PASSES,
            "cost/wall_seconds": 81.0 * cost / TRIAL_PASSES,
        }
        if arm == "optuna-asha":
            metrics["rung/objective"] = metrics["val/objective"] + 0.3 + noise(0, 0.03)
        metrics |= {f"sparsity/layer/{layer}": share for layer, share in zip(LAYERS, zeros, strict=True)}
        if arm not in ("dense", "prune-taylor"):
            metrics |= {f"lambda/{layer}": value for layer, value in zip(LAYERS, lambdas, strict=True)}
        return metrics

    def rank(self, metrics):
        missing = max(0.0, self.target - metrics["sparsity/param"]) if self.target else 0.0
        return missing, metrics["val/objective"]

    def history(self, trials, whole):
        points, best, passes, seconds = [], None, 0.0, 40.0
        for index, metrics in enumerate(trials):
            passes, seconds = passes + metrics["cost/passes"], seconds + 2.5 * metrics["cost/wall_seconds"]
            if index in whole and (best is None or self.rank(metrics) < self.rank(best)):
                best = metrics
                points.append(("anytime/objective", best["val/objective"], int(passes)))
                points.append(("anytime/test_objective", best["test/objective"], int(passes)))
                points.append(("anytime/wall_seconds", seconds, int(passes)))
        return points

    def row(self, arm, seed, trials, best, failed, early):
        metrics = trials[best]
        lambdas = {name.removeprefix("lambda/"): metrics[name] for name in metrics if name.startswith("lambda/")}
        course = [{layer: value * (0.1 + knot / 4) for layer, value in lambdas.items()} for knot in range(5)]
        passes = sum(trial["cost/passes"] for trial in trials)
        device = sum(trial["cost/device_seconds"] for trial in trials)
        reached = self.target is None or metrics["sparsity/param"] >= self.target
        retrained = [
            {
                "training_seed": 1000 + number,
                "objective": metrics["val/objective"] + self.random.gauss(0.008, 0.008),
                "test_objective": metrics["test/objective"] + self.random.gauss(0.008, 0.008),
                "delta_m": metrics["delta_m"] - 1,
                "sparsity_param": metrics["sparsity/param"] - 0.01,
            }
            for number in range(3)
        ]
        row = {
            "arm": arm,
            "seed": seed,
            "space": "per_layer",
            "status": "ok" if reached else "partial",
            "objective": metrics["val/objective"],
            "test_objective": metrics["test/objective"],
            "delta_m": metrics["delta_m"],
            "sparsity_group": metrics["sparsity/group"],
            "sparsity_param": metrics["sparsity/param"],
            "macs_ratio": 1 - 0.8 * metrics["sparsity/group"],
            "latency_ratio": None,
            "lambda": course if arm.startswith("meta") else lambdas or None,
            "retrained": None if arm == "dense" else retrained,
            "retrained_objective": None,
            "retrained_test_objective": None
            if arm == "dense"
            else sum(entry["test_objective"] for entry in retrained) / 3,
            "unit": "passes",
            "limit": None if arm == "dense" else TRIALS * TRIAL_PASSES,
            "spent": passes,
            "overshoot": 0.0,
            "passes": passes,
            "device_seconds": device,
            "training_seconds": 0.78 * device,
            "evaluation_seconds": 0.12 * device,
            "startup_seconds": 0.04 * device,
            "wall_seconds": sum(trial["cost/wall_seconds"] for trial in trials),
            "searcher_seconds": 0.4,
            "trials": len(trials),
            "failed_trials": len(failed),
            "stopped_trials": len(early),
            "selected_trial": f"{arm}-{seed}/{best:02d}",
            "note": "" if reached else f"target sparsity {self.target:g} not reached",
        }
        return {name: value for name, value in row.items() if not (self.old and name in OLD)}
