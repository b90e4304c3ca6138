import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ms_automl.errors import DataError
from ms_automl.storage.tensors import load, save

TREE: dict[str, Any] = {
    "weights": torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last),
    "double": torch.tensor([1 / 3], dtype=torch.float64),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "random": torch.get_rng_state(),
    "nothing": torch.empty(0, dtype=torch.int64),
    "optimizer": {0: {"step": 3.0}, 1: {"step": 1 / 3}},
    "list": [1, 2.5, "three", True, None, [], {}],
    "limits": [math.inf, -math.inf, 5e-324],
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_tree_comes_back_with_every_bit_type_and_key(tmp_path: Path) -> None:
    save(TREE, tmp_path / "new" / "folder", "state")
    assert same(load(tmp_path / "new" / "folder", "state"), TREE)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "state.json",
        "state.safetensors",
    ]


@pytest.mark.parametrize("tree", [torch.ones(2), 3, [], {}, {"a": None}, [torch.ones(1), torch.zeros(1)]])
def test_any_node_may_be_the_root(tmp_path: Path, tree: Any) -> None:
    save(tree, tmp_path, "state")
    assert same(load(tmp_path, "state"), tree)


def test_keys_that_read_alike_do_not_mix_up_their_tensors(tmp_path: Path) -> None:
    tree = {"a": {"b": torch.zeros(1)}, "a/b": torch.ones(1), 1: torch.full((1,), 2.0), "1": torch.full((1,), 3.0)}
    save(tree, tmp_path, "state")
    assert same(load(tmp_path, "state"), tree)


def test_tensors_that_share_memory_come_back_as_two(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    save({"whole": base, "part": base[2:4], "again": base}, tmp_path, "state")
    found = load(tmp_path, "state")
    found["whole"].zero_()
    assert found["part"].tolist() == [2, 3]
    assert found["again"].tolist() == base.tolist()


def test_tuples_come_back_as_lists(tmp_path: Path) -> None:
    save({"betas": (0.9, 0.99)}, tmp_path, "state")
    assert load(tmp_path, "state") == {"betas": [0.9, 0.99]}


def test_saving_again_replaces_what_was_there_and_two_names_live_side_by_side(tmp_path: Path) -> None:
    save([torch.ones(3)], tmp_path, "state")
    save([torch.zeros(2)], tmp_path, "state")
    save(["other"], tmp_path, "other")
    assert same(load(tmp_path, "state"), [torch.zeros(2)])
    assert load(tmp_path, "other") == ["other"]


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save(TREE, tmp_path, "state")
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"holds no 'state': {name} is missing"):
        load(tmp_path, "state")


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("size", [0, 7, -5])
def test_a_file_cut_off_is_called_damaged(tmp_path: Path, name: str, size: int) -> None:
    save(TREE, tmp_path, "state")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match="'state' is damaged"):
        load(tmp_path, "state")


def test_a_single_bit_that_fell_over_is_damage(tmp_path: Path) -> None:
    save(TREE, tmp_path, "state")
    path = tmp_path / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'state' is damaged and cannot be read .*SHA-256"):
        load(tmp_path, "state")


def test_tensors_of_another_save_do_not_pass_for_this_one(tmp_path: Path) -> None:
    save([torch.ones(3)], tmp_path / "a", "state")
    save([torch.zeros(3)], tmp_path / "b", "state")
    (tmp_path / "a" / "state.safetensors").replace(tmp_path / "b" / "state.safetensors")
    with pytest.raises(DataError, match="damaged"):
        load(tmp_path / "b", "state")


def test_what_is_no_tree_is_called_damaged(tmp_path: Path) -> None:
    save({}, tmp_path, "state")
    digest = json.loads((tmp_path / "state.json").read_text())["sha256"]
    for tree in ({}, [], 1, {"tensor": "a"}, {"dict": [["a"]]}):
        (tmp_path / "state.json").write_text(json.dumps({"sha256": digest, "tree": tree}))
        with pytest.raises(DataError, match="'state' is damaged"):
            load(tmp_path, "state")
