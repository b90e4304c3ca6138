"""Which code makes a result: versions of packages and the revision of this one."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "ray", "optuna", "mlflow", "pandas", "numpy")


def versions() -> dict[str, str]:
    """Of Python and the packages that results depend on, by name."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def git_revision() -> str:
    """Revision of the code that runs, with + where it was changed since; '' outside a checkout."""
    folder = Path(__file__).parent
    try:
        revision, changes = (
            subprocess.run(
                ["git", *command], cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return revision + ("+" if changes else "")
