"""Multiply-adds that are left where half of the channels go, beside Torch-Pruning, on the networks of the zoo.

    python benchmarks/channels_halved.py [--only NAME,...] [--json FILE]

Needs torch-pruning, which is no dependency of the project. It takes half of the channels of every layer by
magnitude (arXiv 2301.12900); here a random half of every stream of coupled channels is zeroed and compacted, and
a random half of every layer's input channels. Layers that make the network's outputs are kept on both sides.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from ms_automl.models.flops import flops_of_a_sample
from ms_automl.sparsifier.scope import as_network, kept_modules
from ms_automl.sparsity import GROUPINGS, build_groups
from ms_automl.sparsity.compact import compact, randomised
from tests.zoo.zoo import ZOO

KINDS = ("coupled", "input_channel")
assert set(KINDS) <= set(GROUPINGS)


def ours(model: nn.Module, shape: tuple[int, int, int], grouping: str) -> float:
    """The share of multiply-adds after a half of each layer's, or stream's, groups is taken out."""
    network = as_network(model)
    kept = kept_modules(network, shape, (), None, list(model.parameters()), ends=True)
    half = randomised(network, zeros=False)
    groups = build_groups(half, grouping, shape, kept)
    drawn = torch.rand(len(groups.layer), generator=torch.Generator().manual_seed(0))
    alive = torch.zeros_like(drawn)
    for start, count in zip(groups.starts.tolist(), groups.counts, strict=True):
        best = drawn[start : start + count].topk(max(1, round(count / 2))).indices
        alive[start + best] = 1
    groups.scale_(alive)
    small, _ = compact(half, shape)
    return flops_of_a_sample(small, shape)[1] / flops_of_a_sample(network, shape)[1]


def theirs(model: nn.Module, shape: tuple[int, int, int]) -> float:
    """The same of Torch-Pruning."""
    tp: Any = importlib.import_module("torch_pruning")
    network = as_network(model)
    kept = kept_modules(network, shape, (), None, list(model.parameters()), ends=True)
    whole = flops_of_a_sample(network, shape)[1]
    heads = {one: one.num_heads for one in model.modules() if isinstance(one, nn.MultiheadAttention)}
    pruner = tp.pruner.BasePruner(
        model,
        torch.rand(2, *shape),
        importance=tp.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[model.get_submodule(name) for name in kept],
        num_heads=heads,
    )
    pruner.step()
    return flops_of_a_sample(as_network(model), shape)[1] / whole


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, by commas")
    parser.add_argument("--json", type=Path, help="append the figures to this file, a line each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.only.split(",") if args.only else ZOO:
        network = ZOO[name]
        shape = (3, network.side, network.side)
        line: dict[str, Any] = {"name": name}
        for kind in KINDS:
            line[kind] = tried(ours, network.build().eval(), shape, kind)
        line["Torch-Pruning"] = tried(theirs, network.build().eval(), shape)
        if args.json:
            with args.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(line, flush=True)


def tried(work: Callable[..., float], *given: object) -> float | str:
    """What comes of it, or the first line of its error."""
    torch.manual_seed(0)
    try:
        return round(work(*given), 3)
    except Exception as error:  # whatever a tool does with a network
        return f"{type(error).__name__}: {error}".splitlines()[0][:120]


if __name__ == "__main__":
    main()
