"""ROC curves and reliability diagrams of a card, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_runtime.reports.markup import Markup, element
from train.card.card import CellReport
from train.page.html import synthetic_mark
from train.page.style import PALETTE
from train.page.svg import UnitSquare, draw_line, draw_shape, draw_text

__all__ = ["reliability_chart", "roc_chart"]

# Series differ in dash and place as well as in colour.
_SERIES = (
    (PALETTE["student"], ""),
    (PALETTE["int8"], "6 4"),
    (PALETTE["teacher"], "1 3.2"),
    (PALETTE["teal"], "8 3 2 3"),
    (PALETTE["good"], "3 2"),
    (PALETTE["bad"], "2 5"),
)
_TOP = 318


def roc_chart(cells: Sequence[CellReport], *, synthetic: bool) -> Markup:
    """One label's ROC curves on one data set, a line a model; models without one are left out."""
    drawn = [cell for cell in cells if cell.roc]
    plot = UnitSquare()
    parts = [plot.frame("false positive rate (1 - specificity)", "sensitivity")]
    for number, cell in enumerate(drawn):
        x, y = (np.array(axis) for axis in zip(*cell.roc, strict=True))
        parts.append(_polyline(plot.points(x, y), number))
    return _figure("ROC", drawn, parts, synthetic)


def reliability_chart(cells: Sequence[CellReport], *, synthetic: bool) -> Markup:
    """What was said against what happened, a line a model; the diagonal is honest."""
    drawn = [cell for cell in cells if cell.reliability]
    plot = UnitSquare()
    parts = [plot.frame("mean probability of a bin", "share of positive eyes")]
    for number, cell in enumerate(drawn):
        pairs = [(plot.x(p.mean_probability), plot.y(p.observed_rate)) for p in cell.reliability]
        parts.append(_polyline(" ".join(f"{x:.1f},{y:.1f}" for x, y in pairs), number))
        colour, _ = _SERIES[number % len(_SERIES)]
        parts += [
            draw_shape("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="2.5", fill=colour)
            for x, y in pairs
        ]
    return _figure("Reliability", drawn, parts, synthetic)


def _polyline(points: str, number: int) -> Markup:
    colour, dash = _SERIES[number % len(_SERIES)]
    return draw_shape(
        "polyline",
        points=points,
        fill="none",
        stroke=colour,
        stroke_width="2",
        stroke_dasharray=dash or "none",
        stroke_linejoin="round",
    )


def _figure(kind: str, drawn: Sequence[CellReport], parts: list[Markup], synthetic: bool) -> Markup:
    """The picture with a key below it; words where no model can be drawn."""
    if not drawn:
        return element("figure", element("figcaption", f"{kind}: cannot be drawn"), class_="chart")
    for number, cell in enumerate(drawn):
        colour, dash = _SERIES[number % len(_SERIES)]
        y = _TOP + 16 * number
        parts.append(draw_line(44, y, 76, y, colour, dash=dash, width=2))
        parts.append(draw_text(84, y + 4, cell.model, size=12))
    title = f"{kind}, {drawn[0].title}, {drawn[0].dataset}"
    height = _TOP + 16 * len(drawn)
    summary = element("title", f"{title}: {', '.join(cell.model for cell in drawn)}")
    picture = Markup(f'<svg viewBox="0 0 330 {height}" role="img">{summary}{"".join(parts)}</svg>')
    mark = [synthetic_mark(), " "] if synthetic else []
    return element("figure", element("figcaption", *mark, title), picture, class_="chart")
