"""The arms over several seeds, trial by trial: what the verdict on learning λ rests on.

    python benchmarks/verdict.py --preset rooms --arms optuna --spaces per_layer,per_stage --seeds 0-4

Writes one line per finished trial to benchmarks/runs/<preset>/<seed>.jsonl and can be stopped at any time: a
second start hands what is there to the samplers and goes on with the next trial. Ray and MLflow stay out, so that
a trial costs its training alone; samplers, methods and objective are those of ``python -m ms_automl.search``.
``make docs`` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import Config, load_config
from ms_automl.environment.provenance import cpu_name, git_revision
from ms_automl.meta.lambda_bounds import LambdaBounds
from ms_automl.meta.objective import Objective, delta_m
from ms_automl.meta.reference import Reference
from ms_automl.samplers.arms import ARMS
from ms_automl.samplers.base import Answer, Observation, Result, SamplerInputs
from ms_automl.tasks import Task

RUNS = Path(__file__).parent / "runs"
Row = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """One arm with one seed under one configuration."""

    config: Config
    arm: str
    seed: int
    label: str

    @property
    def name(self) -> str:
        """What its rows are found by."""
        return f"{self.label}/{self.seed}"

    @property
    def settings(self) -> Row:
        """What an outcome depends on; a row is refused where a value that it knows has changed since."""
        kept = self.config.to_dict()
        for name in ("preset", "arms", "seeds", "first_seed", "resources"):
            del kept[name]
        if self.arm == "dense":
            for name in ("space", "objective", "lambda", "budget"):
                del kept[name]
        if not self.arm.startswith("meta"):
            del kept["meta"]
        return kept


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--arms", default="prune-taylor,meta,optuna,random")
    parser.add_argument("--spaces", default="per_layer")
    parser.add_argument("--objectives", default="tradeoff", help="tradeoff:PRICE or target:SPARSITY, by comma")
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the rows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    changed = "".join(f"/{setting}" for setting in args.settings)
    for seed in seeds(args.seeds):
        path = args.runs / args.preset / f"{seed}.jsonl"
        for objective in args.objectives.split(","):
            kind, _, amount = objective.partition(":")
            chosen = [f"objective.kind={kind}"]
            chosen += [f"objective.{'price' if kind == 'tradeoff' else 'target'}={amount}"] if amount else []
            for arm in args.arms.split(","):
                for space in args.spaces.split(","):
                    settings = [*args.settings, *chosen, f"space={space}", f"budget.trials={args.trials}"]
                    config = load_config(args.preset, settings=[*settings, f"first_seed={seed}"])
                    run(Stream(config, arm, seed, f"{arm}/{space}/{objective}{changed}"), path)


def seeds(text: str) -> range:
    """``0-4`` or ``7``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def run(stream: Stream, path: Path) -> None:
    """Go on with one stream."""
    experiment = Experiment(stream.config)
    dense = reference(stream, path)
    arm = ARMS[stream.arm]
    bounds = experiment.bounds(LambdaBounds.of(dense["metrics"]))
    given = SamplerInputs(stream.config, experiment.space(bounds), bounds, stream.seed, experiment.asked)
    sampler = arm.sampler(given)
    known = rows(path, stream)
    trials = [
        observed(index, Suggestion(row["method"], {}, row["values"]), row) for index, row in enumerate(known)
    ]
    for index in range(len(known), 1 if arm.single else stream.config.budget.trials):
        answer = sampler.ask(trials)
        if isinstance(answer, Answer):
            return
        row = new(path, experiment, stream, answer, index, dense)
        append(path, row)
        trials.append(observed(index, answer, row))


def observed(index: int, suggestion: Suggestion, row: Row) -> Observation:
    """A trial that has ended, as its sampler knows it."""
    result = None
    if not row["error"]:
        zeros = row["metrics"]["sparsity/param"]
        result = Result(row["objective"], row["violation"], row["schedule"], sparsity=zeros)
    return Observation(f"{index:02d}", suggestion, index, True, result)


def reference(stream: Stream, path: Path) -> Row:
    """The dense row of the seed, trained where it is missing."""
    changed = "".join(
        f"/{part}" for part in stream.label.split("/")[3:] if not part.startswith(("meta.", "lambda."))
    )
    dense = Stream(stream.config, "dense", stream.seed, f"dense{changed}")
    known = rows(path, dense)
    if not known:
        known = [new(path, Experiment(dense.config), dense, Suggestion("dense", {"probe": True}, {}), 0, None)]
        append(path, known[0])
    return known[0]


def new(
    path: Path, experiment: Experiment, stream: Stream, suggestion: Suggestion, index: int, dense: Row | None
) -> Row:
    """The row of a trial that is missing: of the same training under another objective, or trained now."""
    head = {"stream": stream.name, "label": stream.label, "seed": stream.seed, "settings": stream.settings}
    head |= {"trial": index, "method": suggestion.method, "values": suggestion.values}
    trained = twin(path, head) or trial(experiment, stream, suggestion, dense)
    if trained["error"]:
        return head | trained
    tasks = experiment.data(stream.seed).tasks
    row: Row = _rounded(head | trained | judged(tasks, stream.config.objective, trained, dense))
    return row


