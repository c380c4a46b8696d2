"""What bombs are filled with."""

from __future__ import annotations

import zlib

__all__ = ["FILE_LIMIT", "zeros_stream"]

#: Bytes: just under the limit of the runtime, so that the limit does not help.
FILE_LIMIT = 59_900_000


def zeros_stream(num_bytes: int) -> bytes:
    """A zlib stream that unpacks to `num_bytes` zeros."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(num_bytes >> 20)]
    parts.append(packer.compress(bytes(num_bytes & 0xFFFFF)))
    return b"".join(parts) + packer.flush()
