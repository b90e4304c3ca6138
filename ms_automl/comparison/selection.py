"""The selected models of a comparison: kept, compacted, measured."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ms_automl.comparison.run import Run, Trial
from ms_automl.data import MultiTaskData
from ms_automl.errors import first_line
from ms_automl.models import MultiTaskNet
from ms_automl.models.archive import build, load, read_architecture
from ms_automl.models.profile import latencies, size_of
from ms_automl.models.surgery import Surgery, foldable, operate
from ms_automl.sparsity.compact import compact
from ms_automl.storage.remote import as_folder

ROUNDS = 10
"""Timings of every selected model; `python -m ms_automl.export` takes more of one."""


@dataclass(frozen=True)
class Compacted:
    """A selected model without its dead channels, or as trained where something stood in the way."""

    network: MultiTaskNet
    macs_ratio: float | None = None  # its multiply-adds over those of the dense network
    latency_ratio: float | None = None  # the same of its time for a batch, median over rounds in turns
    why: str = ""  # what stood in the way


def keep_best(run: Run, out: Path) -> Path | None:
    """Copy a run's selected model to ``<out>/best/<arm>-<seed>``; None where it has none."""
    best = run.best
    if best is None or best.checkpoint is None:
        return None
    with as_folder(best.checkpoint) as model:
        if not (model / "model.json").exists():
            return None
        folder = out / "best" / run.name
        shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    return folder


def best_of_each_arm(runs: Iterable[Run], better: Callable[[Trial, Trial | None], bool]) -> list[Run]:
    """One run of each arm: the seed whose selected model is best on validation."""
    best: dict[str, Run] = {}
    for run in runs:
        other = best.get(run.arm)
        if run.best is not None and (other is None or better(run.best, other.best)):
            best[run.arm] = run
    return list(best.values())


def real_images(data: MultiTaskData, count: int = 32) -> Tensor:
    """The first images of the validation split: [count, channels, H, W], fewer where it has fewer."""
    return data.val.batch(torch.arange(min(count, len(data.val)))).images


def compacted(model: Path, grouping: str, images: Tensor) -> Compacted:
    """Compact the model in a folder and measure it on real images beside dense, batch norms folded in both."""
    network = load(model)
    if grouping == "weight":
        return Compacted(network, why="single weights are zero (training.grouping=weight), no whole channel is")
    architecture = read_architecture(model)
    try:
        small, _ = compact(network, architecture.image_shape, images)
        dense = dense_rivals(model, images)["dense"]
        macs = [size_of(net, architecture.image_shape)["macs"] for net in (small, dense)]
        timed = latencies({"dense": dense, "compact": small}, images, ROUNDS)
        return Compacted(small, macs[0] / macs[1], timed["compact"].ratio.median)
    except Exception as error:  # a stranger's network may do anything, and this is one figure of many
        return Compacted(network, why=first_line(error))


def dense_rivals(model: Path, images: Tensor) -> dict[str, MultiTaskNet]:
    """Networks of a model's architecture in which nothing is zero, with weights that nobody has trained.

    ``dense`` has batch norms folded where ``images`` show that they can be, as a compact one; ``unfolded`` not.
    """
    dense = build(replace(read_architecture(model), surgery=None, separate=False)).eval()
    folded = copy.deepcopy(dense).eval()
    operate(folded, Surgery(folded=foldable(folded, images[:2])))
    return {"dense": folded, "unfolded": dense}
