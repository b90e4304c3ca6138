"""What a command prints never ends it, whoever reads and whatever letters he knows."""

import fcntl
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = """
import os, signal, sys, time
from pathlib import Path
from ms_automl.cli import one_line_errors
from ms_automl.errors import ConfigError

def run():
    WHAT
    Path("done").write_text("done")
    return 7

sys.exit(one_line_errors(run, [], "stopped"))
"""
MUCH = "[print('Δ', 'x' * 100, number) for number in range(3000)]"


def started(folder, what, *, launcher=(), **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("environment", {})
    code = COMMAND.replace("WHAT", what)
    return subprocess.Popen([*launcher, sys.executable, "-c", code], cwd=folder, env=environment, **options)


def finished(folder, what, **options):
    process = started(folder, what, **options)
    shown, errors = process.communicate(timeout=60)
    assert (folder / "done").exists(), errors
    assert process.returncode == 7
    return shown, errors


@pytest.mark.parametrize("also_errors", [False, True])
def test_a_reader_who_has_seen_enough(tmp_path, also_errors):
    stderr = subprocess.STDOUT if also_errors else subprocess.PIPE
    process = started(tmp_path, f"{MUCH}; print('more', file=sys.stderr); {MUCH}", stderr=stderr)
    process.stdout.read(3)
    process.stdout.close()
    assert process.wait(60) == 7 and (tmp_path / "done").exists()
    if not also_errors:
        assert process.stderr.read() == b"more\n"
        process.stderr.close()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed_from_the_beginning_and_the_files_that_take_their_place(tmp_path, closed):
    what = f"{MUCH}; print('Δ', file=sys.stderr); file = open('file', 'w'); os.write(1, b'x'); os.write(2, b'x')"
    launcher = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    finished(tmp_path, what, launcher=launcher)
    assert (tmp_path / "file").read_text() == ""


def test_a_full_disk_is_said(tmp_path):
    with Path("/dev/full").open("w") as full:
        errors = finished(tmp_path, MUCH, stdout=full)[1]
    assert errors == b"error: what was printed is not whole (No space left on device): stdout\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "cp1252"])
def test_letters_that_the_screen_lacks_are_question_marks(tmp_path, encoding):
    what = "print('Δm × λ'); print('Δ', file=sys.stderr); print(Path(os.fsdecode(b'folder-\\xff')))"
    shown, errors = finished(tmp_path, what, environment={"PYTHONIOENCODING": encoding})
    lines = shown.decode("latin-1").splitlines()
    assert lines[0] == ("?m ? ?" if "ascii" in encoding else "?m × ?") and lines[1] == "folder-?"
    assert errors in (b"\\u0394\n", b"?\n")


def test_a_name_that_is_no_text_is_shown_also_in_utf_8(tmp_path):
    shown, _ = finished(tmp_path, "print(Path(os.fsdecode(b'folder-\\xff')), 'Δ')")
    assert shown == "folder-? Δ\n".encode()


def test_an_error_in_letters_that_the_screen_lacks_is_said(tmp_path):
    process = started(tmp_path, "raise ConfigError('Δ')", environment={"PYTHONIOENCODING": "ascii:strict"})
    assert process.communicate(timeout=60) == (b"", b"error: \\u0394\n") and process.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_terminal_that_vanishes(tmp_path, unbuffered):
    here, there = pty.openpty()
    gone = "__import__('select').select([0], [], [], 30)"
    what = f"print('on', sys.stdout.isatty()); {gone}; {MUCH}; time.sleep(0.1); {MUCH}"
    # A session of its own, whose terminal this is: the system sends it SIGHUP.
    launcher = ["setsid", "--ctty", "--wait"]
    process = started(
        tmp_path,
        what,
        stdin=there,
        stdout=there,
        stderr=there,
        launcher=launcher,
        environment={"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(there)
    shown = b""
    while not shown.endswith(b"\n"):
        assert select.select([here], [], [], 60)[0], "a line is not shown as it is printed"
        shown += os.read(here, 100)
    assert shown == b"on True\r\n"
    os.close(here)
    assert process.wait(60) == 7 and (tmp_path / "done").exists()


def test_a_hangup_ends_nothing_and_later_does_what_it_did(tmp_path):
    what = "os.kill(os.getpid(), signal.SIGHUP); assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN"
    finished(tmp_path, what)


def test_a_pipe_that_somebody_has_made_non_blocking_gets_every_line(tmp_path):
    here, there = os.pipe()
    fcntl.fcntl(there, fcntl.F_SETFL, fcntl.fcntl(there, fcntl.F_GETFL) | os.O_NONBLOCK)
    process = started(tmp_path, MUCH, stdout=there)
    os.close(there)
    time.sleep(1)  # it is full
    with os.fdopen(here, "rb") as pipe:
        lines = pipe.read().decode().splitlines()
    assert process.wait(60) == 7 and len(lines) == 3000 and process.communicate()[1] == b""


def test_what_a_program_has_put_in_place_of_the_screen_stays(capsys):
    from ms_automl.cli import one_line_errors

    before = sys.stdout
    assert one_line_errors(lambda: print("Δ", sys.stdout is before) or 3, [], "") == 3
    assert capsys.readouterr().out == "Δ True\n"


HELP = ("search", "export", "transfer", "data", "report")


@pytest.mark.parametrize("command", [*(f"ms_automl.{name}" for name in HELP), "analysis"])
def test_help_is_shown_where_letters_lack_and_to_nobody(command):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii:strict"}
    shown = subprocess.run(
        [sys.executable, "-m", command, "--help"], env=environment, capture_output=True, cwd=ROOT
    )
    assert (shown.returncode, shown.stderr) == (0, b"") and shown.stdout.startswith(b"usage: python -m ")
