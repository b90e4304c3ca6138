"""docs/python.md as written: its code is run."""

import os
import re
import subprocess
import sys

import pytest

from tests.integration.command import ROOT, heed_ctrl_c

pytestmark = [pytest.mark.integration, pytest.mark.whole]
CODE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
RUN = """
import sys
from pathlib import Path
from ms_automl.config import load_config
from ms_automl.driver.compare import run_comparison
from ms_automl.api import write_report

small = ["data.args.train=64", "data.args.val=32", "data.args.test=32", "training.steps=8", "budget.trials=3"]
small += ["training.report_every=4", "resources.onnx=false"]
config = load_config("smoke", arms=["doubling", "meta", "fixed"], settings=small)
ended = run_comparison(config, Path("out"), report=write_report, slots=2)
sys.exit(0 if ended.valid and not ended.lacks else 1)
"""


def run(code, folder):
    (folder / "example.py").write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "example.py"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, preexec_fn=heed_ctrl_c
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_searcher_works_in_somebodys_own_tuner_with_their_own_trainable(tmp_path):
    (code,) = [code for code in CODE if "MetaSparsitySearcher" in code]
    last = run(code, tmp_path).strip().splitlines()[-1]
    assert re.fullmatch(r"(meta_sparsity|fixed_lambda) J \d\.\d{3}, \d+% zeros", last), last


def test_an_arm_of_ones_own_is_one_entry_and_comes_to_the_report_in_its_place(tmp_path):
    (code,) = [code for code in CODE if 'ARMS["doubling"]' in code]
    run(code + RUN, tmp_path)
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    legend = (tmp_path / "out" / "report").glob("*.svg")
    assert "doubling" in page and any("doubling" in file.read_text(encoding="utf-8") for file in legend)
