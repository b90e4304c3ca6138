"""How much of the saved arithmetic is saved time: made patterns and learned models, compacted.

    python benchmarks/compaction_speed.py [--comparison DIR] [--preset rooms] [--rounds 100]

Networks with half of the channels of every stream zeroed, at several widths, and with a comparison each
arm's selected model, are compacted and timed in turns with the dense network whose batch norms are folded as well.
Prints a table and the operations that take the time.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ms_automl.archive import Architecture, load, read_architecture, save_model
from ms_automl.config import load_config
from ms_automl.models import MultiTaskNet, head_specs, small_resnet
from ms_automl.models.profile import latencies, size_of
from ms_automl.selected import dense_rivals, real_images
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact
from ms_automl.tuning.experiment import Experiment

BATCH = 32


def made(known: Architecture, width: int, share: float) -> MultiTaskNet:
    """A new network with a share of the channels of each stream zeroed, wherever they are written and read."""
    torch.manual_seed(0)
    network = small_resnet(known.image_shape, known.heads, width=width).eval()
    groups = build_groups(network, "coupled", known.image_shape)
    generator = torch.Generator().manual_seed(0)
    alive = torch.cat([
        torch.randperm(count, generator=generator) >= round(share * count) for count in groups.counts
    ])  # fmt: skip
    groups.scale_(alive.to(groups.size.dtype))
    return network


def line(name: str, masked: MultiTaskNet, known: Architecture, images: Tensor, rounds: int) -> str:
    """A row of the table, and the profile below it."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(masked, Path(folder), known)
        dense = dense_rivals(Path(folder), images)["dense"]
    small, _ = compact(copy.deepcopy(masked), known.image_shape, images)
    cells = [name]
    for part, key in (("trunk", "trunk_macs"), ("network", "macs")):
        pair: Mapping[str, nn.Module] = {
            "dense": getattr(dense, part, dense), "compact": getattr(small, part, small)
        }  # fmt: skip
        limit = size_of(dense, known.image_shape)[key] / size_of(small, known.image_shape)[key]
        found = latencies(pair, images, rounds)
        ratio = found["compact"].ratio
        cells.append(
            f"{1 / ratio.median:.2f} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f}) of {limit:.2f}: "
            f"{100 / ratio.median / limit:.0f} %"
        )
    return "| " + " | ".join(cells) + " |\n" + "\n".join(
        f"    {what}: {operations(network, images)}" for what, network in (("dense", dense), ("compact", small))
    )  # fmt: skip


def operations(network: nn.Module, images: Tensor, shown: int = 6) -> str:
    """Share of the time by operation."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(5):
            network(images)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return ", ".join(
        f"{event.key.removeprefix('aten::')} {event.self_cpu_time_total / total:.0%}" for event in events[:shown]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparison", type=Path)
    parser.add_argument("--preset", default="rooms")
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    experiment = Experiment(load_config(args.preset))
    data = experiment.data(experiment.config.first_seed)
    images = real_images(data, BATCH)
    heads = head_specs(data.tasks)
    print("| model | trunk: times as fast (quartiles) of limit | network |\n| :-- | --: | --: |")
    for width in (16, 32, 64):
        known = Architecture("small_resnet", {"width": width}, data.image_shape, heads)
        print(
            line(f"half of the channels, width {width}", made(known, width, 0.5), known, images, args.rounds),
            flush=True,
        )
    if args.comparison is not None:
        for row in json.loads((args.comparison / "comparison.json").read_text())["rows"]:
            model = args.comparison / "best" / f"{row['arm']}-{row['seed']}"
            if row["arm"] != "dense" and model.is_dir():
                print(line(model.name, load(model), read_architecture(model), images, args.rounds), flush=True)


if __name__ == "__main__":
    main()
