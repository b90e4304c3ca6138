"""Bad input: one clear line, exit status 2, and nothing left behind."""

import pytest
from mlflow import MlflowClient

from ms_automl.search import main

TINY = [
    *("--set", "data.args.train=32", "--set", "data.args.val=16", "--set", "data.args.test=16"),
    *("--set", "training.steps=2", "--set", "training.report_every=1"),
]

OWN = """
import torch
from ms_automl.data import MultiTaskData, TensorSplit
from ms_automl.tasks import classification

def data(shape=(8, 3, 16, 16), label=0):
    split = TensorSplit(torch.zeros(shape), {"digit": torch.full((8,), label)})
    return MultiTaskData("own", split, split, split, [classification("digit", 10)])

def flat(seed, data_dir):
    return data((8, 3, 16))

def wrong_labels(seed, data_dir):
    return data(label=10)

def late(seed, data_dir, split="val", faulty=0, what="digit", value=10):
    parts = {}
    for name in ("train", "val", "test"):
        images, digits = torch.randn(16, 3, 16, 16), torch.arange(16) % 10
        parts[name] = TensorSplit(images, {"digit": digits})
        if seed == faulty and name == split:
            (images if what == "images" else digits)[9] = float("nan") if value == "bad" else value
    return MultiTaskData("own", **parts, tasks=[classification("digit", 10)])

def nothing(seed, data_dir):
    return None

def broken(seed, data_dir):
    raise FileNotFoundError("no such file: labels.csv")

def bare(image_shape, heads):
    return torch.nn.Linear(1, 1)

value = 5
"""


pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def folder(tmp_path, tmp_path_factory, monkeypatch):
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "torn_module.py").write_text("def data(:\n")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "comparison.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    store = tmp_path_factory.getbasetemp() / "bad-input.db"  # one for all: making one takes seconds
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    return tmp_path


BAD = {
    "--preset smok": ["unknown preset 'smok'", "smoke"],
    "--arms meta --set training.prox_metric=adam": [
        "λ is learned in the euclidean metric",
        "training.prox_metric=euclidean",
    ],
    "--arms meta --set meta.learner=forward --set training.grouping=coupled": [
        "do not overlap",
        "training.grouping=input_channel",
    ],
    "--arms meta --set meta.decay=1": ["meta: `0 <= decay < 1`", "decay=1"],
    "--arms meta --set meta.learner=wterfill": ["unknown meta.learner 'wterfill'", "did you mean 'waterfill'"],
    "--arms meta --set objective.kind=target --set meta.learner=forward": ["is target: take waterfill"],
    "--arms optna": ["unknown arm 'optna'", "did you mean 'optuna'"],
    "--arms meta,,optuna": ["unknown arm ''", "Known:"],
    "--arms dense": ["besides dense"],
    "--arms meta,meta": ["once", "meta, meta"],
    "--set space=per_pixel": ["unknown space 'per_pixel'", "per_layer"],
    "--set training.stepps=3": ["unknown key 'training.stepps'", "training.steps"],
    "--set training.lr=-1": ["training:", "`lr > 0`", "lr=-1"],
    "--set training.report_every=99": ["`report_every <= steps`"],
    "--set training.batch_size=999": ["training.batch_size", "32 samples", "999"],
    "--set training.batch_size=20": ["training.batch_size", "val", "16 samples"],
    "--set garbage": ["key=value", "garbage"],
    "--set budget.trials=1 --arms meta": ["budget.trials=1", "'meta'", "--set budget.trials=2"],
    "--set budget.trials=2 --arms meta-search": ["'meta-search'", "--set budget.trials=3"],
    "--seeds 0": ["seeds", "0"],
    "--seeds many": ["--seeds", "'many'", "--help"],
    "--slots 0": ["slots >= 1", "slots=0"],
    "--slots 1.5": ["--slots", "'1.5'"],
    "--no-such-option": ["--no-such-option", "--help"],
    "--out file": ["--out file", "cannot be written"],
    "--out file/below": ["--out file/below", "cannot be written"],
    "--out done": ["--out done", "holds a comparison already"],
    "--data-dir nowhere": ["--data-dir nowhere", "no folder"],
    "--set data.factory=room": ["unknown data.factory 'room'", "rooms", "pkg.module:function"],
    "--set data.args.train=many": ["data.factory 'rooms'", "train='many'"],
    "--set data.args.trian=9": ["data.factory 'rooms'", "trian"],
    "--set data.args.train=0": ["`train >= 1`"],
    "--set data.factory=no_such_module:data": ["cannot import 'no_such_module'", "PYTHONPATH"],
    "--set data.factory=torn_module:data": ["cannot import 'torn_module'", "SyntaxError"],
    "--set data.factory=:data": ["cannot import ''"],
    "--set data.factory=own_parts:missing --set data.args={}": ["own_parts has no function missing"],
    "--set data.factory=own_parts:value --set data.args={}": ["own_parts has no function value"],
    "--set data.factory=own_parts:flat --set data.args={}": [
        "train: images must be [N, channels, H, W]",
        "(2, 3, 16)",
    ],
    "--set data.factory=own_parts:wrong_labels --set data.args={}": ["train, task 'digit'", "expected 0 to 9"],
    **{
        f"--set data.factory=own_parts:late --set data.args={{}} --set data.args.split={split}": [
            f"{split}, task 'digit'",
            "10 to 10 found, expected 0 to 9, first in sample 9",
        ]
        for split in ("train", "val", "test")
    },
    "--set data.factory=own_parts:late --set data.args={} --set data.args.what=images --set data.args.value=bad": [
        "val: images hold NaN or infinite values, first in sample 9",
    ],
    "--seeds 2 --set data.factory=own_parts:late --set data.args={} --set data.args.faulty=1": [
        "seed 1: val, task 'digit'",
        "first in sample 9",
    ],
    "--set data.factory=own_parts:nothing --set data.args={}": ["MultiTaskData", "NoneType"],
    "--set data.factory=own_parts:broken --set data.args={}": ["FileNotFoundError", "labels.csv"],
    "--set network.factory=own_parts:bare --set network.args={}": ["MultiTaskNet", "Linear"],
    "--set network.args.width=5": ["width", "5"],
}


