"""Where the MLflow records are, found out before MLflow is asked.

MLflow makes a new, empty database where none is, and tries a silent server for minutes.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

from ms_automl.callbacks.mlflow.opening import SQLITE, database, sqlite
from ms_automl.errors import TrackingError

DEFAULT_URI = "sqlite:///mlflow.db"
PATIENCE = 10.0  # seconds a server has to answer


def reachable_uri(uri: str | None, folder: Path | None = None) -> str:
    """Check that a tracking store is there and return its URI.

    A relative SQLite file is looked for from the comparison's folder, then from the folders above it, because a
    comparison is usually written to `comparisons/<name>` below its store; last in the working folder, which may
    have a store of its own.

    Raises:
        TrackingError: No such database, or no answer from the server.
    """
    uri = uri or DEFAULT_URI
    if (name := database(uri)) is not None:
        return _sqlite(name, uri, folder)
    if uri.startswith(("http://", "https://")) and not _answers(uri):
        raise TrackingError(
            f"the MLflow server at {without_password(uri)} does not answer: start it, or point "
            "MLFLOW_TRACKING_URI at the store that has the comparison."
        )
    return uri


def without_password(uri: str) -> str:
    """The URI as it may be shown: user and password removed.

    >>> without_password("https://me:secret@host:5000/x")
    'https://host:5000/x'
    """
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def _sqlite(name: Path, uri: str, folder: Path | None) -> str:
    # Seen from where a folder lies, and from the link by which it is reached.
    starts = dict.fromkeys((folder.resolve(), folder.absolute())) if folder else {}
    above = [place for start in starts for place in (start, *start.parents)]
    # Earlier versions wrote paths that are not quoted.
    names = dict.fromkeys((name, Path(uri.partition(SQLITE)[2] or name)))
    for place in [*above, Path.cwd()]:
        for file in (place / one for one in names):
            if file.is_file():
                return sqlite(file)
    raise TrackingError(
        f"no MLflow store at {uri}: run this in the folder where the search ran, or set MLFLOW_TRACKING_URI."
    )


def _answers(uri: str) -> bool:
    try:
        with urlopen(without_password(uri).rstrip("/") + "/health", timeout=PATIENCE):
            return True
    except HTTPError:
        return True  # it asks for a password, or has another path: MLflow will say so better
    except URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # whether to trust it is MLflow's setting
    except OSError:
        return False
