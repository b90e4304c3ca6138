"""Files of people one does not know: nothing in them is run, and nothing outside their folder is read."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ms_automl import load as load_model
from ms_automl.data.cache import cache_file, cached
from ms_automl.data.nyuv2 import nyuv2
from ms_automl.data.prepare import prepare
from ms_automl.data.prepared import Prepared
from ms_automl.errors import DataError, MsAutomlError
from ms_automl.models.archive import Architecture, save_model
from ms_automl.models.factories import build_network
from ms_automl.storage.files import checksum
from ms_automl.storage.tensors import load as load_state
from ms_automl.storage.tensors import save as save_state
from ms_automl.tasks import HeadSpec
from tests.made_files import task_folders
from tests.unit.test_prepared import Numbers


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


@pytest.fixture
def trap(tmp_path: Path):
    """A file that is there once something was unpickled."""
    file = tmp_path / "unpickled"
    pickle.loads(pickle.dumps(Bomb(file)))  # noqa: S301 - ours
    assert file.exists(), "the bomb is none"
    file.unlink()
    yield file
    assert not file.exists(), "it was unpickled"


def bombs(file: Path) -> dict[str, bytes]:
    """By kind, what might be given as tensors."""
    saved = file.with_name("bomb")
    torch.save({"weight": Bomb(file)}, saved)
    return {"pickle": pickle.dumps(Bomb(file)), "torch": saved.read_bytes()}


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_state_that_is_a_pickle_is_damaged_and_not_run(kind: str, trap: Path, tmp_path: Path) -> None:
    save_state([torch.ones(2)], tmp_path, "state")
    file = tmp_path / "state.safetensors"
    file.write_bytes(bombs(trap)[kind])
    with pytest.raises(DataError, match="'state' is damaged"):
        load_state(tmp_path, "state")
    content = json.loads((tmp_path / "state.json").read_text()) | {"sha256": checksum(file)}
    (tmp_path / "state.json").write_text(json.dumps(content))  # whoever made it can count as well
    with pytest.raises(DataError, match="'state' is damaged"):
        load_state(tmp_path, "state")


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_model_that_is_a_pickle_is_damaged_and_not_run(kind: str, trap: Path, tmp_path: Path) -> None:
    heads = {"digit": HeadSpec(10, False)}
    args = {"width": 4, "hidden": 4}
    network = build_network("small_resnet", args, image_shape=(1, 16, 16), heads=heads)
    save_model(network, tmp_path / "model", Architecture("small_resnet", args, (1, 16, 16), heads))
    assert load_model(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(bombs(trap)[kind])
    with pytest.raises(DataError, match="the weights do not fit or are damaged"):
        load_model(tmp_path / "model")


def test_a_cache_that_holds_objects_is_made_again(trap: Path, tmp_path: Path) -> None:
    file = cache_file("numbers", 1, {}, tmp_path)
    np.savez(str(file), a=np.array([Bomb(trap)], dtype=object))
    made = cached("numbers", 1, {}, lambda: {"a": np.ones(2)}, tmp_path)
    assert made["a"].tolist() == [1, 1]


def test_a_prepared_folder_that_holds_objects_is_refused(trap: Path, tmp_path: Path) -> None:
    prepare(Numbers(size=3), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    entry = next(iter(manifest["parts"].values()))[0]["files"]["image"]
    file = tmp_path / "out" / entry["file"]
    np.save(file, np.array([Bomb(trap)] * 3, dtype=object))
    entry["bytes"] = file.stat().st_size
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="cannot be read"):
        Prepared(tmp_path / "out").fields("train")


def test_a_source_that_holds_objects_is_damaged(trap: Path, tmp_path: Path) -> None:
    folder = task_folders(tmp_path / "files", 6, 4)
    np.save(folder / "train" / "depth" / "3.npy", np.array([Bomb(trap)], dtype=object))
    with pytest.raises(MsAutomlError, match=r"depth/3\.npy"):
        nyuv2(0, folder, height=24, width=32)


@pytest.mark.parametrize("path", ["../secret.npy", "/secret.npy", "train/../../secret.npy", "link.npy"])
def test_a_manifest_cannot_name_files_outside_its_folder(path: str, tmp_path: Path) -> None:
    prepare(Numbers(size=3), tmp_path / "out")
    secret = tmp_path / "secret.npy"
    np.save(secret, np.ones(3))
    (tmp_path / "out" / "link.npy").symlink_to(secret)
    text = (tmp_path / "out" / "manifest.json").read_text()
    manifest = json.loads(text)
    entry = next(iter(manifest["parts"].values()))[0]["files"]["image"]
    named = str(tmp_path) + path if path.startswith("/") else path
    (tmp_path / "out" / "manifest.json").write_text(text.replace(entry["file"], named))
    with pytest.raises(DataError, match="which lies outside"):
        Prepared(tmp_path / "out")
