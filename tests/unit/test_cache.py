"""What is made once and kept: a damaged file is made again, and half a one never read."""

from pathlib import Path

import numpy as np
import pytest

from ms_automl.data.cache import cache_file, cache_folder, cached
from ms_automl.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MS_AUTOML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"a": np.arange(500), "b": np.full((2, 3), self.calls)}


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MS_AUTOML_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "ms_automl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "ms_automl"


def test_arrays_are_made_once_per_name_version_and_arguments(cache: Path) -> None:
    make = Maker()
    first = cached("x", 1, {"n": 1}, make)
    second = cached("x", 1, {"n": 1}, make)
    assert make.calls == 1
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[k], second[k]) for k in first)
    cached("x", 1, {"n": 2}, make)
    cached("x", 2, {"n": 1}, make)
    cached("y", 1, {"n": 1}, make)
    assert make.calls == 4
    assert sorted(path.suffix for path in cache.iterdir()) == [".npz"] * 4


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "another format", "pickle"])
def test_a_damaged_cache_file_is_made_again(damage: str) -> None:
    make = Maker()
    good = cached("x", 1, {}, make)
    path = cache_file("x", 1, {})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "pickle":
        np.savez(path, a=np.array([{}], dtype=object))
    else:
        whole = path.read_bytes()
        path.write_bytes(
            {
                "empty": b"",
                "truncated": whole[:-40],
                "flipped": bytes(content),
                "another format": b"\x93NUMPY",
            }[damage]
        )
    again = cached("x", 1, {}, make)
    assert make.calls == 2
    assert np.array_equal(again["a"], good["a"])
    cached("x", 1, {}, make)
    assert make.calls == 2


def test_a_failed_making_leaves_nothing_behind(cache: Path) -> None:
    def fail() -> dict[str, np.ndarray]:
        raise RuntimeError("out of paint")

    with pytest.raises(RuntimeError, match="out of paint"):
        cached("x", 1, {}, fail)
    assert list(cache.iterdir()) == []


def test_an_unwritable_folder_is_named_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    make = Maker()
    with pytest.raises(DataError, match=r"cannot write the cache folder .*set MS_AUTOML_CACHE") as caught:
        cached("x", 1, {}, make, tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)
    assert make.calls == 0
