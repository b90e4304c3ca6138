"""Weightings by the losses alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.models import MultiTaskNet
from ms_automl.tasks import Task
from ms_automl.training.evaluation import weighted
from ms_automl.training.weighting.base import Losses, Weighting

TEMPERATURE = 2.0
"""Of :class:`DynamicAverage`, as its authors set it."""
TINY = 1e-8
"""Least loss that :class:`Famo` divides by."""


class Uncertainty(Weighting):
    """``uncertainty``: Σ_t w_t L_t / (2 exp(s_t)) + s_t / 2, with log variances s_t that train along.

    Kendall et al. 2018, arXiv 1705.07115, section 3.2.

    Args:
        network: the log variances are parameters of it.
        tasks: that have one each.
    """

    def __init__(self, network: MultiTaskNet, tasks: Sequence[Task]) -> None:
        network.learn_uncertainty(tasks)
        self.network = network

    def total(self, tasks: Sequence[Task], losses: Losses, share: float = 1.0) -> Tensor:
        """With the log variances as they are."""
        spread = {task.name: self.network.log_variance(task.name) for task in tasks}
        likelihoods = {name: losses[name] / (2 * variance.exp()) for name, variance in spread.items()}
        return weighted(tasks, likelihoods) + share * torch.stack([s / 2 for s in spread.values()]).sum()


class _Scaled(Weighting):
    """Σ_t a_t w_t L_t with factors a_t that add up to the number of tasks."""

    def __init__(self, tasks: Sequence[Task], device: torch.device) -> None:
        self.names = [task.name for task in tasks]
        self.factors = torch.ones(len(tasks), device=device)

    def total(self, tasks: Sequence[Task], losses: Losses, share: float = 1.0) -> Tensor:
        """With the factors of this step."""
        factors = dict(zip(self.names, self.factors.unbind(), strict=True))
        return weighted(tasks, {task.name: factors[task.name] * losses[task.name] for task in tasks})

    def state_dict(self) -> dict[str, Any]:
        """The factors."""
        return {"factors": self.factors.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.factors = state["factors"].to(self.factors.device)


class RandomWeights(_Scaled):
    """``random``: a = T softmax(z) with z_t drawn from N(0, 1) at every step.

    Random loss weighting (Lin et al. 2022, arXiv 2111.10603, section 3).

    Args:
        tasks: T of them.
        device: of the losses.
        seed: of the draws.
    """

    def __init__(self, tasks: Sequence[Task], device: torch.device, seed: int) -> None:
        super().__init__(tasks, device)
        self.generator = torch.Generator().manual_seed(seed)

    def begin(self) -> None:
        """Draw."""
        drawn = torch.randn(len(self.names), generator=self.generator).softmax(0)
        self.factors = (len(drawn) * drawn).to(self.factors.device)

    def state_dict(self) -> dict[str, Any]:
        """Factors, and where the draws stand."""
        return super().state_dict() | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])


class DynamicAverage(_Scaled):
    """``dwa``: a = T softmax(r / 2) with r_t the mean L_t of the last epoch over that of the one before.

    Dynamic weight average (Liu et al. 2019, arXiv 1803.10704, section 3.2); in the first two epochs a_t = 1.

    Args:
        tasks: T of them.
        device: of the losses.
        epoch: steps of an epoch.
    """

    def __init__(self, tasks: Sequence[Task], device: torch.device, epoch: int) -> None:
        super().__init__(tasks, device)
        self.epoch, self.taken = epoch, 0
        self.sums, self.before = torch.zeros_like(self.factors), torch.zeros_like(self.factors)

    def begin(self) -> None:
        """Weigh anew, where an epoch is over."""
        if self.taken and self.taken % self.epoch == 0:
            if self.taken > self.epoch:
                rate = self.sums / self.before.abs().clamp(min=torch.finfo(self.sums.dtype).tiny)
                self.factors = len(self.names) * (rate / TEMPERATURE).softmax(0)
            self.before, self.sums = self.sums, torch.zeros_like(self.sums)
        self.taken += 1

    @torch.no_grad()
    def observe(self, losses: Losses) -> None:
        """Add up; a task that a step leaves out adds nothing."""
        zero = self.sums.new_zeros(())
        self.sums += torch.stack([losses.get(name, zero).detach() for name in self.names]).to(self.sums.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Factors, sums and where the epoch stands."""
        own = {"taken": self.taken, "sums": self.sums.clone(), "before": self.before.clone()}
        return super().state_dict() | own

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        self.taken = state["taken"]
        self.sums, self.before = (state[key].to(self.sums.device) for key in ("sums", "before"))


