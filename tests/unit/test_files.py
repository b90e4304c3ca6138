"""Whole files, and folders with one process at a time."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ms_automl.errors import ConfigError
from ms_automl.storage.files import alone, at_work_in, checksum, write_json

HOLD = """
import sys
from pathlib import Path
from ms_automl.storage.files import alone

with alone(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path):
    """A process that is at work in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path, other):
    with (
        pytest.raises(ConfigError, match=rf"another process is at work in .* \(process {other.pid} on .+\): wait"),
        alone(tmp_path),
    ):
        pytest.fail("two at a time")


def test_who_is_refused_leaves_what_was_there_as_it_was(tmp_path, other):
    (tmp_path / "mine").mkdir()
    before = set(tmp_path.rglob("*"))
    for out in (tmp_path / "new" / "deep", tmp_path / "mine", tmp_path):
        with pytest.raises(ConfigError), at_work_in(out):
            raise ConfigError("bad data")
    assert before == set(tmp_path.rglob("*"))
    with pytest.raises(ConfigError), at_work_in(tmp_path / "kept") as out:
        (out / "written").touch()
        raise ConfigError("too late")
    assert (tmp_path / "kept" / "written").exists()


def test_a_process_that_is_killed_leaves_the_folder(tmp_path, other):
    other.kill()
    other.wait()
    with alone(tmp_path):
        pass


def test_who_waits_gets_in_when_the_other_ends(tmp_path, other):
    got_in = threading.Event()

    def work():
        with alone(tmp_path, waits=True):
            got_in.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not got_in.wait(0.2)
    other.communicate("")
    assert got_in.wait(10)
    thread.join()


def test_json_is_replaced_whole_or_left_as_it_was(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="nan"):
        write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": 1}


def test_the_checksum_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert checksum(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
