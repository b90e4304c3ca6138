"""Data of every kind of task, with one sample that counts everywhere and one that counts nowhere."""

import torch

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.tasks import HeadSpec, Metric, Task, binary, classification, depth, edges, segmentation

COUNTS = {"train": 14, "val": 12, "test": 10}
TASKS = [segmentation("areas", 4), depth("metres"), edges("lines"), classification("kind", 3), binary("large")]
SPOTS = Task(
    "spots",
    HeadSpec(2, False),
    lambda p, t, v: torch.where(v, (p - t).square().mean(1), 0.0).sum() / v.sum().clamp(min=1),
    {
        "error": Metric(
            lambda p, t, v: torch.stack([(p - t).abs().mean(1)[v].sum(), v.sum()]).double(), float, "min", "1"
        )
    },
)


def good():
    """By split: images and, by task, targets and validity; sample 9 counts everywhere, sample 8 nowhere."""
    rng, splits = torch.Generator().manual_seed(0), {}
    for name, count in COUNTS.items():
        images = torch.randn(count, 2, 4, 4, generator=rng)
        targets = {
            "areas": torch.randint(4, (count, 4, 4), generator=rng),
            "metres": torch.rand(count, 1, 4, 4, generator=rng) + 1,
            "lines": torch.randint(2, (count, 1, 4, 4), generator=rng).float(),
            "kind": torch.arange(count) % 3,
            "large": (torch.arange(count) % 2).float(),
            "spots": torch.rand(count, 2, generator=rng),
        }
        valid = {}
        for task in (*TASKS, SPOTS):
            valid[task.name] = torch.ones(task.valid_shape(count, 4, 4), dtype=torch.bool)
            valid[task.name][8] = False
        splits[name] = (images, targets, valid)
    return splits


def data_of(splits, tasks=(*TASKS[:4], SPOTS), unseen=TASKS[4:]):
    return MultiTaskData(
        "made", *(TensorSplit(*parts) for parts in splits.values()), tasks=tasks, unseen_tasks=unseen
    )


def at_9(name, value):
    """A value in the last label of sample 9 of a task, or in its image."""

    def change(images, targets, valid):
        (images if name == "images" else targets[name])[9].reshape(-1)[-1:] = value
        if name != "images" and targets[name].ndim == 1:
            targets[name][9] = value

    return change


def nothing_counts(name):
    return lambda images, targets, valid: valid[name].fill_(False)


def multiplied(name, factor):
    return lambda images, targets, valid: targets[name].mul_(factor)


def shifted(name, factor, shift):
    return lambda images, targets, valid: targets[name].mul_(factor).add_(shift)
