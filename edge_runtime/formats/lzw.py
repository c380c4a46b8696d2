"""Undo TIFF's LZW strictly: exactly the bytes expected, or refused.

Between two clear codes the width of a code depends only on how many came before it, so all
codes of such a stretch are cut out of the bits at once; the table is then walked code by code.

TIFF 6.0, section 13: most significant bit first, widths grow one code early.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageLimitError
from edge_runtime.formats.packed_bytes import damaged

__all__ = ["check_lzw_cost", "unpack_lzw"]

_CLEAR, _END, _MAX_ENTRIES = 256, 257, 4096
_LITERALS = [*(bytes([value]) for value in range(256)), b"", b""]
# 9 bits until 511 entries are known, 10 until 1023, 11 until 2047, then 12.
_WIDTHS = np.repeat(np.array([9, 10, 11, 12]), [254, 512, 1024, 2050])
_OFFSETS = np.concatenate([[0], np.cumsum(_WIDTHS)])  # in bits, from the clear code
# Bytes that a slow core, too, unpacks in less than two seconds; beginning a stream (a strip or
# tile) or a table costs as much as some hundred bytes.
_MAX_COST, _STREAM_COST = 4_000_000, 400
_MIN_MEAN_STRETCH = _STREAM_COST  # bytes; a writer clears a full table, which takes thousands


def check_lzw_cost(num_bytes: int, num_streams: int) -> None:
    """Refuse more LZW than is unpacked in time; the codes are walked in Python.

    Args:
        num_bytes: compressed bytes of all streams.
        num_streams: strips or tiles.

    Raises:
        ImageLimitError: with the size, the limit and what to do.
    """
    cost = num_bytes + _STREAM_COST * num_streams
    if cost > _MAX_COST:
        raise ImageLimitError(
            f"TIFF has {num_bytes / 1e6:.1f} MB of LZW data in {num_streams} strips or tiles; the "
            f"limit is {_MAX_COST / 1e6:g} MB, where each counts {_STREAM_COST} bytes more; export "
            "it uncompressed, with deflate, or as PNG or JPEG"
        )


def unpack_lzw(data: bytes, expected: int) -> bytes:
    """Undo LZW of exactly `expected` bytes.

    Args:
        data: a clear code, codes, an end code in the last byte.
        expected: bytes to come out.

    Raises:
        ImageUnreadableError: a code that is not in the table, a table that overflows or is
            cleared without end, more or fewer bytes, or anything behind the end code.
    """
    padded = np.frombuffer(data + bytes(3), np.uint8).astype(np.uint32)
    out: list[bytes] = []
    size, code, num_stretches = 0, _CLEAR, 0
    codes, bit = _codes_from(padded, 0, 8 * len(data))
    if not len(codes) or codes[0] != _CLEAR:
        raise damaged("its LZW codes do not begin with a clear code")
    bit = 9
    while code == _CLEAR:
        num_stretches += 1
        if num_stretches > 2 + len(data) // _MIN_MEAN_STRETCH:
            raise damaged("its LZW table is cleared without end")
        codes, bit = _codes_from(padded, bit, 8 * len(data))
        if not len(codes) or (code := int(codes[-1])) not in (_CLEAR, _END):
            raise damaged("its LZW codes end early or overflow the table")
        size += _expand(codes[:-1].tolist(), out, expected - size)
    if size != expected or -(-bit // 8) != len(data):
        raise damaged(f"its LZW codes do not hold exactly {expected} bytes")
    return b"".join(out)


def _codes_from(
    padded: npt.NDArray[np.uint32], bit: int, num_bits: int
) -> tuple[npt.NDArray[np.uint32], int]:
    """Cut codes out of the bits up to the first clear or end code; return the bit behind it."""
    count = int(np.searchsorted(_OFFSETS[1:], num_bits - bit, side="right"))
    starts, widths = bit + _OFFSETS[:count], _WIDTHS[:count]
    byte = starts >> 3
    words = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
    codes = words >> (24 - (starts & 7) - widths).astype(np.uint32)
    codes &= ((1 << widths) - 1).astype(np.uint32)
    special = np.flatnonzero((codes == _CLEAR) | (codes == _END))
    last = int(special[0]) + 1 if len(special) else count
    return codes[:last], bit + int(_OFFSETS[last])


def _expand(codes: list[int], out: list[bytes], room: int) -> int:
    """Append the strings of the codes of one stretch; return how many bytes they are."""
    if not codes:
        return 0
    if codes[0] > _END:
        raise damaged("one of its LZW codes is not in the table")
    previous, table, known = _LITERALS[codes[0]], _LITERALS.copy(), len(_LITERALS)
    strings = [previous]
    for code in codes[1:]:
        if code < known:
            entry = table[code]
        elif code == known:
            entry = previous + previous[:1]
        else:
            raise damaged("one of its LZW codes is not in the table")
        table.append(previous + entry[:1])
        strings.append(entry)
        previous, known = entry, known + 1
    if known > _MAX_ENTRIES:
        raise damaged("its LZW table overflows")
    size = sum(map(len, strings))
    if size > room:
        raise damaged("its LZW codes hold more bytes than the picture")
    out += strings
    return size
