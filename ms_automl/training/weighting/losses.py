"""Weightings by the losses alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ms_automl.models import MultiTaskNet
from ms_automl.tasks import Task
from ms_automl.training.evaluation import weighted
from ms_automl.training.weighting.base import Losses, Weighting

TEMPERATURE = 2.0
"""Of :class:`DynamicAverage`, as its authors set it."""


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
