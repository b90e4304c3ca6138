"""What the tests of the sparsifier share: a small classifier, its data, and a training loop as people write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ms_automl.sparsifier import Sparsifier

SHAPE = (3, 12, 12)
STEPS = 40


class Classifier(nn.Module):
    """Three convolutions, a residual one among them, and a linear layer."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        features = features + self.body(features)
        return self.head(F.relu(self.down(features)).mean((2, 3)))


def classifier(width: int = 12, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(width)


def batches(count: int, size: int = 16, seed: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Images whose class shows in their colours."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        labels = torch.randint(4, (size,), generator=generator)
        images = torch.randn(size, *SHAPE, generator=generator)
        images[:, 0] += labels[:, None, None].float() - 1.5
        images[:, 1] *= 1 + labels[:, None, None] % 2
        yield images, labels


def example() -> Tensor:
    return next(batches(1))[0][:1]


def adamw(model: nn.Module, lr: float = 3e-3) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=lr)


def trained(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    steps: int = STEPS,
    after: Callable[[int, Sparsifier], None] = lambda step, sparsifier: None,
    **arguments: Any,
) -> Sparsifier:
    """Train as anybody does, with a sparsifier."""
    optimizer = adamw(model) if optimizer is None else optimizer
    arguments = {"target": 0.5} | arguments if not {"price", "schedule", "rule"} & set(arguments) else arguments
    sparsifier = Sparsifier(model, optimizer, **({"example": example(), "steps": steps} | arguments))
    for step, (images, labels) in enumerate(batches(steps)):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        sparsifier.step()
        after(step, sparsifier)
    return sparsifier


def weights(model: nn.Module) -> Tensor:
    """All parameters and buffers as one vector."""
    return torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])


def zeros(sparsifier: Sparsifier) -> list[bool]:
    return (sparsifier.groups.norms() == 0).tolist()
