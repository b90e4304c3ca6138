"""What a step costs on a GPU: dense, fixed λ and meta-learned λ with the network and sizes of the `nyuv2` preset.

    python benchmarks/gpu_step.py                          # one GPU, nothing but torch and torchvision needed
    python benchmarks/gpu_step.py --batch 32 --compile
    python benchmarks/gpu_step.py --device cpu --tiny      # whether it runs at all

Images and labels are random and lie on the device, so reading does not count. The methods are timed in turns in
one run; a ratio is the median over rounds of its time by that of `dense` in the same round. A round ends with the
evaluation of a batch (two with a learner), which is timed along. The peak is measured: products of 8192 x 8192
matrices in bfloat16. A network's arithmetic is that of its convolutions and products, forward and backward.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torchvision
from torch.profiler import ProfilerActivity, profile

from ms_automl.data import MultiTaskData, TensorSplit, on_device
from ms_automl.meta import LambdaSchedule, Objective, Reference
from ms_automl.meta.settings import ForwardSettings
from ms_automl.models import MultiTaskNet, flops_of_a_sample, head_specs
from ms_automl.models.factories import build_network
from ms_automl.sparsity import build_groups
from ms_automl.tasks import depth, normals, segmentation
from ms_automl.training import Trainable, TrainingSettings
from trainables import Dense, FixedLambda, MetaSparsity

TASKS = (segmentation("segmentation", 13), depth(), normals(full=True))
BOUNDS, FIXED = (0.0003, 0.1), 0.003
"""Of λ, as in presets/nyuv2.yaml."""


def data_of(batch: int, height: int, width: int) -> MultiTaskData:
    """Random images and labels, every one valid: four batches to train on, one to evaluate."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> TensorSplit:
        targets = {
            "segmentation": torch.randint(13, (count, height, width), generator=generator),
            "depth": 1 + torch.rand(count, 1, height, width, generator=generator),
            "normals": torch.nn.functional.normalize(torch.randn(count, 3, height, width, generator=generator)),
        }
        return TensorSplit(torch.randn(count, 3, height, width, generator=generator), targets)

    return MultiTaskData("random", split(4 * batch), split(batch), split(2), TASKS)


def ways(
    data: MultiTaskData, network: partial[MultiTaskNet], settings: TrainingSettings, device: torch.device
) -> dict[str, Trainable]:
    """Every method with a network of its own."""
    layers = build_groups(network(), settings.grouping, data.image_shape).names
    there = on_device(data, device)
    ones = {task.name: 1.0 for task in TASKS}
    reference = Reference(ones, [(step, ones) for step in range(0, settings.steps + 1, settings.report_every)])
    schedule = LambdaSchedule.constant(dict.fromkeys(layers, FIXED))
    wish: dict[str, Any] = {
        "objective": Objective("tradeoff", price=1.0),
        "reference": reference,
        "bounds": BOUNDS,
    }
    return {
        "dense": Dense(there, network().to(device), settings, 0),
        "fixed": FixedLambda(there, network().to(device), settings, 0, schedule=schedule),
        "meta (waterfill)": MetaSparsity(there, network().to(device), settings, 0, **wish),
        "meta (forward)": MetaSparsity(
            there, network().to(device), settings, 0, **wish, learning=ForwardSettings()
        ),
    }


def seconds(method: Trainable, device: torch.device) -> float:
    """Of one round."""
    wait(device)
    began = time.perf_counter()
    method.step()
    wait(device)
    return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, size: int, rounds: int = 20) -> float:
    """Floating-point operations a second of matrix products in bfloat16."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    taken = []
    for _ in range(rounds):
        wait(device)
        began = time.perf_counter()
        a @ a
        wait(device)
        taken.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(taken[rounds // 4 :])


def top(method: Trainable, device: torch.device, rows: int) -> str:
    """What a round of a method spends its time on."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as found:
        seconds(method, device)
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    table: str = found.key_averages().table(sort_by=key, row_limit=rows, max_name_column_width=60)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40, help="steps a round")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument(
        "--profile", type=int, default=0, metavar="ROWS", help="print the top costs of each method"
    )
    parser.add_argument("--tiny", action="store_true", help="small images and a narrow network")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    height, width = (48, 64) if args.tiny else (288, 384)
    data = data_of(args.batch, height, width)
    own = {"depth": 50, "weights": None, "checkpointing": args.checkpointing} | ({"width": 8} if args.tiny else {})
    network = partial(
        build_network, "dilated_resnet", own, image_shape=data.image_shape, heads=head_specs(TASKS), seed=0
    )
    total = (args.rounds + 3) * args.steps  # two rounds warm up, one is profiled
    settings = TrainingSettings(
        steps=total, batch_size=args.batch, lr=1e-4, prox_share=1.0, report_every=args.steps,
        eval_batch_size=args.batch, precision=args.precision, compile=args.compile,
    )  # fmt: skip
    each, forward = flops_of_a_sample(network(), data.image_shape)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    print(f"{name}, torch {torch.__version__}, torchvision {torchvision.__version__}, {args}")
    print(f"{each / 1e9:.1f} GFLOP a sample forward and backward, {forward / 1e9:.1f} forward")
    most = peak(device, 512 if args.tiny else 8192)
    print(f"matrix products in bfloat16: {most / 1e12:.1f} TFLOP/s")
    methods = ways(data, network, settings, device)
    times: dict[str, list[float]] = {name: [] for name in methods}
    memory: dict[str, float] = dict.fromkeys(methods, 0.0)
    for index in range(args.rounds + 2):
        for name, method in methods.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            taken = seconds(method, device) / args.steps
            if device.type == "cuda":
                memory[name] = max(memory[name], torch.cuda.max_memory_allocated(device) - before)
            if index >= 2:
                times[name].append(taken)
    print(
        "| method | ms a step (range) | images a second | ratio to dense | share of the peak | memory of a step |"
    )
    print("| :-- | --: | --: | --: | --: | --: |")
    for name, found in times.items():
        middle = statistics.median(found)
        ratio = statistics.median(a / b for a, b in zip(found, times["dense"], strict=True))
        print(
            f"| {name} | {1e3 * middle:.1f} ({1e3 * min(found):.1f} to {1e3 * max(found):.1f}) "
            f"| {args.batch / middle:.0f} | {ratio:.2f} | {100 * each * args.batch / middle / most:.0f} % "
            f"| {memory[name] / 2**30:.2f} GiB |"
        )
    if args.profile:
        for name, method in methods.items():
            print(f"\n{name}\n{top(method, device, args.profile)}")


if __name__ == "__main__":
    main()
