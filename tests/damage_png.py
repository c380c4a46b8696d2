"""Damage done to the chunks of a PNG with their CRCs mended, so that the content alone is wrong."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial

import numpy as np
from damage import Mutation, replaced
from fundus_factory import png_chunk

__all__ = ["PNG", "chunks"]

_SIGNATURE = 8


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(name, payload) of every chunk, as far as the file can be followed."""
    found, position = [], _SIGNATURE
    while position + 12 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        found.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + size]))
        position += 12 + size
    return found


def _joined(data: bytes, parts: list[tuple[bytes, bytes]]) -> bytes:
    return data[:_SIGNATURE] + b"".join(png_chunk(name, body) for name, body in parts)


def _with_stream(data: bytes, parts: list[tuple[bytes, bytes]], stream: bytes) -> bytes:
    """The file with `stream` as its only IDAT."""
    first = next(i for i, (name, _) in enumerate(parts) if name == b"IDAT")
    rest = [part for part in parts[first:] if part[0] != b"IDAT"]
    return _joined(data, [*parts[:first], (b"IDAT", stream), *rest])


def _header(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Another width, height, depth, colour type, compression, filter or interlacing."""
    parts = chunks(data)
    if not parts or len(parts[0][1]) < 13:
        return data
    name, body = parts[0]
    at = int(rng.integers(13))
    changed = replaced(body, at, bytes([body[at] ^ 1 << int(rng.integers(8))]))
    return _joined(data, [(name, changed), *parts[1:]])


def _stream(way: str, data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Damage of the zlib stream (`cut`, `flip`, `checksum`) or of what it holds (`short`, ...)."""
    parts = chunks(data)
    stream = b"".join(body for name, body in parts if name == b"IDAT")
    if len(stream) < 8:
        return data
    position = int(rng.integers(len(stream)))
    if way == "cut":
        return _with_stream(data, parts, stream[:position])
    if way == "flip":
        bit = 1 << int(rng.integers(8))
        flipped = replaced(stream, position, bytes([stream[position] ^ bit]))
        return _with_stream(data, parts, flipped)
    if way == "checksum":
        return _with_stream(data, parts, stream[:-4] + rng.bytes(4))
    try:
        rows = zlib.decompress(stream)
    except zlib.error:
        return data
    position = int(rng.integers(len(rows)))
    if way == "short":
        rows = rows[:position]
    elif way == "long":
        rows += rng.bytes(int(rng.integers(1, 1000)))
    else:  # a filter that does not exist, in a row of 24-bit pixels
        stride = 1 + 3 * int.from_bytes(parts[0][1][:4], "big")
        rows = replaced(rows, position - position % stride, bytes([rng.integers(5, 256)]))
    return _with_stream(data, parts, zlib.compress(rows, 1))


def _chunk(way: str, data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    parts = chunks(data)
    if not parts:
        return data
    at = int(rng.integers(len(parts)))
    name, body = parts[at]
    middle = {
        "lost": [],
        "doubled": [parts[at]] * 2,
        "renamed": [(replaced(name, int(rng.integers(4)), bytes([rng.integers(65, 123)])), body)],
        "byte": [(name, replaced(body, int(rng.integers(len(body) + 1)), rng.bytes(1)))],
    }[way]
    return _joined(data, [*parts[:at], *middle, *parts[at + 1 :]])


PNG: Mapping[str, Mutation] = {
    "header field": _header,
    **{f"stream: {way}": partial(_stream, way) for way in ("cut", "flip", "checksum")},
    **{f"rows: {way}": partial(_stream, way) for way in ("short", "long", "filter")},
    **{f"chunk {way}": partial(_chunk, way) for way in ("lost", "doubled", "renamed", "byte")},
}
