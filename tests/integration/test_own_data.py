"""docs/own_data.md as written: its code is put into files, its command is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.whole]
ROOT = Path(__file__).parents[2]
TINY = "--arms meta --set training.steps=6 --set training.report_every=3 --set resources.onnx=false"


def test_the_example_in_the_documentation_runs_as_written(tmp_path):
    text = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
        with (tmp_path / name).open("a", encoding="utf-8") as file:
            file.write(code)
    (command,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)

    def run(line):
        line = line.replace("python ", f"{sys.executable} ", 1)
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shown = run(f"{command.strip()} {TINY}")
    assert "failed" not in shown
    datasets = re.search(r"^    (python .*digits:data.*)$", text, re.MULTILINE)
    assert datasets is not None
    shown = run(f"{datasets[1].replace('count: 2000', 'count: 400')} {TINY} --seeds 1 --out comparisons/digits")
    assert "failed" not in shown and "λ" in shown
    assert run("python use.py") == "{'position': (1, 2), 'large': (1, 1)}\n"
