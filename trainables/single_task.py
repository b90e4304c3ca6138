"""One task alone, dense or group-sparse: what multi-task training is held against."""

from __future__ import annotations

from dataclasses import replace

from ms_automl.data import MultiTaskData
from ms_automl.errors import unknown_name
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet
from ms_automl.training import Trainable, TrainingSettings
from trainables.dense import Dense
from trainables.fixed_lambda import FixedLambda


def single_task(
    data: MultiTaskData,
    network: MultiTaskNet,
    settings: TrainingSettings,
    seed: int,
    *,
    task: str,
    schedule: LambdaSchedule | None = None,
) -> Trainable:
    """L_t of one task on the trunk and that task's head: the baselines of 'Less is More' (arXiv 2308.12114).

    It is :class:`~trainables.dense.Dense`, or :class:`~trainables.fixed_lambda.FixedLambda` where a λ is given,
    on data that has this task only; its reports name no other. A sample counts as a whole pass of the budget,
    though one head is computed instead of all.

    Args:
        data: what to train on; every other task is left out.
        network: trained in place; the heads of the other tasks are taken off it.
        settings: length, optimiser and phases.
        seed: of the data order.
        task: name of the task.
        schedule: λ by layer; None trains without sparsity.

    Raises:
        ConfigError: for a task that the data does not have; it lists those that it has.
    """
    known = {one.name: one for one in data.tasks}
    if task not in known:
        raise unknown_name("task", task, list(known))
    for name in set(network.heads) - {task}:
        del network.heads[name]
    alone = replace(data, tasks=(known[task],))
    if schedule is None:
        return Dense(alone, network, settings, seed)
    return FixedLambda(alone, network, settings, seed, schedule=schedule)
