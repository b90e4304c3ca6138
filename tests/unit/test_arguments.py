"""What a program hands over is checked first: one line that names the argument, the value and what is wanted."""

import functools
import resource
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ms_automl import compare
from ms_automl.api import _own
from ms_automl.config import load_config
from ms_automl.data.factories import resolve
from ms_automl.environment import arguments
from ms_automl.errors import ConfigError
from ms_automl.export import export_selected
from ms_automl.transfer import transfer_selected
from ms_automl.tuning.hosts import check_sent
from ms_automl.tuning.session import _check_listens


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"arms": "meta"}, r"arms takes a list of names, but got 'meta': write \['meta'\]"),
        ({"arms": 3}, "arms takes a list of names, but got 3"),
        ({"arms": []}, "arms is empty: name one, or leave it out"),
        ({"arms": [1]}, r"arms takes a list of names, but got \[1\]"),
        ({"seeds": "2"}, "seeds takes a whole number, but got '2'"),
        ({"seeds": True}, "seeds takes a whole number, but got True"),
        ({"budget": 1.5}, r"budget takes a whole number, but got 1\.5"),
        ({"budget": 10**400}, r"budget takes a whole number, but got 1000+\.\.\."),
        ({"slots": 0}, "`slots 1` or more must hold, but got 0"),
        ({"out": ""}, "out: the path is empty: name one, or leave it out"),
        ({"out": 5}, "out takes a path, but got 5"),
        ({"out": "a\0b"}, "out takes a path, but got"),
        ({"out": "s3://bucket/x"}, "out takes a folder of this machine, but got 's3://bucket/x'"),
        ({"data_dir": []}, r"data_dir takes a path, but got \[\]"),
        ({"preset": ""}, "preset takes a text, but got ''"),
        ({"preset": 5}, "preset takes a text, but got 5"),
        ({"preset": "smok"}, "unknown preset 'smok': did you mean 'smoke'"),
        ({"config": "smoke"}, r"config takes values by name, \{'training.steps': 400\}, but got 'smoke'"),
        ({"settings": "training.steps=8"}, "settings takes values by name"),
        ({"settings": {3: 1}}, "settings takes values by name"),
        ({"address": 5}, "address takes a text, but got 5"),
        ({"storage": 5}, "storage takes a text, but got 5"),
        ({"data": 5}, "data: give a factory's name, a function or a MultiTaskData itself, but got int"),
    ],
)
def test_what_compare_cannot_take_is_one_line(given, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=problem) as caught:
        compare(**given)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"tasks": "edges"}, r"--task takes a list of names, but got 'edges': write \['edges'\]"),
        ({"modes": []}, "--modes is empty: name one, or leave it out"),
        ({"shots": 16}, "--shots takes a list of numbers, and 'all', but got 16"),
        ({"shots": "all"}, "--shots takes a list of numbers, and 'all', but got 'all'"),
        ({"shots": []}, "--shots takes a list of numbers"),
        ({"shots": ["some"]}, "--shots takes numbers of at least 2, and 'all', but got 'some'"),
        ({"shots": [1.5]}, r"--shots takes a whole number, but got 1\.5"),
        ({"draws": 0}, "`--draws 1` or more must hold, but got 0"),
        ({"steps": "8"}, "--steps takes a whole number, but got '8'"),
        ({"data_dir": "nowhere"}, "--data-dir nowhere is no folder: name the one that the data lies in"),
    ],
)
def test_nor_what_the_transfer_stage_cannot_take(given, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=problem):
        transfer_selected("anything", **given)
    assert not list(tmp_path.iterdir())


def test_nor_an_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--format takes a list of names, but got 'onnx'"):
        export_selected("anything", formats="onnx")
    with pytest.raises(ConfigError, match="--data-dir nowhere is no folder"):
        export_selected("anything", data_dir="nowhere")


def test_numbers_of_numpy_and_paths_are_as_good(tmp_path):
    assert arguments.whole("seeds", np.int64(3)) == 3 and arguments.path("out", tmp_path) == tmp_path
    assert arguments.text("storage", tmp_path) == str(tmp_path) and arguments.path("out", "~") == Path.home()
    assert arguments.names("arms", ("meta", "optuna")) == ["meta", "optuna"]


def test_what_is_not_found_by_its_name_is_named_by_what_it_is_for():
    def local(seed, data_dir):
        """Is found by no import."""

    values, given = {}, {"data": lambda seed, data_dir: 1, "network": lambda image_shape, heads: 2}
    own = _own(values, given)
    assert {name: own[name] for name in own} == {
        values["data"]["factory"]: given["data"],
        values["network"]["factory"]: given["network"],
    }
    partials = {"data": functools.partial(local, 1), "network": functools.partial(local, 2)}
    assert len(_own({}, partials)) == 2
    assert list(_own({}, {"data": load_config})) == ["ms_automl.config:load_config"]


def test_what_cannot_be_sent_to_trials_is_named():
    lock = threading.Lock()
    check_sent({"object:data:f": lambda: 1})
    with pytest.raises(ConfigError, match=r"'object:data:f' cannot be sent to the processes of trials \(.*lock"):
        check_sent({"object:data:f": lambda: lock})


def test_what_is_sent_is_looked_at_without_a_copy_of_its_numbers():
    tensor, array = torch.zeros(10**8, dtype=torch.uint8), np.zeros(10**8, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check_sent({"object:data:f": lambda: (tensor, array)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_an_address_where_nobody_listens_is_refused_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        _check_listens(f"127.0.0.1:{port}")
    for address in (f"127.0.0.1:{port}", "nowhere.invalid:6379"):
        with pytest.raises(ConfigError, match=f"no Ray cluster at '{address}': .*; start one"):
            _check_listens(address)
    for address in ("auto", "local", "ray://127.0.0.1:1"):
        _check_listens(address)


@pytest.mark.parametrize("section", ["data", "network"])
def test_a_factory_that_is_named_on_the_command_line_gets_none_of_the_presets_arguments(section):
    own = f"{section}.factory=mine:f"
    preset = load_config("smoke").to_dict()[section]
    assert preset["args"]
    assert load_config("smoke", settings=[own]).to_dict()[section]["args"] == {}
    for settings in ([own, f"{section}.args.n=2"], [f"{section}.args.n=2", own]):
        assert load_config("smoke", settings=settings).to_dict()[section]["args"] == {"n": 2}
    same = f"{section}.factory={preset['factory']}"
    assert load_config("smoke", settings=[same]).to_dict()[section]["args"] == preset["args"]


def test_a_function_of_a_script_is_not_looked_for_in_the_command():
    with pytest.raises(ConfigError, match="is a function of the script that made the comparison: do this in that"):
        resolve("data", "__main__:no_such_function", {})
