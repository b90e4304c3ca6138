"""What a store says where something fails: its own reason, the remedy for that one, and whether waiting helps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from ms_automl.callbacks.mlflow.address import database, public

LONGEST = 2000
"""Characters of a reason: a server may answer with a whole page."""
OTHER = "set MLFLOW_TRACKING_URI to another one"
SILENT = (
    "refused",
    "timed out",
    "timeout",
    "Failed to resolve",
    "unreachable",
    "Connection aborted",
    "reset by peer",
)
SEARCH = "/api/2.0/mlflow/experiments/search"
ANSWERS = {
    401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to what it takes",
    403: "have its owner let you write there, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    404: "set MLFLOW_TRACKING_URI to the address of an MLflow server, with its path",
}
FINAL = {
    "CUSTOMER_UNAUTHORIZED",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
}
"""What a store says of a write that it will never take."""
REFUSED = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
PASSING = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",
}
"""What a store says of a write that it may take a little later."""
BROKEN = ("SQLITE_READONLY", "SQLITE_CORRUPT", "SQLITE_NOTADB")
"""What SQLite says of a file that waiting does not mend."""


def reason(error: BaseException) -> str:
    """All that an error says, in one line, without passwords and without the SQL that failed."""
    text = re.split(r"\n\[SQL: |\n?\(Background on this error", str(error) or type(error).__name__)[0]
    line = public(" ".join(re.sub(r"\(raised as a result of [^)]*\)", "", text).split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def remedy(uri: str, error: BaseException) -> str:
    """What to do so that a store can be used that raised an error."""
    message, file = str(error), database(uri)
    if found := re.search(r"database schema \(found version (\w+)", message):
        return _of_schema(uri, found[1])
    if file is not None:
        return _of_file(file, message)
    if isinstance(error, ModuleNotFoundError):
        return f"install the package that has the module '{error.name}', or {OTHER}"
    if "maintenance mode" in message:
        return "set MLFLOW_TRACKING_URI=sqlite:///mlflow.db, or move the old mlruns folder away"
    if any(word in message for word in SILENT):
        return "start it, or set MLFLOW_TRACKING_URI to one that runs"
    status = http_status(uri) if uri.startswith("http") else None
    if status is not None and status >= 500:
        return f"look into the server's log, or {OTHER}"
    return ANSWERS.get(status or 0, OTHER)


def http_status(uri: str) -> int | None:
    """The HTTP status by which a server answers what every MLflow server knows; None where it does not answer.

    MLflow's errors do not have it where the server's answer is in a form of its own.
    """
    options = {"max_retries": 0, "params": {"max_results": 1}, "raise_on_status": False}
    try:
        credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
        answer = http_request(credentials, SEARCH, "GET", **options)  # type: ignore[no-untyped-call]
    except Exception:
        return None
    return int(answer.status_code)


def final(error: BaseException) -> bool:
    """Whether a store has said that it will never take a write."""
    if isinstance(error, MlflowException) and error.error_code in FINAL:
        return True
    seen: BaseException | None = error
    while seen is not None:
        if getattr(getattr(seen, "orig", None), "sqlite_errorname", "").startswith(BROKEN):
            return True
        seen = seen.__cause__
    return False


def passing(error: BaseException) -> bool:
    """Whether an error is of a kind that comes and goes: a busy server, a lost connection."""
    if isinstance(error, MlflowException):
        return error.error_code in PASSING or "failed with exception" in str(error)
    return isinstance(error, ConnectionError | TimeoutError)


def _of_schema(uri: str, version: str) -> str:
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if any(migrations.glob(f"{version}_*.py")):
        return f"copy the database, then: mlflow db upgrade {shlex.quote(public(uri))}"
    return f"install the MLflow that wrote it, or a newer one (this is {mlflow.__version__}), or {OTHER}"


def _of_file(file: Path, message: str) -> str:
    if "not a database" in message or "malformed" in message:
        return f"move {file} away, or {OTHER}"
    if "locked" in message:
        return f"end the process that holds {file}, or {OTHER}"
    if "full" in message or "No space" in message:
        return f"make room on the disk of {file}, or {OTHER}"
    if any(word in message for word in ("readonly", "unable to open", "Permission", "Read-only")):
        return f"let {file} and its folder be written, or {OTHER}"
    if "exists" in message or "directory" in message:
        return f"make {file.parent} a folder, or {OTHER}"
    return OTHER
