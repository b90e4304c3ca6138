"""The selected models at the end of a comparison: what they cost without their dead channels."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.selection import best_of_each_arm, compacted, first_line, real_images
from ms_automl.comparison.state import Comparison
from ms_automl.models.onnx_form import to_onnx


def compact_selected(
    console: Console,
    comparison: Comparison,
    tracker: Tracker,
    experiment: Experiment,
    models: dict[str, Path | None],
) -> None:
    """Compact and measure every selected model, and log the best one of each arm in ONNX.

    Args:
        console: says what could not be compacted.
        comparison: its runs get what their models cost.
        tracker: of the comparison.
        experiment: whose data and groups.
        models: folder of each run's selected model, where it has one.
    """
    data, grouping = experiment.data(experiment.config.first_seed), experiment.config.training.grouping
    images = real_images(data)
    torch.set_num_threads(experiment.config.resources.cpus_per_trial)  # as in a trial
    runs = comparison.runs.values()
    logged = {run.name for run in best_of_each_arm(runs, comparison.judge.better)}
    troubles: dict[str, list[str]] = {}
    for run in runs:
        model = models[run.name]
        if model is None:
            continue
        try:
            small = compacted(model, grouping, images)
        except Exception as error:  # such as a factory that fails when it is called again
            troubles.setdefault(f"not compacted: {first_line(error)}", []).append(run.name)
            continue
        run.macs_ratio, run.latency_ratio = small.macs_ratio, small.latency_ratio
        if small.why:
            troubles.setdefault(f"not compacted: {small.why}", []).append(run.name)
        if run.name in logged:
            try:
                form = to_onnx(small.network, data.image_shape)
            except Exception as error:  # a stranger's network may do anything
                troubles.setdefault(f"not in MLflow as ONNX: {first_line(error)}", []).append(run.name)
            else:
                tracker.model_exported(run, form)
    for trouble, names in troubles.items():
        console.print(f"{', '.join(names)}: {trouble}", markup=False, soft_wrap=True)
