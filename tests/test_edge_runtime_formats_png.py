"""PNG streams that hold more than the picture, interlaced ones included, and floods of chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from fundus_factory import centred_fundus, png_bytes, png_chunk

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats import png
from edge_runtime.image import decode_image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# First column, first row, step across, step down (PNG, section 8.1).
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def rows_of(image: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in image if row.size)


def built(
    image: np.ndarray,
    *,
    interlaced: bool,
    extra: bytes = b"",
    step: int = 0,
    change: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """A PNG by hand: filter 0, `extra` behind the rows, data chunks of `step` bytes."""
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(rows_of(image[y::dy, x::dx]) for x, y, dx, dy in passes)
    stream = change(zlib.compress(rows + extra))
    parts = [stream[i : i + step] for i in range(0, len(stream), step)] if step else [stream]
    height, width = image.shape[:2]
    kind = 2 if image.shape[2] == 3 else 6
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, int(interlaced))
    chunks = [(b"IHDR", header), *((b"IDAT", part) for part in parts), (b"IEND", b"")]
    return SIGNATURE + b"".join(png_chunk(name, body) for name, body in chunks)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 5), (8, 8), (13, 9), (1, 7), (33, 64)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_exactly_the_rows_that_the_size_asks_for(size, interlaced, channels, rng):
    image = rng.integers(0, 256, (*size, channels)).astype(np.uint8)
    image[..., 3:] = 255
    for step in (0, 7):
        decoded = decode_image(built(image, interlaced=interlaced, step=step)).image_hwc
        np.testing.assert_array_equal(decoded, image[..., :3])
        for extra in (b"\0", bytes(3_000_000)):
            data = built(image, interlaced=interlaced, extra=extra, step=step)
            with pytest.raises(ImageUnreadableError, match="holds more than its size asks for"):
                decode_image(data)


@pytest.mark.parametrize("step", [0, 11])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stream: stream[:-4] + b"abcd", "fails its checksum"),
        (lambda stream: stream[:-1], "is cut"),
        (lambda stream: stream[:-4], "is cut"),
        (lambda stream: stream + b"x", "holds more"),
        (lambda stream: zlib.compress(zlib.decompress(stream)[:-1]), "is cut"),
        (lambda stream: b"\0\0" + stream[2:], "is damaged"),
    ],
)
def test_streams_that_are_not_exactly_the_picture(change, reason, step):
    data = built(centred_fundus(24), interlaced=False, step=step, change=change)
    with pytest.raises(ImageUnreadableError, match=reason):
        decode_image(data)


def test_number_of_chunks_is_bounded(monkeypatch):
    data = png_bytes(centred_fundus(32))
    flooded = data[:33] + png_chunk(b"tEXt", b"") * 100 + data[33:]
    assert decode_image(flooded).image_hwc.shape == (32, 32, 3)
    monkeypatch.setattr(png, "_MAX_CHUNKS", 100)
    with pytest.raises(ImageLimitError, match="more than 100 chunks"):
        decode_image(flooded)
