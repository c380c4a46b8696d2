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
from itertools import islice

from edge_runtime.errors import ImageUnreadableError

__all__ = ["check_restart_markers", "num_interleaved_mcus", "read_restart_interval"]

_BLOCK_PX = 8
_CYCLE = 8
_COUNTED_TOO_MANY = 1000
_RST0 = 0xD0
# In entropy-coded bytes FF is followed by 00 unless it starts a marker.
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


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


def check_restart_markers(
    data: bytes, start: int, end: int, *, interval: int, num_mcus: int
) -> None:
    """Require ceil(num_mcus / interval) - 1 restart markers in cyclic order 0 to 7.

    Without an interval none may be there: the decoder would stop at it.

    Args:
        data: the file's bytes.
        start: first entropy-coded byte of the scan.
        end: offset of the marker that follows the scan.
        interval: MCUs between two restart markers; 0 without restart markers.
        num_mcus: MCUs of the scan.

    Raises:
        ImageUnreadableError: too few, too many, or one out of order.
    """
    expected = -(-num_mcus // interval) - 1 if interval else 0
    # Some more than expected tell that there are too many: a file of markers costs no more.
    most = expected + _COUNTED_TOO_MANY
    markers = islice(_RESTART.finditer(data, start, end), most)
    found = [data[marker.start() + 1] - _RST0 for marker in markers]
    if len(found) != expected:
        count = f"{len(found)} or more" if len(found) == most else f"{len(found)}"
        raise ImageUnreadableError(
            f"JPEG has {count} restart markers, its size and restart interval ask for {expected}: "
            "image data are missing or doubled; copy it again from the camera"
        )
    for index, number in enumerate(found):
        if number != index % _CYCLE:
            raise ImageUnreadableError(
                f"JPEG restart marker {index + 1} of {expected} has number {number} instead of "
                f"{index % _CYCLE}: image data are missing or doubled; copy it again from the "
                "camera"
            )
