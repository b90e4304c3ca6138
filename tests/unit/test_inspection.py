"""Every image and every label of every split is looked at before anything trains, and nothing changes by that."""

import json
import math
import random
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ms_automl.data import Batch, MultiTaskData, TensorSplit, inspect, nyuv2, streamed
from ms_automl.data.cache import cache_folder
from ms_automl.data.inspection import look
from ms_automl.data.memo import fingerprint
from ms_automl.data.nyuv2 import source
from ms_automl.data.prepare import prepare
from ms_automl.errors import DataError
from ms_automl.tasks import HeadSpec, Metric, Task, binary, classification, depth, edges, segmentation
from tests.made_files import task_folders

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


# ---- readers of a user's own ----------------------------------------------------------------------------


class Reader:
    """A split that reads one sample after the other, of which some are not as others are."""

    def __init__(self, split, change=lambda index, batch: batch):
        self.split, self.change, self.most = split, change, 0

    def __len__(self):
        return len(self.split)

    def batch(self, indices):
        self.most = max(self.most, len(indices))
        parts = [self.change(index, self.split.batch(torch.tensor([index]))) for index in indices.tolist()]
        names = parts[0].targets
        return Batch(
            torch.cat([part.images for part in parts]),
            {name: torch.cat([part.targets[name] for part in parts]) for name in names},
            {name: torch.cat([part.valid[name] for part in parts]) for name in names},
        )


def broken(index, batch):
    if index == 9:
        raise OSError("image file is truncated")
    return batch


def smaller(index, batch):
    return Batch(batch.images[..., :3], batch.targets, batch.valid) if index == 9 else batch


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken, r"sample 9 cannot be read \(OSError: image file is truncated\)"),
        (smaller, r"samples 0 to \d+ can be read one by one and not together|images have shape"),
    ],
)
@pytest.mark.parametrize("split", COUNTS)
def test_a_sample_that_cannot_be_read_is_named(split, change, message):
    data = data_of(good())
    data = replace(data, **{split: Reader(getattr(data, split), change)})
    with pytest.raises(DataError, match=f"^{split}: {message}"):
        inspect(data)


class Changing:
    """Batches of the first samples are as they should be, of sample 9 on they are not."""

    def __init__(self, split, change):
        self.split, self.change = split, change

    def __len__(self):
        return len(self.split)

    def batch(self, indices):
        batch = self.split.batch(indices)
        return self.change(batch) if 9 in indices else batch


def with_target(name, change):
    def changed(batch):
        return Batch(batch.images, dict(batch.targets) | {name: change(batch.targets[name])}, batch.valid)

    return changed


SHAPES = {
    "images of another size": (lambda b: Batch(b.images[..., 1:], b.targets, b.valid), "images have shape"),
    "images of bytes": (lambda b: Batch(b.images.byte(), b.targets, b.valid), "images must be float32, but are"),
    "images in numpy": (lambda b: Batch(b.images.numpy(), b.targets, b.valid), "images are a ndarray"),
    "an image too few": (lambda b: Batch(b.images[1:], b.targets, b.valid), r"images came where \d+ were asked"),
    "classes of another type": (with_target("kind", lambda t: t.int()), "'kind'.*target is torch.int32"),
    "flags of another type": (with_target("large", lambda t: t.bool()), "'large'.*target is torch.bool"),
    "a target in numpy": (with_target("metres", lambda t: t.numpy()), "'metres'.*target is a ndarray"),
    "no target": (lambda b: Batch(b.images, {"kind": b.targets["kind"]}, b.valid), "no target of that name"),
    "a mask of numbers": (
        lambda b: Batch(b.images, b.targets, {k: v.float() for k, v in b.valid.items()}), "valid is torch.float32",
    ),
    "no mask": (lambda b: Batch(b.images, b.targets, {}), "the split gives no validity mask"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SHAPES)
@pytest.mark.parametrize("split", COUNTS)
def test_shapes_and_types_of_every_batch_are_looked_at(split, fault, monkeypatch):
    monkeypatch.setattr("ms_automl.data.streaming._MOST", 4)
    change, message = SHAPES[fault]
    data = data_of(good())
    data = replace(data, **{split: Changing(getattr(data, split), change)})
    with pytest.raises(DataError, match=f"^{split}.*{message}") as error:
        inspect(data)
    assert ", from sample 8 on: " in str(error.value)


class Augmented(Reader):
    def augmented(self, indices, seed):
        assert seed == 0
        return self.change(int(indices[-1]), self.split.batch(indices))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, b: Batch(b.images[..., 1:], b.targets, b.valid), "images have shape"),
        (lambda i, b: Batch(b.images / 0, b.targets, b.valid), "images hold NaN or infinite values"),
        (lambda i, b: with_target("areas", lambda t: t + 252)(b), "task 'areas': class numbers 25"),
        (lambda i, b: 1 / 0, r"sample 0 cannot be read \(ZeroDivisionError"),
    ],
)
def test_training_samples_are_looked_at_as_they_are_augmented_too(change, message):
    data = data_of(good())
    train = Augmented(data.train, change)
    train.batch = data.train.batch
    with pytest.raises(DataError, match=f"^augmented train.*{message}"):
        inspect(replace(data, train=train))


