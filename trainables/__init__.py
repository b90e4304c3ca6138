"""One file per way of training: plain PyTorch, no Ray."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ms_automl.data import MultiTaskData
from ms_automl.models.cost import Cost
from ms_automl.training import Trainable, TrainingSettings
from trainables.dense import Dense
from trainables.fixed_lambda import FixedLambda
from trainables.meta_sparsity import MetaSparsity
from trainables.mtml import MultiTaskMeta
from trainables.overparam import overparam, overparam_cost
from trainables.pruned import Pruned
from trainables.rival import RivalTraining
from trainables.single_task import SingleTask
from trainables.transfer import Transfer


def whole_training(data: MultiTaskData, settings: TrainingSettings) -> Cost:
    """What a training of all steps costs that does nothing else: :meth:`TrainingSettings.cost`."""
    return settings.cost(data)


@dataclass(frozen=True)
class Method:
    """A row of :data:`METHODS`.

    Attributes:
        build: makes one of data, network, settings and seed, and by name of what it takes besides.
        planned_cost: what a whole run costs, before it starts, of data and settings, and by name of what it takes
            besides.
        learns_lambda: whether a run ends with a λ that it has learned, its ``schedule``.
    """

    build: Callable[..., Trainable]
    planned_cost: Callable[..., Cost] = whole_training
    learns_lambda: bool = False


METHODS: dict[str, Method] = {
    "dense": Method(Dense),
    "fixed_lambda": Method(FixedLambda, FixedLambda.planned_cost),
    "meta_sparsity": Method(MetaSparsity, MetaSparsity.planned_cost, learns_lambda=True),
    "mtml": Method(MultiTaskMeta),
    "overparam": Method(overparam, overparam_cost),
    "pruned": Method(Pruned, Pruned.planned_cost),
    "rival": Method(RivalTraining, RivalTraining.planned_cost),
    "single_task": Method(SingleTask, SingleTask.planned_cost),
    "transfer": Method(Transfer, Transfer.planned_cost),
}


def arguments_of(function: Callable[..., object]) -> Collection[str]:
    """Names of the arguments that a method's ``build`` or ``planned_cost`` takes."""
    return inspect.signature(function).parameters.keys()


__all__ = [
    "METHODS",
    "Dense",
    "FixedLambda",
    "MetaSparsity",
    "Method",
    "MultiTaskMeta",
    "Pruned",
    "RivalTraining",
    "SingleTask",
    "Transfer",
    "arguments_of",
    "overparam",
]
