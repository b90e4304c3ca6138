"""What a host is asked before anything trains, and the code it is sent."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ms_automl.config import load_config
from ms_automl.storage.remote import Storage
from ms_automl.tuning.hosts import PACKAGES, code_for_hosts, needs_of


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "images.npy").touch()
    return folder


@pytest.fixture
def needs(tmp_path, data):
    settings = ["data.factory=mine:data", "network.factory=mine:network"]
    config = load_config("smoke", settings=settings)
    with Storage(str(tmp_path / "models")).marked() as marker:
        yield needs_of(config, data, marker, "the models")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_a_host_with_everything_lacks_nothing(needs, mine):
    assert needs.modules == ("mine", "mine") and needs.missing() is None


def test_a_host_that_does_not_see_the_models_says_so(needs, mine):
    Path(needs.marker).unlink()
    assert needs.missing() == "does not see the models"


def test_a_host_without_the_data_says_so(needs, data, mine):
    (data / "images.npy").unlink()
    assert needs.missing() == f"has other files in it: --data-dir {data} must hold the same on every host"
    data.rmdir()
    assert needs.missing() == f"has no such folder: --data-dir {data} must hold the same on every host"


def test_a_host_with_another_torch_says_so(needs, mine):
    other = replace(needs, versions=needs.versions | {"torch": "1.0"})
    assert f"has torch {needs.versions['torch']}, and the driver 1.0" in other.missing()


def test_a_host_without_the_own_factory_says_so(needs):
    other = replace(needs, modules=("no_such_module",))
    assert "cannot import no_such_module (ModuleNotFoundError" in other.missing()


def test_what_is_sent_is_the_project_and_own_modules_but_nothing_that_is_installed(mine):
    with code_for_hosts(["mine", "numpy", "json"]) as sent:
        folder = Path(sent["working_dir"])
        assert {path.name for path in folder.iterdir()} == {*PACKAGES, "mine.py"}
        assert (folder / "ms_automl" / "presets" / "smoke.yaml").exists()
        assert not list(folder.rglob("__pycache__"))
    assert not folder.exists()
