"""Notice every opening of a file by whatever code of this machine, native code included (Linux)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType

import pytest

__all__ = ["FileWatch"]

_IN_ACCESS, _IN_OPEN, _IN_NONBLOCK = 0x1, 0x20, 0o4000


class FileWatch:
    """Counts openings and reads of one file through inotify; symbolic links do not hide it."""

    def __init__(self, path: Path) -> None:
        """Begin to watch; skips the test where there is no inotify."""
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            pytest.skip("needs inotify (Linux)")
        self._descriptor = libc.inotify_init1(_IN_NONBLOCK)
        mask = _IN_ACCESS | _IN_OPEN
        watch = libc.inotify_add_watch(self._descriptor, os.fsencode(path.resolve()), mask)
        assert self._descriptor >= 0 <= watch, os.strerror(ctypes.get_errno())

    def was_opened(self) -> bool:
        """Whether the file was opened or read since the last question."""
        try:
            return len(os.read(self._descriptor, 65536)) > 0
        except BlockingIOError:
            return False

    def __enter__(self) -> FileWatch:
        """Return the watch itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the watch."""
        os.close(self._descriptor)
