"""docs/sparsifier.md as written: each of its scripts is put into a file and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.integration]
ROOT = Path(__file__).parents[2]
SCRIPTS = dict(
    re.findall(
        r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs" / "sparsifier.md").read_text("utf-8"), re.DOTALL
    )
)


def run(name, folder):
    (folder / name).write_text(SCRIPTS[name], encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, name], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_three_lines_in_a_training_script_end_with_a_small_model(tmp_path):
    before, after = re.search(r"(\d+) -> (\d+)$", run("train.py", tmp_path).strip()).groups()
    assert int(after) < 0.5 * int(before)


@pytest.mark.whole
@pytest.mark.parametrize("name", ["with_lightning.py", "with_transformers.py"])
def test_the_trainers_end_as_sparse_as_they_are_asked_to(name, tmp_path):
    assert 0.5 <= float(run(name, tmp_path).strip().splitlines()[-1]) < 0.6


def test_every_script_of_the_page_is_run():
    assert set(SCRIPTS) == {"train.py", "with_lightning.py", "with_transformers.py"}


@pytest.mark.whole
def test_the_notebook_runs_and_the_compact_model_is_as_good():
    """A MobileNetV3 of torchvision's on real digits, with fewer steps than the page has."""
    path = ROOT / "docs" / "mobilenet.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = notebook.cells[1].source.replace("STEPS, BATCH = 1500, 32", "STEPS, BATCH = 60, 16")
    assert "60, 16" in notebook.cells[1].source
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    )
    dense, small = (int(re.search(rf"{name} +([\d,]+) parameters", printed)[1].replace(",", "")) for name in NAMES)
    assert small < 0.75 * dense


def test_the_notebook_shows_what_it_has_computed():
    notebook = nbformat.read(ROOT / "docs" / "mobilenet.ipynb", as_version=4)
    assert all(cell.outputs for cell in notebook.cells[5:] if cell.cell_type == "code")


NAMES = ("dense", "compact")
