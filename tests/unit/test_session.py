"""Ray's start: what it is told, and what is said where it does not."""

import os
from contextlib import ExitStack

import pytest
import ray
from ray._private import worker
from ray._private.runtime_env import uv_runtime_env_hook

from ms_automl.environment.process import unless_set
from ms_automl.errors import ConfigError
from ms_automl.tuning import session

UV = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"


@pytest.fixture
def started(monkeypatch):
    """What Ray would have its processes run in, had we been started by ``uv run``."""
    monkeypatch.setattr(uv_runtime_env_hook, "_get_uv_run_cmdline", lambda: ["uv", "run", "python"])
    monkeypatch.setattr(uv_runtime_env_hook, "hook", lambda env: {"py_executable": "uv run"})
    seen = []

    def init(*arguments, **options):
        seen.append(worker._maybe_modify_runtime_env({}, False))

    monkeypatch.setattr(ray, "init", init)
    return seen


def test_under_uv_run_trials_run_in_the_environment_of_the_command(started, monkeypatch):
    monkeypatch.delenv(UV, raising=False)
    with ExitStack() as stack:
        session._start(stack, 1)
    assert started == [{}] and worker._maybe_modify_runtime_env({}, False) == {"py_executable": "uv run"}


def test_who_wants_uvs_own_environments_gets_them(started, monkeypatch):
    monkeypatch.setenv(UV, "1")
    with ExitStack() as stack:
        session._start(stack, 1)
    assert started == [{"py_executable": "uv run"}]


def failing(error):
    def init(*arguments, **options):
        raise error

    return init


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /x"),
            "RAY_TMPDIR or",
        ),
        (PermissionError(13, "Permission denied", "/long/ray"), "set RAY_TMPDIR or TMPDIR, here /long,"),
        (OSError(28, "No space left on device", "/long/ray/session"), "set RAY_TMPDIR or TMPDIR, here /long,"),
        (PermissionError(13, "Permission denied", "/users/me/.ray"), "set HOME, here /users/me,"),
        (RuntimeError("Could not determine home directory."), "set HOME to a folder"),
        (RuntimeError("something\nelse"), "something else"),
    ],
)
def test_why_ray_does_not_start_is_one_line_with_what_to_set(error, said, monkeypatch):
    monkeypatch.setattr(ray, "init", failing(error))
    monkeypatch.setenv("TMPDIR", "/long")
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("HOME", "/users/me")
    with pytest.raises(ConfigError, match="Ray does not start on this machine") as caught, ExitStack() as stack:
        session._start(stack, 1)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_rays_own_variable_is_named_where_it_is_set(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    assert session._why_not_started(FileNotFoundError(2, "No such file", "/nowhere/ray")).count("/nowhere") == 2


@pytest.mark.parametrize("letters", ["x" * 120, "é" * 30])
def test_a_folder_too_long_for_sockets_is_named_before_anything_starts(letters, tmp_path, monkeypatch):
    folder = tmp_path / letters
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with pytest.raises(ConfigError, match="too long a path for the sockets"), ExitStack() as stack:
        session._start(stack, 1)
    assert not ray.is_initialized()


def test_variables_are_those_of_before_afterwards(monkeypatch):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "7")
    with unless_set(session._QUIET):
        assert os.environ["TUNE_GLOBAL_CHECKPOINT_S"] == "7" and os.environ["RAY_AIR_NEW_OUTPUT"] == "0"
    assert os.environ["TUNE_GLOBAL_CHECKPOINT_S"] == "7" and "RAY_AIR_NEW_OUTPUT" not in os.environ