def test_a_split_is_read_once_in_batches_that_fit_the_memory_and_progress_is_told(monkeypatch):
    splits = good()
    data, told = data_of(splits), []
    sample = sum(
        tensor[0].nbytes for tensor in (splits["val"][0], *splits["val"][1].values(), *splits["val"][2].values())
    )
    monkeypatch.setattr("ms_automl.data.streaming._BYTES", 5 * sample)
    reader = Reader(data.val)
    assert [samples for samples, _ in streamed(reader, "val")] == [range(0, 5), range(5, 10), range(10, 12)]
    assert reader.most == 5
    inspect(data, lambda *what: told.append(what))
    assert [one for one in told if one[0] == "val"] == [("val", 5, 12), ("val", 10, 12), ("val", 12, 12)]
    assert {name: done for name, done, _ in told} == COUNTS


def drawing(index, batch):
    torch.rand(1), np.random.rand(), random.random()
    return batch


def test_looking_changes_no_random_number():
    data = data_of(good())
    data = replace(data, train=Reader(data.train, drawing))
    draws = []
    for looks in (False, True):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        if looks:
            inspect(data)
        draws.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert draws[0] == draws[1]


# ---- own losses and metrics -----------------------------------------------------------------------------


def mean_error(prediction, target, valid):
    return (prediction[:, 0] - target[:, 0]).abs()[valid].mean()


def count_and_sum(prediction, target, valid):
    return torch.stack([(prediction[:, 0] - target[:, 0]).abs()[valid].sum(), valid.sum()]).double()


def own(loss=mean_error, statistic=count_and_sum, kind="values", channels=1, dense=True):
    metrics = {"error": Metric(statistic, lambda total: float(total[0] / total[1]), "min", "m")}
    return Task("own", HeadSpec(channels, dense), loss, metrics, kind=kind)


def nan_marks(prediction, target, valid):
    known = ~target.isnan()
    return (prediction - target)[known].abs().mean()


def fails(prediction, target, valid):
    raise RuntimeError("shapes do not match")


