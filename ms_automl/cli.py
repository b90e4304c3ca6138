"""What the commands share: a parser whose errors are ours, and one line for whatever goes wrong."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ms_automl.environment.hidden import explained
from ms_automl.environment.output import lasting_output
from ms_automl.errors import ConfigError, MsAutomlError


class Parser(argparse.ArgumentParser):
    """A command's parser, with ``--debug``; raises ConfigError where argparse would print its usage and exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.add_argument("--debug", action="store_true", help="show tracebacks")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the options are listed."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def path(text: str) -> Path:
    """An option's path; ``~`` is the home folder, also where no shell has seen it (``--out='~/x'``)."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty: name one, or leave the option out")
    if "://" in text:
        raise argparse.ArgumentTypeError(f"a folder of this machine is wanted, not '{text}'")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"no home folder is known for '{text}': write the path out") from error


def place(text: str) -> str:
    """An option that is a path or something else: an address, the id of a run."""
    return text if "://" in text else str(path(text))


def names(text: str) -> list[str]:
    """An option that is a list, ``a,b``."""
    return [name.strip() for name in text.split(",")]


def one_line_errors(run: Callable[[], int], arguments: Sequence[str] | None, interrupted: str) -> int:
    """Run a command, which returns its exit status; what it raises becomes one line on stderr.

    With ``--debug`` that stands below its traceback. Nothing here depends on somebody who reads
    (:mod:`ms_automl.environment.output`).

    Args:
        run: the command.
        arguments: of the command line; None for those of this process.
        interrupted: what to say on Ctrl-C or SIGTERM, where the command says nothing itself.

    Returns:
        The exit status: of ``run``, 2 (bad input), 130 (Ctrl-C, SIGTERM) or 1 (an error that nobody foresaw).
    """
    with lasting_output():
        try:
            return run()
        except KeyboardInterrupt as error:
            print(str(error) or interrupted, file=sys.stderr)
            return 130
        except Exception as error:
            if "--debug" in (sys.argv[1:] if arguments is None else arguments):
                traceback.print_exc()
            if isinstance(error, MsAutomlError):
                print("error:", *str(error).split(), file=sys.stderr)
                return 2
            if (why := explained(error)) is not None:
                print("error:", why, file=sys.stderr)
                return 2
            line = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"error: {line}; not foreseen: --debug shows where it comes from", file=sys.stderr)
            return 1
