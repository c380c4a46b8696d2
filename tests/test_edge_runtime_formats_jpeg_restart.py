"""Restart markers: a lost or doubled stretch of a scan must not decode to a picture."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from fundus_factory import centred_fundus, sof_offset

from edge_runtime.errors import ImageUnreadableError
from edge_runtime.formats.jpeg_restart import (
    check_restart_markers,
    find_scan_end,
    num_interleaved_mcus,
    read_restart_interval,
)
from edge_runtime.image import decode_image

RESTART = re.compile(rb"\xff[\xd0-\xd7]")
SAMPLINGS = {
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
}


def restarting_jpeg(height: int, width: int, interval: int, sampling: str = "420") -> bytes:
    image = centred_fundus(max(height, width))[:height, :width, ::-1]
    settings = [
        cv2.IMWRITE_JPEG_RST_INTERVAL, interval,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling],
    ]  # fmt: skip
    return cv2.imencode(".jpg", np.ascontiguousarray(image), settings)[1].tobytes()


def scan_markers(data: bytes) -> list[re.Match[bytes]]:
    return list(RESTART.finditer(data, data.index(b"\xff\xda")))


@pytest.mark.parametrize("sampling", list(SAMPLINGS))
@pytest.mark.parametrize(("height", "width"), [(200, 200), (193, 257), (64, 333)])
@pytest.mark.parametrize("interval", [1, 7, 40, 5000])
def test_whole_files_pass(sampling: str, height: int, width: int, interval: int) -> None:
    data = restarting_jpeg(height, width, interval, sampling)
    assert decode_image(data).image_hwc.shape == (height, width, 3)


def test_a_lost_stretch_is_refused() -> None:
    data = restarting_jpeg(200, 200, 7)
    markers = scan_markers(data)
    assert len(markers) > 10
    lost = data[: markers[3].start()] + data[markers[5].start() :]
    with pytest.raises(ImageUnreadableError, match=f"{len(markers) - 2} restart markers"):
        decode_image(lost)


def test_a_doubled_stretch_is_refused() -> None:
    data = restarting_jpeg(200, 200, 7)
    markers = scan_markers(data)
    stretch = data[markers[3].start() : markers[4].start()]
    with pytest.raises(ImageUnreadableError, match="missing or doubled"):
        decode_image(data[: markers[4].start()] + stretch + data[markers[4].start() :])


def test_stretches_in_another_order_are_refused() -> None:
    data = restarting_jpeg(200, 200, 7)
    a, b, c = (marker.start() for marker in scan_markers(data)[3:6])
    with pytest.raises(ImageUnreadableError, match="has number 4 instead of 3"):
        decode_image(data[:a] + data[b:c] + data[a:b] + data[c:])


def test_a_zeroed_page_over_markers_is_refused() -> None:
    data = restarting_jpeg(400, 400, 1)
    start = scan_markers(data)[5].start()
    with pytest.raises(ImageUnreadableError, match="restart markers"):
        decode_image(data[:start] + bytes(4096) + data[start + 4096 :])


def test_a_marker_without_an_interval_is_refused() -> None:
    image = centred_fundus(200)[..., ::-1]
    data = cv2.imencode(".jpg", np.ascontiguousarray(image))[1].tobytes()
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    middle += data[middle] == 0  # never between FF and its stuffed 00
    with pytest.raises(ImageUnreadableError):
        decode_image(data[:middle] + b"\xff\xd0" + data[middle:])


def test_mcus_against_the_standard() -> None:
    assert num_interleaved_mcus(257, 193, [(2, 2), (1, 1), (1, 1)]) == 17 * 13
    assert num_interleaved_mcus(257, 193, [(1, 1)] * 3) == 33 * 25
    assert num_interleaved_mcus(257, 193, [(2, 1), (1, 1), (1, 1)]) == 17 * 25


def test_a_damaged_interval_or_sampling_is_refused() -> None:
    with pytest.raises(ImageUnreadableError, match="3 bytes instead of 2"):
        read_restart_interval(b"\x00\x01\x02")
    data = bytearray(restarting_jpeg(64, 64, 4))
    data[sof_offset(bytes(data)) + 11] = 0x52
    with pytest.raises(ImageUnreadableError, match="sampling"):
        decode_image(bytes(data))


def test_a_file_full_of_markers_is_counted_and_refused() -> None:
    data = b"\xff\xd0" * 100 + b"\xff\xd9"
    assert find_scan_end(data, 0, num_mcus=50) == (200, bytes(100))
    with pytest.raises(ImageUnreadableError, match="100 restart markers"):
        check_restart_markers(bytes(100), interval=10, num_mcus=50)
    flood = b"\xff\xd0" * 2000 + b"\x11\xff\x00\xff\xd9"
    end, numbers = find_scan_end(flood, 0, num_mcus=50)
    assert (end, len(numbers)) == (4003, 1050)
    with pytest.raises(ImageUnreadableError, match="1050 or more restart markers"):
        check_restart_markers(numbers, interval=10, num_mcus=50)


def test_the_end_of_a_scan_and_its_markers_in_one_pass() -> None:
    scan = b"\x01\xff\x00\xff\xd3\x02\xff\xff\xff\xd4\xff\x00"
    for end in (b"\xff\xd9", b"\xff\xc4more", b"\xff\xff\xda"):
        at = len(scan) + end.count(b"\xff") - 1
        assert find_scan_end(scan + end, 0, num_mcus=9) == (at, b"\3\4")
    assert find_scan_end(scan, 0, num_mcus=9) == (len(scan), b"\3\4")
