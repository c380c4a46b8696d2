"""The layout of sharded data, shared by writer and reader.

    SHARDS/train-000000.tar     KEY.cfp.png or KEY.cfp.jpg, KEY.oct_h.png, KEY.oct_v.png, KEY.json
    SHARDS/train-000000.json    offset, size and SHA-256 of every member of that tar
    SHARDS/shards.json          split, fingerprint, eyes and SHA-256 of each index; written last

The tar files follow the WebDataset convention (the key of a file is its name up to the
first dot, files of one key follow each other), so other tools can read them in order. The
indexes make them random access: a member is a range of bytes. KEY.json holds the key, the
data set's (pseudonymous) patient id and the eye, and neither dates nor sites nor labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError

__all__ = ["FORMAT", "HEAD_NAME", "PICTURES", "picture_names", "read_json", "sha256_hex"]

FORMAT = 1
HEAD_NAME = "shards.json"
PICTURES = ("cfp", "oct_h", "oct_v")
_JPEG = b"\xff\xd8"


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def picture_names(cfp: bytes) -> tuple[str, str, str]:
    """Member names without the key, in the order of `PICTURES`; the CFP's follows its bytes."""
    return ("cfp.jpg" if cfp.startswith(_JPEG) else "cfp.png", "oct_h.png", "oct_v.png")


def read_json(path: Path, *, sha256: str | None = None) -> Mapping[str, Any]:
    """Read one of the JSON files.

    Raises:
        DataError: it is missing, no object, of another format, or its SHA-256 differs.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give a folder that "
            "edge-screen data shard wrote"
        ) from error
    if sha256 is not None and sha256_hex(data) != sha256:
        raise DataError(f"{path} was changed since {HEAD_NAME} was written; write the shards again")
    try:
        record = json.loads(data)
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}; write the shards again") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise DataError(f"{path} has format {found!r}; this version reads {FORMAT}")
    assert isinstance(record, dict)
    return record
