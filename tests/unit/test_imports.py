import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

RIM = ("ray", "mlflow", "optuna", "pydantic", "pandas")
CORE = (
    "ms_automl", "ms_automl.data", "ms_automl.data.factories", "ms_automl.errors", "ms_automl.meta",
    "ms_automl.meta.hypergradients", "ms_automl.meta.learners", "ms_automl.models", "ms_automl.models.archive",
    "ms_automl.models.factories", "ms_automl.sparsity", "ms_automl.storage.files", "ms_automl.storage.tensors",
    "ms_automl.tasks", "ms_automl.training", "search_spaces", "trainables",
)  # fmt: skip


def run(code: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)


def test_core_trainables_and_search_spaces_import_without_the_rims_libraries() -> None:
    blocked = f"import sys; [sys.modules.__setitem__(name, None) for name in {RIM}]"
    done = run(f"{blocked}; import {', '.join(CORE)}; ms_automl.load")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["ray", "pydantic"])
def test_a_blocked_library_cannot_be_imported_at_all(name: str) -> None:
    done = run(f"import sys; sys.modules['{name}'] = None; import {name}")
    assert "ModuleNotFoundError" in done.stderr


def test_all_four_packages_lie_in_one_folder() -> None:
    parents = set()
    for name in ("ms_automl", "search_spaces", "trainables", "analysis"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        parents.add(Path(spec.origin).resolve().parents[1])
    assert parents == {Path(__file__).resolve().parents[2]}