def found_in(folder):
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_ends_with_status_2_and_one_line(arguments, capsys, folder):
    before = found_in(folder)
    # --set takes one value and arguments here hold no spaces but those between them.
    assert main(["--preset", "smoke", *TINY, *arguments.split(" ")]) == 2
    assert found_in(folder) == before
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    for word in BAD[arguments]:
        assert word in error


def test_a_faulty_sample_ends_the_command_before_anything_trains(capsys, folder):
    late = ["--set", "data.factory=own_parts:late", "--set", "data.args={}"]
    assert main(["--preset", "smoke", *TINY, *late, "--out", "late"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: val, task 'digit': class numbers 10 to 10 found")
    assert "looking" not in shown.out and "dense" in shown.out
    assert not (folder / "late").exists()


def test_bad_input_leaves_no_run_behind(folder, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["--preset", "smoke", *TINY, "--set", "budget.trials=1"]) == 2
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    assert client.search_runs([e.experiment_id for e in client.search_experiments()]) == []


def test_a_tracking_server_that_does_not_answer_is_named_without_its_password(capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    assert main(["--preset", "smoke", *TINY]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "127.0.0.1:9" in error and "MLFLOW_TRACKING_URI" in error and "secret" not in error


def test_an_mlflow_database_that_is_none_is_refused(capsys, folder, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (folder / "mlflow.db").write_text("not a database " * 100)
    assert main(["--preset", "smoke", *TINY]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "mlflow.db" in error


def test_debug_adds_the_traceback(capsys):
    assert main(["--preset", "smok", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_nobody_foresaw_is_one_line_too(capsys, monkeypatch):
    monkeypatch.setattr("ms_automl.driver.compare.run_comparison", lambda *_, **__: 1 / 0)
    assert main(["--preset", "smoke"]) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error and "--debug" in error and error.count("\n") == 1


def test_show_config_prints_what_a_preset_file_holds(capsys):
    import yaml

    from ms_automl.config import load_config, parse

    assert main(["--preset", "smoke", "--set", "seeds=3", "--show-config"]) == 0
    assert parse(yaml.safe_load(capsys.readouterr().out)) == load_config("smoke", seeds=3)
