"""The byte codings of TIFF and DICOM: inverse of an encoder, and nothing but exact data."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.lzw import unpack_lzw
from edge_runtime.formats.packed_bytes import inflate, unpack_bits

CLEAR, END = 256, 257


def pack_bits(data: bytes) -> bytes:
    """PackBits with the longest runs, written for this test."""
    out, i = bytearray(), 0
    while i < len(data):
        run = 1
        while i + run < len(data) and run < 128 and data[i + run] == data[i]:
            run += 1
        if run > 1:
            out += bytes([257 - run, data[i]])
        else:
            out += bytes([0, data[i]])
        i += run
    return bytes(out)


def codes_to_bytes(codes: list[tuple[int, int]]) -> bytes:
    """(code, width) pairs, most significant bit first, padded with zeros."""
    bits = "".join(f"{code:0{width}b}" for code, width in codes)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def lzw_codes(data: bytes, *, clear_at: int = 4093) -> list[tuple[int, int]]:
    """TIFF's LZW as the specification writes it in words, slow."""
    codes, table, width, word = [(CLEAR, 9)], {}, 9, b""

    def known(text: bytes) -> bool:
        return len(text) == 1 or text in table

    def emit(text: bytes) -> None:
        codes.append((text[0] if len(text) == 1 else table[text], width))

    for value in data:
        longer = word + bytes([value])
        if known(longer):
            word = longer
            continue
        emit(word)
        table[longer] = 258 + len(table)
        if 258 + len(table) >= clear_at:
            codes.append((CLEAR, width))
            table, width = {}, 9
        elif 258 + len(table) >= (1 << width):
            width += 1
        word = bytes([value])
    if word:
        emit(word)
        table[word + b"end"] = 258 + len(table)
        width += 258 + len(table) >= (1 << width)
    return [*codes, (END, width)]


DATA = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([0, 1, 255]), max_size=3000).map(bytes),
)


@given(DATA)
def test_packbits_is_the_inverse(data):
    assert unpack_bits(pack_bits(data), len(data)) == data


@given(DATA)
def test_lzw_is_the_inverse(data):
    assert unpack_lzw(codes_to_bytes(lzw_codes(data)), len(data)) == data


@pytest.mark.parametrize("clear_at", [700, 2000, 4093])
@pytest.mark.parametrize("num_values", [3, 40, 256])
def test_lzw_through_every_width(clear_at, num_values, rng):
    data = rng.integers(0, num_values, 20_000).astype(np.uint8).tobytes()
    codes = lzw_codes(data, clear_at=clear_at)
    assert {width for _, width in codes} >= {9, 10}
    assert unpack_lzw(codes_to_bytes(codes), len(data)) == data


CODERS = {
    "packbits": (pack_bits, unpack_bits),
    "lzw": (lambda data: codes_to_bytes(lzw_codes(data)), unpack_lzw),
    "deflate": (zlib.compress, inflate),
}


@pytest.mark.parametrize("name", list(CODERS))
def test_nothing_but_the_exact_bytes(name, rng):
    encode, decode = CODERS[name]
    data = rng.integers(0, 9, 400).astype(np.uint8).tobytes()
    packed = encode(data)
    assert decode(packed, len(data)) == data
    for expected in (len(data) - 1, len(data) + 1, 0):
        with pytest.raises(ImageUnreadableError):
            decode(packed, expected)
    for length in range(len(packed)):
        with pytest.raises(ImageUnreadableError):
            decode(packed[:length], len(data))
    with pytest.raises(ImageUnreadableError):
        decode(packed + b"\x00\x00", len(data))


@pytest.mark.parametrize("name", list(CODERS))
def test_random_bytes_are_refused_or_exact(name, rng):
    _, decode = CODERS[name]
    for _ in range(300):
        data = rng.bytes(int(rng.integers(0, 60)))
        try:
            assert len(decode(data, 40)) == 40
        except ImageUnreadableError:
            continue


def test_packbits_padding_only_where_allowed():
    packed = pack_bits(bytes(9)) + b"\x00"
    assert unpack_bits(packed, 9, max_padding=1) == bytes(9)
    with pytest.raises(ImageUnreadableError):
        unpack_bits(packed, 9)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([(65, 9), (END, 9)], "begin with a clear"),
        ([(CLEAR, 9), (300, 9), (END, 9)], "not in the table"),
        ([(CLEAR, 9), (258, 9), (END, 9)], "not in the table"),
        ([(CLEAR, 9)] * 400 + [(END, 9)], "without end"),
        ([(CLEAR, 9), *[(65, 9)] * 20], "end early"),
    ],
)
def test_impossible_lzw(codes, message):
    with pytest.raises(ImageUnreadableError, match=message):
        unpack_lzw(codes_to_bytes(codes), 20)


def test_lzw_table_that_is_never_cleared():
    codes = [(CLEAR, 9)] + [(65, 9)] * 254 + [(65, 10)] * 512 + [(65, 11)] * 1024
    codes += [(65, 12)] * 3000 + [(END, 12)]
    with pytest.raises(ImageUnreadableError, match="overflow"):
        unpack_lzw(codes_to_bytes(codes), 4790)


def test_a_stream_that_would_fill_the_memory_stops_at_what_is_expected():
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(ImageUnreadableError, match="exactly 1000 bytes"):
        inflate(bomb, 1000)
