"""Handlers of signals and environment variables, which a process has once: changed for a while, and given back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def unless_set(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for as long as this lasts; what the user has set stays as it is."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals; processes that begin meanwhile do as well. Only a main thread can."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers} if _in_charge() else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while records are written: another one must not break that off.

    In the seconds that Ray takes to end, a SIGTERM still does: Ray leaves the process without a handler.
    """
    with ignored(signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Give SIGTERM back to whom it belonged: a program that runs a comparison goes on afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and _in_charge():
            signal.signal(signal.SIGTERM, before)


def heed_sigterm() -> None:
    """Have SIGTERM, by which schedulers, containers and ``kill`` stop a command, do what Ctrl-C does.

    To be called when Ray has started: it sets a handler of its own, which ends the process at once.
    """
    if _in_charge():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def renew_sigterm() -> None:
    """Set SIGTERM's handler again: Ray takes it away when it ends, though Python believes it to be there."""
    if _in_charge():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _in_charge() -> bool:
    return threading.current_thread() is threading.main_thread()
