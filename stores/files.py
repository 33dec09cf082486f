"""Files that appear whole, in a folder or wherever fsspec can write. Blocks: call it from a thread."""

import contextlib
import io
import os
import secrets
from typing import IO, Final

from fsspec import AbstractFileSystem

PART: Final = ".part"


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
