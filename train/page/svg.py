"""Drawings as inline SVG: lines, words and shapes in user units, and a linear scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.reports.markup import Markup, element
from train.page.style import PALETTE

__all__ = ["Scale", "UnitSquare", "draw_line", "draw_shape", "draw_text"]

FloatArray = NDArray[np.float64]
_LINE, _MUTED = PALETTE["line"], PALETTE["muted"]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values linearly to x."""

    low: float
    high: float
    left: float
    width: float

    def x(self, value: float) -> float:
        """The x of a value; what lies outside is drawn at the end."""
        share = (value - self.low) / (self.high - self.low)
        return float(self.left + self.width * min(max(share, 0.0), 1.0))


class UnitSquare:
    """Maps values 0..1 on both axes to a square plot area."""

    left, top, side = 40.0, 8.0, 272.0

    def points(self, x: FloatArray, y: FloatArray) -> str:
        """The corners of a curve, as the attribute `points` of a polyline."""
        keep = _corners(x, y)
        pairs = zip(x[keep], y[keep], strict=True)
        return " ".join(f"{self.x(float(a)):.1f},{self.y(float(b)):.1f}" for a, b in pairs)

    def x(self, value: float) -> float:
        """User units from the left."""
        return self.left + self.side * value

    def y(self, value: float) -> float:
        """User units from the top."""
        return self.top + self.side * (1.0 - value)

    def frame(self, x_title: str, y_title: str) -> Markup:
        """Grid, diagonal and titles of the axes."""
        parts = []
        for value in (0.0, 0.25, 0.5, 0.75, 1.0):
            parts.append(draw_line(self.x(value), self.y(0), self.x(value), self.y(1), _LINE))
            parts.append(draw_line(self.x(0), self.y(value), self.x(1), self.y(value), _LINE))
        for value in (0.0, 0.5, 1.0):
            parts.append(draw_text(self.x(value), self.y(0) + 14, f"{value:g}", anchor="middle"))
            parts.append(draw_text(self.x(0) - 6, self.y(value) + 4, f"{value:g}", anchor="end"))
        parts.append(draw_line(self.x(0), self.y(0), self.x(1), self.y(1), _MUTED, dash="2 4"))
        bottom, middle = self.y(0) + 29, self.x(0.5)
        parts.append(draw_text(middle, bottom, x_title, anchor="middle"))
        turn = f"rotate(-90 12 {self.y(0.5):.1f})"
        parts.append(draw_text(12, self.y(0.5), y_title, anchor="middle", transform=turn))
        return Markup("".join(parts))


def _corners(x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
    """Mark the points at which the curve turns; the others lie on straight pieces."""
    keep = np.ones(x.size, dtype=bool)
    dx, dy = np.diff(x), np.diff(y)
    keep[1:-1] = np.abs(dx[1:] * dy[:-1] - dx[:-1] * dy[1:]) > 1e-12
    return keep


def draw_line(
    x1: float, y1: float, x2: float, y2: float, colour: str, *, dash: str = "", width: float = 1.0
) -> Markup:
    """Return a straight line."""
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    dashes = {"stroke_dasharray": dash} if dash else {}
    return draw_shape("line", **ends, stroke=colour, stroke_width=f"{width:g}", **dashes)


def draw_text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: float = 11,
    weight: str = "400",
    transform: str = "",
) -> Markup:
    """Return words at a point."""
    more = {"transform": transform} if transform else {}
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor,
                   font_size=f"{size:g}", font_weight=weight, **more)  # fmt: skip


def draw_shape(tag: str, **attributes: str) -> Markup:
    """Return any element without content."""
    return element(tag, **attributes)
