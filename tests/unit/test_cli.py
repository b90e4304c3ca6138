"""What all commands share: paths, and signals given back."""

import argparse
import signal
from pathlib import Path

import pytest

from ms_automl.cli import path, place
from ms_automl.data.cache import cache_folder
from ms_automl.data.factories import build_data, resolve
from ms_automl.environment.process import sigterm_kept
from ms_automl.errors import ConfigError, DataError
from ms_automl.search import main
from ms_automl.storage.files import writable


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_sign_of_the_home_folder_is_the_home_folder(home, monkeypatch):
    assert path("~/x") == place_of("~/x") == home / "x" and path("~") == home
    assert path("here/~x/") == Path("here/~x") and path("$HOME") == Path("$HOME")
    assert place("s3://bucket/~x") == "s3://bucket/~x" and place("0" * 32) == "0" * 32
    monkeypatch.setenv("MS_AUTOML_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    assert writable(Path("~/made")) == home / "made" and (home / "made").is_dir()


def place_of(text):
    return Path(place(text))


@pytest.mark.parametrize("text", ["", "  ", "~nobody-of-that-name/x"])
def test_a_path_that_is_none_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="path"):
        path(text)


@pytest.mark.parametrize("option", ["--out", "--data-dir", "--storage"])
def test_the_option_whose_path_is_empty_is_named(option, capsys):
    assert main([option, "", "--show-config"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: argument {option}: the path is empty") and error.count("\n") == 1


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def nowhere(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MS_AUTOML_CACHE")
    monkeypatch.setattr(Path, "expanduser", nowhere)
    with pytest.raises(DataError, match="set MS_AUTOML_CACHE"):
        cache_folder()


def test_a_program_that_has_run_a_comparison_has_its_own_sigterm_again():
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with sigterm_kept():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


OWN = """
import functools
import sys

print("printed as it is imported")


def data(seed, data_dir, task="digit"):
    raise FileNotFoundError(task)


class Maker:
    def __call__(self, seed, data_dir):
        return "called"

    def method(self, seed, data_dir):
        return "method"


maker = Maker()
part = functools.partial(data, task="other")
lambda_ = lambda seed, data_dir: "lambda"


def ends(seed, data_dir):
    sys.exit(0)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "Ordner mit Ä #%?"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "made.py").write_text(OWN)
    (folder / "ends_itself.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    ("name", "answer"), [("maker", "called"), ("maker.method", "method"), ("lambda_", "lambda")]
)
def test_whatever_can_be_called_is_a_factory(own, name, answer):
    assert resolve("data", f"deep.er.made:{name}", {})(0, None) == answer


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ends_itself:data", r"cannot import 'ends_itself' \(SystemExit: 0\)"),
        ("deep.er.made:ends", "SystemExit: 0"),
        ("deep.er.made:part", "FileNotFoundError: other"),
        ("deep.er.made:maker.none", r"deep\.er\.made has no function maker\.none \(.*made\.py\)"),
        ("deep/er/made.py:data", "written as in an import statement"),
        ("signal:data", r"signal has no function data \(.*signal\.py\)"),
    ],
)
def test_what_is_no_factory_or_ends_the_process_is_said_in_a_line(own, name, said):
    with pytest.raises(ConfigError, match=said) as caught:
        build_data(name, {}, seed=0, data_dir=None)
    assert "\n" not in str(caught.value)
