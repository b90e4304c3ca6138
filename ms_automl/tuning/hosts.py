"""What every host of a cluster must have for a comparison to run there, and how it gets the code.

A comparison on several hosts stops before anything trains, with one line, where a host lacks something. Hosts that
join later, as an autoscaler's do, are looked at when their first trial begins.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ms_automl.config import Config
from ms_automl.environment.siblings import ROOT
from ms_automl.errors import ConfigError
from ms_automl.storage.remote import exists

PACKAGES = ("ms_automl", "search_spaces", "trainables")
SAME = ("torch", "torchvision", "numpy")
"""Packages whose version changes results."""
PATIENCE = 300.0
"""Seconds that a host has to answer; its first answer waits for the code and for torch's import."""


def check_sent(own: Mapping[str, Callable[..., Any]]) -> None:
    """Raise ConfigError for the first factory, by name, that cannot be sent to the processes of trials."""
    for name, factory in own.items():
        try:
            with Path(os.devnull).open("wb") as nowhere:
                _DryPickler(nowhere).dump(factory)  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever a stranger's object holds
            raise ConfigError(
                f"'{name}' cannot be sent to the processes of trials ({_line(error, 0)}): make what it holds "
                "inside of the function"
            ) from error


class _DryPickler(ray.cloudpickle.CloudPickler):
    """Pickles all but the numbers in tensors, which may be gigabytes: torch would copy them."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.TypedStorage | torch.UntypedStorage):
            return int, ()
        return super().reducer_override(value)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Needs:
    """What a host must have."""

    marker: str  # place of a file that the driver has just made where trials leave their models
    stored: str  # where that is, as a user knows it, and what to do about a host that does not see it
    modules: tuple[str, ...]  # of the data's and the network's own factories
    data_dir: Path | None  # of --data-dir
    listing: str  # digest of the names in it
    versions: dict[str, str]  # of SAME, of the driver

    def missing(self) -> str | None:
        """What the host that asks lacks, and what to do about it; None where all is there."""
        for name, version in self.versions.items():
            if (found := _version(name)) != version:
                return f"has {name} {found}, and the driver {version}: install the same on every host"
        if not exists(self.marker):
            return f"does not see {self.stored}"
        if self.data_dir is not None and _listing(self.data_dir) != self.listing:
            state = "other files in it" if self.data_dir.is_dir() else "no such folder"
            return f"has {state}: --data-dir {self.data_dir} must hold the same on every host"
        for name in self.modules:
            try:
                importlib.import_module(name)
            except Exception as error:  # whatever a module of the user's own does
                return f"cannot import {name} ({type(error).__name__}: {error}): install what it needs there"
        return None


def needs_of(config: Config, data_dir: Path | None, marker: str, stored: str) -> Needs:
    """What hosts need for a comparison, as it is here (:class:`Needs`)."""
    factories = (config.data.factory, config.network.factory)
    modules = tuple(name.partition(":")[0] for name in factories if ":" in name)
    versions = {name: _version(name) for name in SAME}
    return Needs(marker, stored, modules, data_dir, "" if data_dir is None else _listing(data_dir), versions)


@contextmanager
def code_for_hosts(modules: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Ray's ``runtime_env`` with which every host runs our code and own modules as they are on this one.

    It is sent as the working folder. Sent as modules it would come after the folder that the command runs in,
    which on another host may hold an older checkout.
    """
    own = {module.partition(".")[0]: None for module in modules}
    for name in PACKAGES:
        if name in own:
            raise ConfigError(
                f"a factory lies in the module '{name}', and on a cluster that is the name of a package of "
                "ms_automl's: rename yours"
            )
    with TemporaryDirectory() as folder:
        for name, path in [(name, ROOT / name) for name in PACKAGES] + [(name, _source(name)) for name in own]:
            if path is not None and path.is_dir():
                shutil.copytree(path, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif path is not None:
                shutil.copy(path, folder)
        yield {"working_dir": folder}


def check_hosts(needs: Needs) -> None:
    """Raise ConfigError where hosts of the cluster lack something, with what the first of them lacks."""
    found = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in found if node["Alive"]}
    answers = {
        _missing.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(needs): host
        for host, node in sorted(nodes.items())
    }
    ready, silent = ray.wait(list(answers), num_returns=len(answers), timeout=PATIENCE)
    troubles = {answers[answer]: f"gives no answer for {PATIENCE:g} s: is it up?" for answer in silent}
    for answer in ready:
        try:
            trouble = ray.get(answer)
        except Exception as error:  # it went away, or cannot even import the project
            trouble = f"cannot run anything: {_line(error, -1)}"
        if trouble:
            troubles[answers[answer]] = trouble
    if troubles:
        host, trouble = min(troubles.items())
        others = f" ({len(troubles)} of {len(nodes)} hosts have such troubles)" if len(troubles) > 1 else ""
        raise ConfigError(f"host {host} {trouble}{others}")


@ray.remote(num_cpus=0, max_retries=0)
def _missing(needs: Needs) -> str | None:
    return needs.missing()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _listing(folder: Path) -> str:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return ""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()


def _source(name: str) -> Path | None:
    """File or folder of a top-level module; None where it is installed, and so to be had on every host."""
    module = importlib.import_module(name)
    paths = list(getattr(module, "__path__", []))
    path = Path(paths[0] if paths else str(module.__file__)).resolve()
    installed = "site-packages" in path.parts or path.is_relative_to(Path(sys.base_prefix, "lib"))
    return None if installed else path


def _line(error: Exception, which: int) -> str:
    lines = str(error).strip().splitlines()
    return lines[which].strip() if lines else type(error).__name__
