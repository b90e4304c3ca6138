"""The rows of benchmarks/runs and benchmarks/field as one Parquet file for each data set: `ms_automl.data.trials`.

    python benchmarks/publish.py

Every file is made anew; docs/trials.md says what its columns are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rows import Row, read_rows

HERE = Path(__file__).parent
SOURCES = {"first comparison": HERE / "runs", "field": HERE / "field"}
OUT = HERE.parent / "ms_automl" / "data" / "published"
KEPT = ("seed", "trial", "method", "violation", "passes", "seconds", "error", "torch", "cpu", "revision")


def main() -> None:
    """Write them."""
    OUT.mkdir(exist_ok=True)
    for name in data_sets():
        frame = trials_of(name)
        frame.to_parquet(OUT / f"{name}.parquet", compression="zstd", index=False)
        print(f"{name}: {len(frame)} trials")


def data_sets() -> list[str]:
    """Those with rows."""
    return sorted({folder.name for path in SOURCES.values() for folder in path.iterdir() if folder.is_dir()})


def trials_of(name: str) -> pd.DataFrame:
    """All rows of a data set, flat."""
    found = [
        flat(name, source, row)
        for source, path in SOURCES.items()
        for file in sorted((path / name).glob("*.jsonl"), key=lambda file: int(file.stem))
        for row in read_rows(file)
    ]
    return pd.DataFrame.from_records(found)


def flat(name: str, source: str, row: Row) -> dict[str, Any]:
    """A row with a column for each of its values and metrics."""
    label, settings, price = row["label"].split("/"), row["settings"], 0.0
    arm, space, objective = ("dense", "", "") if label[0] == "dense" else label[:3]
    if arm == "dense":
        price = 1.0
    elif objective.startswith("tradeoff"):
        price = settings["objective"]["price"]
    spent = price * row["density"] if not row["error"] else 0.0
    return {
        "dataset": name,
        "source": source,
        "arm": arm,
        "space": space,
        "objective": objective,
        "changes": "/".join(label[1 if arm == "dense" else 3 :]),
        **{key: row.get(key) for key in KEPT},
        "loss": None if row["error"] else row["objective"] - spent,
        "loss_test": None if row["error"] else row["objective_test"] - spent,
        "density": row.get("density"),
        "delta_m_test": row.get("delta_m_test"),
        "zeros_by_layer": row.get("zeros_by_layer"),
        "curve": row.get("curve") or None,
        "schedule": json.dumps(row["schedule"]) if row.get("schedule") else None,
        "settings": json.dumps(settings, sort_keys=True),
        **{f"value/{key}": value for key, value in row["values"].items()},
        **{f"metric/{key}": value for key, value in (row.get("metrics") or {}).items() if "/" in key},
    }


if __name__ == "__main__":
    main()
