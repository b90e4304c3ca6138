"""`python -m ms_automl.export` as a user runs it, and what others can load of what it writes."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import ms_automl
from ms_automl.export import main
from tests.integration.command import ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.whole,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]


@pytest.fixture(scope="module")
def search(two_seeds):
    return two_seeds


def export(search, *options, **more):
    command = [sys.executable, "-m", "ms_automl.export", *map(str, options)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more
    return subprocess.run(command, cwd=search.folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def exported(search):
    done = export(search, "--comparison", "out", "--arm", "random", "--out", "small", "--rounds", "3")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return search.folder / "small", done.stdout


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(search, images):
    """Of the masked model that was selected."""
    best = min((row for row in search.record["rows"] if row["arm"] == "random"), key=lambda row: row["objective"])
    with torch.no_grad():
        return ms_automl.load(search.out / "best" / f"random-{best['seed']}")(images)


def test_every_selected_model_has_its_arithmetic_and_time_in_the_record(search):
    for row in search.record["rows"]:
        if row["arm"] == "dense":
            assert row["macs_ratio"] == 1
        else:
            assert 0 < row["macs_ratio"] < 1 and row["sparsity_param"] > 0
        assert row["latency_ratio"] > 0


def test_it_tells_what_was_gained(exported, search):
    folder, shown = exported
    figures = json.loads((folder / "figures.json").read_text())
    assert figures["size"]["compact"]["parameters"] < figures["size"]["masked"]["parameters"]
    for part in ("parameters", "times as fast as dense", "zeros that stayed"):
        assert part in shown
    assert figures["files"]["model.safetensors"] > 0 and figures["peak_memory"]["batch 32"]["compact"] > 0


def test_our_own_form_comes_back_compact(exported, images, expected):
    network = ms_automl.load(exported[0])
    figures = json.loads((exported[0] / "figures.json").read_text())
    assert sum(p.numel() for p in network.parameters()) == figures["size"]["compact"]["parameters"]
    with torch.no_grad():
        found = network(images)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


CLEAN = """
import sys, numpy
images = numpy.load("images.npy")
BODY
numpy.savez("answer.npz", **outputs)
imported = FORBIDDEN & set(sys.modules)
assert not imported, imported
"""
FORMS = {
    "torch.export": (
        "import torch\n"
        "program = torch.export.load('small/model.pt2').module()\n"
        "outputs = {name: value.detach().numpy() for name, value in program(torch.tensor(images)).items()}",
        {"ray", "mlflow", "ms_automl"},
    ),
    "onnxruntime": (
        "import onnxruntime\n"
        "session = onnxruntime.InferenceSession('small/model.onnx')\n"
        "names = [output.name for output in session.get_outputs()]\n"
        "outputs = dict(zip(names, session.run(None, {'images': images})))",
        {"torch", "ray", "mlflow", "ms_automl"},
    ),
    "MLflow": (
        "import mlflow\noutputs = mlflow.pyfunc.load_model('small/mlflow').predict({'images': images})",
        {"torch", "ray", "ms_automl"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_clean_process_loads_it_without_this_project(exported, images, expected, form):
    folder = exported[0].parent
    np.save(folder / "images.npy", images.numpy())
    body, forbidden = FORMS[form]
    script = CLEAN.replace("BODY", body).replace("FORBIDDEN", repr(forbidden))
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.load(folder / "answer.npz")
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-3, atol=1e-4)


def test_it_reads_the_comparison_from_mlflow_alone(search):
    run = search.record["mlflow"]["run_id"]
    store = f"sqlite:///{search.folder / 'mlflow.db'}"
    options = ("--comparison", run, "--arm", "meta", "--seed", "1", "--format", "safetensors", "--rounds", "2")
    done = export(search, *options, MLFLOW_TRACKING_URI=store)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (search.folder / "exported" / "meta-1").iterdir()} == {
        "model.safetensors", "model.json", "figures.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--comparison", "nowhere"], "neither a folder nor an MLflow run id"),
        (["--comparison", "out", "--arm", "optuna"], "unknown arm 'optuna'"),
        (
            ["--comparison", "out", "--seed", "7"],
            "no arm but dense with seed 7: the comparison has no valid result",
        ),
        (["--comparison", "out", "--format", "zip"], "unknown format 'zip'"),
        (["--comparison", "out", "--out", "out"], "out is not empty"),
        (["--comparison", "out", "--rounds", "1"], "--rounds"),
    ],
)
def test_bad_input_is_one_clear_line(search, options, said, monkeypatch, capsys):
    monkeypatch.chdir(search.folder)
    assert main(options) == 2
    shown = capsys.readouterr()
    assert said in shown.err and len(shown.err.splitlines()) == 1 and shown.out == ""


def test_single_weights_cannot_be_compacted_and_the_reason_is_told(search, tmp_path, capsys):
    record = search.record
    record["config"]["training"]["grouping"] = "weight"
    (tmp_path / "comparison.json").write_text(json.dumps(record))
    assert main(["--comparison", str(tmp_path)]) == 2
    assert "needs whole channels" in capsys.readouterr().err
