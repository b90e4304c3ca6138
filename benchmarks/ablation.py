"""The ways of learning λ beside each other: estimators and rules, spaces, memory, and whose gradient.

    python benchmarks/ablation.py --preset rooms --seeds 1000-1001 [--only forward]

One row per run in benchmarks/runs/<preset>-ablation.jsonl; what is there is not run again. The seeds are used for
nothing but the choice of defaults. ``make docs`` makes the table.
"""

from __future__ import annotations

import argparse
from itertools import product

import torch
from verdict import RUNS, Stream, run, seeds

from ms_automl.config import load_config

SPACES = ("scalar", "per_stage", "per_layer")
# forward_exact carries a tangent for each λ: 2 batches a step for one λ, 28 for one per layer.
VARIANTS: dict[str, list[tuple[str, ...]]] = {
    "rules": [
        ("per_layer", f"objective.kind={kind}", f"meta.learner={learner}")
        for learner, kind in (("waterfill", "tradeoff"), ("waterfill", "target"), ("removal", "tradeoff"))
    ],
    "forward": [
        (space, "meta.learner=forward", f"meta.decay={decay}", f"meta.outer={outer}")
        for space, decay, outer in product(SPACES, (0.9, 0.99, 0.995), ("validation", "training"))
        if outer == "validation" or decay == 0.99
    ],
    "one_step": [(space, "meta.learner=one_step") for space in SPACES],
    "unrolled_first_order": [(space, "meta.learner=unrolled_first_order", "meta.unroll=20") for space in SPACES],
    "unrolled": [(space, "meta.learner=unrolled", "meta.unroll=5", "meta.every=10") for space in SPACES],
    "implicit": [
        (space, f"meta.learner={learner}", "meta.unroll=5", "meta.every=10")
        for space, learner in product(SPACES, ("implicit_cg", "implicit_neumann"))
    ],
    "forward_exact": [("scalar", "meta.learner=forward_exact")],
    # One setting of the default learner at a time: a factor 4, and a factor 2 of its memory 1 / (1 - γ).
    "sensitivity": [
        ("per_layer", f"meta.{setting}")
        for setting in (
            "guess=0.0125",
            "guess=0.2",
            "doubt=0.25",
            "doubt=4.0",
            "decay=0.98",
            "decay=0.995",
            "rest=0.0",
            "rest=0.2",
            "rest=0.45",
            "rest=0.6",
        )
    ],
}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--seeds", default="1000-1001")
    parser.add_argument("--only", default=",".join(VARIANTS), help=f"parts, by comma: {', '.join(VARIANTS)}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = RUNS / f"{args.preset}-ablation.jsonl"
    for seed, part in product(seeds(args.seeds), args.only.split(",")):
        for space, *settings in VARIANTS[part]:
            kind = next((s.removeprefix("objective.kind=") for s in settings if "kind" in s), "tradeoff")
            changes = [setting for setting in settings if not setting.startswith("objective")]
            settings += [f"space={space}", f"first_seed={seed}", "budget.trials=16"]
            config = load_config(args.preset, settings=settings)
            label = "/".join(["meta", space, kind, *changes])
            run(Stream(config, "meta", seed, label), path)


if __name__ == "__main__":
    main()
