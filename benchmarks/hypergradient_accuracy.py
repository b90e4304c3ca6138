"""How near each estimator of dJ/d log λ comes to central finite differences of whole short trainings, in float64.

    python benchmarks/hypergradient_accuracy.py

Writes to benchmarks/hypergradients.jsonl, for SGD with momentum, for AdamW and for a fast SGD, cosine and
relative error of the per-layer slopes, the ratio for one λ of all layers, and the passes that an estimate adds to
the run. ``make docs`` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.environment.provenance import cpu_name, git_revision
from ms_automl.meta.dynamics import Dynamics
from ms_automl.meta.hypergradients import ESTIMATORS, Hypergradient, Shrinkage, Ties
from ms_automl.meta.outer import outer_gradient
from ms_automl.meta.pricing import Pricing
from ms_automl.meta.reference import Reference
from ms_automl.meta.rule import Rule
from ms_automl.meta.step import TrainingStep
from ms_automl.models import MultiTaskNet, frozen_buffers
from ms_automl.models.cost import Cost
from ms_automl.sparsity import shrink_factors, thresholds
from ms_automl.tasks import HeadSpec, Metric, Task, classification
from ms_automl.training import TrainingLoop, TrainingSettings, task_losses

ROWS = Path(__file__).parent / "hypergradients.jsonl"
SETTINGS = {
    "sgd": TrainingSettings(steps=8, batch_size=6, optimizer="sgd", lr=0.1, prox_share=1.0, report_every=8),
    "adamw": TrainingSettings(steps=8, batch_size=6, optimizer="adamw", lr=0.03, prox_share=1.0, report_every=8),
}
SETTINGS = {name: replace(value, weight_decay=0.01, warmup_share=0.0) for name, value in SETTINGS.items()}
START = {"sgd": 0.1, "adamw": 1.0}
"""λ of every layer: a few small groups are dead from the first prox on, and the others live."""


def squared(name: str) -> Task:
    """Dense values with a smooth loss."""

    def loss(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return (prediction - target).square().mean()

    def statistic(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        return (prediction - target).square().mean().to(torch.float64)

    return Task(name, HeadSpec(1, dense=True), loss, {"error": Metric(statistic, float, "min", "")})


TASKS = (squared("height"), classification("kind", 3))


def smooth_data(train: int = 18) -> MultiTaskData:
    """6 x 6 images of two channels, a dense and an image task, float64."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> TensorSplit:
        images = torch.randn(count, 2, 6, 6, generator=generator, dtype=torch.float64)
        kinds = torch.bucketize(images[:, 1].mean((1, 2)), torch.tensor([-0.1, 0.1], dtype=torch.float64))
        return TensorSplit(images, {"height": images[:, :1].square(), "kind": kinds})

    return MultiTaskData("smooth", split(train), split(6), split(2), TASKS)


def smooth_network() -> MultiTaskNet:
    """Three convolutions with smooth activations and a batch norm; two groups of each start near zero."""
    torch.manual_seed(1)
    trunk = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.Softplus(),
        nn.Conv2d(5, 6, 3, padding=1, bias=False),
        nn.Tanh(),
        nn.Conv2d(6, 4, 1),
        nn.Softplus(),
    )
    heads = {
        "height": nn.Conv2d(4, 1, 1),
        "kind": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    }
    network = MultiTaskNet(trunk, heads).double()
    with torch.no_grad():
        for conv in list(network.penalised().values())[1:]:
            conv.weight[:, :2] *= 0.01
    return network


