"""A finished comparison, read back from its MLflow records as tidy pandas frames."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.store import reachable_uri, without_password
from ms_automl.errors import DataError, TrackingError

FORMAT = "1"
CURVES = ("objective", "test_objective", "wall_seconds")
ROW_COLUMNS = (
    *("arm", "seed", "space", "status", "objective", "test_objective", "delta_m"),
    *("sparsity_group", "sparsity_param", "macs_ratio", "latency_ratio", "lambda"),
    *("passes", "device_seconds", "wall_seconds", "searcher_seconds"),
    *("trials", "failed_trials", "limit_passes", "note"),
)
TRIAL_COLUMNS = ("run_id", "arm", "seed", "method", "index", "status", "error")
ANYTIME_COLUMNS = ["arm", "seed", "passes", *CURVES]


@dataclass(frozen=True)
class Comparison:
    """What one `python -m ms_automl.search` left behind.

    Attributes:
        run_id: The parent run in MLflow.
        tracking_uri: The store or server that holds it.
        rows: One row per arm and seed, the columns of `comparison.json` (`ROW_COLUMNS`).
        trials: One row per trial: `TRIAL_COLUMNS`, then the last value of each of its metrics.
        anytime: One row per arm, seed and improvement: the best objective so far (by validation), the test
            objective of that incumbent, and the wall-clock seconds, at so many spent passes.
        config: The configuration, complete.
        versions: Library name to version.
        tags: The parent run's own `ms_automl.*` tags, without the prefix.
        metrics: The parent run's metrics.
        folder: The folder of `comparison.json`; `None` when it was read by run id.
    """

    run_id: str
    tracking_uri: str
    rows: pd.DataFrame
    trials: pd.DataFrame
    anytime: pd.DataFrame
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None


def load(comparison: str | Path) -> Comparison:
    """Read a comparison by its folder (the one with `comparison.json`) or by its MLflow run id.

    The tracking store is `MLFLOW_TRACKING_URI` when set, else the one `comparison.json` names, else
    `sqlite:///mlflow.db` in the working folder.

    Raises:
        DataError: No such folder, no such run, not a comparison, or another format.
        TrackingError: The store does not exist or the server does not answer.
    """
    folder, record = _find(comparison)
    run_id = str(comparison) if record is None else str(record["mlflow"]["run_id"])
    recorded = None if record is None else record["mlflow"].get("tracking_uri")
    uri = reachable_uri(os.environ.get("MLFLOW_TRACKING_URI") or recorded, folder)
    with _clear_errors(run_id, uri):
        client = MlflowClient(tracking_uri=uri)
        parent = _parent(client, run_id)
        arms = list(_children(client, parent, "arm"))
        return Comparison(
            run_id=run_id,
            tracking_uri=uri,
            rows=_rows(record["rows"] if record else [json.loads(arm.data.tags["ms_automl.row"]) for arm in arms]),
            trials=_trials([trial for arm in arms for trial in _children(client, arm, "trial")]),
            anytime=_anytime(client, arms),
            config=record["config"] if record else _config(client, run_id),
            versions=json.loads(parent.data.tags.get("ms_automl.versions", "{}")),
            tags=_own_tags(parent),
            metrics=dict(parent.data.metrics),
            folder=folder,
        )


def _find(comparison: str | Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Tell a folder from a run id: (folder, its `comparison.json`), or (None, None) for a run id."""
    path = Path(comparison)
    path = path.parent if path.name == "comparison.json" else path
    if not path.is_dir():
        if re.fullmatch(r"[0-9a-f]{32}", str(comparison)):
            return None, None
        raise DataError(
            f"no such comparison: '{comparison}' is neither a folder nor an MLflow run id (32 hex digits)."
        )
    file = path / "comparison.json"
    if not file.is_file():
        raise DataError(
            f"no comparison.json in '{path}': give the --out folder of a `python -m ms_automl.search`."
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        _check_format(str(file), str(record["format"]))
        if not record["mlflow"]["run_id"] or not isinstance(record["rows"], list):
            raise KeyError("rows")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"'{file}' is damaged ({error}): give the MLflow run id of the comparison instead."
        ) from error
    return path, record


