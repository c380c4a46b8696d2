"""Damage done to the markers and scans of a JPEG (ITU-T T.81, annex B)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from damage import Mutation, replaced

__all__ = ["JPEG", "WRAPPED_JPEG", "segments"]

_DHT, _DQT, _DRI, _SOS, _EOI = 0xC4, 0xDB, 0xDD, 0xDA, b"\xff\xd9"
_FRAMES = (0xC0, 0xC1, 0xC2)
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length

Edit = Callable[[bytes, np.random.Generator], bytes]


def segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, start, end) of every segment with a length, as far as the file can be followed.

    Start is the offset of the marker's FF. A scan ends with its header: its entropy-coded bytes
    lie between its end and the next start.
    """
    found, position = [], 2
    while 0 <= position < len(data) - 3:
        marker = data[position + 1]
        if data[position] != 0xFF or marker in (0x00, 0xFF) or marker in _BARE:
            position = data.find(b"\xff", position + 1)
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        found.append((marker, position, min(end, len(data))))
        position = end
    return found


def _pick(
    data: bytes, rng: np.random.Generator, markers: tuple[int, ...] = ()
) -> tuple[int, int, int] | None:
    """A segment at random, of the markers asked for, if there is one."""
    fitting = [one for one in segments(data) if not markers or one[0] in markers]
    return fitting[rng.integers(len(fitting))] if fitting else None


def _payload_byte(
    markers: tuple[int, ...], data: bytes, rng: np.random.Generator, _: bytes
) -> bytes:
    """Another value in one byte of a segment's payload."""
    segment = _pick(data, rng, markers)
    if segment is None or segment[2] - segment[1] < 5:
        return data
    position = int(rng.integers(segment[1] + 4, segment[2]))
    return replaced(data, position, bytes([rng.integers(256)]))


def _frame_size(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Another height or width: one off, by a block, halved, doubled, or anything."""
    segment = _pick(data, rng, _FRAMES)
    if segment is None:
        return data
    at = segment[1] + (5 if rng.random() < 0.5 else 7)
    old = int.from_bytes(data[at : at + 2], "big")
    choices = (old - 1, old + 1, old - 8, old + 16, old // 2, old * 2, rng.integers(65536))
    new = min(max(int(choices[rng.integers(len(choices))]), 0), 65535)
    return replaced(data, at, new.to_bytes(2, "big"))


def _cut_with_end(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Cut, and an end marker put back, as a repair tool does."""
    return data[: int(rng.integers(len(data)))].rstrip(b"\xff") + _EOI


def _cut_between_segments(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    segment = _pick(data, rng)
    return data if segment is None else data[: segment[1]] + _EOI


def _end_in_the_middle(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    return replaced(data, int(rng.integers(len(data))), _EOI)


def _restart_interval(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """A restart interval where none was, or another one."""
    interval = int(rng.integers(0, 40)).to_bytes(2, "big")
    segment = _pick(data, rng, (_DRI,))
    if segment is not None:
        return replaced(data, segment[1] + 4, interval)
    scan = _pick(data, rng, (_SOS,))
    if scan is None:
        return data
    return data[: scan[1]] + b"\xff\xdd\x00\x04" + interval + data[scan[1] :]


def _restart_marker(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """A restart marker lost, doubled, renumbered, or put where none was."""
    places = [i for i in range(len(data) - 1) if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD7]
    if not places:
        marker = bytes([0xFF, 0xD0 + int(rng.integers(8))])
        start = int(rng.integers(len(data)))
        return data[:start] + marker + data[start:]
    at = places[rng.integers(len(places))]
    number = bytes([0xFF, 0xD0 + int(rng.integers(8))])
    middle = (b"", data[at : at + 2] * 2, number)[rng.integers(3)]
    return data[:at] + middle + data[at + 2 :]


def _marker_code(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    segment = _pick(data, rng)
    if segment is None:
        return data
    return replaced(data, segment[1] + 1, bytes([rng.integers(1, 255)]))


def _segment_length(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    segment = _pick(data, rng)
    if segment is None:
        return data
    old = segment[2] - segment[1] - 2
    new = (old - 1, old + 1, 0, 1, 2, rng.integers(65536))[rng.integers(6)]
    return replaced(data, segment[1] + 2, (int(new) % 65536).to_bytes(2, "big"))


def _segment_lost(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    segment = _pick(data, rng)
    return data if segment is None else data[: segment[1]] + data[segment[2] :]


def _segment_doubled(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    segment = _pick(data, rng)
    return data if segment is None else data[: segment[2]] + data[segment[1] :]


def _scan_lost(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    """Everything from one scan header to the next segment."""
    scan = _pick(data, rng, (_SOS,))
    if scan is None:
        return data
    later = [start for _marker, start, _end in segments(data) if start > scan[1]]
    return data[: scan[1]] + data[min(later, default=len(data) - 2) :]


def _marker_among_the_data(data: bytes, rng: np.random.Generator, _: bytes) -> bytes:
    scan = _pick(data, rng, (_SOS,))
    start = int(rng.integers(scan[2] if scan else 0, len(data) + 1))
    return data[:start] + bytes([0xFF, rng.integers(1, 255)]) + data[start:]


JPEG: Mapping[str, Mutation] = {
    "cut, end marker put back": _cut_with_end,
    "cut at a segment, end marker put back": _cut_between_segments,
    "end marker in the middle": _end_in_the_middle,
    "frame size": _frame_size,
    "frame header byte": partial(_payload_byte, _FRAMES),
    "Huffman table byte": partial(_payload_byte, (_DHT,)),
    "quantisation table byte": partial(_payload_byte, (_DQT,)),
    "scan header byte": partial(_payload_byte, (_SOS,)),
    "restart interval": _restart_interval,
    "restart marker": _restart_marker,
    "marker code": _marker_code,
    "segment length": _segment_length,
    "segment lost": _segment_lost,
    "segment doubled": _segment_doubled,
    "scan lost": _scan_lost,
    "marker among the data": _marker_among_the_data,
}


def _inside(way: Mutation, data: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Damage the JPEG that another format wraps; mend the length of its DICOM fragment."""
    start, end = data.find(b"\xff\xd8\xff"), data.rfind(_EOI) + 2
    if start < 4 or end <= start:
        return data
    jpeg = way(data[start:end], rng, other[other.find(b"\xff\xd8\xff") :])
    jpeg += bytes(len(jpeg) % 2)
    return (
        data[: start - 4] + len(jpeg).to_bytes(4, "little") + jpeg + data[end + (end - start) % 2 :]
    )


WRAPPED_JPEG: Mapping[str, Mutation] = {
    f"inside: {name}": partial(_inside, way) for name, way in JPEG.items()
}
