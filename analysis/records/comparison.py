"""A finished comparison, read back from its MLflow records as tidy pandas frames."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from analysis.records import frames
from analysis.records.store import reachable_uri, without_password
from ms_automl.callbacks.mlflow.artifacts import Artifacts, settle
from ms_automl.callbacks.mlflow.opening import ensure_active, opened, understood
from ms_automl.errors import DataError

FORMAT = "1"


@dataclass(frozen=True)
class ComparisonRecord:
    """What one `python -m ms_automl.search` left behind.

    Attributes:
        run_id: The parent run in MLflow.
        tracking_uri: The store or server that holds it.
        rows: One row per arm and seed, the columns of `comparison.json` (`frames.rows`).
        trials: One row per trial: what it is and how it ended, then the last value of each of its metrics.
        anytime: One row per arm, seed and improvement: the best objective so far (by validation), the test
            objective of that incumbent, and the wall-clock seconds, at so many spent passes.
        config: The configuration, complete.
        versions: Library name to version.
        tags: The parent run's own `ms_automl.*` tags, without the prefix.
        metrics: The parent run's metrics.
        folder: The folder of `comparison.json`; `None` when it was read by run id.
        status: The parent run's: FINISHED where the comparison came to its end.
        warnings: What must be known before any number is read, a line each.
        transfer: What `python -m ms_automl.transfer` left behind (`frames.transfer`); empty without it.
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
    status: str = "FINISHED"
    warnings: tuple[str, ...] = ()
    transfer: pd.DataFrame = field(default_factory=lambda: frames.transfer(None))


def load(comparison: str | Path) -> ComparisonRecord:
    """Read a comparison by its folder (the one with `comparison.json`) or by its MLflow run id.

    The tracking store is `MLFLOW_TRACKING_URI` when set, else the one `comparison.json` names, else
    `sqlite:///mlflow.db` in the working folder.

    Raises:
        DataError: No such folder, no such run, not a comparison, or another format.
        TrackingError: The store does not exist or the server does not answer.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of files of a few kB
    folder, record = find(comparison)
    run_id = str(comparison) if record is None else str(record["mlflow"]["run_id"])
    recorded = None if record is None else record["mlflow"].get("tracking_uri")
    uri = reachable_uri(os.environ.get("MLFLOW_TRACKING_URI") or recorded, folder)
    client = opened(uri, writes=False)
    artifacts = Artifacts(client, uri)
    with _clear_errors(run_id, uri):
        parent = _parent(client, run_id)
        _at_home(client, parent, uri)
        record = record or _record(artifacts, run_id)
        arms = list(_children(client, parent, "arm"))
        return ComparisonRecord(
            run_id=run_id,
            tracking_uri=uri,
            rows=frames.rows(record["rows"] if record else _tagged_rows(arms)),
            trials=frames.trials(trial for arm in arms for trial in _children(client, arm, "trial")),
            anytime=_anytime(client, arms),
            config=record["config"] if record else artifacts.read_json(run_id, "config.json"),
            versions=json.loads(parent.data.tags.get("ms_automl.versions", "{}")),
            tags=_facts(record) | _own_tags(parent),
            metrics=dict(parent.data.metrics),
            folder=folder,
            status=parent.info.status,
            warnings=tuple(record.get("warnings", ()) if record else ()),
            transfer=frames.transfer(transfer_record(client, run_id, uri)),
        )


def find(comparison: str | Path) -> tuple[Path | None, dict[str, Any] | None]:
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
        with understood(uri):
            raise


def _parent(client: MlflowClient, run_id: str) -> Run:
    run = client.get_run(run_id)
    kind = run.data.tags.get("ms_automl.kind")
    if kind != "comparison":
        known = f"a run of kind '{kind}'" if kind else "not a run of ms_automl"
        raise DataError(f"MLflow run '{run_id}' is {known}, not a comparison: give the id of its parent run.")
    _check_format(f"MLflow run '{run_id}'", run.data.tags.get("ms_automl.format", "none"))
    return run


def _at_home(client: MlflowClient, parent: Run, uri: str) -> None:
    """Refuse a comparison that is deleted, and have a store that was moved keep its artifacts beside itself."""
    experiment = client.get_experiment(parent.info.experiment_id)
    ensure_active(uri, experiment)
    if parent.info.lifecycle_stage != "active":
        raise DataError(
            f"MLflow run '{parent.info.run_id}' is deleted: mlflow runs restore --run-id {parent.info.run_id}"
        )
    moved = settle(uri, experiment.experiment_id, experiment.artifact_location)
    if moved:
        print(moved, file=sys.stderr)


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


def _tagged_rows(arms: list[Run]) -> list[dict[str, Any]]:
    """The rows as the arms' runs hold them, without λ; an arm that has not ended has none."""
    tags = [arm.data.tags.get("ms_automl.row") for arm in arms]
    return [json.loads(tag) for tag in tags if tag]


def _record(artifacts: Artifacts, run_id: str) -> dict[str, Any] | None:
    """The `comparison.json` that the parent run keeps; None where the comparison has not ended."""
    if "comparison.json" not in artifacts.names(run_id):
        return None
    return artifacts.read_json(run_id, "comparison.json")


def transfer_record(client: MlflowClient, run_id: str, uri: str) -> dict[str, Any] | None:
    """`transfer.json` of a comparison, where the transfer stage has been run."""
    artifacts = Artifacts(client, uri)
    for run in _children(client, client.get_run(run_id), "transfer"):
        if "transfer.json" in artifacts.names(run.info.run_id):
            return artifacts.read_json(run.info.run_id, "transfer.json")
    return None


def _facts(record: dict[str, Any] | None) -> dict[str, str]:
    """What `comparison.json` knows and older runs have no tag for."""
    return {name: str(record[name]) for name in ("git_revision", "machine", "cpu") if record and record.get(name)}


def _own_tags(run: Run) -> dict[str, str]:
    prefix = "ms_automl."
    return {key.removeprefix(prefix): value for key, value in run.data.tags.items() if key.startswith(prefix)}


def _anytime(client: MlflowClient, arms: list[Run]) -> pd.DataFrame:
    """The arms' own curves: the only metric histories that are read, a few for each arm and seed."""
    histories = {}
    for arm in arms:
        points = {name: client.get_metric_history(arm.info.run_id, f"anytime/{name}") for name in frames.CURVES}
        histories[arm.data.params["arm"], int(arm.data.params["seed"])] = points
    return frames.anytime(histories)
