"""Records as tidy pandas frames: the columns are always there, whatever version wrote the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from mlflow.entities import Metric, Run

CURVES = ("objective", "test_objective", "wall_seconds")
TEXT = ("arm", "space", "status", "lambda", "note", "unit", "retrained", "selected_trial")
ROW_COLUMNS = (
    *("arm", "seed", "space", "status", "objective", "test_objective", "delta_m"),
    *("delta_m_single", "density_single", "macs_ratio_single"),
    *("density", "sparsity_group", "sparsity_param", "macs_ratio", "latency_ratio", "lambda"),
    *("retrained", "retrained_objective", "retrained_test_objective"),
    *("unit", "limit", "spent", "overshoot", "passes"),
    *("device_seconds", "wall_seconds", "training_seconds", "evaluation_seconds", "startup_seconds"),
    *("searcher_seconds", "trials", "failed_trials", "stopped_trials", "selected_trial", "note"),
)
TRIAL_COLUMNS = ("run_id", "arm", "seed", "method", "index", "status", "outcome", "error")
ANYTIME_COLUMNS = ["arm", "seed", "passes", *CURVES]
RETRAINED = {
    "retrained_objective": "objective",
    "retrained_test_objective": "test_objective",
    "retrained_delta_m": "delta_m",
    "retrained_delta_m_single": "delta_m_single",
    "retrained_sparsity_param": "sparsity_param",
}


def rows(records: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per arm and seed, `ROW_COLUMNS` first; numbers are floats, NaN where a record has none.

    Means over the retrainings are added where the record has only the retrainings. Records in which a budget knows
    no other unit than passes get `unit`, `limit` and `spent` from these; those without a density knew that of
    penalised weights alone.
    """
    frame = pd.DataFrame.from_records(records)
    extra = [name for name in [*frame.columns, *RETRAINED] if name not in ROW_COLUMNS]
    frame = frame.reindex(columns=[*ROW_COLUMNS, *dict.fromkeys(extra)])
    for name in [*ROW_COLUMNS, *RETRAINED]:
        if name not in TEXT:
            frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    frame["seed"] = frame["seed"].astype(int)
    for mean, name in RETRAINED.items():
        frame[mean] = frame[mean].fillna(frame["retrained"].map(lambda entries, name=name: _mean(entries, name)))
    frame["density"] = frame["density"].fillna(1 - frame["sparsity_param"])
    passes = frame["unit"].isna() | (frame["unit"] == "passes")
    frame["unit"] = frame["unit"].where(frame["unit"].notna(), "passes")
    frame["spent"] = frame["spent"].fillna(frame["passes"].where(passes))
    return frame.astype(dict.fromkeys(TEXT, object)).reset_index(drop=True)


def _mean(entries: object, name: str) -> float:
    known = [entry[name] for entry in entries if entry.get(name) is not None] if isinstance(entries, list) else []
    return sum(known) / len(known) if known else float("nan")


def trials(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per trial: `TRIAL_COLUMNS`, then the last value of each metric, layers in the network's order."""
    records = []
    for run in runs:
        data = run.data
        records.append(
            {
                "run_id": run.info.run_id,
                "arm": data.params["arm"],
                "seed": int(data.params["seed"]),
                "method": data.params.get("method", ""),
                "index": int(data.params.get("index", 0)),
                "status": run.info.status,
                "outcome": data.tags.get("ms_automl.outcome", ""),
                "error": data.tags.get("ms_automl.error", ""),
                **data.metrics,
            }
        )
    frame = pd.DataFrame.from_records(records)
    metrics = [name for name in frame.columns if name not in TRIAL_COLUMNS]
    frame = frame.reindex(columns=[*TRIAL_COLUMNS, *metrics])
    return frame.sort_values(["arm", "seed", "index"], kind="stable", ignore_index=True)


TRANSFER_COLUMNS = (
    *("task", "mode", "shots", "labels", "arm", "seed", "weights", "draw", "status", "error"),
    *("metric", "direction", "unit", "value", "old_delta_m", "sparsity_param", "passes", "device_seconds"),
    "curve",
)


def transfer(content: Mapping[str, Any] | None) -> pd.DataFrame:
    """One row per adaptation of an unseen task (`TRANSFER_COLUMNS`), from `transfer.json`.

    `value` is the task's first metric on the test split; `shots` is infinite where all labels were used, `labels`
    how many they were; `curve` has [step, metric on validation] of each report.
    """
    records = []
    content = content or {"tasks": {}, "rows": []}
    for row in content["rows"]:
        task, metrics = content["tasks"][row["task"]], row["metrics"]
        records.append(
            {
                **row,
                **task,
                "shots": float("inf") if row["shots"] is None else float(row["shots"]),
                "labels": metrics.get("labels"),
                "curve": [(step, float("nan") if value is None else value) for step, value in row["curve"]],
                "value": metrics.get(f"test/{row['task']}/{task['metric']}"),
                "old_delta_m": metrics.get("old/delta_m"),
                "sparsity_param": metrics.get("sparsity/param"),
            }
        )
    frame = pd.DataFrame.from_records(records).reindex(columns=list(TRANSFER_COLUMNS))
    for name in ("shots", "labels", "value", "old_delta_m", "sparsity_param", "passes", "device_seconds"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    return frame


def anytime(histories: Mapping[tuple[str, int], Mapping[str, Iterable[Metric]]]) -> pd.DataFrame:
    """One row per arm, seed and point of its curve (`ANYTIME_COLUMNS`), by increasing passes.

    Args:
        histories: The metrics of `CURVES` by arm and seed; a metric's step is the passes spent.
    """
    parts = []
    for (arm, seed), curves in histories.items():
        points: dict[int, dict[str, float]] = {}
        for name, history in curves.items():
            for point in history:  # later values overwrite: a resumed comparison may log a step twice
                points.setdefault(point.step, {})[name] = point.value
        part = pd.DataFrame.from_dict(points, orient="index", columns=list(CURVES), dtype=float).sort_index()
        part.insert(0, "passes", part.index)
        part.insert(0, "seed", seed)
        part.insert(0, "arm", arm)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=ANYTIME_COLUMNS)
