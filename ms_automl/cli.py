"""What the commands share: a parser whose errors are ours, and one line for whatever goes wrong."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ms_automl.errors import ConfigError, MsAutomlError


class Parser(argparse.ArgumentParser):
    """A command's, with ``--debug``; raises ConfigError where argparse would print its usage and exit.

    Args:
        options: of :class:`argparse.ArgumentParser`; description and epilog are shown as written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.add_argument("--debug", action="store_true", help="show tracebacks")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the options are listed."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def one_line_errors(run: Callable[[], int], arguments: Sequence[str] | None, interrupted: str) -> int:
    """Run a command; what it raises becomes one line on stderr, with ``--debug`` below its traceback.

    Args:
        run: the command; returns its exit status.
        arguments: of the command line; None for those of this process.
        interrupted: what to say on Ctrl-C.

    Returns:
        The exit status: of ``run``, 2 (bad input), 130 (Ctrl-C) or 1 (an error that nobody foresaw).
    """
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        return run()
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, MsAutomlError):
            print("error:", *str(error).split(), file=sys.stderr)
            return 2
        line = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"error: {line}; not foreseen: --debug shows where it comes from", file=sys.stderr)
        return 1
