"""Figures of benchmarks as lines of JSON, each with what it was measured with."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from ms_automl.environment.provenance import cpu_name, git_revision

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """One for each line; none where the file is not there yet."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def append_row(path: Path, row: Row) -> None:
    """Write a line more, with torch's version, the CPU and the revision."""
    row = row | {"torch": metadata.version("torch"), "cpu": cpu_name(), "revision": git_revision()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
