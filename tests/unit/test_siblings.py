"""Our own packages are found whatever lies in the working folder, and what lies there stays the user's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("analysis", "search_spaces", "trainables")
MODULE = "OWNER = 'user'\ndef data(seed, data_dir):\n    from {name} import OWNER\n    return OWNER\n"


def module(folder, name):
    (folder / f"{name}.py").write_text(MODULE.format(name=name))


def package(folder, name):
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(f"from {name}.inner import OWNER, data\n")
    (folder / name / "inner.py").write_text(MODULE.format(name=name))


def bare_folder(folder, name):
    (folder / name).mkdir()
    (folder / name / "notes.txt").write_text("no package")


def script(folder, name):
    (folder / f"{name}.py").write_text("print('a script of the user')\nraise SystemExit(0)\n")


def run(folder, *command):
    """As in a user's folder: Python looks there first, and finds us further on."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


OURS = """
import sys
from ms_automl.environment.siblings import ROOT, ours
for again in range(2):
    with ours():
        import search_spaces.space as found
    assert found.__file__ == str(ROOT / "search_spaces" / "space.py"), found.__file__
    assert found is globals().setdefault("first", found), "loaded twice"
"""


@pytest.mark.parametrize("make", [module, package, bare_folder, script])
def test_ours_is_found_beside_what_is_called_the_same(tmp_path, make):
    make(tmp_path, "search_spaces")
    assert run(tmp_path, "-c", OURS) == (0, "", "")


@pytest.mark.parametrize("make", [module, package])
@pytest.mark.parametrize("when", ["before", "after", "before and after"])
def test_the_users_own_stays_his_whenever_he_loads_it(tmp_path, make, when):
    make(tmp_path, "search_spaces")
    his = "import search_spaces; assert search_spaces.OWNER == search_spaces.data(0, None) == 'user'\n"
    code = (his if "before" in when else "") + OURS + (his if "after" in when else "")
    assert run(tmp_path, "-c", code) == (0, "", "")


def test_without_another_of_that_name_there_is_one_module_and_not_two(tmp_path):
    code = OURS + "import search_spaces; assert search_spaces.space is found"
    assert run(tmp_path, "-c", code) == (0, "", "")


def test_commands_trials_and_the_report_are_made_of_ours_and_factories_of_the_users(tmp_path):
    for name in NAMES:
        module(tmp_path, name)
    # ms_automl.tuning.adapter is what the process of a trial imports.
    code = f"""
import ms_automl.report, ms_automl.samplers.arms, ms_automl.tuning.adapter
import ms_automl.driver.assembly
from ms_automl.data.factories import resolve
from ms_automl.comparison.registry import METHODS, SPACES
for one in (METHODS["dense"].build.step, SPACES["scalar"], ms_automl.report.write):
    assert one.__code__.co_filename.startswith({str(ROOT)!r}), one
for name in {NAMES}:
    assert resolve("data", name + ":data", {{}})(0, None) == "user", name
"""
    assert run(tmp_path, "-c", code) == (0, "", "")


def test_the_report_has_a_door_that_is_always_ours(tmp_path):
    script(tmp_path, "analysis")
    status, shown, error = run(tmp_path, "-m", "ms_automl.report", "--comparison", "nowhere")
    assert (status, shown) == (2, "") and "no such comparison: 'nowhere'" in error


@pytest.mark.parametrize("name", ["random.py", "queue.py", "re/__init__.py"])
def test_a_file_that_python_takes_for_its_own_is_named_in_a_line(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("VALUE = 1\n")
    status, shown, error = run(tmp_path, "-m", "ms_automl.search", "--preset", "smoke", "--plan")
    assert (status, shown) == (2, "") and error.count("\n") == 1
    assert error.startswith(f"error: {name.partition('/')[0]} in this folder") and "rename it" in error


def test_a_file_that_hides_what_nobody_needs_is_left_in_peace(tmp_path):
    (tmp_path / "antigravity.py").write_text("VALUE = 1\n")
    assert run(tmp_path, "-m", "ms_automl.search", "--show-config", "--preset", "smoke")[0] == 0
