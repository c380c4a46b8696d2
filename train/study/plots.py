"""The study's two pictures as SVG text: AUROC by number of labels, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from train.tasks.compare import PairedDifference

__all__ = ["differences_svg", "labels_svg"]

# Colours that differ also in lightness, and a dash for each, so that colour is not needed.
_STYLES = (
    ("#1b4f8a", ""),
    ("#c8553d", "6 3"),
    ("#7a7a7a", "2 3"),
    ("#3f8f5f", "8 3 2 3"),
    ("#8c5fa8", "4 2"),
    ("#b8a03a", "1 3"),
)
_FONT = 'font-family="sans-serif" font-size="12"'
_PANEL_W, _PANEL_H, _LEFT, _TOP = 230, 190, 46, 34


def labels_svg(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, ...]]]], budgets: Sequence[int]
) -> str:
    """One panel a task, one line an arm; a dot is the mean over seeds, small dots the seeds.

    Args:
        curves: task -> arm -> for each budget the values over seeds.
        budgets: labelled eyes, the x axis (logarithmic).

    Returns:
        A whole SVG document. Axes run from 0.45 to 1.
    """
    parts = []
    for column, (task, arms) in enumerate(curves.items()):
        parts.append(f'<g transform="translate({column * (_PANEL_W + 60)},0)">')
        parts.append(_axes(task, budgets))
        for number, points in enumerate(arms.values()):
            parts.append(_line(points, budgets, *_STYLES[number % len(_STYLES)]))
        parts.append("</g>")
    names = list(next(iter(curves.values())))
    for number, name in enumerate(names):
        color, dash = _STYLES[number % len(_STYLES)]
        x = _LEFT + number * 140
        y = _TOP + _PANEL_H + 50
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 26}" y2="{y}" stroke="{color}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/><text x="{x + 32}" y="{y + 4}">{escape(name)}</text>'
        )
    width = max(len(curves) * (_PANEL_W + 60), _LEFT + len(names) * 140)
    return _document(width, _TOP + _PANEL_H + 70, "AUROC by labelled eyes, synthetic", parts)


def _x(budget: int, budgets: Sequence[int]) -> float:
    low, high = np.log(min(budgets)), np.log(max(budgets))
    share = 0.5 if high == low else (np.log(budget) - low) / (high - low)
    return float(_LEFT + 12 + share * (_PANEL_W - 24))


def _y(value: float) -> float:
    return float(_TOP + _PANEL_H * (1 - (value - 0.45) / 0.55))


def _axes(task: str, budgets: Sequence[int]) -> str:
    parts = [f'<text x="{_LEFT}" y="{_TOP - 14}" font-weight="bold">{escape(task)}</text>']
    for value in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        y = _y(value)
        parts.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + _PANEL_W}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>'
        )
    for budget in budgets:
        parts.append(
            f'<text x="{_x(budget, budgets):.1f}" y="{_TOP + _PANEL_H + 16}" '
            f'text-anchor="middle">{budget}</text>'
        )
    return "".join(parts)


def _line(
    points: Sequence[tuple[float, ...]], budgets: Sequence[int], color: str, dash: str
) -> str:
    known = [(n, values) for n, values in zip(budgets, points, strict=True) if values]
    path = " ".join(f"{_x(n, budgets):.1f},{_y(float(np.mean(v))):.1f}" for n, v in known)
    dots = "".join(
        f'<circle cx="{_x(n, budgets):.1f}" cy="{_y(value):.1f}" r="2" fill="{color}"/>'
        for n, values in known
        for value in values
    )
    return (
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" '
        f'stroke-dasharray="{dash}"/>{dots}'
    )


def differences_svg(
    by_seed: Mapping[int, Mapping[str, PairedDifference]], keys: Sequence[str]
) -> str:
    """A forest plot: for each row its difference and interval, one line a seed, 0 marked."""
    rows = [key for key in keys if any(key in found for found in by_seed.values())]
    values = [
        end
        for found in by_seed.values()
        for key in rows
        if key in found
        for end in (found[key].interval.low, found[key].interval.high)
    ]
    low, high = min([-0.05, *values]), max([0.05, *values])
    height = 26 * len(rows)

    def x(value: float) -> float:
        return 220 + 420 * (value - low) / (high - low)

    parts = [
        f'<line x1="{x(0):.1f}" y1="30" x2="{x(0):.1f}" y2="{40 + height}" stroke="#333"/>',
        f'<text x="{x(0):.1f}" y="{56 + height}" text-anchor="middle">0</text>',
        f'<text x="220" y="{56 + height}">{low:+.2f}</text>',
        f'<text x="640" y="{56 + height}" text-anchor="end">{high:+.2f}</text>',
    ]
    for number, key in enumerate(rows):
        y = 46 + 26 * number
        parts.append(f'<text x="210" y="{y + 4}" text-anchor="end">{escape(key)}</text>')
        for place, found in enumerate(by_seed.values()):
            if key in found:
                parts.append(_interval(x, found[key], y + 6 * (place - (len(by_seed) - 1) / 2)))
    title = "Paired differences, OCT-informed minus CFP-only, a line a seed, synthetic"
    return _document(670, 70 + height, title, parts)


def _interval(x, row: PairedDifference, y: float) -> str:  # type: ignore[no-untyped-def]
    low, high, value = row.interval.low, row.interval.high, row.interval.value
    color = "#1b4f8a" if low > 0 else "#c8553d" if high < 0 else "#7a7a7a"
    return (
        f'<line x1="{x(low):.1f}" y1="{y:.1f}" x2="{x(high):.1f}" y2="{y:.1f}" stroke="{color}" '
        f'stroke-width="2"/><circle cx="{x(value):.1f}" cy="{y:.1f}" r="3" fill="{color}"/>'
    )


def _document(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" {_FONT}><title>{escape(title)}</title>'
        '<rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n"
    )
