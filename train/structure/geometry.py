"""From pixels of a CFP file to the square that the runtime's preprocessing makes of it.

The same whole-pixel cut as `edge_runtime.preprocess`, for what that function does not carry
along: masks and points.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.fundus.fov import FieldOfView
from train.structure.field import FloatArray

__all__ = ["SquareGeometry"]


@dataclass(frozen=True, kw_only=True)
class SquareGeometry:
    """The square that is cut out, in pixels of the file.

    Attributes:
        left: first column.
        top: first row.
        side: in pixels.
    """

    left: float
    top: float
    side: float

    @classmethod
    def of(cls, view: FieldOfView, reduction: int) -> SquareGeometry:
        """From the circle that preprocessing found in an image decoded at 1 / `reduction`."""
        side = max(2, round(2 * view.radius_px))
        left, top = round(view.cx_px - side / 2), round(view.cy_px - side / 2)
        return cls(left=left * reduction, top=top * reduction, side=side * reduction)

    def point(self, x_px: float, y_px: float) -> tuple[float, float]:
        """A place given in pixels of the file (centres are whole numbers), in field units."""
        return (
            (x_px + 0.5 - self.left) / self.side * 2 - 1,
            (y_px + 0.5 - self.top) / self.side * 2 - 1,
        )

    def mask(self, mask_hw: npt.NDArray[np.bool_], size_px: int) -> FloatArray:
        """Cover a mask of the file has in every pixel of the square.

        Args:
            mask_hw: (H, W) bool in pixels of the file.
            size_px: S.

        Returns:
            (S, S) float32 in [0, 1]; 0 where the square leaves the file.
        """
        height, width = mask_hw.shape
        left, top, side = (int(value) for value in (self.left, self.top, self.side))
        square = np.zeros((side, side), np.float32)
        x0, x1, y0, y1 = max(left, 0), min(left + side, width), max(top, 0), min(top + side, height)
        square[y0 - top : y1 - top, x0 - left : x1 - left] = mask_hw[y0:y1, x0:x1]
        method = cv2.INTER_AREA if side > size_px else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(square, (size_px, size_px), interpolation=method), np.float32)
