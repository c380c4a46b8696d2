"""Check a JPEG file from its bytes alone: size, scans, EXIF and ICC blocks, wholeness.

The marker structure is walked before any decoding, so that size and scans are known before
anything is allocated, and so that a file is refused whose structure is not whole: a progressive
JPEG cut between two scans decodes without a warning. Where the camera writes restart markers,
their count shows a lost or doubled stretch.

Layout of markers: ITU-T T.81 (JPEG), annex B; EXIF 2.32, section 4.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_runtime.errors import ImageLimitError, ImageUnreadableError
from edge_runtime.formats.jpeg_restart import (
    check_restart_markers,
    find_scan_end,
    num_interleaved_mcus,
    read_restart_interval,
)
from edge_runtime.formats.second_picture import refuse_second_picture

__all__ = [
    "JpegFrame",
    "JpegStructure",
    "check_jpeg_structure",
    "read_jpeg_frame",
]

_SOI, _EOI, _SOS, _TEM, _APP1, _APP2, _DRI = 0xD8, 0xD9, 0xDA, 0x01, 0xE1, 0xE2, 0xDD
_NOT_FRAMES = frozenset({0xC4, 0xC8, 0xCC})  # DHT, JPG, DAC lie between the SOFn codes
_SUPPORTED_FRAMES = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC3: "lossless",
}
_PROGRESSIVE, _LOSSLESS = 0xC2, 0xC3
_EXIF_PREFIX = b"Exif\x00\x00"
_ICC_PREFIX = b"ICC_PROFILE\x00"  # then the number of this part and of all parts (ICC.1, B.4)
_NUM_COEFFICIENTS = 64
_MAX_SAMPLING = 4
_MAX_SEGMENTS = 10_000  # a camera writes some dozen, 100 scans with tables some hundred
_FILL_BYTES = re.compile(rb"\xff+")


@dataclass(frozen=True, kw_only=True)
class JpegFrame:
    """What the frame header (SOFn) claims, before orientation.

    Attributes:
        height_px: rows as stored.
        width_px: columns as stored.
        bits: sample precision.
        component_ids: one id a colour component, in file order.
        sampling: (horizontal, vertical) sampling factors, 1 to 4, one pair a component.
        progressive: whether the coefficients arrive in several scans.
        lossless: whether samples are predicted instead of transformed (T.81, annex H).
    """

    height_px: int
    width_px: int
    bits: int
    component_ids: tuple[int, ...]
    sampling: tuple[tuple[int, int], ...]
    progressive: bool
    lossless: bool


@dataclass(frozen=True, kw_only=True)
class JpegStructure:
    """What the whole marker walk found.

    Attributes:
        num_scans: number of SOS markers.
        exif: the TIFF block of the first EXIF segment, or None.
        icc_profile: the embedded colour profile, its parts joined in file order, or None.
        trailing_bytes: bytes after the end marker.
    """

    num_scans: int
    exif: bytes | None
    icc_profile: bytes | None
    trailing_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """One marker with its payload `data[start:end]` (empty for markers without a length).

    Of a scan, `restarts` are the numbers of the restart markers in its entropy-coded bytes, of
    which there may be more where their number is not known.
    """

    marker: int
    start: int
    end: int
    restarts: bytes = b""


@dataclass(kw_only=True)
class _Walk:
    """What `check_jpeg_structure` gathers on its way."""

    scans: int = 0
    exif: bytes | None = None
    icc_parts: list[bytes] = field(default_factory=list)
    restart_interval: int = 0
    point_transform: dict[int, list[int]] = field(default_factory=dict)


def read_jpeg_frame(data: bytes) -> JpegFrame:
    """Read the frame header without looking further.

    Args:
        data: the file's bytes, starting with the SOI marker.

    Returns:
        The claimed size and components; nothing has been allocated or decoded.

    Raises:
        ImageUnreadableError: the bytes end before a frame header, or the coding process,
            precision or size is not supported.
    """
    for segment in _segments(data, None):
        if _is_frame(segment.marker):
            return _parse_frame(data, segment)
        if segment.marker in (_SOS, _EOI):
            break
    raise ImageUnreadableError(
        "JPEG holds no frame header (SOF) before its image data: the file is damaged; "
        "export it again from the camera"
    )


def check_jpeg_structure(data: bytes, frame: JpegFrame, *, max_scans: int) -> JpegStructure:
    """Walk every marker to the end of the image and refuse what is not whole.

    Args:
        data: the file's bytes.
        frame: the header of the same bytes.
        max_scans: most scans allowed; many scans cost time without a limit.

    Returns:
        Scans, EXIF block and bytes after the end marker.

    Raises:
        ImageUnreadableError: no end marker, missing scans, two frames, a second image, or
            restart markers that do not fit the size and the restart interval.
        ImageLimitError: more than `max_scans` scans.
    """
    walk = _Walk(point_transform={i: [-1] * _NUM_COEFFICIENTS for i in frame.component_ids})
    frames = 0
    for segment in _segments(data, frame):
        frames += _is_frame(segment.marker)
        if segment.marker == _APP1 and walk.exif is None:
            walk.exif = _block(data, segment, _EXIF_PREFIX)
        elif segment.marker == _APP2:
            part = _block(data, segment, _ICC_PREFIX)
            walk.icc_parts += [] if part is None else [part[2:]]
        elif segment.marker == _DRI:
            walk.restart_interval = read_restart_interval(data[segment.start : segment.end])
        elif segment.marker == _SOS:
            _count_scan(data, segment, frame, walk, max_scans)
            num_mcus = _num_countable_mcus(frame, data[segment.start])
            if num_mcus:
                check_restart_markers(
                    segment.restarts, interval=walk.restart_interval, num_mcus=num_mcus
                )
        elif segment.marker == _EOI:
            _check_complete(frames, walk)
            refuse_second_picture(data, segment.end, "JPEG")
            return JpegStructure(
                num_scans=walk.scans,
                exif=walk.exif,
                icc_profile=b"".join(walk.icc_parts) if walk.icc_parts else None,
                trailing_bytes=len(data) - segment.end,
            )
    raise ImageUnreadableError(
        f"JPEG ends after {len(data)} bytes without an end marker (EOI): the file is cut; "
        "copy it again from the camera"
    )


def _segments(data: bytes, frame: JpegFrame | None) -> Iterator[_Segment]:
    """Yield markers in file order; stop silently where the bytes end.

    With `frame` the restart markers of a scan are kept where their number is known.
    """
    position, num_segments = 2, 0
    while position + 2 <= len(data):
        num_segments += 1
        if num_segments > _MAX_SEGMENTS:
            raise ImageLimitError(
                f"JPEG has more than {_MAX_SEGMENTS} markers: refused; export it again from the "
                "camera"
            )
        if data[position] != 0xFF:
            raise ImageUnreadableError(
                f"JPEG has byte 0x{data[position]:02x} at offset {position} where a marker must "
                "be: the file is damaged; copy it again from the camera"
            )
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes
            fill = _FILL_BYTES.match(data, position)
            assert fill is not None
            position = fill.end() - 1
            continue
        if marker in (_TEM, _EOI) or 0xD0 <= marker <= _SOI:
            yield _Segment(marker=marker, start=position + 2, end=position + 2)
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end > len(data):
            return
        start, position, restarts = position + 4, end, b""
        if marker == _SOS:
            num_mcus = _num_countable_mcus(frame, data[start]) if frame and end > start else 0
            position, restarts = find_scan_end(data, end, num_mcus=num_mcus)
            if position == len(data):
                return
        yield _Segment(marker=marker, start=start, end=end, restarts=restarts)


def _is_frame(marker: int) -> bool:
    return 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES


def _parse_frame(data: bytes, segment: _Segment) -> JpegFrame:
    """Parse SOFn: precision, height, width, components (T.81, B.2.2)."""
    if segment.marker not in _SUPPORTED_FRAMES:
        raise ImageUnreadableError(
            f"JPEG coding process SOF{segment.marker - 0xC0} is not supported; save the image as "
            f"one of: {', '.join(_SUPPORTED_FRAMES.values())}"
        )
    body = data[segment.start : segment.end]
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise ImageUnreadableError("JPEG frame header (SOF) is malformed: the file is damaged")
    frame = JpegFrame(
        bits=body[0],
        height_px=int.from_bytes(body[1:3], "big"),
        width_px=int.from_bytes(body[3:5], "big"),
        component_ids=tuple(body[6 + 3 * i] for i in range(body[5])),
        sampling=tuple((body[7 + 3 * i] >> 4, body[7 + 3 * i] & 0x0F) for i in range(body[5])),
        progressive=segment.marker == _PROGRESSIVE,
        lossless=segment.marker == _LOSSLESS,
    )
    if frame.height_px == 0 or frame.width_px == 0:
        raise ImageUnreadableError(
            f"JPEG claims {frame.width_px}x{frame.height_px} pixels: sizes given later (DNL) are "
            "not supported; export the image again"
        )
    if frame.bits != 8:
        raise ImageUnreadableError(f"JPEG has {frame.bits} bits a sample; save it with 8")
    if not all(1 <= factor <= _MAX_SAMPLING for pair in frame.sampling for factor in pair):
        raise ImageUnreadableError(
            f"JPEG has sampling factors {frame.sampling}, not 1 to {_MAX_SAMPLING}: the file is "
            "damaged; copy it again from the camera"
        )
    return frame


def _block(data: bytes, segment: _Segment, prefix: bytes) -> bytes | None:
    """Return what follows the name of an application segment, None for another name."""
    body = data[segment.start : segment.end]
    return body[len(prefix) :] if body.startswith(prefix) else None


def _count_scan(
    data: bytes, segment: _Segment, frame: JpegFrame, walk: _Walk, max_scans: int
) -> None:
    """Record which coefficients this scan delivers, and to which bit (T.81, B.2.3, G.1.1.1)."""
    walk.scans += 1
    if walk.scans > max_scans:
        raise ImageLimitError(
            f"JPEG has more than {max_scans} scans: refused, because each costs a full pass; "
            "save it as baseline JPEG"
        )
    body = data[segment.start : segment.end]
    count = body[0] if body else 0
    if count == 0 or len(body) != 4 + 2 * count:
        raise ImageUnreadableError("JPEG scan header (SOS) is malformed: the file is damaged")
    first, last, low_bit = 0, _NUM_COEFFICIENTS - 1, 0
    if frame.progressive:
        first, last, low_bit = body[-3], min(body[-2], _NUM_COEFFICIENTS - 1), body[-1] & 0x0F
    for index in range(count):
        levels = walk.point_transform.get(body[1 + 2 * index])
        if levels is None:
            raise ImageUnreadableError("JPEG scan names an unknown component: the file is damaged")
        levels[first : last + 1] = [low_bit] * (last + 1 - first)


def _num_countable_mcus(frame: JpegFrame, num_scan_components: int) -> int:
    """MCUs of a scan whose restart markers are known: a baseline scan of everything; else 0."""
    num_components = len(frame.component_ids)
    interleaved = num_components > 1 and num_scan_components == num_components
    if frame.progressive or frame.lossless or not interleaved:
        return 0
    return num_interleaved_mcus(frame.width_px, frame.height_px, frame.sampling)


def _check_complete(frames: int, walk: _Walk) -> None:
    """Every coefficient of every component must have arrived down to its last bit."""
    if frames != 1:
        raise ImageUnreadableError(f"JPEG has {frames} frame headers instead of 1")
    missing = sum(any(levels) for levels in walk.point_transform.values())
    if missing:
        raise ImageUnreadableError(
            f"JPEG ends before {missing} of its {len(walk.point_transform)} colour components are "
            f"complete ({walk.scans} scans found): the file is cut; copy it again from the camera"
        )
