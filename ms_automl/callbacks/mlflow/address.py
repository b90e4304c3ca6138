"""Addresses of MLflow stores: absolute, readable whatever a folder is called, and fit to be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import make_url

SQLITE = "sqlite:///"
PASSWORD = re.compile(r"(://)[^/\s@]*@|(?<=[?&])(password=)[^&\s]*")


def public(text: str) -> str:
    """A store's address, or a text with addresses in it, without passwords.

    >>> public("no answer from https://me:secret@host:5000/x")
    'no answer from https://host:5000/x'
    """
    return PASSWORD.sub(lambda found: found[1] or found[2], text)


def database(uri: str) -> Path | None:
    """The file of an SQLite store, as it is written; None for any other store, and for one in memory."""
    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return None if name in (None, "", ":memory:") or name.startswith("file:") else Path(name)


def absolute(uri: str) -> str:
    """A store's address for any working folder: with the absolute path of a database file."""
    file, options = database(uri), uri.partition("?")[2]
    if file is None:
        return uri
    return sqlite(file.absolute()) + (f"?{options}" if options else "")


def sqlite(file: Path) -> str:
    """The address of a database file, from which SQLAlchemy reads just its path again.

    >>> sqlite(Path("/a b/#1/mlflow.db")), sqlite(Path("/100%?/mlflow.db"))
    ('sqlite:////a b/#1/mlflow.db', 'sqlite+pysqlite:////100%25%3F/mlflow.db')
    """
    plain = f"{SQLITE}{file}"
    if make_url(plain).database == str(file):
        return plain
    # With the driver's name: for `sqlite:///` MLflow makes the folder that is called as the quoted path.
    return f"sqlite+pysqlite:///{quote(str(file), safe='/ ')}"


def seen_from(uri: str, folder: Path) -> str:
    """A store as a record in a folder names it: without a password, a database file relative to the folder."""
    file = database(uri)
    if file is None:
        return public(uri)
    # Of folders below links '..' leads out of where they lie, not of where the link is.
    relative = os.path.relpath(file.absolute().parent.resolve() / file.name, folder.resolve())
    return sqlite(Path(relative))
