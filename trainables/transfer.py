"""A trained network takes up an unseen task; arXiv 2501.12115 claims that learned sparsity helps there."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from ms_automl.data import Batch, MultiTaskData, Subset, labelled
from ms_automl.errors import unknown_name
from ms_automl.meta.objective import delta_m
from ms_automl.models import MultiTaskNet
from ms_automl.models.cost import Cost
from ms_automl.models.heads import Heads
from ms_automl.training import (
    BatchOrder,
    Metrics,
    Seen,
    State,
    TrainingLoop,
    TrainingSettings,
    evaluate,
    task_losses,
    weighted,
)
from ms_automl.training.weighting import forwards_besides

MODES = ("frozen", "finetuned", "joint")


def _with_heads(network: MultiTaskNet, heads: dict[str, nn.Module]) -> MultiTaskNet:
    """A network that shares everything with another one, a forward of its own included, but has other heads."""
    other = copy.copy(network)
    other._modules = network._modules | {"heads": Heads(heads)}
    return other


class Transfer:
    """A new head learns a held-back task from a few labels; channels that are zero stay zero.

    ============  =============  ====================================================================
    mode          trained        minimises
    ============  =============  ====================================================================
    ``frozen``    the new head   w_new L_new over the labelled samples
    ``finetuned`` trunk as well  the same
    ``joint``     trunk, heads   the same plus Σ_old w_t L_t over a batch of the whole train split
    ============  =============  ====================================================================

    A joint step takes two batches, and costs two passes a sample: the old tasks have labels everywhere. A frozen
    trunk is only run forward, a third of a pass a sample, and its batch norms stay in evaluation.

    Args:
        data: ``task`` is one of its unseen tasks; its labels are read here for the first time.
        network: with a head for ``task``, and for the old tasks where what becomes of them is asked; trained in
            place. Its zero groups stay zero.
        settings: length and optimiser; batches are no larger than the labelled samples are many.
        seed: of the choice of samples and of the data order.
        task: name of the new task.
        mode: of :data:`MODES`.
        shots: labelled samples of the train split; None for all that there are.
        remembers: whether Δm of the old tasks on the test split, after against before, is reported as
            ``old/delta_m`` (%), and the metrics after as ``old/<task>/<metric>``.

    Raises:
        ConfigError: for an unknown task or mode, or more shots than there are labels.
    """

    def __init__(
        self,
        data: MultiTaskData,
        network: MultiTaskNet,
        settings: TrainingSettings,
        seed: int,
        *,
        task: str,
        mode: str,
        shots: int | None = None,
        remembers: bool = False,
    ) -> None:
        known = {one.name: one for one in data.unseen_tasks}
        if task not in known:
            raise unknown_name("unseen task", task, list(known))
        if mode not in MODES:
            raise unknown_name("mode", mode, list(MODES))
        self.task, self.data = known[task], data
        self.samples = Subset(data.train, labelled(data.train, self.task, shots, seed))
        settings = replace(settings, batch_size=min(settings.batch_size, len(self.samples)))
        if forwards_besides(settings.weighting, len(data.tasks)):  # what weighs several tasks by more than losses
            settings = replace(settings, weighting="equal")
        old = {name: head for name, head in network.heads.items() if name != task}
        # The same network with the old heads alone: seen by no gradient of the first two modes, only measured.
        self.old = _with_heads(network, old) if remembers and old else None
        if mode != "joint":
            for name in old:
                del network.heads[name]
        tasks = (*data.tasks, self.task) if mode == "joint" else (self.task,)
        self.loop = TrainingLoop(replace(data, train=self.samples, tasks=tasks), network, settings, seed)
        self.loop.sparsifier.freeze()
        self.rehearsal = BatchOrder(len(data.train), settings.batch_size, seed) if mode == "joint" else None
        if mode == "frozen":
            self.loop.freeze(network.trunk)
        self.before: Metrics | None = None
        self.cost = self.loop.cost

    @property
    def done(self) -> bool:
        """Whether the last report was made."""
        return self.loop.done

    def step(self) -> Metrics:
        """Train one report interval and evaluate."""
        if self.before is None:
            self.before = self._old_metrics()
        metrics = self.loop.interval(backward=None if self.rehearsal is None else self._jointly)
        metrics["labels"] = float(len(self.samples))
        if self.done and self.before:
            after = self._old_metrics()
            metrics |= {f"old/{name}": value for name, value in after.items()}
            metrics["old/delta_m"] = delta_m(self.data.tasks, after, self.before)
        return metrics

    def _jointly(self, batch: Batch) -> None:
        """One forward over both batches, so that batch norm sees them together."""
        assert self.rehearsal is not None
        other = self.data.train.batch(self.rehearsal.next())
        count = len(batch.images)
        outputs = self.loop.network(torch.cat([batch.images, other.images]))
        seen = []
        for tasks, samples, part in (
            ([self.task], batch, slice(count)),
            (self.data.tasks, other, slice(count, None)),
        ):
            mine = {name: output[part] for name, output in outputs.items()}
            seen.append(Seen(tasks, mine, samples, task_losses(tasks, mine, samples)))
        new, old = (weighted(one.tasks, one.losses) for one in seen)
        self.loop.descend(new + old, seen, count + len(other.images))

    def _old_metrics(self) -> Metrics:
        if self.old is None:
            return {}
        self.cost.forward += len(self.data.test)
        return evaluate(self.old, self.data.test, self.data.tasks, self.loop.settings.eval_batch_size)

    @staticmethod
    def planned_cost(
        data: MultiTaskData, settings: TrainingSettings, *, mode: str, samples: int, remembers: bool = False
    ) -> Cost:
        """What a whole run costs, before it starts.

        Args:
            data: as above.
            settings: as above.
            mode: as above.
            samples: how many labelled ones it learns from.
            remembers: whether the old tasks are measured, before and after.
        """
        seen = settings.steps * min(settings.batch_size, samples)
        evaluated = settings.reports * len(data.val) + (3 if remembers else 1) * len(data.test)
        if mode == "frozen":
            return Cost(forward=seen + evaluated)
        return Cost(train=seen * (2 if mode == "joint" else 1), forward=evaluated)

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        state: State = {
            "loop": self.loop.state_dict(),
            "samples": self.samples.indices,
            "before": None if self.before is None else dict(self.before),
        }
        if self.rehearsal is not None:
            state["rehearsal"] = self.rehearsal.state_dict()
        return state

    def load_state_dict(self, state: State) -> None:
        """Restore :meth:`state_dict`."""
        self.loop.load_state_dict(state["loop"])
        self.samples.indices, self.before = state["samples"], state["before"]
        if self.rehearsal is not None:
            self.rehearsal.load_state_dict(state["rehearsal"])
