"""Count the restart markers of a baseline JPEG scan: a lost or doubled stretch shows in them.

A camera that writes restart markers (RSTn) puts one between every two intervals of `interval`
MCUs, numbered 0 to 7 and round again. A decoder meets a wrong count with grey or with shifted
blocks and only a warning that OpenCV drops, so the count is checked on the bytes. What happens
between two markers stays unseen, and a file without restart markers has nothing to count.

ITU-T T.81 (JPEG): A.2 (MCUs), B.2.4.4 (DRI), E.1.4 (order of the markers).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_runtime.errors import ImageUnreadableError

__all__ = [
    "check_restart_markers",
    "find_scan_end",
    "num_interleaved_mcus",
    "read_restart_interval",
]

_BLOCK_PX = 8
_CYCLE = 8
_COUNTED_TOO_MANY = 1000
_RST0 = 0xD0
# In entropy-coded bytes FF is followed by 00, or by FF (fill), unless it starts a marker.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_OTHER_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def num_interleaved_mcus(width_px: int, height_px: int, sampling: Sequence[tuple[int, int]]) -> int:
    """Return how many MCUs a scan of all components has (T.81, A.2.3 and A.1.1).

    Args:
        width_px: columns of the frame.
        height_px: rows of the frame.
        sampling: (horizontal, vertical) sampling factors, two or more components.
    """
    mcu_width_px = _BLOCK_PX * max(horizontal for horizontal, _ in sampling)
    mcu_height_px = _BLOCK_PX * max(vertical for _, vertical in sampling)
    return -(-width_px // mcu_width_px) * -(-height_px // mcu_height_px)


def read_restart_interval(body: bytes) -> int:
    """Return the interval of a DRI segment's payload in MCUs; 0 turns restarts off.

    Raises:
        ImageUnreadableError: the payload is not two bytes.
    """
    if len(body) != 2:
        raise ImageUnreadableError(
            f"JPEG restart interval (DRI) has {len(body)} bytes instead of 2: the file is damaged; "
            "copy it again from the camera"
        )
    return int.from_bytes(body, "big")


def find_scan_end(data: bytes, start: int, *, num_mcus: int) -> tuple[int, bytes]:
    """Find the end of a scan and the restart markers in it, in one pass over its bytes.

    Args:
        data: the file's bytes.
        start: first entropy-coded byte of the scan.
        num_mcus: most MCUs of a scan.

    Returns:
        Offset of the marker that follows the scan (the length of the data where none does), and
        the numbers, 0 to 7, of its restart markers: the first `num_mcus` + 1000.
    """
    numbers = bytearray()
    for found in _MARKER.finditer(data, start):
        number = data[found.start() + 1] - _RST0
        if not 0 <= number < _CYCLE:
            return found.start(), bytes(numbers)
        numbers.append(number)
        if len(numbers) == num_mcus + _COUNTED_TOO_MANY:  # a file of markers costs no more
            end = _OTHER_MARKER.search(data, found.end())
            return end.start() if end else len(data), bytes(numbers)
    return len(data), bytes(numbers)


def check_restart_markers(numbers: bytes, *, interval: int, num_mcus: int) -> None:
    """Require ceil(num_mcus / interval) - 1 restart markers in cyclic order 0 to 7.

    Without an interval none may be there: the decoder would stop at it.

    Args:
        numbers: of the restart markers, as `find_scan_end` gives them.
        interval: MCUs between two restart markers; 0 without restart markers.
        num_mcus: MCUs of the scan.

    Raises:
        ImageUnreadableError: too few, too many, or one out of order.
    """
    expected = -(-num_mcus // interval) - 1 if interval else 0
    if len(numbers) != expected:
        is_cut = len(numbers) == num_mcus + _COUNTED_TOO_MANY
        count = f"{len(numbers)} or more" if is_cut else f"{len(numbers)}"
        raise ImageUnreadableError(
            f"JPEG has {count} restart markers, its size and restart interval ask for {expected}: "
            "image data are missing or doubled; copy it again from the camera"
        )
    for index, number in enumerate(numbers):
        if number != index % _CYCLE:
            raise ImageUnreadableError(
                f"JPEG restart marker {index + 1} of {expected} has number {number} instead of "
                f"{index % _CYCLE}: image data are missing or doubled; copy it again from the "
                "camera"
            )