OWN = {
    "255 marks what does not count": (
        own(lambda p, t, v: F.cross_entropy(p, t, ignore_index=255), kind="classes", channels=3),
        lambda shape: torch.where(torch.rand(shape) < 0.5, 255, 1),
        "its loss changes with labels that do not count, as sample 0 of train has some: leave them out by `valid`",
    ),
    "-100 marks what does not count": (
        own(lambda p, t, v: F.cross_entropy(p, t), kind="classes", channels=3, dense=False),
        lambda shape: torch.where(torch.arange(shape[0]) % 2 > 0, -100, 1),
        "its loss changes with labels that do not count",
    ),
    "NaN marks what does not count": (
        own(nan_marks),
        lambda shape: torch.where(torch.rand(shape) < 0.5, math.nan, torch.rand(shape)),
        "its loss changes with labels that do not count",
    ),
    "the metric takes all": (
        own(statistic=lambda p, t, v: torch.stack([(p - t).abs().sum(), v.sum()]).double()),
        lambda shape: torch.where(torch.rand(shape) < 0.5, math.nan, torch.rand(shape)),
        "its metric 'error' changes with labels that do not count",
    ),
    "the loss fails": (
        own(fails),
        lambda shape: torch.where(torch.rand(shape) < 0.5, math.nan, torch.rand(shape)),
        r"its loss fails on sample 0 of train \(RuntimeError: shapes do not match\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OWN)
def test_an_own_loss_or_metric_that_takes_labels_that_do_not_count_is_refused(case):
    torch.manual_seed(0)
    task, make, message = OWN[case]
    splits = []
    for count in (6, 4, 4):
        target = make(task.target_shape(count, 4, 4))
        if task.kind == "classes":
            valid = (target >= 0) & (target < 3)
            target.reshape(-1)[valid.reshape(-1).nonzero()[::2, 0]] = 2
        else:
            valid = ~target.isnan().any(1)
        splits.append(TensorSplit(torch.randn(count, 2, 4, 4), {"own": target}, {"own": valid}))
    with pytest.raises(DataError, match=f"^task 'own': {message}"):
        inspect(MultiTaskData("own", *splits, tasks=[task]))
    every = [TensorSplit(s.images, s.targets, {"own": torch.ones_like(s.valid["own"])}) for s in splits]
    for split in every:
        split.targets["own"] = split.targets["own"].nan_to_num(0.5).clamp(0, 2)
    inspect(MultiTaskData("own", *every, tasks=[task]))  # where all of them count, none is taken wrongly


# ---- what is remembered ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nyuv2")
    prepare(source(task_folders(folder / "made"), {"height": 48, "width": 64}), folder / "ready")
    return folder / "ready"


@pytest.fixture
def files(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("MS_AUTOML_CACHE", str(tmp_path / "cache"))
    return prepared


def looked_at(data):
    """Whether data are read when they are looked at."""
    told = []
    warnings = inspect(data, lambda *what: told.append(what))
    return bool(told), warnings


def read(files, seed=0, **changes):
    return nyuv2(seed, files, **{"train": 12, "val": 4, "test": 4} | changes)


def memos():
    return sorted(cache_folder().glob("looked-at-*.json"))


def test_data_in_files_are_looked_at_once(files):
    first, warnings = looked_at(read(files))
    assert first and len(memos()) == 1
    assert looked_at(read(files)) == (False, warnings)
    others = [{"seed": 1}, {"train": 11}, {"unseen": ("depth",)}, {"val": 3}]
    assert all(looked_at(read(files, **other))[0] for other in others)
    assert len(memos()) == 1 + len(others)
    assert look(read(files)).warnings == warnings


def test_data_whose_files_or_readers_changed_are_looked_at_again(files, monkeypatch):
    data = read(files)
    inspect(data)
    file = next(file for file, _, _ in data.train.prepared.files() if file.name.endswith("depth.npy"))
    file.write_bytes(file.read_bytes())  # the same bytes at another time: who knows
    assert looked_at(read(files))[0]
    before = fingerprint(data)
    monkeypatch.setattr("ms_automl.data.memo._code", lambda: "other code")
    assert fingerprint(data) != before
    data.train.decoder = type("Own", (), {"__module__": "mine"})()
    assert fingerprint(data) is None


def test_own_losses_are_checked_on_data_that_are_remembered_too(files):
    data = read(files)
    inspect(data)
    takes_all = replace(data.tasks[1], loss=lambda p, t, v: (p - t).abs().mean())
    with pytest.raises(DataError, match="task 'depth': its loss changes with labels that do not count"):
        inspect(replace(data, tasks=[data.tasks[0], takes_all, *data.tasks[2:]]))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"data": 1}', "other", "partial"])
def test_a_damaged_memory_is_none(damage, files):
    data = read(files)
    inspect(data)
    (memo,) = memos()
    content = json.loads(memo.read_text())
    wrong = {"other": content | {"data": "0" * 64}, "partial": content | {"partial": {"depth": ["train", "x", 0]}}}
    memo.write_text(json.dumps(wrong[damage]) if damage in wrong else damage)
    assert looked_at(data)[0]
    assert json.loads(memo.read_text()) == content
    assert not looked_at(data)[0]


def test_where_nothing_can_be_kept_data_are_looked_at_again(files, tmp_path, monkeypatch):
    data = read(files)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MS_AUTOML_CACHE", str(tmp_path / "file"))
    assert looked_at(data)[0] and looked_at(data)[0]


def test_several_that_look_at_once_leave_one_whole_memory(files):
    data = read(files)
    threads = [Thread(target=inspect, args=(data,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memos()) == 1 and not looked_at(data)[0]
    assert not list(cache_folder().glob(".*.tmp"))


def test_data_in_memory_are_looked_at_each_time():
    data = data_of(good())
    assert looked_at(data)[0] and looked_at(data)[0]
