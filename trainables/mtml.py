"""Meta-learned multi-task training without sparsity ('Multi-Task Meta Learning', arXiv 2210.06989)."""

from __future__ import annotations

import torch

from ms_automl.data import Batch, MultiTaskData
from ms_automl.errors import ConfigError
from ms_automl.meta.outer import episode
from ms_automl.models import MultiTaskNet, frozen_buffers
from ms_automl.training import Metrics, State, TrainingLoop, TrainingSettings


class MultiTaskMeta:
    """Each step is an episode: adapt θ to a few tasks on one half of the batch, learn from the other half.

    A non-empty subset S of the T tasks is drawn uniformly, with L_S = (T/|S|) Σ_{t in S} w_t L_t, on average the
    loss of all tasks. The training batch is split into K support parts B_1 … B_K and a query part Q, and

        θ_0 = θ,   θ_k = θ_{k-1} - α ∇L_S(θ_{k-1}; B_k),   θ ← AdamW(θ, ∇L_S(θ_K; Q)),

    which is first-order MAML (Finn et al. 2017, arXiv 1703.03400, section 5.2). Every sample is passed once,
    whatever K is, so that a step costs what a dense step costs; θ sees the train split only.

    Ours, as the paper's public text leaves them open: first order instead of second, the uniform draw, the
    split of the training batch, α and K. And: a task outside S has a gradient of 0 and not none, so that Adam's
    moments average over episodes; batch norm's running averages follow B_1 alone, which is passed at θ, the
    weights that are evaluated and kept.

    Args:
        data: what to train on.
        network: trained in place.
        settings: length, optimiser and phases.
        seed: of the data order and the episodes.
        inner_lr: α.
        inner_steps: K; the parts are of equal size, to a sample.

    Raises:
        ConfigError: for a step size or a number of steps out of range.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        inner_lr: float = 0.01,
        inner_steps: int = 1,
    ) -> None:
        if not 0 <= inner_lr < float("inf"):
            raise ConfigError(f"`inner_lr >= 0` must hold, but got inner_lr={inner_lr}")
        if not 1 <= inner_steps < settings.batch_size:
            raise ConfigError(
                f"`1 <= inner_steps < batch_size` must hold, but got inner_steps={inner_steps} "
                f"and batch_size={settings.batch_size}"
            )
        self.loop = TrainingLoop(data, network, settings, seed)
        self.cost = self.loop.cost
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.generator = torch.Generator().manual_seed(seed + 1)

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        return self.loop.interval(backward=self.backward)

    def backward(self, batch: Batch) -> None:
        """Leave ∇L_S(θ_K; Q) of a new episode in ``grad``, and θ as it was."""
        loop = self.loop
        chosen = episode(len(loop.data.tasks), self.generator)
        tasks = [loop.data.tasks[index] for index in chosen]
        scale = len(loop.data.tasks) / len(tasks)
        weights = [weight for weight in loop.network.parameters() if weight.requires_grad]
        start = [weight.detach().clone() for weight in weights]
        first, *rest = batch.split(self.inner_steps + 1)
        loop.backward(first, tasks, scale)
        with frozen_buffers(loop.network):
            for part in rest:
                self._descend(weights)
                loop.backward(part, tasks, scale)
        with torch.no_grad():
            for weight, value in zip(weights, start, strict=True):
                weight.copy_(value)
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)

    @torch.no_grad()
    def _descend(self, weights: list[torch.nn.Parameter]) -> None:
        for weight in weights:
            if weight.grad is not None:
                weight.sub_(weight.grad, alpha=self.inner_lr)

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        return {"loop": self.loop.state_dict(), "episodes": self.generator.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
        self.generator.set_state(state["episodes"])
