"""Draw docs/img/overview.png: one synthetic eye, what training sees of it and what a camera sees.

python docs/img/overview.py            writes overview.png beside this file
python docs/img/overview.py OTHER.png  writes elsewhere

The eye is a phantom with macular edema, plain in the scans and faint in the photograph. The
answer on the right is an example of the form of an answer; no model was asked.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from train.phantom.eye import RenderedEye, render_eye

__all__ = ["draw_overview", "main"]

ByteArray = npt.NDArray[np.uint8]
Point = tuple[int, int]
Color = tuple[int, int, int]

_SEED, _PATIENT, _EYE = 0, 5, "OS"
_WIDTH_PX, _HEIGHT_PX = 1200, 424
_FINE = 4  # text and lines are drawn this much larger, then reduced: smooth edges
_INK: Color = (23, 32, 43)
_MUTED: Color = (71, 82, 95)
_PANEL: Color = (243, 245, 247)
_AMBER: Color = (107, 68, 0)
_AMBER_GROUND: Color = (253, 243, 223)
_RED: Color = (138, 28, 28)


class _Sheet:
    """A white page in final pixels, drawn `_FINE` times larger."""

    def __init__(self) -> None:
        shape = (_HEIGHT_PX * _FINE, _WIDTH_PX * _FINE, 3)
        self._canvas: ByteArray = np.full(shape, 255, np.uint8)

    def box(self, corner: Point, size: Point, color: Color) -> None:
        low = (corner[0] * _FINE, corner[1] * _FINE)
        high = ((corner[0] + size[0]) * _FINE - 1, (corner[1] + size[1]) * _FINE - 1)
        cv2.rectangle(self._canvas, low, high, color, cv2.FILLED)

    def text(self, start: Point, words: str, *, height: float, color: Color, bold: int = 1) -> None:
        """Write words with their base line at `start`; `height` is that of a capital, in pixels."""
        scale = height * _FINE / 22.0  # capitals of this font are 22 px high at scale 1
        where = (start[0] * _FINE, start[1] * _FINE)
        font, smooth = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
        cv2.putText(self._canvas, words, where, font, scale, color, bold * _FINE // 2, smooth)

    def arrow(self, start: Point, end: Point) -> None:
        a, b = ((x * _FINE, y * _FINE) for x, y in (start, end))
        cv2.arrowedLine(self._canvas, a, b, _INK, 3 * _FINE, cv2.LINE_AA, tipLength=0.28)

    def reduced(self) -> ByteArray:
        size = (_WIDTH_PX, _HEIGHT_PX)
        return np.asarray(cv2.resize(self._canvas, size, interpolation=cv2.INTER_AREA), np.uint8)


def draw_overview() -> ByteArray:
    """Return the picture: uint8 (H, W, 3) RGB."""
    eye = render_eye(_SEED, _PATIENT, _EYE, image_px=384)
    sheet = _Sheet()
    _write_training(sheet)
    _write_camera(sheet)
    page = sheet.reduced()
    _paste_eye(page, eye)
    return page


def _write_training(sheet: _Sheet) -> None:
    sheet.box((12, 12), (602, 400), _PANEL)
    sheet.text((28, 40), "Training: photograph and OCT of the same eye", height=13, color=_INK)
    _tag(sheet, (494, 24))
    sheet.text((28, 402), "photograph (CFP)", height=10, color=_MUTED)
    sheet.text((374, 402), "OCT, horizontal and vertical", height=10, color=_MUTED)
    sheet.arrow((628, 206), (712, 206))
    for row, words in enumerate(("distill", "export", "calibrate")):
        sheet.text((630, 232 + 20 * row), words, height=10, color=_MUTED)


def _write_camera(sheet: _Sheet) -> None:
    sheet.box((726, 12), (462, 400), _PANEL)
    sheet.text((742, 40), "Camera: the photograph alone", height=13, color=_INK)
    sheet.text((742, 288), "left eye (OS)", height=10, color=_MUTED)
    sheet.arrow((958, 163), (1000, 163))
    sheet.text((1012, 120), "REFER", height=20, color=_RED, bold=3)
    for row, words in enumerate(("gradable", "macular edema +", "glaucoma -", "signed bundle")):
        sheet.text((1012, 152 + 24 * row), words, height=11, color=_INK)
    sheet.text((742, 340), "Example of an answer; no model was asked.", height=10, color=_MUTED)
    sheet.text((742, 364), "Research use only; not a medical device.", height=10, color=_MUTED)
    _tag(sheet, (1072, 24))


def _tag(sheet: _Sheet, corner: Point) -> None:
    sheet.box(corner, (104, 24), _AMBER_GROUND)
    sheet.text((corner[0] + 9, corner[1] + 17), "SYNTHETIC", height=11, color=_AMBER, bold=2)


def _paste_eye(page: ByteArray, eye: RenderedEye) -> None:
    _paste(page, (28, 54), eye.cfp_hwc, (330, 330))
    for row, scan in enumerate(eye.oct_zx):
        _paste(page, (374, 54 + 172 * row), cv2.cvtColor(scan, cv2.COLOR_GRAY2RGB), (224, 158))
    _paste(page, (742, 60), eye.cfp_hwc, (206, 206))


def _paste(page: ByteArray, corner: Point, image_hwc: npt.NDArray[np.uint8], size: Point) -> None:
    x, y = corner
    page[y : y + size[1], x : x + size[0]] = cv2.resize(
        image_hwc, size, interpolation=cv2.INTER_AREA
    )


def main(out: Path) -> None:
    """Write the picture as PNG."""
    done, data = cv2.imencode(".png", draw_overview()[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise RuntimeError("OpenCV could not encode the picture")
    out.write_bytes(data.tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("overview.png"))
