"""The record of a folder of answers: what was screened stays screened, whatever ends the run.

`results.jsonl` has one line an answer, appended and synced before the next: a run can be killed
at any moment and started again. A line is the JSON object of `--json` without `input_index`, and
with `record`: the key, the time and the version of the software. It holds no file name.

The key is a hash of everything that the answer depends on: the contents of the pictures, eye by
eye, the hashes expected of them, the bundle, the engine with its precision, whether a child
process decodes, and the versions of this software and of the libraries that decode for it. The
same key is never screened twice; a changed file has another key. An answer that a failure of the
machine gave, and not the pictures, has no key: it is tried again. So has one that was changed
because a picture of it lies under another examination, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import simplejpeg

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.result import SCHEMA_VERSION, ScreeningResult
from edge_runtime.safe_files import sync_folder
from edge_runtime.screening.entries import Screened
from edge_runtime.screening.reading import EyeContents

__all__ = ["RECORD_NAME", "ScreenRecord", "record_key"]

RECORD_NAME = "results.jsonl"
RECORD_SCHEMA_VERSION = 1
_LIBRARIES = (cv2.__version__, np.__version__, simplejpeg.__version__)
_LINE_START = b'{"record":{'
# Say nothing about what was computed: why the engine was chosen, and how many threads it has.
_NO_PART_OF_THE_ANSWER = frozenset({"chosen", "threads"})


def record_key(
    contents: tuple[EyeContents, ...],
    *,
    bundle_sha256: str,
    engine: tuple[str, str, Mapping[str, str]],
    is_isolated: bool,
    software_version: str,
) -> str:
    """Return the key of an answer as 64 hex digits.

    Args:
        contents: What was read of every eye.
        bundle_sha256: Hash of the bundle's manifest.
        engine: Name, precision and details of the engine that answers.
        is_isolated: Whether a capped child decodes: what its limits refuse, this process may read.
        software_version: Version of edge-screen.
    """
    name, precision, facts = engine
    details = {k: v for k, v in facts.items() if k not in _NO_PART_OF_THE_ANSWER}
    versions = [SCHEMA_VERSION, software_version, *_LIBRARIES]
    value = [contents, bundle_sha256, name, precision, details, is_isolated, versions]
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class ScreenRecord:
    """The record of one folder, locked for one process. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open or begin the record; a torn last line is cut off.

        Args:
            folder: Where `results.jsonl` lies or is to lie; made where it is missing.

        Raises:
            ConfigError: If another run writes there, or the folder cannot be written.
            DataError: If a line that is not the last one is damaged, or the first one is not of a
                record.
        """
        self._path = folder / RECORD_NAME
        self._offsets: dict[str, dict[str | None, int]] = {}
        self.torn_bytes = 0
        self._descriptor = self._open(folder)
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._descriptor)
            raise

    def find(self, key: str | None, examination_id: str | None) -> int | None:
        """Return the place of the answer with this key, or None.

        It is the one given to this examination, else one given to another of the same content.
        """
        places = {} if key is None else self._offsets.get(key, {})
        return places.get(examination_id, next(iter(places.values()), None))

    def add(self, key: str | None, screened: Screened) -> int:
        """Append an answer and sync it to the disk; return its place.

        Args:
            key: As `record_key` gave it; None for an answer that is to be tried again.
            screened: The answer, without evidence maps.

        Raises:
            ConfigError: If the line cannot be written (a full disk, say).
        """
        head = {
            "schema_version": RECORD_SCHEMA_VERSION,
            "key": key,
            "screened_at": screened.screened_at,
            "software_version": screened.software_version,
        }
        value = {"record": head, **screened.result.to_dict()}
        line = json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        place = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            _write_all(self._descriptor, line)
            os.fsync(self._descriptor)
        except OSError as error:
            raise ConfigError(
                f"the record {self._path} cannot be written ({error.strerror}); free space there "
                "and start again: what is in it stays"
            ) from error
        self._note(key, screened.result.examination_id, place)
        return place

    def read(self, place: int) -> Screened:
        """Return the answer at a place that `find` or `add` gave.

        Raises:
            DataError: If the line was changed since it was written.
        """
        os.lseek(self._descriptor, place, os.SEEK_SET)
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            value = _parse(stream.readline())
        if value is None:
            raise DataError(self._damaged(f"at byte {place}"))
        head = value.pop("record")
        try:
            result = ScreeningResult.from_dict(value)
        except DataError as error:
            where = f"at byte {place}: the answer there was changed since it was written"
            raise DataError(self._damaged(where)) from error
        return Screened(
            result=result,
            screened_at=str(head["screened_at"]),
            software_version=str(head["software_version"]),
        )

    def close(self) -> None:
        """Close the file and release the lock."""
        os.close(self._descriptor)

    def __enter__(self) -> ScreenRecord:
        """Return the record itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the record."""
        self.close()

    def _open(self, folder: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise ConfigError(
                f"the record {self._path} cannot be opened ({error.strerror}); name another --out"
            ) from error
        sync_folder(folder)
        return descriptor

    def _lock(self) -> None:
        """Take the lock that the kernel releases with the process, also with a killed one."""
        import fcntl

        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run writes into {self._path.parent}; wait for it, or name another --out"
            ) from error

    def _read(self) -> None:
        """Learn what is there; cut off a last line that was not written to its end."""
        place = 0
        for line, is_last in self._lines():
            value = _parse(line)
            if value is None and not (is_last and (place or _begins_a_record(line))):
                raise DataError(self._damaged(f"at byte {place}"))
            if value is None:
                self.torn_bytes = len(line)
                os.ftruncate(self._descriptor, place)
                os.fsync(self._descriptor)
                return
            self._note(value["record"]["key"], value["examination_id"], place)
            place += len(line)

    def _lines(self) -> Iterator[tuple[bytes, bool]]:
        """Yield every line with its end, and whether it is the last."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            line = stream.readline()
            while line:
                following = stream.readline()
                yield line, not following
                line = following

    def _note(self, key: str | None, examination_id: str | None, place: int) -> None:
        if key is not None:
            self._offsets.setdefault(key, {})[examination_id] = place

    def _damaged(self, where: str) -> str:
        return (
            f"the record {self._path} is damaged {where}; move the folder away and start again, or "
            "name another --out"
        )


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the object of a whole line that this version wrote, or None."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    head = value.get("record") if isinstance(value, dict) else None
    if not isinstance(head, dict) or "examination_id" not in value:
        return None
    known = head.get("schema_version") == RECORD_SCHEMA_VERSION
    complete = {"key", "screened_at", "software_version"} <= head.keys()
    return value if known and complete else None


def _begins_a_record(line: bytes) -> bool:
    """Whether a first line can be one of ours that was cut off, and not somebody's other file."""
    start = line[: len(_LINE_START)]
    return not line.endswith(b"\n") and (_LINE_START.startswith(start) or not line.strip(b"\0"))


def _write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; `os.write` may write fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
