"""Where trials leave their models: a folder that every host sees, or an object store (``s3://``, ``gs://``).

A *place* is the address of one thing there, as text: an absolute path, or a whole URI.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ms_automl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs")


@dataclass(frozen=True)
class Storage:
    """The top folder of what one comparison stores.

    Attributes:
        address: an absolute path, or a URI, which may end with ``?options`` of the store's.
    """

    address: str

    def place(self, path: str) -> str:
        """The place of what Ray calls ``path``: an absolute one, or one that begins with the bucket's name."""
        if not remote(self.address):
            return path
        scheme, _, rest = self.address.partition("://")
        options = rest.partition("?")[2]
        return f"{scheme}://{path}" + (f"?{options}" if options else "")

    def below(self, name: str) -> Storage:
        """The storage in a folder of this one."""
        if not remote(self.address):
            return Storage(f"{self.address}/{name}")
        path, mark, options = self.address.partition("?")
        return Storage(f"{path}/{name}{mark}{options}")

    def remove(self, place: str) -> None:
        """Delete a folder of this comparison's; any other, and one that cannot be deleted, stays."""
        with suppress(OSError, ValueError):
            filesystem, top = _opened(self.address)
            kind, path = _opened(place)
            inside = os.path.relpath(os.path.realpath(path), os.path.realpath(top))
            if kind.type_name == filesystem.type_name and inside != "." and not inside.startswith(".."):
                filesystem.delete_dir(path)

    def write(self, name: str, content: bytes) -> None:
        """Put a file at the top, whole or not at all.

        Raises:
            OSError: where it cannot be written.
        """
        filesystem, folder = _opened(self.address)
        filesystem.create_dir(folder)
        # A store shows what it was sent whole; in a folder a reader could come in between.
        path = f"{folder}/{name}" if remote(self.address) else f"{folder}/.{name}.tmp"
        with filesystem.open_output_stream(path) as file:
            file.write(content)
        if not remote(self.address):
            Path(path).replace(Path(folder) / name)

    def read(self, name: str) -> bytes | None:
        """The content of a file at the top, or None where there is none.

        Raises:
            OSError: where nothing can be read.
        """
        filesystem, folder = _opened(self.address)
        if filesystem.get_file_info(f"{folder}/{name}").type.name == "NotFound":
            return None
        with filesystem.open_input_stream(f"{folder}/{name}") as file:
            return bytes(file.read())

    def copy(self, folder: Path, name: str) -> None:
        """Put a folder of this host's at the top.

        Raises:
            OSError: where it cannot be written.
        """
        from pyarrow import fs

        filesystem, top = _opened(self.address)
        filesystem.create_dir(f"{top}/{name}")
        fs.copy_files(str(folder), f"{top}/{name}", destination_filesystem=filesystem)

    @contextmanager
    def marked(self) -> Iterator[str]:
        """Place of a file that is there for as long as this lasts: who does not see it looks somewhere else.

        Raises:
            ConfigError: where nothing can be written.
        """
        name = f".in-use-{uuid.uuid4().hex}"
        try:
            filesystem, folder = _opened(self.address)
            filesystem.create_dir(folder)
            with filesystem.open_output_stream(f"{folder}/{name}") as file:
                file.write(b"a comparison runs\n")
        except (OSError, ValueError) as error:  # pyarrow's are among them
            raise ConfigError(f"no models can be stored in {shown(self.address)}: {error}") from error
        try:
            yield self.place(f"{folder}/{name}")
        finally:
            with suppress(OSError):  # a file too much; how the comparison ended is what is to be told
                filesystem.delete_file(f"{folder}/{name}")


def storage_of(option: str | None, out: Path) -> Storage:
    """What the comparison in ``out`` stores goes below ``--storage``, in a folder of its own; or into ``out``.

    Raises:
        ConfigError: for an address that holds keys, or is neither a folder nor of a store that is known.
    """
    if option is None:
        return Storage(str(out))
    if not remote(option):
        return Storage(str(Path(option).expanduser().absolute() / out.name))
    scheme, _, rest = option.partition("://")
    path, mark, options = rest.partition("?")
    if "@" in path:
        raise ConfigError(
            "--storage: keys belong in the environment of every host, or in its role, not in the address"
        )
    if scheme not in SCHEMES or not path.strip("/"):
        known = ", ".join(f"{name}://BUCKET/PATH" for name in SCHEMES)
        raise ConfigError(f"--storage takes a folder that all hosts see, {known}, but got {shown(option)}")
    return Storage(f"{scheme}://{path.strip('/')}/{out.name}{mark}{options}")


def remote(place: str) -> bool:
    """Whether a place lies in an object store."""
    return "://" in place


def shown(place: str) -> str:
    """A place without its options."""
    return place.partition("?")[0] if remote(place) else place


def exists(place: str) -> bool:
    """Whether a file or folder is at a place, seen from this host."""
    try:
        filesystem, path = _opened(place)
        return bool(filesystem.get_file_info(path).type.name != "NotFound")
    except (OSError, ValueError):
        return False


@contextmanager
def as_folder(place: str) -> Iterator[Path]:
    """A folder at a place, as one of this host's; fetched for as long as this lasts where it is in a store.

    Raises:
        DataError: where it cannot be fetched.
    """
    if not remote(place):
        yield Path(place)
        return
    from pyarrow import fs

    with TemporaryDirectory() as folder:
        try:
            filesystem, path = _opened(place)
            fs.copy_files(path, folder, source_filesystem=filesystem)
        except (OSError, ValueError) as error:
            raise DataError(f"{shown(place)} cannot be fetched: {error}") from error
        yield Path(folder)


def _opened(place: str) -> tuple[FileSystem, str]:
    from pyarrow import fs

    if not remote(place):
        return fs.LocalFileSystem(), place
    filesystem, path = fs.FileSystem.from_uri(place)
    return filesystem, path
