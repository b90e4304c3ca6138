"""Data in files are looked at once, as long as neither they nor their readers change."""

import json
from dataclasses import replace
from threading import Thread

import pytest

from ms_automl.data import inspect, nyuv2
from ms_automl.data.cache import cache_folder
from ms_automl.data.inspection import look
from ms_automl.data.memo import fingerprint
from ms_automl.data.nyuv2 import source
from ms_automl.data.prepare import prepare
from ms_automl.errors import DataError
from tests.made_files import task_folders
from tests.unit.made_data import data_of, good


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
