"""Ways in which a picture's file is damaged, whatever its format; the format's own ways beside.

A mutation takes the bytes of a file, randomness and the bytes of another file, and gives the
bytes of the damaged one. `damaged` draws one or two of them; the same seed and index give the
same bytes. What is done to the markers of a JPEG lies in `damage_jpeg.py`, to the chunks of a PNG
in `damage_png.py`, to tables of offsets (TIFF, BMP, DICOM) in `damage_tables.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Mutation = Callable[[bytes, np.random.Generator, bytes], bytes]

__all__ = ["GENERIC", "Mutation", "damaged", "replaced"]

_SECTOR = 512
_TWICE = 0.2  # share of files that are damaged in two ways


def replaced(data: bytes, start: int, new: bytes) -> bytes:
    """The bytes with `new` written over them from `start` on; the length stays."""
    new = new[: max(0, len(data) - start)]
    return data[:start] + new + data[start + len(new) :]


def damaged(
    data: bytes, rng: np.random.Generator, other: bytes, own: Mapping[str, Mutation]
) -> tuple[str, bytes]:
    """One damaged file and what was done to it, drawn evenly from the general and `own` ways."""
    ways = {**GENERIC, **own}
    names = list(ways)
    num_ways = 2 if rng.random() < _TWICE else 1
    drawn = [names[rng.integers(len(names))] for _ in range(num_ways)]
    for name in drawn:
        if data:
            data = ways[name](data, rng, other)
    return "+".join(drawn), data


def _place(data: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data)))


def _sector(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Start and length of an aligned block: a flash sector, or a page of eight."""
    size = _SECTOR * (8 if rng.random() < 0.3 else 1)
    return size * int(rng.integers(-(-len(data) // size))), size


def _truncated(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return data[: _place(data, rng)]


def _last_bytes_lost(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return data[: -int(rng.integers(1, 65))]


def _zero_page(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    start, size = _sector(data, rng)
    return replaced(data, start, bytes(size))


def _zero_tail(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    start = _place(data, rng)
    return data[:start] + bytes(len(data) - start)


def _random_block(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return replaced(data, _place(data, rng), rng.bytes(int(rng.integers(1, 513))))


def _flips(data: bytes, rng: np.random.Generator, end: int, masks: int) -> bytes:
    """Change 1 to 8 bytes before `end`, by one bit each (masks 8) or to any other value (255)."""
    changed = bytearray(data)
    for position in rng.integers(end, size=int(rng.integers(1, 9))):
        mask = 1 << int(rng.integers(8)) if masks == 8 else int(rng.integers(1, 256))
        changed[position] ^= mask
    return bytes(changed)


def _bit_flips(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return _flips(data, rng, len(data), 8)


def _byte_flips(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return _flips(data, rng, len(data), 255)


def _header_bits(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return _flips(data, rng, min(len(data), 700), 8)


def _header_bytes(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return _flips(data, rng, min(len(data), 200), 255)


def _sectors_swapped(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    (one, size), (two, _size) = _sector(data, rng), _sector(data, rng)
    first, second = data[one : one + size], data[two : two + size]
    return replaced(replaced(data, one, second), two, first)


def _sector_doubled(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    start, size = _sector(data, rng)
    return data[: start + size] + data[start:]


def _sector_lost(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    start, size = _sector(data, rng)
    return data[:start] + data[start + size :]


def _sector_of_another(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    start, size = _sector(data, rng)
    return replaced(data, start, other[start : start + size])


def _tail_of_another(data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    start = _place(data, rng)
    return data[:start] + other[start:]


def _joined(data: bytes, _rng: np.random.Generator, other: bytes) -> bytes:
    return data + other


def _garbage_after(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 2000)))


def _zeros_after(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return data + bytes(int(rng.integers(1, 5000)))


def _bytes_put_in(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    start = _place(data, rng)
    return data[:start] + rng.bytes(int(rng.integers(1, 17))) + data[start:]


def _as_text(data: bytes, _rng: np.random.Generator, _: bytes) -> bytes:
    """A transfer in text mode: every line feed became two bytes."""
    return data.replace(b"\n", b"\r\n")


GENERIC: Mapping[str, Mutation] = {
    "truncated": _truncated,
    "last bytes lost": _last_bytes_lost,
    "zero page": _zero_page,
    "zero tail": _zero_tail,
    "random block": _random_block,
    "bit flips": _bit_flips,
    "byte flips": _byte_flips,
    "header bit flips": _header_bits,
    "header byte flips": _header_bytes,
    "sectors swapped": _sectors_swapped,
    "sector doubled": _sector_doubled,
    "sector lost": _sector_lost,
    "sector of another file": _sector_of_another,
    "tail of another file": _tail_of_another,
    "joined files": _joined,
    "garbage after the end": _garbage_after,
    "zeros after the end": _zeros_after,
    "bytes put in": _bytes_put_in,
    "text transfer": _as_text,
}
