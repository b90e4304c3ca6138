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


QUICK = ("--help", "--show-config", "--arms optna", "--set training.steps=0", "--set space=bogus", "--bogus")
HEAVY = ("torch", "torchvision", "ray", "mlflow", "optuna", "pandas", "matplotlib", "scipy")


@pytest.mark.parametrize("arguments", QUICK)
def test_what_needs_no_training_is_answered_before_anything_heavy_is_loaded(arguments: str) -> None:
    done = run(
        f"import sys; from ms_automl.search import main\n"
        f"try: main({arguments.split()!r})\n"
        "except SystemExit: pass\n"
        f"print('heavy:', *(name for name in {HEAVY} if name in sys.modules))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize("command", ["search", "transfer", "export", "report"])
def test_every_command_says_what_it_takes_before_anything_heavy_is_loaded(command: str) -> None:
    done = run(
        f"import sys; from ms_automl.{command} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('heavy:', *(name for name in {HEAVY} if name in sys.modules))"
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "heavy:"), done.stderr


def test_the_package_itself_loads_nothing_heavy() -> None:
    done = run(f"import sys, ms_automl; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_the_names_of_a_package_are_known_before_they_are_imported() -> None:
    done = run(
        "import ms_automl.training as t, ms_automl.meta as m; print({*t.__all__} <= {*dir(t)}, m.Objective)"
    )
    assert done.stdout == "True <class 'ms_automl.meta.objective.Objective'>\n", done.stderr
    assert "has no attribute 'Loop'" in run("import ms_automl.training; ms_automl.training.Loop").stderr


def test_every_module_of_the_analysis_can_be_imported_first() -> None:
    root = Path(__file__).parents[2]
    files = [file.relative_to(root).with_suffix("") for file in sorted((root / "analysis").rglob("*.py"))]
    modules = [".".join(file.parts).removesuffix(".__init__") for file in files]
    assert len(modules) > 30
    done = run(
        "import sys, importlib\n"
        f"for name in {modules}:\n"
        "    for loaded in [one for one in sys.modules if one.partition('.')[0] == 'analysis']:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)"
    )
    assert done.returncode == 0, done.stderr
