"""Write a split as tar shards: few large files instead of millions of small ones.

Every picture is decoded before anything is kept, so that training meets no surprise: a
split with unreadable pictures is refused with the whole list, or, if so asked, written
without up to so many visits, which the head then lists. Picture files are copied byte by
byte, whatever metadata they carry included.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import ConfigError, DataError, ImageError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from train.data.ahead import map_ahead
from train.data.index import DataIndex, EyeVisit, read_index
from train.data.origin import read_origin
from train.data.scans import decode_scan
from train.data.shard_format import FORMAT, HEAD_NAME, PICTURES, picture_names, sha256_hex

__all__ = ["ShardSummary", "write_shards"]

Progress = Callable[[int, int], None]
_BLOCK = tarfile.BLOCKSIZE
_MIB = 1 << 20
_SHOWN = 20  # unreadable visits named in a refusal


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """What was written.

    Attributes:
        num_eyes: visits in the shards.
        num_shards: tar files.
        num_bytes: of the tar files together.
        num_unpaired: visits without a CFP or without one of the two scans, left out.
        left_out: (row number, reason) of visits with an unreadable picture.
    """

    num_eyes: int
    num_shards: int
    num_bytes: int
    num_unpaired: int
    left_out: tuple[tuple[int, str], ...]


def write_shards(
    root: Path,
    out: Path,
    *,
    split: str = "train",
    shard_mib: int = 256,
    size_px: int = 96,
    max_left_out: int = 0,
    num_threads: int = 2,
    progress: Progress | None = None,
) -> ShardSummary:
    """Write one split of the data set in `root` to the new folder `out`.

    Args:
        root: the data set.
        out: must not exist; appears only when everything is written.
        split: 'train', 'val' or 'test'.
        shard_mib: a shard is closed when it has reached this many MiB.
        size_px: side that CFPs are tried at; the files are stored as they are.
        max_left_out: visits with unreadable pictures that may be left out.
        num_threads: that read and decode. The bytes written do not depend on it.
        progress: called with (visits done, visits).

    Raises:
        ConfigError: a number is out of its range.
        DataError: `out` exists, no triple is there, or too many pictures are unreadable.
    """
    if shard_mib < 1 or max_left_out < 0:
        raise ConfigError(f"shard_mib {shard_mib} must be >= 1, max_left_out {max_left_out} >= 0")
    if out.exists():
        raise DataError(f"{out} exists; give a folder that does not exist yet")
    index, spec = read_index(root), PreprocessSpec(size_px=size_px)
    visits = index.split(split)
    triples = [visit for visit in visits if all(name in visit.files for name in PICTURES)]
    if not triples:
        raise DataError(f"split '{split}' of {root} has no visit with a CFP and both scans")
    with _appearing(out) as part, closing(_Writer(part, split, shard_mib * _MIB)) as writer:
        left_out = []
        outcomes = map_ahead(lambda one: _examine(one, spec), triples, num_threads=num_threads)
        for done, (visit, outcome) in enumerate(zip(triples, outcomes, strict=True), start=1):
            if isinstance(outcome, str):
                left_out.append((visit.row_number, outcome))
            elif len(left_out) <= max_left_out:  # else only the list goes on
                writer.add(visit, outcome)
            if progress is not None:
                progress(done, len(triples))
        _refuse_unreadable(left_out, max_left_out, len(triples))
        writer.finish(_head(index, split, size_px, left_out))
    return ShardSummary(
        num_eyes=writer.num_eyes,
        num_shards=len(writer.shards),
        num_bytes=writer.num_bytes,
        num_unpaired=len(visits) - len(triples),
        left_out=tuple(left_out),
    )


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, or is gone if anything fails."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was stopped
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _examine(visit: EyeVisit, spec: PreprocessSpec) -> tuple[bytes, ...] | str:
    """The bytes of the three pictures, or why they cannot be used."""
    try:
        files = tuple(visit.files[name].read_bytes() for name in PICTURES)
    except OSError as error:
        return f"'{error.filename}' cannot be read: {error.strerror}"
    try:
        load_for_model(files[0], spec)
    except ImageError as error:
        return f"cfp '{visit.files['cfp'].name}': {error}"
    try:
        names = [visit.files[name].name for name in PICTURES]
        scans = [decode_scan(files[k], names[k]) for k in (1, 2)]
    except DataError as error:
        return str(error)
    if scans[0].shape != scans[1].shape:
        return f"oct_h is {scans[0].shape} and oct_v {scans[1].shape}; both must be of one shape"
    return files


def _refuse_unreadable(left_out: list[tuple[int, str]], limit: int, total: int) -> None:
    if len(left_out) == total:
        limit = -1
    if len(left_out) <= limit or not left_out:
        return
    lines = [f"row {row}: {reason}" for row, reason in left_out[:_SHOWN]]
    more = len(left_out) - len(lines)
    tail = [f"and {more} more (edge-screen data check lists every one)"] if more else []
    raise DataError(
        f"{len(left_out)} of {total} visits have unreadable pictures, {max(limit, 0)} may be left "
        "out; mend them or allow more with --max-left-out:\n" + "\n".join([*lines, *tail])
    )


def _head(
    index: DataIndex, split: str, size_px: int, left_out: list[tuple[int, str]]
) -> dict[str, Any]:
    fingerprint = index.fingerprint()
    return {
        "format": FORMAT,
        "split": split,
        "synthetic": read_origin(index.root, fingerprint=fingerprint).synthetic,
        "fingerprint": fingerprint,
        "tried_at_px": size_px,
        "left_out": [{"row": row, "reason": reason} for row, reason in left_out],
    }


class _Writer:
    """Tar files of about `limit` bytes with their indexes; nothing depends on the clock."""

    def __init__(self, folder: Path, split: str, limit: int) -> None:
        self.folder, self.split, self.limit = folder, split, limit
        self.num_eyes, self.num_bytes = 0, 0
        self.shards: list[dict[str, Any]] = []
        self._tar: tarfile.TarFile | None = None
        self._eyes: list[dict[str, Any]] = []

    @property
    def _stem(self) -> str:
        return f"{self.split}-{len(self.shards):06d}"

    def add(self, visit: EyeVisit, files: tuple[bytes, ...]) -> None:
        """Append one eye; its members lie side by side."""
        if self._tar is None:
            # ustar: every header is one block, so a member's offset is known when written.
            self._tar = tarfile.open(  # noqa: SIM115 - closed by _seal, when it is full
                self.folder / f"{self._stem}.tar", "w", format=tarfile.USTAR_FORMAT
            )
        key = f"{self.num_eyes:09d}"
        who = {"key": key, "patient_id": visit.patient_id, "eye": visit.eye}
        members = {
            name: self._append(f"{key}.{name}", data)
            for name, data in zip(picture_names(files[0]), files, strict=True)
        }
        self._append(f"{key}.json", json.dumps(who).encode())
        self._eyes.append({**who, "members": members})
        self.num_eyes += 1
        if self._tar.offset >= self.limit:
            self._seal()

    def _append(self, name: str, data: bytes) -> list[int | str]:
        """Offset, size and SHA-256 of what was appended."""
        assert self._tar is not None
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o444
        offset = self._tar.offset + _BLOCK
        self._tar.addfile(info, io.BytesIO(data))
        return [offset, len(data), sha256_hex(data)]

    def close(self) -> None:
        """Close what is open; only needed when writing was given up."""
        if self._tar is not None:
            self._tar.fileobj.close()

    def _seal(self) -> None:
        """Finish the tar file that is open, and write its index."""
        if self._tar is None:
            return
        self._tar.close()
        path = self.folder / f"{self._stem}.tar"
        record = {
            "format": FORMAT,
            "tar": path.name,
            "bytes": path.stat().st_size,
            "sha256": _file_sha256(path),
            "eyes": self._eyes,
        }
        data = json.dumps(record, separators=(",", ":")).encode()
        index = path.with_suffix(".json")
        index.write_bytes(data)
        for one in (path, index):
            _synchronize(one)
        self.num_bytes += path.stat().st_size
        entry = {"index": index.name, "sha256": sha256_hex(data), "eyes": len(self._eyes)}
        self.shards.append(entry)
        self._tar, self._eyes = None, []

    def finish(self, head: dict[str, Any]) -> None:
        """Close the last shard and write the head."""
        self._seal()
        record = {**head, "num_eyes": self.num_eyes, "shards": self.shards}
        path = self.folder / HEAD_NAME
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        _synchronize(path)
        _synchronize(self.folder)


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            yield block


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
