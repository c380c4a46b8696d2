from __future__ import annotations

import time

import pytest
from fundus_factory import centred_fundus, exif_block, jpeg_bytes, sof_offset, with_exif, with_size

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats.exif import exif_orientation
from edge_runtime.formats.jpeg_markers import check_jpeg_structure, read_jpeg_frame


@pytest.fixture(scope="module")
def baseline() -> bytes:
    return jpeg_bytes(centred_fundus(96)[:80])


@pytest.fixture(scope="module")
def progressive() -> bytes:
    return jpeg_bytes(centred_fundus(96), progressive=True)


def walk(data: bytes, max_scans: int = 100):
    return check_jpeg_structure(data, read_jpeg_frame(data), max_scans=max_scans)


def test_frame_of_a_baseline_file(baseline):
    frame = read_jpeg_frame(baseline)
    assert (frame.height_px, frame.width_px, frame.bits) == (80, 96, 8)
    assert len(frame.component_ids) == 3
    assert not frame.progressive


def test_whole_files_have_their_scans(baseline, progressive):
    assert walk(baseline).num_scans == 1
    assert walk(progressive).num_scans > 3
    assert read_jpeg_frame(progressive).progressive
    assert walk(baseline).trailing_bytes == 0


def test_fill_bytes_before_a_marker_are_allowed(baseline):
    at = sof_offset(baseline)
    assert read_jpeg_frame(baseline[:at] + b"\xff\xff" + baseline[at:]).width_px == 96
    assert walk(baseline[:-2] + b"\xff\xff" + baseline[-2:]).num_scans == 1


def test_end_marker_inside_a_thumbnail_does_not_end_the_walk(baseline):
    # The EOI of an embedded preview must not make a cut file look whole.
    data = with_exif(baseline, exif_block(1) + b"\xff\xd8 preview \xff\xd9")
    assert walk(data).num_scans == 1
    with pytest.raises(ImageUnreadableError, match="cut"):
        walk(data[: len(data) - 40])


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_every_truncation_is_refused(kind, request):
    data = request.getfixturevalue(kind)
    for length in range(2, len(data)):
        with pytest.raises(ImageUnreadableError):
            walk(data[:length])


def test_progressive_file_cut_between_scans_with_its_end_put_back(progressive):
    starts = [i for i in range(len(progressive) - 1) if progressive[i : i + 2] == b"\xff\xda"]
    assert len(starts) > 3
    for start in starts[1:]:
        with pytest.raises(ImageUnreadableError, match="before"):
            walk(progressive[:start] + b"\xff\xd9")


def test_scans_over_the_limit(progressive):
    count = walk(progressive).num_scans
    assert walk(progressive, max_scans=count).num_scans == count
    with pytest.raises(ImageLimitError, match=f"more than {count - 1} scans"):
        walk(progressive, max_scans=count - 1)


def test_trailing_bytes_are_counted_but_a_second_image_is_refused(baseline):
    assert walk(baseline + bytes(7)).trailing_bytes == 7
    with pytest.raises(ImageUnreadableError, match="second image"):
        walk(baseline + baseline)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(1, 0xC5, "SOF5"), (1, 0xC9, "SOF9"), (4, 12, "12 bits"), (9, 4, "malformed")],
)
def test_unsupported_frames(baseline, offset, value, message):
    data = bytearray(baseline)
    data[sof_offset(baseline) + offset] = value
    with pytest.raises(ImageUnreadableError, match=message):
        read_jpeg_frame(bytes(data))


def test_height_given_later_is_refused(baseline):
    with pytest.raises(ImageUnreadableError, match="DNL"):
        read_jpeg_frame(with_size(baseline, 0, 96))


def test_scan_of_an_unknown_component(baseline):
    data = bytearray(baseline)
    data[data.index(b"\xff\xda") + 5] = 77
    with pytest.raises(ImageUnreadableError, match="unknown component"):
        walk(bytes(data))


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_in_both_byte_orders(order, value):
    assert exif_orientation(exif_block(value, order=order)) == value


def test_exif_block_is_found_and_absent_tag_is_none(baseline):
    assert walk(with_exif(baseline, exif_block(6))).exif == exif_block(6)
    assert walk(baseline).exif is None
    block = exif_block(6)
    assert exif_orientation(block[:8] + b"\x00\x00" + block[10:]) is None


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientation_out_of_range(value):
    with pytest.raises(ValueError, match=str(value)):
        exif_orientation(exif_block(value))


def test_cut_or_foreign_exif_is_an_error_never_an_overrun():
    block = exif_block(6)
    for length in range(20):
        with pytest.raises(ValueError, match="EXIF"):
            exif_orientation(block[:length])
    with pytest.raises(ValueError, match="cut"):
        exif_orientation(block[:4] + b"\xff\xff\xff\xff" + block[8:])


def test_number_of_markers_is_bounded(baseline):
    comment = b"\xff\xfe\x00\x02"
    assert walk(baseline[:2] + comment * 9_900 + baseline[2:]).num_scans == 1
    for flood in (comment, b"\xff\xd0", b"\xff\xd8", b"\xff\x01"):
        with pytest.raises(ImageLimitError, match="more than 10000 markers"):
            walk(baseline[:2] + flood * 10_001 + baseline[2:])


def test_a_flood_of_fill_bytes_costs_no_time(baseline):
    start = time.process_time()
    assert walk(baseline[:2] + b"\xff" * 20_000_000 + baseline[2:]).num_scans == 1
    assert time.process_time() - start < 0.5