def _check_format(what: str, found: str) -> None:
    if found != FORMAT:
        raise DataError(
            f"{what} has record format {found}, this version reads {FORMAT}: use the version that wrote it."
        )


@contextmanager
def _clear_errors(run_id: str, uri: str) -> Iterator[None]:
    """Turn MLflow's own errors into one line that says what to do."""
    shown = without_password(uri)
    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise DataError(
                f"no MLflow run '{run_id}' in {shown}: check the id and MLFLOW_TRACKING_URI."
            ) from error
        reason = str(error).splitlines()[0].replace(uri, shown)
        raise TrackingError(f"MLflow at {shown} failed: {reason} (see MLFLOW_TRACKING_URI)") from error


def _parent(client: MlflowClient, run_id: str) -> Run:
    run = client.get_run(run_id)
    kind = run.data.tags.get("ms_automl.kind")
    if kind != "comparison":
        known = f"a run of kind '{kind}'" if kind else "not a run of ms_automl"
        raise DataError(f"MLflow run '{run_id}' is {known}, not a comparison: give the id of its parent run.")
    _check_format(f"MLflow run '{run_id}'", run.data.tags.get("ms_automl.format", "none"))
    return run


def _children(client: MlflowClient, parent: Run, kind: str) -> Iterator[Run]:
    """All runs of that kind below a run: one paged query, no metric histories."""
    token: str | None = None
    while True:
        page = client.search_runs(
            [parent.info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`ms_automl.kind` = '{kind}'",
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _own_tags(run: Run) -> dict[str, str]:
    prefix = "ms_automl."
    return {key.removeprefix(prefix): value for key, value in run.data.tags.items() if key.startswith(prefix)}


def _config(client: MlflowClient, run_id: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        file = client.download_artifacts(run_id, "config.json", temporary)
        config: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    return config


def _rows(records: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(records)
    frame = frame.reindex(columns=[*ROW_COLUMNS, *(name for name in frame.columns if name not in ROW_COLUMNS)])
    text = {"arm", "space", "status", "lambda", "note"}
    for name in ROW_COLUMNS:
        if name not in text:
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame.astype({"arm": object, "space": object, "status": object}).reset_index(drop=True)


def _trials(runs: list[Run]) -> pd.DataFrame:
    records = [
        {
            "run_id": run.info.run_id,
            "arm": run.data.params["arm"],
            "seed": int(run.data.params["seed"]),
            "method": run.data.params.get("method", ""),
            "index": int(run.data.params.get("index", 0)),
            "status": run.info.status,
            "error": run.data.tags.get("ms_automl.error", ""),
            **run.data.metrics,
        }
        for run in runs
    ]
    metrics = sorted({name for record in records for name in record if name not in TRIAL_COLUMNS})
    frame = pd.DataFrame.from_records(records, columns=[*TRIAL_COLUMNS, *metrics])
    return frame.sort_values(["arm", "seed", "index"], kind="stable", ignore_index=True)


def _anytime(client: MlflowClient, arms: list[Run]) -> pd.DataFrame:
    frames = []
    for arm in arms:
        curve: dict[int, dict[str, float]] = {}
        for name in CURVES:
            # Later values overwrite: a resumed comparison may log a step twice.
            for point in client.get_metric_history(arm.info.run_id, f"anytime/{name}"):
                curve.setdefault(point.step, {})[name] = point.value
        frame = pd.DataFrame.from_dict(curve, orient="index", columns=list(CURVES), dtype=float).sort_index()
        frame.insert(0, "passes", frame.index)
        frame.insert(0, "seed", int(arm.data.params["seed"]))
        frame.insert(0, "arm", arm.data.params["arm"])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=ANYTIME_COLUMNS)
