"""Read any eye of sharded data: one range of bytes, checked against its SHA-256.

Nothing is scanned and nothing stays open, so threads and processes share a reader freely.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.errors import DataError
from train.data.shard_format import HEAD_NAME, PICTURES, read_json

__all__ = ["EyeFiles", "ShardReader"]


@dataclass(frozen=True, kw_only=True)
class EyeFiles:
    """The picture files of one eye, each the bytes that were put in.

    Attributes:
        where: shard and key, for messages.
        cfp: PNG or JPEG.
        oct_h: horizontal B-scan, PNG.
        oct_v: vertical B-scan, PNG.
    """

    where: str
    cfp: bytes
    oct_h: bytes
    oct_v: bytes


class ShardReader:
    """Sharded data as a list of eyes, in the order of the data set's index.

    Attributes:
        fingerprint: SHA-256 of the data set that was sharded.
        synthetic: whether that set declared itself synthetic.
        split: which split it is.
        keys: (N,) str.
        patient_ids: (N,) str.
    """

    def __init__(self, folder: Path) -> None:
        """Read the indexes into arrays of about 200 bytes an eye.

        Raises:
            DataError: an index is missing, changed or incomplete, or a shard has another size.
        """
        head = read_json(folder / HEAD_NAME)
        self.folder = folder
        try:
            self.fingerprint = str(head["fingerprint"])
            self.synthetic, self.split = bool(head["synthetic"]), str(head["split"])
            shards = [self._read_shard(entry) for entry in head["shards"]]
            self.tars = [str(shard["tar"]) for shard in shards]
            self._fill(shards)
            num_eyes = head["num_eyes"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the indexes of {folder} are incomplete: {error!r}; write the shards again"
            ) from error
        if not len(self) or len(self) != num_eyes:
            raise DataError(f"{folder} indexes {len(self)} eyes, {HEAD_NAME} says {num_eyes}")

    def _read_shard(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        shard = read_json(self.folder / entry["index"], sha256=entry["sha256"])
        path = self.folder / shard["tar"]
        size = path.stat().st_size if path.is_file() else None
        if size != shard["bytes"]:
            raise DataError(
                f"shard {path} has {size} bytes, its index says {shard['bytes']}; copy it again"
            )
        return shard

    def _fill(self, shards: list[Mapping[str, Any]]) -> None:
        eyes = [eye for shard in shards for eye in shard["eyes"]]
        counts = [len(shard["eyes"]) for shard in shards]
        self.keys = np.array([eye["key"] for eye in eyes], np.str_)
        self.patient_ids = np.array([eye["patient_id"] for eye in eyes], np.str_)
        self._shard_of = np.repeat(np.arange(len(shards)), counts)
        members = [_by_picture(eye["members"]) for eye in eyes]
        spans = [[one[:2] for one in three] for three in members]
        self._spans = np.array(spans, np.int64).reshape(-1, len(PICTURES), 2)
        digests = b"".join(bytes.fromhex(one[2]) for three in members for one in three)
        self._digests = np.frombuffer(digests, np.uint8).reshape(-1, len(PICTURES), 32)

    def __len__(self) -> int:
        """Number of eyes."""
        return len(self.keys)

    def where(self, eye: int) -> str:
        """Shard and key of an eye, for messages."""
        return f"shard {self.tars[self._shard_of[eye]]}, key {self.keys[eye]}"

    def read(self, eye: int) -> EyeFiles:
        """Read the three pictures of one eye.

        Raises:
            DataError: the shard cannot be read, or a picture's SHA-256 differs.
        """
        spans, where = self._spans[eye], self.where(eye)
        start, end = int(spans[0, 0]), int(spans[-1].sum())
        path = self.folder / self.tars[self._shard_of[eye]]
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                data = file.read(end - start)
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error.strerror})") from error
        pictures = {}
        for k, name in enumerate(PICTURES):
            offset, size = int(spans[k, 0]) - start, int(spans[k, 1])
            picture = data[offset : offset + size]
            if hashlib.sha256(picture).digest() != self._digests[eye, k].tobytes():
                raise DataError(f"{where}: {name} is damaged (its SHA-256 differs); copy it again")
            pictures[name] = picture
        return EyeFiles(where=where, **pictures)


def _by_picture(members: Mapping[str, list[Any]]) -> list[list[Any]]:
    """[offset, size, SHA-256] in the order of `PICTURES`."""
    found = {name.partition(".")[0]: one for name, one in members.items()}
    return [found[name] for name in PICTURES]
