"""Weightings that look at each task's gradient, so that what helps one task does not undo another (torchjd)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ms_automl.errors import ConfigError
from ms_automl.models import MultiTaskNet
from ms_automl.tasks import Task
from ms_automl.training.weighting.base import Losses, Weighting


class Weigh(Protocol):
    """From the Gramian [T, T] of the tasks' gradients to their weights [T]."""

    def __call__(self, gramian: Tensor, /) -> Tensor:
        """Weigh."""
        ...


def _torchjd(name: str, **given: float) -> Callable[[int], Weigh]:
    def make(tasks: int) -> Weigh:
        from torchjd import aggregation

        weigh: Weigh = getattr(aggregation, name)(**given)
        return weigh

    return make


class _Nash:
    """torchjd's, which takes a matrix and begins at what it found last; it gets a root of the Gramian."""

    def __init__(self, tasks: int) -> None:
        from torchjd.aggregation import NashMTL

        # cvxpy's, on how fast a problem of this form is solved again.
        warnings.filterwarnings("ignore", message="You are solving a parameterized problem that is not DPP")
        self.inner: Any = NashMTL(tasks).weighting

    def __call__(self, gramian: Tensor, /) -> Tensor:
        values, vectors = torch.linalg.eigh(gramian)
        found: Tensor = self.inner(vectors * values.clamp(min=0).sqrt())
        return found

    def memory(self) -> Tensor:
        """What it begins at."""
        return torch.as_tensor(self.inner.prvs_alpha).clone()

    def remember(self, memory: Tensor) -> None:
        """Begin there."""
        self.inner.prvs_alpha = memory.cpu().numpy().copy()


AGGREGATORS: dict[str, tuple[Callable[[int], Weigh], bool]] = {
    "upgrad": (_torchjd("UPGradWeighting"), True),
    "pcgrad": (_torchjd("PCGradWeighting"), False),
    "cagrad": (_torchjd("CAGradWeighting", c=0.4), True),  # as its authors set it for dense prediction
    "mgda": (_torchjd("MGDAWeighting"), True),
    "imtl-g": (_torchjd("IMTLGWeighting"), True),
    "aligned-mtl": (_torchjd("AlignedMTLWeighting"), True),
    "nash-mtl": (_Nash, False),
}
"""By name: made of the number of tasks, and whether the weights are those of a mean, of which a sum is T times."""


class GradientWeighting(Weighting):
    """Σ_t a_t ∇_θ w_t L_t in the trunk, with a from the Gramian ∇L_s · ∇L_t; a head trains by its own loss.

    Each task takes a backward of its own through the trunk, which is charged. The gradients of a batch in parts
    are added up before they are weighed.

    Args:
        network: whose trunk the tasks share.
        tasks: T of them.
        name: a key of :data:`AGGREGATORS`.
        seed: of what is drawn.

    Raises:
        ConfigError: without the package torchjd and what it needs.
    """

    def __init__(self, network: MultiTaskNet, tasks: Sequence[Task], name: str, seed: int) -> None:
        self.network, self.seed, self.taken = network, seed, 0
        make, mean = AGGREGATORS[name]
        self.scale = float(len(tasks)) if mean else 1.0
        try:
            self.weigh = make(len(tasks))
        except ImportError as error:
            raise ConfigError(
                f"training.weighting={name} needs the package torchjd: pip install 'ms_automl[gradients]', or set "
                "training.weighting=equal"
            ) from error
        self.rows: list[list[Tensor]] = []  # of a task's gradient, by parameter of the trunk
        self.reached: set[int] = set()  # the parameters that any task has a gradient for

    def begin(self) -> None:
        """A step begins."""
        self.taken += 1

    def backward(
        self, total: Tensor, tasks: Sequence[Task], losses: Losses, scale: float, *, first: bool, last: bool
    ) -> None:
        """Add each task's gradient to its row; with the last part, weigh the rows."""
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        shared = {id(parameter) for parameter in self.network.trunk.parameters()}
        trunk = [parameter for parameter in trained if id(parameter) in shared]
        if first:
            self.rows = [[torch.zeros_like(parameter) for parameter in trunk] for _ in tasks]
            self.reached = set()
        for index, task in enumerate(tasks):
            loss = scale * task.weight * losses[task.name]
            found = torch.autograd.grad(loss, trained, retain_graph=index < len(tasks) - 1, allow_unused=True)
            row = iter(self.rows[index])
            for parameter, gradient in zip(trained, found, strict=True):
                if id(parameter) in shared:
                    sum_ = next(row)
                    if gradient is not None:
                        sum_ += gradient
                        self.reached.add(id(parameter))
                elif gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        if last:
            self._leave(trunk)

    @torch.no_grad()
    def _leave(self, trunk: Sequence[Tensor]) -> None:
        """Leave the weighted sum of the rows in ``grad`` of the trunk."""
        flat = torch.stack([torch.cat([one.flatten() for one in row]) for row in self.rows])
        weights = self.weights((flat @ flat.T).double()).to(flat.dtype)
        for parameter, parts in zip(trunk, zip(*self.rows, strict=True), strict=True):
            if id(parameter) in self.reached:
                parameter.grad = torch.stack([one * part for one, part in zip(weights, parts, strict=True)]).sum(0)
        self.rows = []

    def weights(self, gramian: Tensor) -> Tensor:
        """[T] a of a Gramian [T, T]; what is drawn for it depends on the seed and the step alone."""
        if len(gramian) == 1:  # an episode of one task
            return torch.ones_like(gramian[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1_000_003 * self.seed + self.taken)
            return self.scale * self.weigh(gramian)

    def state_dict(self) -> dict[str, Any]:
        """Where the steps stand, and what the weights are found from."""
        memory = self.weigh.memory() if isinstance(self.weigh, _Nash) else None
        return {"taken": self.taken, "memory": memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.taken = state["taken"]
        if isinstance(self.weigh, _Nash):
            self.weigh.remember(state["memory"])