def twin(path: Path, head: Row) -> Row | None:
    """What a finished trial of the same training has: a fixed λ or a level does not ask for the objective."""
    if head["method"] not in ("fixed_lambda", "pruned") or not path.exists():
        return None
    arm = head["stream"].partition("/")[0]
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        same = all(row[key] == head[key] for key in ("method", "seed", "values"))
        # Values do not say by which criterion groups are pruned, or whether zeros are frozen: the arm does.
        other = row["stream"].partition("/")[0]
        alike = head["method"] == "fixed_lambda" and "dense-reg" not in (arm, other)
        same = same and (arm == other or alike)
        if same and not _changed(_training(row["settings"]), _training(head["settings"])):
            return {key: value for key, value in row.items() if key not in head}
    return None


def _training(settings: Row) -> Row:
    return {key: value for key, value in settings.items() if key not in ("objective", "budget")}


def trial(experiment: Experiment, stream: Stream, suggestion: Suggestion, dense: Row | None) -> Row:
    """Train once; a method's failure is a row too."""
    began = time.perf_counter()
    try:
        method, _ = experiment.build(suggestion, stream.seed, None if dense is None else _reference(stream, dense))
        curve = []
        while not method.done:
            report = method.step()
            kept = {k: v for k, v in report.items() if k.startswith(("val/", "probe/")) and k.endswith("loss")}
            curve.append({"step": report["step"], "density": report["density"]} | kept)
    except Exception as error:  # a diverged trial is a result
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0], "schedule": None}
    schedule = getattr(method, "schedule", None)
    aside = ("sparsity/layer", "lambda/", "probe/", "step")
    return {
        "error": None,
        "curve": curve,
        "metrics": {key: value for key, value in report.items() if not key.startswith(aside)},
        "zeros_by_layer": [v for k, v in report.items() if k.startswith("sparsity/layer/")],
        "density": report["density"],
        "passes": method.cost.passes,
        "warnings": list(getattr(method, "warnings", ())),
        "schedule": None if schedule is None or suggestion.method == "fixed_lambda" else schedule.to_dict(),
        "seconds": round(time.perf_counter() - began, 1),
        "torch": metadata.version("torch"),
        "revision": git_revision(),
        "cpu": cpu_name(),
    }


def judged(tasks: Sequence[Task], objective: Objective, trained: Row, dense: Row | None) -> Row:
    """A trained network under an objective, against the dense reference."""
    metrics, density = trained["metrics"], trained["density"]
    against = metrics if dense is None else dense["metrics"]
    row = {}
    for split, name in (("val", "objective"), ("test", "objective_test")):
        values = {task.name: metrics[f"{split}/{task.name}/loss"] for task in tasks}
        wanted = Reference.of(against, [task.name for task in tasks], split, scale=objective.loss_scale)
        row[name] = objective.value(values, wanted, density)
    tested = {key.removeprefix("test/"): value for key, value in metrics.items() if key.startswith("test/")}
    base = {key.removeprefix("test/"): value for key, value in against.items() if key.startswith("test/")}
    return row | {"violation": objective.violation(density), "delta_m_test": delta_m(tasks, tested, base)}


def _reference(stream: Stream, dense: Row) -> Reference:
    def losses(values: Row, kind: str) -> dict[str, float]:
        return {k.split("/")[1]: v for k, v in values.items() if k.startswith(kind) and k.endswith("/loss")}

    course = tuple((int(point["step"]), losses(point, "probe/")) for point in dense["curve"])
    tasks = list(losses(dense["metrics"], "val/"))
    return Reference.of(dense["metrics"], tasks, "val", course, stream.config.objective.loss_scale)


def rows(path: Path, stream: Stream) -> list[Row]:
    """The finished trials of a stream so far."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [row for row in map(json.loads, lines) if row["stream"] == stream.name]
    for row in found:
        if changed := _changed(row["settings"], stream.settings):
            raise SystemExit(
                f"{path.name}: {stream.name} was run with other settings ({changed}): take its rows out"
            )
    return found


def _changed(old: Row, new: Row, prefix: str = "") -> str:
    """The settings that both know and that differ; one that came later had its default then."""
    different = []
    for key in old.keys() & new.keys():
        if isinstance(old[key], dict):
            different.append(_changed(old[key], new[key], f"{prefix}{key}."))
        elif old[key] != new[key]:
            different.append(f"{prefix}{key}")
    return ", ".join(filter(None, sorted(different)))


def append(path: Path, row: Row) -> None:
    """One whole line in one write: several processes may run different arms of a preset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{row['stream']} trial {row['trial']}: {_outcome(row)}", flush=True)


def _rounded(value: Any) -> Any:
    """Six digits keep a line short, and a replay tells a sampler what it was told. Its own values stay exact."""
    if isinstance(value, dict):
        return {key: inner if key in ("values", "settings") else _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _outcome(row: Row) -> str:
    if row["error"]:
        return str(row["error"])
    return f"J {row['objective']:.4f} test {row['objective_test']:.4f} zeros {100 * (1 - row['density']):.1f} %"


if __name__ == "__main__":
    main()
