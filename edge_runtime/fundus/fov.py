"""Find the circular field of view of a fundus photograph.

The circle is looked for on a coarse grid whose cells have a fixed size in pixels of the
*file*, so a reduced decode sees the same grid and the crop does not depend on the decode
scale. On each grid row and column the first crossing of a threshold is located between
two cells; a trimmed algebraic circle fit (Kasa, 1976) through these points gives centre
and radius. Points on the frame's border are no edge of the field, so cut fields work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["FieldOfView", "find_field_of_view"]

Floats = npt.NDArray[np.float64]

_MIN_GRID_CELLS = 160  # the grid's long side has 160 to 320 cells wherever the file allows
_MAX_SMALL_PX = 1280  # from here on cells are multiples of 8, the largest decode reduction
_MIN_CONTRAST = 6.0  # grey levels between field and background
_THRESHOLD_FRACTION = 0.15  # of the contrast; vignetting makes the field's rim dark
_MIN_THRESHOLD = 4.0  # grey levels above the background
_DARK_BACKGROUND = 40.0
_EDGE_BIAS_CELLS = 0.3  # the 15 % threshold crosses this far outside the edge
_STRAIGHT_SHARE = 0.4  # of a side's points in one cell; a whole circle has at most 0.25
_MIN_POINTS = 20
_FIT_ROUNDS = 5
_AGREED = 0.9  # share of close points from which no other start can be better
_CLOSE = 0.01  # of the radius: points that decide between starts of the fit
_TOLERANCE = 0.06  # of the radius: loose, since archives hold slightly stretched photographs
_MIN_KEPT = 0.6  # share of the edge points that must lie within the tolerance
_MIN_RADIUS, _MAX_RADIUS = 0.1, 1.5  # of the frame's short and long side
_MAX_OUTSIDE = 0.1  # share of the cells well outside the circle that may be bright
_OUTSIDE = 1.06  # radii: where 'well outside' begins
_RING_CONTRAST = 0.5  # between the lit shares of a ring around the field and of the gap inside it
_RAYS = np.linspace(0.8, 1.0, 21)[:, None] * np.exp(2j * np.pi * np.arange(96) / 96)  # radii


@dataclass(frozen=True, kw_only=True)
class FieldOfView:
    """A circle in pixels of the decoded image; pixel (0, 0) covers [0, 1) x [0, 1).

    Attributes:
        cx_px: centre, from the left edge.
        cy_px: centre, from the top edge.
        radius_px: radius.
        clipped_fraction: share of the circle's bounding box that lies outside the frame.
    """

    cx_px: float
    cy_px: float
    radius_px: float
    clipped_fraction: float


class _Grid(NamedTuple):
    """Mean red level per cell, the threshold between background and field, the cell's side."""

    level: npt.NDArray[np.float32]
    threshold: float
    cell_px: int


class _Points(NamedTuple):
    """Edge points in cells, and which were met from the left or right."""

    x: Floats
    y: Floats
    is_side: npt.NDArray[np.bool_]


class _Circle(NamedTuple):
    x: float
    y: float
    radius: float


