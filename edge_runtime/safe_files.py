"""Files without surprises: bounded reads of regular files, writes that are whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from edge_runtime.errors import BundleFormatError, BundleIntegrityError

__all__ = ["create_file", "read_file", "sync_folder", "write_file", "write_parts"]


def read_file(path: Path, *, max_bytes: int) -> bytes:
    """Read one regular file once, following no symbolic link.

    Raises:
        BundleIntegrityError: The file is missing, a link, not a regular file or unreadable.
        BundleFormatError: The file is larger than `max_bytes`.
    """
    # O_NONBLOCK: opening a FIFO put in the file's place must not hang the camera.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise BundleIntegrityError(f"{path.name} is missing; copy it again") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleIntegrityError(f"{path.name} cannot be opened as a file: {reason}") from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleIntegrityError(f"{path.name} is not a regular file; copy it again")
        try:
            data = stream.read(max_bytes + 1)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BundleIntegrityError(f"{path.name} cannot be read: {reason}") from error
    if len(data) > max_bytes:
        raise BundleFormatError(f"{path.name} is larger than the limit of {max_bytes} bytes")
    return data


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write `data` to `path` so that a reader or a power cut sees the old or the new content.

    Raises:
        OSError: The folder cannot be written.
    """
    write_parts(path, (data,), mode=mode)


def write_parts(path: Path, parts: Iterable[bytes], *, mode: int = 0o644) -> None:
    """As `write_file`, for content that comes in parts and is never held whole.

    Temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises:
        OSError: The folder cannot be written.
        Exception: Whatever `parts` raises; the old content stays.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(descriptor)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def create_file(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet, with exactly `mode` from its first byte on.

    Raises:
        FileExistsError: The file exists; it is left as it is.
        OSError: The folder cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, mode), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename durable; systems that cannot open a folder skip this."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
