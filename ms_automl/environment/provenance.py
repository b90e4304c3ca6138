"""What makes a result: versions of packages, the revision of this one, the CPU."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "pandas", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and the packages that results depend on, by name."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def git_revision() -> str:
    """Revision of the code that runs, with + where it was changed since; '' outside a checkout."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    try:
        found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def cpu_name() -> str:
    """The CPU's model: the same seed gives other figures on another one. '' where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