@dataclass
class ShortRun:
    """A whole training with λ_l = exp(ρ_l) throughout, and J at its end.

    J is the mean loss on the first validation samples (batch norm by the batch) + price · the smooth density.

    Attributes:
        settings: of the training.
        price: of density; its width stays that of the start, so that J is one function of θ.
        data: what it trains on.
    """

    settings: TrainingSettings
    price: float = 0.1
    data: MultiTaskData = field(default_factory=smooth_data)

    def begin(self) -> None:
        """A fresh loop, always the same one."""
        self.loop = TrainingLoop(self.data, smooth_network(), self.settings, seed=0)
        self.groups = self.loop.sparsifier.groups
        self.cost = Cost()
        loop = self.loop
        self.dynamics = Dynamics(loop.network, loop.optimizer, loop.loss, self.cost)
        self.pricing = Pricing(self.groups, self.price, corrected=False)
        self.patterns: list[list[bool]] = []

    def train(self, rho: Tensor, hypergradient: Hypergradient | None = None) -> None:
        """Train from where ``begin`` left off.

        Args:
            rho: [L] log λ.
            hypergradient: told of every step.
        """
        loop, groups, patterns = self.loop, self.groups, self.patterns

        class Shrink(Rule):
            def step(self, now: TrainingStep) -> None:
                norms = groups.norms()
                threshold = thresholds(groups, rho.exp(), now.lr)
                shrinkage = Shrinkage(norms, threshold, shrink_factors(groups, norms, threshold))
                if hypergradient is not None:
                    with torch.enable_grad():
                        hypergradient.advance(now, shrinkage)
                groups.scale_(shrinkage.factors)
                patterns.append((shrinkage.factors > 0).tolist())

        loop.sparsifier.rule = Shrink()
        loop.sparsifier.batch, loop.sparsifier.outer_gradient = lambda: loop.batch, self.gradient
        loop.interval()

    def gradient(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        """∇J_loss."""
        batch = self.data.val.batch(torch.arange(len(self.data.val)))
        reference = Reference(dict.fromkeys((task.name for task in TASKS), 1.0))
        return outer_gradient(self.loop.network, parameters, batch, TASKS, reference)

    def value(self, rho: Tensor) -> float:
        """J of a whole run."""
        self.begin()
        self.train(rho)
        batch = self.data.val.batch(torch.arange(len(self.data.val)))
        with torch.no_grad(), frozen_buffers(self.loop.network):
            losses = task_losses(TASKS, self.loop.network(batch.images), batch)
        norms, width = self.groups.norms(), self.pricing.width
        density = (self.groups.size / self.groups.total * norms / (norms + width)).sum()
        return float(torch.stack(list(losses.values())).mean() + self.price * density)

    def estimate(self, name: str, rho: Tensor, ties: list[int], *, decay: float = 0.99, unroll: int = 8) -> Tensor:
        """[R] dJ/dρ of an estimator at the end of a run."""
        self.begin()
        estimator = ESTIMATORS[name]
        taken = {one.name for one in fields(estimator.settings)}
        given: dict[str, Any] = {"learner": name, "decay": decay, "unroll": unroll}
        settings = estimator.settings(**{key: value for key, value in given.items() if key in taken})
        hypergradient = estimator.build(settings, self.groups, Ties(self.groups, ties), self.dynamics)
        self.train(rho, hypergradient)
        parameters = hypergradient.parameters
        return hypergradient.slope(self.pricing.cotangent(parameters, self.gradient(parameters)))

    def difference(self, rho: Tensor, ties: list[int], size: float = 3e-5) -> Tensor:
        """[R] dJ/dρ by central differences of fourth order: (8 Δ(h) - Δ(2h)) / 12h, Δ(h) = J(ρ+h) - J(ρ-h).

        Checks that the same groups die in the same steps at all four points, or J has a kink between them.
        """
        slopes = []
        for index in range(max(ties) + 1):
            push = size * torch.tensor([float(tie == index) for tie in ties], dtype=rho.dtype)
            values, patterns = {}, []
            for factor in (-2, -1, 1, 2):
                values[factor] = self.value(rho + factor * push)
                patterns.append(self.patterns)
            assert all(pattern == patterns[0] for pattern in patterns), "a group dies at one end only: move λ"
            slopes.append((8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * size))
        return torch.tensor(slopes, dtype=rho.dtype)


def start(optimizer: str) -> Tensor:
    """[L] log λ of a short run."""
    return torch.full((3,), math.log(START[optimizer]), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors."""
    return float(a @ b / (a.norm() * b.norm()))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected||."""
    return float((found - expected).norm() / expected.norm())


FAST = ShortRun(replace(SETTINGS["sgd"], lr=0.2, steps=10, report_every=10), price=0.02)
"""A training at the edge of stability, J nearly all loss: what estimators drop decides the sign."""

VARIANTS: dict[str, tuple[str, dict[str, float]]] = {
    "one_step": ("one_step", {}),
    "forward, γ = .9": ("forward", {"decay": 0.9}),
    "forward, γ = .99": ("forward", {"decay": 0.99}),
    "forward, γ = 1": ("forward", {"decay": 1.0}),
    "unrolled_first_order, K = 5": ("unrolled_first_order", {"unroll": 5}),
    "unrolled_first_order, K = 8": ("unrolled_first_order", {"unroll": 8}),
    "unrolled, K = 5": ("unrolled", {"unroll": 5}),
    "unrolled, K = 8": ("unrolled", {"unroll": 8}),
    "forward_exact": ("forward_exact", {}),
    "implicit_neumann, K = 8": ("implicit_neumann", {"unroll": 8}),
    "implicit_cg, K = 8": ("implicit_cg", {"unroll": 8}),
}


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file that is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    layers = [0, 1, 2]
    runs = {name: (ShortRun(settings), start(name)) for name, settings in SETTINGS.items()}
    runs["fast sgd"] = (FAST, start("sgd"))
    made = {"torch": metadata.version("torch"), "revision": git_revision(), "cpu": cpu_name()}
    lines = []
    for name, (run, rho) in runs.items():
        truth, total = run.difference(rho, layers), run.difference(rho, [0, 0, 0])
        for label, (estimator, changes) in VARIANTS.items():
            found = run.estimate(estimator, rho, layers, **changes)  # type: ignore[arg-type]
            row = {
                "run": name,
                "estimator": label,
                "cosine": round(cosine(found, truth), 6),
                "error": float(f"{relative_error(found, truth):.3g}"),
                "passes": run.cost.passes,
            }
            ratio = float(run.estimate(estimator, rho, [0, 0, 0], **changes) / total)  # type: ignore[arg-type]
            lines.append(json.dumps(row | {"ratio": float(f"{ratio:.6g}")} | made, ensure_ascii=False))
            print(lines[-1], flush=True)
    args.rows.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
