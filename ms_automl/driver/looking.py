"""The data of a comparison, looked at whole in the driver before anything trains."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ms_automl.comparison.experiment import Experiment
from ms_automl.data import MultiTaskData, inspect
from ms_automl.environment.progress import shown
from ms_automl.errors import DataError


def look_at_data(experiment: Experiment, seeds: Sequence[int], console: Console) -> None:
    """Look at every sample of every seed's data, and say what is odd about them.

    Args:
        experiment: whose data.
        seeds: of the splits; with another one a factory may give other samples.
        console: for progress and what is odd.

    Raises:
        DataError: naming seed, split, task and sample.
    """
    first = experiment.data(seeds[0])
    for seed in seeds:
        prefix = f"seed {seed}: " if len(seeds) > 1 else ""
        data = experiment.data(seed)
        try:
            if _kind(data) != _kind(first):
                raise DataError(
                    f"tasks or image shape are not those of seed {seeds[0]}: a seed decides samples alone"
                )
            with shown(console, f"looking at the data, {prefix}", stays=False) as progress:
                warnings = inspect(data, progress)
        except DataError as error:
            raise DataError(f"{prefix}{error}") from error
        for line in warnings:
            console.print(f"{prefix}{line}", markup=False, soft_wrap=True)


def _kind(data: MultiTaskData) -> object:
    tasks = [(task.name, task.kind, task.head, tuple(task.metrics)) for task in (*data.tasks, *data.unseen_tasks)]
    return data.image_shape, len(data.tasks), tasks
