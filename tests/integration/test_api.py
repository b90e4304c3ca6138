"""``ms_automl.compare`` in a script and in a notebook, as docs/python.md has it."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.integration.command import ROOT, Ended
from tests.integration.test_python import CODE, run

pytestmark = [pytest.mark.integration, pytest.mark.whole]
FIRST, SECOND, OWN = (code for code in CODE if "ms_automl.compare" in code)

SCRIPT = """
import mlflow
mlflow.set_tracking_uri("sqlite:///own.db")
mlflow.set_experiment("own")
IMPORT
with mlflow.start_run() as mine:
CODE
    mlflow.log_metric("mine", 1.0)
print(mlflow.active_run(), mlflow.get_run(mine.info.run_id).data.metrics)
assert set(result.table["arm"]) == {"meta", "random", "dense"}
assert len(result.rows) == 3 and len(result.trials) >= 4 and set(result.curves["arm"]) <= {"meta", "random"}
assert str(result.verdict).startswith("One seed claims nothing") and len(result.verdict.pairs) == 1
images = torch.rand(2, 3, 16, 16)
trained = result.best("meta")
assert not trained.training and trained(images)["warm"].shape == (2, 1)
assert result.report.is_file()
again = ms_automl.compare(out="second", resume=True, budget=3, data=blobs, network=network, progress=False)
assert len(again.trials) == len(result.trials) + 1
for key, value in (("training.steps", 13), ("network.args", {"kind": 2}), ("budget.trials", 1)):
    try:
        ms_automl.compare(out="second", resume=True, settings={key: value}, data=blobs, network=network)
    except ms_automl.errors.ConfigError as error:
        print("kept:", error)
try:
    result.best("optuna")
except ms_automl.errors.ConfigError as error:
    print(error)
data = blobs(7, None)
same = ms_automl.compare(
    "smoke", data=data, network=network(data.image_shape, {"warm": data.tasks[0].head}), arms=["fixed"],
    out="third", progress=False,
    settings={"training.steps": 12, "training.report_every": 4, "resources.onnx": False},
)
print(same)
WRONG = ({"data": 5}, {"config": {}, "preset": "smoke"}, {"resume": True}, {"arms": ["optna"]}, {"budget": 0})
for wrong in WRONG:
    try:
        ms_automl.compare(**{"out": "wrong", **wrong})
    except ms_automl.errors.MsAutomlError as error:
        print("refused:", error)
"""
STOPPED = """
import os, signal, threading, time
from pathlib import Path
import ms_automl

SETTINGS = {"training.steps": 100, "training.report_every": 2, "data.args.train": 64, "resources.onnx": False}


def interrupt():
    while not Path("out/events.jsonl").exists() or '"kind": "train"' not in Path("out/events.jsonl").read_text():
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=interrupt, daemon=True).start()
try:
    ms_automl.compare("smoke", arms=["fixed"], settings=SETTINGS, out="out", progress=False)
except KeyboardInterrupt as error:
    print("stopped:", error)
import mlflow
client = mlflow.MlflowClient("sqlite:///mlflow.db")
runs = client.search_runs([client.get_experiment_by_name("ms_automl").experiment_id])
print(sorted({run.info.status for run in runs}))
print(ms_automl.compare(out="out", resume=True, progress=False).rows["status"].tolist())
"""


def indented(code):
    return "\n".join(f"    {line}" for line in code.splitlines())


def test_a_script_without_a_guard_with_functions_and_objects_of_its_own_inside_of_its_own_mlflow_run(tmp_path):
    shown = run(
        SCRIPT.replace("IMPORT", "import torch\nimport ms_automl").replace("CODE", indented(OWN)), tmp_path
    )
    assert "None {'mine': 1.0}" in shown
    assert "unknown arm 'optuna'" in shown
    kept = re.findall(r"^kept: (.*)$", shown, re.MULTILINE)
    assert len(kept) == 3 and all("resume" in line for line in kept) and "training.steps was 12" in kept[0]
    refused = re.findall(r"^refused: (.*)$", shown, re.MULTILINE)
    for words, line in zip(
        (
            "give a factory's name",
            "not both",
            "no comparison.json in wrong",
            "did you mean 'optuna'",
            "budget.trials",
        ),
        refused,
        strict=True,
    ):
        assert words in line
    ended = Ended(tmp_path)
    ended.out = tmp_path / "second"
    assert {row["status"] for row in ended.record["rows"]} <= {"ok", "partial"}
    assert ended.record["config"]["data"] == {"factory": "__main__:blobs", "args": {}}


def test_an_interrupt_closes_the_records_and_the_same_process_goes_on(tmp_path):
    shown = run(STOPPED, tmp_path).splitlines()
    assert shown[-3].startswith("stopped: stopped; what has ended is kept: resume=True goes on with out='out'")
    assert shown[-2] == "['KILLED']"
    assert shown[-1] == "['ok', 'ok']"


def test_a_notebook_runs_it_twice_and_shows_the_result(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    small = 'settings={"training.steps": 8, "training.report_every": 4, "resources.onnx": False}'
    cells = [FIRST.replace('out="first"', f'out="first", {small}'), SECOND, f"import ms_automl\n{OWN}", "result"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (output,) = notebook.cells[-1].outputs
    html = output["data"]["text/html"]
    assert "<table" in html and "One seed claims nothing" in html and "second/report/index.html" in html
    assert (tmp_path / "first" / "report" / "index.html").is_file()