def find_field_of_view(
    image_hwc: npt.NDArray[np.uint8],
    *,
    reduction: int = 1,
    full_size_px: tuple[int, int] | None = None,
) -> FieldOfView | None:
    """Find the circle.

    Args:
        image_hwc: (H, W, 3) uint8 RGB.
        reduction: the k of a decode at 1/k.
        full_size_px: (height, width) of the file before reduction; None: H and W times k.

    Returns:
        The circle in pixels of `image_hwc`, or None where there is none. None means
        ungradable, never a full frame.
    """
    height, width = image_hwc.shape[:2]
    full_size_px = full_size_px or (height * reduction, width * reduction)
    grid = _make_grid(image_hwc, max(_cell_size(max(full_size_px)) // reduction, 1))
    if grid is None:
        return None
    circle = _find_circle(grid)
    gap = None if circle is None else _gap_inside(circle, grid)
    if circle is not None and gap is not None:
        circle = _find_circle(_without_outside(grid, circle, gap))
    if circle is None:
        return None
    cell = grid.cell_px
    radius = (circle.radius - _EDGE_BIAS_CELLS) * cell
    cx, cy = circle.x * cell, circle.y * cell
    return FieldOfView(
        cx_px=cx,
        cy_px=cy,
        radius_px=radius,
        clipped_fraction=_clipped_fraction(cx, cy, radius, height, width),
    )


def _cell_size(longest_px: int) -> int:
    """Side of a grid cell in pixels of the file: a multiple of 8, or a power of 2 below it."""
    if longest_px >= _MAX_SMALL_PX:
        return longest_px // _MAX_SMALL_PX * 8
    cell = 4
    while cell > 1 and longest_px < cell * _MIN_GRID_CELLS:
        cell //= 2
    return cell


def _make_grid(image_hwc: npt.NDArray[np.uint8], cell_px: int) -> _Grid | None:
    """Average red over the cells and set the threshold; None without contrast."""
    rows, columns = image_hwc.shape[0] // cell_px, image_hwc.shape[1] // cell_px
    if min(rows, columns) < _MIN_POINTS:
        return None
    red = cv2.extractChannel(image_hwc, 0)  # brightest channel of a fundus
    red = red[: rows * cell_px, : columns * cell_px]
    mean = cv2.resize(red, (columns, rows), interpolation=cv2.INTER_AREA)
    level = np.asarray(mean, np.float32)
    background = _background_level(level)
    third, sixth = slice(rows // 2 - rows // 6, rows // 2 + rows // 6), columns // 6
    centre = level[third, columns // 2 - sixth : columns // 2 + sixth]
    contrast = float(centre.mean()) - background
    if contrast < _MIN_CONTRAST:
        return None
    threshold = background + max(_MIN_THRESHOLD, _THRESHOLD_FRACTION * contrast)
    return _Grid(level, threshold, cell_px)


def _background_level(level: npt.NDArray[np.float32]) -> float:
    """Mean of the four corners, or the darkest where a corner shows field or text."""
    a, b = level.shape[0] // 12 + 1, level.shape[1] // 12 + 1
    corners = [level[rows, cols].mean() for rows in (slice(a), slice(-a, None))
               for cols in (slice(b), slice(-b, None))]  # fmt: skip
    mean = float(np.mean(corners))
    return mean if mean <= _DARK_BACKGROUND else float(min(corners))


def _find_circle(grid: _Grid) -> _Circle | None:
    """The circle through the field's edge; None without one that fits the frame."""
    points = _edge_points(grid)
    circle = None if points is None else _fit_circle(points)
    return circle if circle is not None and _is_plausible(circle, grid) else None


def _gap_inside(circle: _Circle, grid: _Grid) -> float | None:
    """Radius in cells of a dark gap inside a lit circle: a ring drawn around the field.

    A field cut by bars is dark there, too, but no circle outside it is lit all round.
    """
    height, width = grid.level.shape
    x = np.floor(circle.x + circle.radius * _RAYS.real).astype(int)
    y = np.floor(circle.y + circle.radius * _RAYS.imag).astype(int)
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    lit = (grid.level[y.clip(0, height - 1), x.clip(0, width - 1)] > grid.threshold) & seen
    share = lit.sum(1) / np.maximum(seen.sum(1), 1)
    gap = int(share.argmin())
    is_ring = gap < len(share) - 1 and share[gap:].max() - share[gap] > _RING_CONTRAST
    return float(abs(_RAYS[gap, 0]) * circle.radius) if is_ring else None


def _without_outside(grid: _Grid, circle: _Circle, radius: float) -> _Grid:
    """The grid with black beyond a distance from the circle's centre."""
    rows, columns = grid.level.shape
    y, x = np.ogrid[:rows, :columns]
    inside = (x + 0.5 - circle.x) ** 2 + (y + 0.5 - circle.y) ** 2 < radius**2
    return grid._replace(level=np.where(inside, grid.level, np.float32(0)))


def _edge_points(grid: _Grid) -> _Points | None:
    """Threshold crossings from all four sides; None without a field."""
    level = grid.level
    mask = level > grid.threshold
    height, width = mask.shape
    rows = np.flatnonzero(mask.sum(1) > 0.05 * width)
    columns = np.flatnonzero(mask.sum(0) > 0.05 * height)
    if len(rows) < 2 * _MIN_RADIUS * height:
        return None
    left_y, left_x = _first_crossings(level, mask, grid.threshold, rows)
    right_y, right_x = _first_crossings(level[:, ::-1], mask[:, ::-1], grid.threshold, rows)
    top_x, top_y = _first_crossings(level.T, mask.T, grid.threshold, columns)
    low_x, low_y = _first_crossings(level.T[:, ::-1], mask.T[:, ::-1], grid.threshold, columns)
    x = np.concatenate([left_x, width - right_x, top_x, low_x])
    y = np.concatenate([left_y, right_y, top_y, height - low_y])
    is_side = np.arange(len(x)) < len(left_x) + len(right_x)
    return _Points(x, y, is_side) if len(x) >= _MIN_POINTS else None


def _first_crossings(
    level: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    threshold: float,
    rows: npt.NDArray[np.intp],
) -> tuple[Floats, Floats]:
    """First crossing from the left of each row: (row, column) in cells, cell centres at +0.5.

    A row that starts above the threshold is cut by the frame, not by the field's edge; and
    where many crossings lie in one column, a bar inside the frame cuts the field.
    """
    first = mask[rows].argmax(1)
    inside = first > 1
    row, column = rows[inside], first[inside]
    high, low = level[row, column], level[row, column - 1]
    step = (threshold - low) / np.maximum(high - low, 1e-3)
    depth = np.asarray(column - 0.5 + step, np.float64)
    curved = ~_on_straight_cut(depth)
    return row[curved] + 0.5, depth[curved]


def _on_straight_cut(depth: Floats) -> npt.NDArray[np.bool_]:
    """Points in the outermost cell, if they are more than a circle can have there."""
    if len(depth) == 0:
        return np.zeros(0, bool)
    outermost = depth < _quantile(depth, 0.1) + 1
    return outermost if outermost.mean() > _STRAIGHT_SHARE else np.zeros(len(depth), bool)


def _fit_circle(points: _Points) -> _Circle | None:
    """Trimmed fit from three starts; None where too few points agree on one circle.

    A field cut above and below has its arcs at the sides only, and the straight cuts can
    outnumber them; so where the points do not agree, the fit also starts from the sides and
    from top and bottom alone, and the start that most points agree with is taken.
    """
    middle = np.array([points.x.mean(), points.y.mean()])  # centred, for the normal equations
    x, y = points.x - middle[0], points.y - middle[1]
    best = _trimmed_fit(x, y, np.ones(len(x), bool))
    if best is None or _share_on(x, y, best, _CLOSE) < _AGREED:
        starts = [
            start for start in (points.is_side, ~points.is_side) if start.sum() >= _MIN_POINTS
        ]
        fits = [best, *(_trimmed_fit(x, y, start) for start in starts)]
        best = max(
            (fit for fit in fits if fit is not None),
            key=lambda fit: _share_on(x, y, fit, _CLOSE),
            default=None,
        )
    if best is None or _share_on(x, y, best, _TOLERANCE) < _MIN_KEPT:
        return None
    return _Circle(best.x + float(middle[0]), best.y + float(middle[1]), best.radius)


def _trimmed_fit(x: Floats, y: Floats, start: npt.NDArray[np.bool_]) -> _Circle | None:
    """Fit, drop what is far from the circle, fit again."""
    keep = start
    circle = None
    for _ in range(_FIT_ROUNDS):
        circle = _algebraic_fit(x[keep], y[keep])
        if circle is None:
            return None
        distance = _distance(x, y, circle)
        kept = distance < max(0.6, 2.5 * _quantile(distance[keep], 0.5))
        if kept.sum() < _MIN_POINTS or bool((kept == keep).all()):
            break
        keep = kept
    return circle


def _quantile(values: Floats, share: float) -> float:
    """`np.quantile` of a few hundred values (linear interpolation), in a tenth of its time."""
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    below, above = (float(v) for v in np.partition(values, (low, high))[[low, high]])
    return below + (above - below) * (at - low)


def _distance(x: Floats, y: Floats, circle: _Circle) -> Floats:
    return np.asarray(np.abs(np.hypot(x - circle.x, y - circle.y) - circle.radius), np.float64)


def _share_on(x: Floats, y: Floats, circle: _Circle, tolerance: float) -> float:
    """Share of the points within a fraction of the radius (at least 0.6 cells)."""
    return float((_distance(x, y, circle) < max(0.6, tolerance * circle.radius)).mean())


def _algebraic_fit(x: Floats, y: Floats) -> _Circle | None:
    """Kasa: least squares of x^2 + y^2 = u x + v y + c; None where the points are on a line."""
    square = x * x + y * y
    normal = np.array(
        [
            [x @ x, x @ y, x.sum()],
            [x @ y, y @ y, y.sum()],
            [x.sum(), y.sum(), len(x)],
        ]
    )
    try:
        u, v, c = np.linalg.solve(normal, [x @ square, y @ square, square.sum()])
    except np.linalg.LinAlgError:
        return None
    centre_x, centre_y = float(u) / 2, float(v) / 2
    return _Circle(centre_x, centre_y, max(float(c) + centre_x**2 + centre_y**2, 1.0) ** 0.5)


def _is_plausible(circle: _Circle, grid: _Grid) -> bool:
    """Size and centre fit the frame, and the frame is dark outside the circle."""
    rows, columns = grid.level.shape
    if not _MIN_RADIUS * min(rows, columns) <= circle.radius <= _MAX_RADIUS * max(rows, columns):
        return False
    if not (0 < circle.x < columns and 0 < circle.y < rows):
        return False
    y, x = np.ogrid[:rows, :columns]
    limit = (_OUTSIDE * circle.radius) ** 2
    outside = (x + 0.5 - circle.x) ** 2 + (y + 0.5 - circle.y) ** 2 > limit
    bright = grid.level > grid.threshold
    return not outside.any() or float(bright[outside].mean()) <= _MAX_OUTSIDE


def _clipped_fraction(cx: float, cy: float, radius: float, height: int, width: int) -> float:
    """Share of the bounding box outside the frame; an overhang of half a pixel is none."""
    seen_x = min(cx + radius, width) - max(cx - radius, 0)
    seen_y = min(cy + radius, height) - max(cy - radius, 0)
    return float(min(max(1 - seen_x * seen_y / (2 * radius) ** 2, 0.0), 1.0))
