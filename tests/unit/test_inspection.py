"""Every image and every label of every split is looked at before anything trains."""

import math

import pytest
import torch
import torch.nn.functional as F

from ms_automl.data import MultiTaskData, TensorSplit, inspect
from ms_automl.errors import DataError
from ms_automl.tasks import Task, binary, edges, heatmaps, multilabel, normals, ordinal, regression
from tests.unit.made_data import COUNTS, SPOTS, TASKS, at_9, data_of, good, multiplied, nothing_counts, shifted

FAULTS = {
    **{
        f"{value} in an image": (at_9("images", value), r": images hold NaN or infinite values, first in sample 9")
        for value in (math.nan, math.inf, -math.inf)
    },
    **{
        f"{value} in {name}": (
            at_9(name, value),
            rf", task '{name}': valid targets hold NaN or infinite values, first in sample 9 \({value}\): mark",
        )
        for name in ("metres", "lines", "large", "spots")
        for value in (math.nan, math.inf)
    },
    **{
        f"class {value} in {name}": (
            at_9(name, value),
            rf", task '{name}': class numbers {value} to {value} found, expected 0 to {most}, first in sample 9",
        )
        for name, most in (("areas", 3), ("kind", 2))
        for value in (most + 1, 255, -1, -100)
    },
    **{
        f"no label of {task.name}": (
            nothing_counts(task.name),
            rf", task '{task.name}': no label of its \d+ samples counts: give the split labels",
        )
        for task in (*TASKS, SPOTS)
    },
    **{
        f"{what} in {name}": (
            change(name),
            rf", task '{name}': the values {found} were found, first in sample \d+ \({first}\); yes is 1 and no",
        )
        for name in ("lines", "large")
        for what, change, found, first in (
            ("0 and 255", lambda name: multiplied(name, 255), "0, 255", "255"),
            ("0 and 100", lambda name: multiplied(name, 100), "0, 100", "100"),
            ("-1 and 1", lambda name: shifted(name, 2, -1), "-1, 1", "-1"),
            ("1 and 2", lambda name: shifted(name, 1, 1), "1, 2", "2"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_anywhere_in_the_data_is_named_with_split_task_and_sample(fault, split):
    splits = good()
    change, message = FAULTS[fault]
    change(*splits[split])
    with pytest.raises(DataError, match=f"^{split}{message}") as error:
        inspect(data_of(splits))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["areas", "metres", "lines", "kind", "large", "spots"])
@pytest.mark.parametrize("junk", [255, -100, math.nan])
def test_what_labels_that_do_not_count_hold_is_nobodys_business(name, junk):
    splits = good()
    for _, targets, _ in splits.values():
        target = targets[name]
        if target.dtype == torch.int64 and math.isnan(junk):
            junk = 10**12
        target[8] = junk
    assert inspect(data_of(splits)) == ()


def test_probabilities_are_labels_of_a_yes_or_no():
    splits = good()
    for _, targets, _ in splits.values():
        targets["lines"].mul_(0.8).add_(0.1)
        targets["large"].mul_(0.8).add_(0.1)
    assert inspect(data_of(splits)) == ()


CONSTANT = {
    "areas": (lambda t: t.fill_(2), "class 2"),
    "kind": (lambda t: t.fill_(0), "class 0"),
    "metres": (lambda t: t.fill_(1.5), "1.5"),
    "spots": (lambda t: t.copy_(torch.tensor([0.25, 0.75]).expand_as(t)), "0.25, 0.75"),
    "lines": (lambda t: t.fill_(1), "yes"),
    "large": (lambda t: t.mul_(1 / 255), "no"),  # 0 and 1 taken for 0 to 255
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_task_whose_training_labels_are_all_the_same_is_refused_and_elsewhere_that_is_said(name):
    change, what = CONSTANT[name]
    every = (*TASKS, SPOTS)
    for split in COUNTS:
        splits = good()
        change(splits[split][1][name])
        line = f"{split}, task '{name}': every label that counts is {what}"
        if split == "train":
            with pytest.raises(DataError, match=f"^{line}, so that there is nothing to learn"):
                inspect(data_of(splits, every, ()))
            others = [task for task in every if task.name != name]
            held_back = [task for task in every if task.name == name]
            assert line in inspect(data_of(splits, others, held_back))
        else:
            assert inspect(data_of(splits, every, ())) == (line,)


def test_classes_that_training_lacks_are_said():
    splits = good()
    splits["train"][1]["areas"].clamp_(max=2)
    splits["train"][1]["kind"].clamp_(max=1)
    splits["val"][1]["areas"][:] = 0
    splits["val"][1]["areas"][5, 0, 0] = 3
    splits["test"][1]["kind"][:] = torch.arange(10) % 2
    assert inspect(data_of(splits)) == (
        "val, task 'areas': no sample of train has class 3 (first in sample 5)",
        f"test, task 'areas': no sample of train has class 3 (first in sample {first_with(splits, 'areas', 3)})",
        "val, task 'kind': no sample of train has class 2 (first in sample 2)",
    )


def first_with(splits, name, number):
    target = splits["test"][1][name].clone()
    target[8] = -1
    return int((target == number).flatten(1).any(1).nonzero()[0])


def test_depths_of_0_and_vectors_of_other_lengths_are_told():
    splits = good()
    splits["val"][1]["metres"][9, 0, 0, :2] = torch.tensor([0.0, -1.0])
    (line,) = inspect(data_of(splits))
    assert line == (
        "val, task 'metres': 0.011 of the labels that count are 0 or below, as no such value is (first in sample "
        "9): mark what is missing as not valid, and convert the rest"
    )
    tasks = [normals("facing")]
    for images, targets, valid in splits.values():
        targets["facing"] = F.normalize(torch.randn(len(images), 3, 4, 4), dim=1)
        valid["facing"] = torch.ones(len(images), 4, 4, dtype=torch.bool)
    assert inspect(data_of(splits, tasks, [])) == ()
    splits["test"][1]["facing"] = 255 * (splits["test"][1]["facing"] + 1) / 2
    (line,) = inspect(data_of(splits, tasks, []))
    assert line.startswith("test, task 'facing': 1 of the labels that count are no vectors of length 1 (first in")


def of_one(task: Task, target: torch.Tensor, valid: torch.Tensor | None = None) -> MultiTaskData:
    images = torch.rand(len(target), 1, 3, 3, generator=torch.Generator().manual_seed(0))
    split = TensorSplit(images, {task.name: target}, {} if valid is None else {task.name: valid})
    return MultiTaskData("one", split, split, split, [task])


def test_levels_are_one_more_than_their_thresholds():
    levels = torch.arange(12) % 4
    assert inspect(of_one(ordinal("grade", 4), levels)) == ()
    with pytest.raises(DataError, match=r"class numbers 3 to 3 found, expected 0 to 2, first in sample 3"):
        inspect(of_one(ordinal("grade", 3), levels))


@pytest.mark.parametrize("task", [multilabel("some", 3), regression("some", 3), heatmaps("some", 2)])
def test_labels_that_count_one_by_one_are_looked_at_one_by_one(task):
    shape = task.target_shape(12, 3, 3)
    target = (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    assert inspect(of_one(task, target)) == ()  # without a mask all of them count
    target[9].reshape(-1)[-1:] = math.nan
    with pytest.raises(DataError, match=r"valid targets hold NaN or infinite values, first in sample 9"):
        inspect(of_one(task, target))
    valid = ~target.isnan()
    assert inspect(of_one(task, target, valid)) == ()
    with pytest.raises(DataError, match="every label that counts is"):
        inspect(of_one(task, torch.ones(shape), valid))
    valid[:, 0] = False  # nothing is known of a channel
    assert inspect(of_one(task, target, valid)) == ()
    with pytest.raises(DataError, match="no label of its 12 samples counts"):
        inspect(of_one(task, target, torch.zeros_like(valid)))


@pytest.mark.parametrize("task", [binary("some"), multilabel("some", 2), edges("some")])
def test_probabilities_of_at_most_a_half_are_something_to_learn(task):
    target = torch.rand(task.target_shape(12, 3, 3), generator=torch.Generator().manual_seed(1)) / 2
    assert inspect(of_one(task, target)) == ()
    with pytest.raises(DataError, match="every label that counts is no"):
        inspect(of_one(task, target / 255))  # 0 to 255 taken for 0 to 1
