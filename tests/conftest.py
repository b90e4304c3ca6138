"""What every test shares: no test touches the user's cache."""

import os
from collections.abc import Callable

import pytest
import torch

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.models import MultiTaskNet, head_specs, small_resnet
from ms_automl.sparsity import Groups, build_groups
from ms_automl.tasks import binary, classification, depth

TASKS = (depth("depth"), classification("kind", 3))
UNSEEN = (binary("bright"),)


def _split(count: int, generator: torch.Generator) -> TensorSplit:
    images = torch.randn(count, 2, 8, 8, generator=generator)
    targets = {
        "depth": images[:, :1].square() + 1,
        "kind": torch.bucketize(images[:, 1].mean((1, 2)), torch.tensor([-0.05, 0.05])),
        "bright": (images[:, 0].mean((1, 2)) > 0).float(),
    }
    valid = {"depth": torch.rand(count, 8, 8, generator=generator) < 0.8}
    valid["bright"] = torch.arange(count) % 4 != 3
    return TensorSplit(images, targets, valid)


@pytest.fixture(scope="session")
def tiny_data() -> MultiTaskData:
    """2 x 8 x 8 images, one dense and one image task, one held back; 24, 12 and 10 samples."""
    generator = torch.Generator().manual_seed(0)
    train, val, test = (_split(count, generator) for count in (24, 12, 10))
    return MultiTaskData("tiny", train, val, test, TASKS, UNSEEN)


@pytest.fixture(scope="session")
def tiny_network() -> Callable[..., MultiTaskNet]:
    """Builds the same small network at every call; with a head for the unseen task, if that is asked for."""

    def build(unseen: bool = False) -> MultiTaskNet:
        torch.manual_seed(0)
        return small_resnet((2, 8, 8), head_specs((*TASKS, *UNSEEN) if unseen else TASKS), width=4, hidden=4)

    return build


@pytest.fixture
def make_groups() -> Callable[..., Groups]:
    """Groups of a chain of random convolutions (inputs, outputs, kernel), some of them removable."""

    def build(
        shapes: list[tuple[int, int, int]],
        removable: tuple[int, ...] = (),
        seed: int = 0,
        grouping: str = "input_channel",
    ) -> Groups:
        generator = torch.Generator().manual_seed(seed)
        trunk = torch.nn.Sequential(*(torch.nn.Conv2d(i, o, k, bias=False) for i, o, k in shapes))
        for weight in trunk.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)
        network = MultiTaskNet(trunk, {}, [str(index) for index in removable])
        return build_groups(network, grouping, (shapes[0][0], 12, 12))

    return build


# One thread, as every trial has: with more of them sums are taken in an order that varies.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    os.environ["MS_AUTOML_CACHE"] = str(tmp_path_factory.mktemp("cache"))