class Chebyshev(Weighting):
    """``chebyshev``: max_t w_t L_t, the worst task alone; of a batch in parts, that of each part.

    The weighted Chebyshev scalarisation with the ideal point at 0 (as in arXiv 2308.12243, section 3, for sparse
    multi-task networks). Unlike a weighted sum it reaches Pareto-optimal points where the front is not convex.
    """

    def total(self, tasks: Sequence[Task], losses: Losses, share: float = 1.0) -> Tensor:
        """Of the task that is worst on this batch."""
        return torch.stack([task.weight * losses[task.name] for task in tasks]).amax()


class Famo(_Scaled):
    """``famo``: Σ_t a_t L_t with a_t = T c z_t / L_t, z = softmax(ξ) and c = 1 / Σ_t (z_t / L_t).

    Every loss is to fall by the same share: ξ takes a step of Adam along z ∘ (δ - <z, δ>) after each step of θ,
    with δ_t = log L_t before it less log L_t after it, which another forward pass shows. Of a batch in parts each
    part has the factors of its own losses. Fast adaptive multitask optimisation (Liu et al. 2023, arXiv
    2306.03792, algorithm 1), with its authors' rates.

    Args:
        tasks: T of them.
        device: of the losses.
    """

    def __init__(self, tasks: Sequence[Task], device: torch.device) -> None:
        super().__init__(tasks, device)
        self.xi = torch.zeros_like(self.factors)
        self.optimizer = torch.optim.Adam([self.xi], lr=0.025, weight_decay=0.01)
        self.before: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Forget the losses of the step before."""
        self.before = {}

    def total(self, tasks: Sequence[Task], losses: Losses, share: float = 1.0) -> Tensor:
        """With factors of these losses; weights of the data set are without effect on them."""
        chosen = torch.stack([losses[task.name] for task in tasks])
        levels = chosen.detach().clamp(min=TINY)
        z = self._z([task.name for task in tasks]).to(levels)
        factors = (z / levels) / (z / levels).sum()
        return len(tasks) * (factors * chosen).sum()

    def _z(self, names: Sequence[str]) -> Tensor:
        """z, of these tasks alone."""
        each = dict(zip(self.names, self.xi.unbind(), strict=True))
        return torch.stack([each[name] for name in names]).softmax(0)

    @torch.no_grad()
    def observe(self, losses: Losses) -> None:
        """Add up."""
        for name, loss in losses.items():
            self.before[name] = self.before.get(name, 0.0) + loss.detach()

    @torch.no_grad()
    def look_back(self, losses: Callable[[], Losses]) -> None:
        """One step of ξ; tasks that the step left out stay where they are."""
        after = losses()
        if not self.before:
            return
        delta = torch.stack([_log(loss) - _log(after[name]) for name, loss in self.before.items()]).to(self.xi)
        z = self._z(list(self.before))
        zero = self.xi.new_zeros(())
        slopes = dict(zip(self.before, (z * (delta - z @ delta)).unbind(), strict=True))
        gradient = torch.stack([slopes.get(name, zero) for name in self.names])
        self.xi.grad = gradient * min(1.0, 1 / max(float(gradient.norm()), TINY))  # of length 1 at most
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """ξ and its optimiser."""
        return super().state_dict() | {"xi": self.xi.clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        super().load_state_dict(state)
        self.xi.copy_(state["xi"])
        self.optimizer.load_state_dict(state["optimizer"])


def _log(loss: Tensor) -> Tensor:
    return loss.clamp(min=TINY).log()
