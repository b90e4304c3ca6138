"""Arguments of factories: any name, but those that the comparison gives itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.data.factories import build_data
from ms_automl.errors import ConfigError
from ms_automl.models import MultiTaskNet, factories
from ms_automl.models.factories import build_network
from ms_automl.tasks import depth

NAMES = ("name", "kind", "factory", "args", "kwargs", "given", "known", "self", "cls", "config", "a.b", "key")


def network(image_shape: Any, heads: Any, **args: Any) -> MultiTaskNet:
    net = MultiTaskNet(nn.Conv2d(3, 4, 1), {name: nn.Conv2d(4, 1, 1) for name in heads})
    net.args = args
    return net


def data(seed: int, data_dir: Path | None, **args: Any) -> MultiTaskData:
    images = torch.randn(args["count"], 3, 4, 4)
    split = TensorSplit(images, {"d": images[:, :1]})
    return MultiTaskData("-".join(args), split, split, split, [depth("d")])


@pytest.mark.parametrize("name", [*NAMES, "seed", "data_dir"])
def test_a_network_takes_an_argument_of_any_name(name: str) -> None:
    net = build_network(f"{__name__}:network", {name: 3}, image_shape=(3, 4, 4), heads={}, seed=0)
    assert net.args == {name: 3}


@pytest.mark.parametrize("name", [*NAMES, "image_shape", "heads"])
def test_data_take_an_argument_of_any_name(name: str) -> None:
    assert build_data(f"{__name__}:data", {"count": 2, name: 3}, seed=0, data_dir=None).name == f"count-{name}"


def test_the_built_in_factories_say_in_one_line_what_they_do_not_take() -> None:
    for name in ("name", "kind", "factory"):
        with pytest.raises(
            ConfigError, match=f"unexpected keyword argument '{name}'; network.args were: {name}='x'"
        ):
            build_network("small_resnet", {name: "x"}, image_shape=(3, 16, 16), heads={})


def renamed(number: int, folder: Path | None, /, seed: int = 5) -> MultiTaskData:
    return data(number, folder, count=seed)


def test_what_the_comparison_gives_itself_is_no_argument() -> None:
    with pytest.raises(ConfigError, match=r"network\.args: 'heads' is given to network.factory .* leave it out"):
        build_network(f"{__name__}:network", {"heads": 3}, image_shape=(3, 4, 4), heads={})
    with pytest.raises(ConfigError, match=r"data\.args: 'seed' is given to data.factory .* leave it out"):
        build_data(f"{__name__}:data", {"seed": 3}, seed=0, data_dir=None)
    assert len(build_data(f"{__name__}:renamed", {"seed": 3}, seed=0, data_dir=None).train) == 3


def test_an_error_of_many_lines_and_a_callable_without_a_signature_end_in_one_line(monkeypatch) -> None:
    def fails(image_shape: Any, heads: Any) -> MultiTaskNet:
        raise RuntimeError("one\ntwo")

    for factory in (fails, type("Odd", (), {"__signature__": 3, "__call__": lambda *_: fails(1, 2)})()):
        monkeypatch.setattr(factories, "NETWORKS", {"mine": factory})
        with pytest.raises(ConfigError, match=r"^network\.factory 'mine': RuntimeError: one; .*: none$"):
            build_network("mine", {}, image_shape=(3, 4, 4), heads=SimpleNamespace())
