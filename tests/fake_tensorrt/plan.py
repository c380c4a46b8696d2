"""The fake's serialised engine: a header, the ONNX graph that it will run, and a hash over both.

Like a real plan it binds to the version, the compute capability and the device it was built on,
and one changed byte makes it worthless.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

_MAGIC = b"FAKEPLAN"
_HASH_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class FakePlan:
    """What the fake builder decided; `profiles` holds (min, opt, max) by input name."""

    version: str
    device: str
    compute_capability: tuple[int, int]
    strongly_typed: bool
    flags: tuple[str, ...]
    verbosity: str
    profiles: tuple[dict[str, Any], ...]
    onnx: bytes

    def to_bytes(self) -> bytes:
        """Serialise."""
        head = {key: value for key, value in asdict(self).items() if key != "onnx"}
        text = json.dumps(head, sort_keys=True).encode()
        body = _MAGIC + len(text).to_bytes(8, "little") + text + self.onnx
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> FakePlan | None:
        """Read, or return None when a byte is missing, extra or changed."""
        body, digest = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
        if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
            return None
        start = len(_MAGIC) + 8
        stop = start + int.from_bytes(body[len(_MAGIC) : start], "little")
        head = json.loads(body[start:stop])
        for key in ("compute_capability", "flags", "profiles"):
            head[key] = tuple(head[key])
        return cls(**head, onnx=body[stop:])
