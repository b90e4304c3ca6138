import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import ms_automl
from ms_automl.data import MultiTaskData
from ms_automl.errors import ConfigError, DataError
from ms_automl.models import MultiTaskNet, head_specs
from ms_automl.models.archive import Architecture, load, read_architecture, save_model
from ms_automl.sparsity.compact import compact
from ms_automl.tasks import HeadSpec

Build = Callable[[], MultiTaskNet]


@pytest.fixture
def saved(tmp_path: Path, tiny_network: Build, tiny_data: MultiTaskData) -> tuple[Path, MultiTaskNet]:
    network = tiny_network()
    network(torch.randn(4, 2, 8, 8))  # moves the batch-norm buffers off their start
    built = Architecture("small_resnet", {"width": 4, "hidden": 4}, (2, 8, 8), head_specs(tiny_data.tasks))
    save_model(network, tmp_path / "best" / "meta-0", built)
    return tmp_path / "best" / "meta-0", network.eval()


def test_a_compact_model_comes_back_compact(saved: tuple[Path, MultiTaskNet], tmp_path: Path) -> None:
    folder, network = saved
    for conv in network.penalised().values():
        conv.weight.data[:, 1::2] = 0
    small, surgery = compact(network, (2, 8, 8))
    save_model(small, tmp_path / "compact", replace(read_architecture(folder), surgery=surgery))
    again, images = load(tmp_path / "compact"), torch.randn(3, 2, 8, 8)
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in network.parameters())
    for name, output in small(images).items():
        assert torch.equal(again(images)[name], output)


def test_a_loaded_model_gives_identical_outputs_in_evaluation_mode(saved: tuple[Path, MultiTaskNet]) -> None:
    folder, network = saved
    images = torch.randn(3, 2, 8, 8)
    loaded = load(folder)
    assert not loaded.training
    for name, output in network(images).items():
        assert torch.equal(loaded(images)[name], output)
    assert loaded.removable == network.removable


def test_the_weights_may_be_read_by_whom_the_description_may(saved: tuple[Path, MultiTaskNet]) -> None:
    modes = [(saved[0] / name).stat().st_mode for name in ("model.json", "model.safetensors")]
    assert modes[0] == modes[1]


def test_the_package_offers_load_and_takes_a_string(saved: tuple[Path, MultiTaskNet]) -> None:
    assert isinstance(ms_automl.load(str(saved[0])), MultiTaskNet)


def test_a_model_in_channels_last_memory_is_saved_whole(saved: tuple[Path, MultiTaskNet]) -> None:
    folder, network = saved
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    heads = {"depth": HeadSpec(1, True), "kind": HeadSpec(3, False)}
    args = {"width": 4, "hidden": 4}
    save_model(network, folder, Architecture("small_resnet", args, (2, 8, 8), heads))
    found = load(folder).state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def tied(image_shape: tuple[int, int, int], heads: dict[str, HeadSpec]) -> MultiTaskNet:
    trunk = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False))
    trunk[1].weight = trunk[0].weight
    return MultiTaskNet(trunk, {name: nn.Conv2d(2, spec.channels, 1) for name, spec in heads.items()})


def test_a_model_whose_layers_share_weights_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ms_automl.models.NETWORKS, "tied", tied)
    heads = {"depth": HeadSpec(1, True)}
    network = tied((2, 8, 8), heads)
    save_model(network, tmp_path, Architecture("tied", {}, (2, 8, 8), heads))
    images = torch.randn(1, 2, 8, 8)
    assert torch.equal(load(tmp_path)(images)["depth"], network(images)["depth"])


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no model\.json: give a folder"):
        load(tmp_path)


def test_missing_cut_off_or_foreign_weights_are_refused(saved: tuple[Path, MultiTaskNet]) -> None:
    folder, _ = saved
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for size in (0, 9, len(content) - 4):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="the weights do not fit or are damaged"):
            load(folder)
    path.unlink()
    with pytest.raises(DataError, match="the weights do not fit or are damaged"):
        load(folder)


def test_weights_of_another_width_are_refused(saved: tuple[Path, MultiTaskNet]) -> None:
    folder, _ = saved
    architecture = json.loads((folder / "model.json").read_text())
    architecture["args"]["width"] = 8
    (folder / "model.json").write_text(json.dumps(architecture))
    with pytest.raises(DataError, match="the weights do not fit or are damaged"):
        load(folder)


@pytest.mark.parametrize("number", [None, 0, 2, "1"])
def test_another_format_is_refused(saved: tuple[Path, MultiTaskNet], number: object) -> None:
    folder, _ = saved
    architecture = json.loads((folder / "model.json").read_text()) | {"format": number}
    (folder / "model.json").write_text(json.dumps(architecture))
    with pytest.raises(DataError, match=f"format {number}, this version reads 1"):
        load(folder)


@pytest.mark.parametrize(
    "text", ["", '{"format": 1', "[]", "3", '{"format": 1}', '{"format": 1, "image_shape": 3}']
)
def test_a_damaged_description_is_refused(saved: tuple[Path, MultiTaskNet], text: str) -> None:
    folder, _ = saved
    (folder / "model.json").write_text(text)
    with pytest.raises(DataError, match=r"model\.json"):
        load(folder)


def test_an_unknown_factory_is_refused_with_the_known_ones(saved: tuple[Path, MultiTaskNet]) -> None:
    folder, _ = saved
    architecture = json.loads((folder / "model.json").read_text()) | {"factory": "small_resnt"}
    (folder / "model.json").write_text(json.dumps(architecture))
    with pytest.raises(
        ConfigError, match=r"unknown network\.factory 'small_resnt': did you mean 'small_resnet'\?"
    ):
        load(folder)
