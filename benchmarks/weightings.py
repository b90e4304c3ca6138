"""Does the weighting of the tasks change which channels go? `meta` at a target under every weighting.

    python benchmarks/weightings.py --json benchmarks/weightings.jsonl [--preset rooms] [--seeds 0-2]

Split, initialisation and order of a seed are the same under all weightings, so that zeros can be compared group by
group; with the equal weights and another order of the samples stands what chance alone changes. A line for each
training is appended to the file, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from rows import append_row, read_rows

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config
from ms_automl.meta import Reference
from ms_automl.meta.objective import delta_m
from ms_automl.training.feed import Feed
from ms_automl.training.weighting import WEIGHTINGS

OTHER_ORDER = "equal, other order"
META, DENSE = Suggestion("meta_sparsity", {}, {}), Suggestion("dense", {"probe": True}, {})


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="append the figures to this file, a line each")
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--target", type=float, default=0.7)
    parser.add_argument("--seeds", default="0-2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    low, _, high = args.seeds.partition("-")
    for seed in range(int(low), int(high or low) + 1):
        for name in ("dense", "equal", OTHER_ORDER, *(one for one in WEIGHTINGS if one != "equal")):
            rows = {row["name"]: row for row in read_rows(args.json) if row["seed"] == seed}
            if name not in rows:
                append_row(args.json, measured(args.preset, args.target, seed, name, rows.get("dense")))


def measured(preset: str, target: float, seed: int, name: str, dense: dict[str, Any] | None) -> dict[str, Any]:
    """The row of a training."""
    weighting = "equal" if name in ("dense", OTHER_ORDER) else name
    asked = ["objective.kind=target", f"objective.target={target}", f"training.weighting={weighting}"]
    experiment = Experiment(load_config(preset, settings=[f"first_seed={seed}", *asked]))
    data = experiment.data(seed)
    names = [task.name for task in data.tasks]
    began = time.perf_counter()
    reference = None if dense is None else reference_of(dense, names)
    trial, _ = experiment.build(DENSE if dense is None else META, seed, reference)
    if name == OTHER_ORDER:
        trial.loop.feed = Feed(data.train, experiment.config.training.batch_size, seed + 1000)
    course = []
    while not trial.done:
        report = trial.step()
        course.append((report["step"], {task: report.get(f"probe/{task}/loss", 0.0) for task in names}))
    kept = {key: value for key, value in report.items() if key.startswith(("val/", "test/"))}
    base = kept if dense is None else dense["metrics"]
    tested, against = ({k[5:]: v for k, v in one.items() if k.startswith("test/")} for one in (kept, base))
    row = {"name": name, "seed": seed, "preset": preset, "target": target, "metrics": kept}
    row |= {"course": course if dense is None else [], "density": report["density"]}
    row |= {"delta_m_test": delta_m(data.tasks, tested, against), "passes": trial.cost.passes}
    zero = trial.loop.sparsifier.groups.norms() == 0
    row |= {"zeros": "".join(map(str, zero.int().tolist())), "counts": trial.loop.sparsifier.groups.counts}
    ratio = [kept[f"test/{task}/loss"] / base[f"test/{task}/loss"] for task in names]
    row |= {"objective_test": sum(ratio) / len(ratio), "seconds": round(time.perf_counter() - began, 1)}
    print(f"seed {seed}  {name:20} J {row['objective_test']:.3f}  Δm {row['delta_m_test']:+.1f} %", flush=True)
    return row


def reference_of(dense: dict[str, Any], names: list[str]) -> Reference:
    """The dense network that the learner compares with."""
    course = tuple((int(step), losses) for step, losses in dense["course"])
    return Reference.of(dense["metrics"], names, "val", course)


if __name__ == "__main__":
    main()
