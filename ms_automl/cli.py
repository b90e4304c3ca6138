"""What the commands share: a parser whose errors are ours, one line for whatever goes wrong, and being stopped."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ms_automl.environment.hidden import explained
from ms_automl.environment.output import lasting_output
from ms_automl.errors import ConfigError, MsAutomlError


class Parser(argparse.ArgumentParser):
    """A command's parser, with ``--debug``; raises ConfigError where argparse would print its usage and exit.

    Args:
        options: of :class:`argparse.ArgumentParser`; description and epilog are shown as written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.add_argument("--debug", action="store_true", help="show tracebacks")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where the options are listed."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def path(text: str) -> Path:
    """An option's path; ``~`` is the home folder, also where no shell has seen it (``--out='~/x'``).

    Raises:
        argparse.ArgumentTypeError: for an empty one, and for the home of somebody who has none here.
    """
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


def heed_sigterm() -> None:
    """Have SIGTERM, by which schedulers, containers and ``kill`` stop a command, do what Ctrl-C does.

    To be called when Ray has started: it sets a handler of its own, which ends the process at once.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def renew_sigterm() -> None:
    """Set SIGTERM's handler again: Ray takes it away when it ends, though Python believes it to be there."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Give SIGTERM back to whom it belonged: a program that runs a comparison goes on afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while records are written: another one must not break that off.

    In the seconds that Ray takes to end, a SIGTERM still does: Ray leaves the process without a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def one_line_errors(run: Callable[[], int], arguments: Sequence[str] | None, interrupted: str) -> int:
    """Run a command; what it raises becomes one line on stderr, with ``--debug`` below its traceback.

    Neither the command nor that line depends on somebody who reads (:mod:`ms_automl.environment.output`).

    Args:
        run: the command; returns its exit status.
        arguments: of the command line; None for those of this process.
        interrupted: what to say on Ctrl-C or SIGTERM, where the command says nothing itself.

    Returns:
        The exit status: of ``run``, 2 (bad input), 130 (Ctrl-C, SIGTERM) or 1 (an error that nobody foresaw).
    """
    with lasting_output():
        return _in_one_line(run, "--debug" in (sys.argv[1:] if arguments is None else arguments), interrupted)


def _in_one_line(run: Callable[[], int], debug: bool, interrupted: str) -> int:
    try:
        return run()
    except KeyboardInterrupt as error:
        print(str(error) or interrupted, file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
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
