"""Files that appear whole, in a folder or wherever fsspec can write. Blocks: call it from a thread."""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from typing import IO, Final

from fsspec import AbstractFileSystem

from schemas.errors import PenstockError, RetryableError

PART: Final = ".part"


class ArtifactUnavailable(RetryableError):
    """The store did not answer, or refused."""


@contextlib.contextmanager
def working(files: AbstractFileSystem, path: str, what: str = "the model store") -> Iterator[None]:
    """Raise ArtifactUnavailable, which names `what` and the place, for whatever the file system raises inside."""
    try:
        yield
    except PenstockError:
        raise
    except Exception as error:  # besides OSError, each fsspec backend raises errors of its own library
        raise ArtifactUnavailable(
            f"{what} failed at {place_of(files, path)} ({type(error).__name__}: {error}); "
            "check that it can be reached, written and read, and has room"
        ) from error


def place_of(files: AbstractFileSystem, path: str) -> str:
    """Return where `path` is, as a person writes it."""
    place: str = files.unstrip_protocol(path)
    return place.removeprefix("file://")


def write_whole(files: AbstractFileSystem, path: str, payload: bytes) -> None:
    """Write `payload` to `path` in `files`, in place of what is there; folders that it lacks are made.

    The name appears only when every byte is on the disk: a crash leaves at most a hidden file that ends in `PART`,
    which pandas, DuckDB and `ls` pass over. Raises what the file system does, and then leaves nothing.
    """
    folder, _, name = path.rpartition("/")
    files.makedirs(folder, exist_ok=True)
    part = f"{folder}/.{name}.{secrets.token_hex(8)}{PART}"
    try:
        with files.open(part, "wb") as file:
            file.write(payload)
            reach_disk(file)
        files.mv(part, path)
    except BaseException:  # whatever stopped us, take the rubbish along
        with contextlib.suppress(OSError):
            files.rm_file(part)
        raise


def reach_disk(file: IO[bytes]) -> None:
    """Without this, a power cut after the rename can leave an empty file under the final name."""
    file.flush()
    with contextlib.suppress(io.UnsupportedOperation):  # not a local file
        os.fsync(file.fileno())
