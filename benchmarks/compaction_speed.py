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
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.selection import dense_rivals, real_images
from ms_automl.config import load_config
from ms_automl.models import MultiTaskNet, head_specs, small_resnet
from ms_automl.models.archive import Architecture, load, read_architecture, save_model
from ms_automl.models.onnx_form import OnnxNetwork, to_onnx
from ms_automl.models.profile import latencies, size_of
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact

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
    dense, small = (one.to(memory_format=torch.channels_last) for one in (dense, small))  # the faster form of both
    sizes = [size_of(network, known.image_shape) for network in (dense, small)]
    in_onnx = [OnnxNetwork(to_onnx(network, known.image_shape)) for network in (dense, small)]
    pairs: list[tuple[str, nn.Module, nn.Module]] = [
        ("trunk_macs", dense.trunk, small.trunk),
        ("macs", dense, small),
        ("macs", in_onnx[0], in_onnx[1]),
    ]
    cells = [name]
    for key, one, other in pairs:
        limit = sizes[0][key] / sizes[1][key]
        found = latencies({"dense": one, "compact": other}, images, rounds)
        ratio, times = found["compact"].ratio, [found[name].ms.median for name in ("dense", "compact")]
        cells.append(
            f"{times[0]:.1f} to {times[1]:.1f} ms: {1 / ratio.median:.2f} ({1 / ratio.high:.2f} to "
            f"{1 / ratio.low:.2f}) of {limit:.2f}, {100 / ratio.median / limit:.0f} %"
        )
    return "| " + " | ".join(cells) + " |\n" + "\n".join(
        f"    {what}: {operations(network, images)}" for what, network in (("dense", dense), ("compact", small))
    )  # fmt: skip


class Fed(nn.Module):
    """A 3x3 convolution with its own input, channels last."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        last = torch.channels_last
        self.conv = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=last)
        self.own = torch.randn(BATCH, channels, height, width).contiguous(memory_format=last)

    def forward(self, _: Tensor) -> Tensor:
        """Whatever is given, the own input is convolved."""
        output: Tensor = self.conv(self.own)
        return output


def staircase(height: int, width: int, channels: tuple[int, ...], rounds: int) -> str:
    """Time of a 3x3 convolution by its channels, and its speed in multiply-adds relative to the widest one."""
    found = latencies({str(c): Fed(c, height, width) for c in reversed(channels)}, torch.zeros(1), rounds)
    top = found[str(channels[-1])].ms.median / channels[-1] ** 2
    cells = [
        f"{c}: {found[str(c)].ms.median:.2f} ms ({100 * top * c**2 / found[str(c)].ms.median:.0f} %)"
        for c in channels
    ]
    return f"{height} x {width}: " + ", ".join(cells)


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
    parser.add_argument("--side", type=int, default=8, help="of the features that the convolutions are timed on")
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    experiment = Experiment(load_config(args.preset))
    data = experiment.data(experiment.config.first_seed)
    images = real_images(data, BATCH)
    heads = head_specs(data.tasks)
    for side in (args.side, 2 * args.side):
        print(staircase(side, side, (4, 8, 12, 16, 20, 24, 28, 32, 40, 48), args.rounds), flush=True)
    print("| model | trunk: dense to compact, times as fast (quartiles) of limit | network | in onnxruntime |")
    print("| :-- | --: | --: | --: |")
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
