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

from pyarrow.fs import FileSystem, copy_files

from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.files import write_whole

SCHEMES = ("s3", "gs")


@dataclass(frozen=True)
class Storage:
    """The top folder of what one comparison stores: an absolute path, or a URI with ``?options``.

    What cannot be read or written there raises OSError.
    """

    address: str

    def place(self, path: str) -> str:
        """The place of what Ray calls ``path``: an absolute one, or one that begins with the bucket's name."""
        if not remote(self.address):
            return path
        _, mark, options = self.address.partition("?")
        return f"{self.address.partition('://')[0]}://{path}{mark}{options}"

    def below(self, name: str) -> Storage:
        """The storage in a folder of this one."""
        if not remote(self.address):
            return Storage(f"{self.address}/{name}")
        path, mark, options = self.address.partition("?")
        return Storage(f"{path}/{name}{mark}{options}")

    def remove(self, place: str) -> None:
        """Delete a folder of this comparison's; any other, and one that cannot be deleted, stays."""
        with suppress(OSError, ValueError):
            filesystem, top = FileSystem.from_uri(self.address)
            kind, path = FileSystem.from_uri(place)
            inside = os.path.relpath(os.path.realpath(path), os.path.realpath(top))
            if kind.type_name == filesystem.type_name and inside != "." and not inside.startswith(".."):
                filesystem.delete_dir(path)

    def write(self, name: str, content: bytes) -> None:
        """Put a file at the top, whole or not at all."""
        filesystem, folder = FileSystem.from_uri(self.address)
        filesystem.create_dir(folder)
        if not remote(self.address):
            write_whole(Path(folder, name), content)
            return
        with filesystem.open_output_stream(f"{folder}/{name}") as file:  # a store shows what it was sent whole
            file.write(content)

    def read(self, name: str) -> bytes | None:
        """The content of a file at the top, or None where there is none."""
        filesystem, folder = FileSystem.from_uri(self.address)
        try:
            with filesystem.open_input_stream(f"{folder}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def copy(self, folder: Path, name: str) -> None:
        """Put a folder of this host's at the top."""
        filesystem, top = FileSystem.from_uri(self.below(name).address)
        filesystem.create_dir(top)
        copy_files(str(folder), top, destination_filesystem=filesystem)

    @contextmanager
    def marked(self) -> Iterator[str]:
        """Place of a file that is there for as long as this lasts: who does not see it looks somewhere else.

        ConfigError where nothing can be written.
        """
        marker = f".in-use-{uuid.uuid4().hex}"
        try:
            self.write(marker, b"a comparison runs\n")
        except (OSError, ValueError) as error:  # pyarrow's are among them
            raise ConfigError(f"no models can be stored in {shown(self.address)}: {error}") from error
        try:
            yield self.below(marker).address
        finally:
            with suppress(OSError):  # a file too much; how the comparison ended is what is to be told
                filesystem, folder = FileSystem.from_uri(self.address)
                filesystem.delete_file(f"{folder}/{marker}")


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
        filesystem, path = FileSystem.from_uri(place)
        return bool(filesystem.get_file_info(path).type.name != "NotFound")
    except (OSError, ValueError):
        return False


@contextmanager
def as_folder(place: str) -> Iterator[Path]:
    """A folder at a place as one of this host's: fetched out of a store while this lasts, or DataError."""
    if not remote(place):
        yield Path(place)
        return
    with TemporaryDirectory() as folder:
        try:
            copy_files(place, folder)
        except (OSError, ValueError) as error:
            raise DataError(f"{shown(place)} cannot be fetched: {error}") from error
        yield Path(folder)
