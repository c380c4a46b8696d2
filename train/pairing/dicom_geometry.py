"""Which frame of an OCT file (OPT) is the foveal B-scan: by geometry, or not at all.

The direction of a frame comes from the Ophthalmic Frame Location (the line on the fundus
picture) or, where that is absent, from Image Orientation (Patient). Within 10 degrees of an
axis it is horizontal or vertical, else oblique. Then:

- one horizontal frame, or a raster of them: the central frame is macula_h;
- one vertical frame, or a raster of them: the central frame is macula_v;
- both in one file (a cross): one of each;
- with oblique frames (a radial scan): one horizontal and one vertical frame at most.

The central frame of n parallel ones is number n // 2 (counted from 0) in the order of
position: superior to inferior, or left to right on the picture. Frames that share a position,
frames without direction, and everything else is ambiguous and refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FrameLine", "foveal_frames", "frame_line"]

_TOLERANCE_DEG = 10.0
_HORIZONTAL, _VERTICAL, _OBLIQUE = "h", "v", "oblique"


@dataclass(frozen=True, kw_only=True)
class FrameLine:
    """One frame's line on the fundus.

    Attributes:
        direction: "h", "v" or "oblique".
        position: Across the line: downwards for a horizontal one, to the right of the
            picture (or to the patient's left) for a vertical one; pixels or millimetres.
    """

    direction: str
    position: float


def foveal_frames(lines: Sequence[FrameLine | None]) -> dict[str, int] | str:
    """Choose by the rule of this module.

    Args:
        lines: One for each frame; None where the file does not say.

    Returns:
        Scan kind (macula_h, macula_v) -> frame number from 0; or why it is ambiguous.
    """
    if not lines or any(line is None for line in lines):
        return "a frame has no direction"
    known = [line for line in lines if line is not None]
    found = {
        "macula_h": [i for i, line in enumerate(known) if line.direction == _HORIZONTAL],
        "macula_v": [i for i, line in enumerate(known) if line.direction == _VERTICAL],
    }
    oblique = len(known) - sum(map(len, found.values()))
    if oblique and max(map(len, found.values())) > 1:
        return "oblique frames beside several parallel ones"
    chosen = {}
    for kind, frames in found.items():
        positions = [known[i].position for i in frames]
        if len(set(positions)) != len(positions):
            return "several frames at one position"
        if frames:
            chosen[kind] = sorted(frames, key=lambda i: known[i].position)[len(frames) // 2]
    return chosen or "no frame is horizontal or vertical"


def frame_line(shared: Any, own: Any) -> FrameLine | None:
    """The line of a frame from its functional groups; None where it cannot be known.

    Args:
        shared: The item of the Shared Functional Groups Sequence, or None.
        own: The frame's item of the Per-frame Functional Groups Sequence.
    """
    from_location = _from_location(_item(own, shared, "OphthalmicFrameLocationSequence"))
    from_plane = _from_plane(
        _item(own, shared, "PlaneOrientationSequence"),
        _item(own, shared, "PlanePositionSequence"),
    )
    if from_location is None or from_plane is None:
        return from_location or from_plane
    return from_location if from_location.direction == from_plane.direction else None


def _from_location(item: Any) -> FrameLine | None:
    """From Reference Coordinates: pairs of (row, column) along the line."""
    if item is None or getattr(item, "OphthalmicImageOrientation", "LINEAR") != "LINEAR":
        return None
    values = getattr(item, "ReferenceCoordinates", None)
    if values is None or isinstance(values, float) or len(values) < 4 or len(values) % 2:
        return None
    row_0, column_0, row_1, column_1 = (float(values[i]) for i in (0, 1, -2, -1))
    middle_row, middle_column = (row_0 + row_1) / 2, (column_0 + column_1) / 2
    return _line(column_1 - column_0, row_1 - row_0, across=(middle_row, middle_column))


def _from_plane(orientation: Any, position: Any) -> FrameLine | None:
    """From the direction of a row in patient coordinates: x to the left, z to the head."""
    cosines = getattr(orientation, "ImageOrientationPatient", None)
    origin = getattr(position, "ImagePositionPatient", None)
    if cosines is None or origin is None or len(cosines) != 6 or len(origin) != 3:
        return None
    return _line(float(cosines[0]), float(cosines[2]), across=(-float(origin[2]), float(origin[0])))


def _line(along_x: float, along_y: float, *, across: tuple[float, float]) -> FrameLine | None:
    """A line by its direction; `across` is its position as a horizontal and a vertical one."""
    if not all(map(math.isfinite, (along_x, along_y, *across))) or (along_x, along_y) == (0, 0):
        return None
    angle = math.degrees(math.atan2(abs(along_y), abs(along_x)))
    if angle <= _TOLERANCE_DEG:
        return FrameLine(direction=_HORIZONTAL, position=across[0])
    if angle >= 90 - _TOLERANCE_DEG:
        return FrameLine(direction=_VERTICAL, position=across[1])
    return FrameLine(direction=_OBLIQUE, position=0.0)


def _item(own: Any, shared: Any, name: str) -> Any:
    """The only item of a functional group, the frame's own before the shared one."""
    for groups in (own, shared):
        sequence = getattr(groups, name, None) if groups is not None else None
        if sequence:
            return sequence[0] if len(sequence) == 1 else None
    return None
