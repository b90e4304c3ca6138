from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from ms_automl.data import DATASETS, Batch, MultiTaskData, check_data, on_device, training_batch
from ms_automl.errors import ConfigError
from tests.conformance.pretended import pretended
from tests.made_files import faces, task_folders

SIZES = {"train": 24, "val": 10, "test": 12}
Factory = Callable[..., MultiTaskData]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MS_AUTOML_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {"nyuv2": task_folders(folder / "nyuv2"), "celebamask": faces(folder / "celebamask")}


@pytest.fixture(params=sorted(DATASETS))
def factory(request: pytest.FixtureRequest, files: dict[str, Path]) -> Factory:
    sizes = {"nyuv2": {"height": 48, "width": 64}, "celebamask": {"size": 64}}
    return partial(DATASETS[request.param], data_dir=files.get(request.param), **sizes.get(request.param, {}))


def everything(data: MultiTaskData) -> dict[str, Batch]:
    return {name: split.batch(torch.arange(len(split))) for name, split in data.splits.items()}


def pictures(batch: Batch) -> list[bytes]:
    return [image.numpy().tobytes() for image in batch.images]


def test_a_dataset_passes_its_check_with_the_sizes_asked_for(factory: Factory) -> None:
    data = factory(0, **SIZES)
    check_data(data)
    assert {name: len(split) for name, split in data.splits.items()} == SIZES
    assert data.tasks
    assert data.unseen_tasks
    assert all(side % 4 == 0 for side in data.image_shape[1:])


def test_a_seed_fixes_every_image_label_and_mask(factory: Factory) -> None:
    first, again = everything(factory(3, **SIZES)), everything(factory(3, **SIZES))
    for name, batch in first.items():
        assert torch.equal(batch.images, again[name].images)
        for task in batch.targets:
            assert torch.equal(batch.targets[task], again[name].targets[task])
            assert torch.equal(batch.valid[task], again[name].valid[task])


def test_different_seeds_give_different_splits(factory: Factory) -> None:
    first, other = everything(factory(3, **SIZES)), everything(factory(4, **SIZES))
    assert all(set(pictures(first[name])) != set(pictures(other[name])) for name in SIZES)


def test_no_image_stands_in_two_splits_or_twice_in_one(factory: Factory) -> None:
    found = [picture for batch in everything(factory(0, **SIZES)).values() for picture in pictures(batch)]
    assert len(set(found)) == len(found)


def test_every_label_of_every_split_is_one_its_task_can_have(factory: Factory) -> None:
    data = factory(0, **SIZES)
    _, height, width = data.image_shape
    for name, batch in everything(data).items():
        for task in (*data.tasks, *data.unseen_tasks):
            target, valid = batch.targets[task.name], batch.valid[task.name]
            assert target.shape == task.target_shape(SIZES[name], height, width)
            assert valid.shape == task.valid_shape(SIZES[name], height, width)
            assert valid.float().mean() > 0.8
            assert torch.isfinite(target).all()
            if task.kind == "classes":
                assert set(target[valid].unique().tolist()) <= set(range(task.head.channels))
                assert len(target[valid].unique()) > 1
            if task.kind == "binary":
                assert set(target.unique().tolist()) == {0.0, 1.0}


def test_images_have_about_zero_mean_and_unit_deviation(factory: Factory) -> None:
    images = everything(factory(0, **SIZES))["train"].images
    assert abs(images.mean()) < 0.25
    assert 0.7 < images.std() < 1.4


def test_fetching_by_index_gives_the_samples_in_the_order_asked_for(factory: Factory) -> None:
    split = factory(0, **SIZES).train
    one, all_ = split.batch(torch.tensor([5, 2])), split.batch(torch.arange(len(split)))
    assert torch.equal(one.images, all_.images[[5, 2]])
    for task, target in one.targets.items():
        assert torch.equal(target, all_.targets[task][[5, 2]])
        assert torch.equal(one.valid[task], all_.valid[task][[5, 2]])


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_an_empty_split_is_refused(factory: Factory, name: str) -> None:
    with pytest.raises(ConfigError, match=f"`{name} >= 1` must hold, but got {name}=0"):
        factory(0, **{**SIZES, name: 0})


def test_a_negative_seed_is_refused(factory: Factory) -> None:
    with pytest.raises(ConfigError, match="`seed >= 0` must hold, but got seed=-1"):
        factory(-1, **SIZES)


def test_batches_on_another_device_are_those_of_the_cpu(factory: Factory) -> None:
    data, indices = factory(0, **SIZES), torch.arange(8)
    with pretended() as device:
        there = on_device(data, device)
        for here, other in ((data.train, there.train), (data.test, there.test)):
            wanted, found = training_batch(here, indices, 5), training_batch(other, indices, 5)
            assert torch.equal(found.images.cpu(), wanted.images)
            for task in wanted.targets:
                assert torch.equal(found.targets[task].cpu(), wanted.targets[task])
                assert torch.equal(found.valid[task].cpu(), wanted.valid[task])
