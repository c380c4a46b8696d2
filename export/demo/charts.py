"""Charts as inline SVG: ROC curves, probe bars, latency bars.

Series differ in dash and place as well as colour, values stand beside what they measure,
and every title begins with the word SYNTHETIC. Coordinates are SVG user units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigError
from export.demo.html import SYNTHETIC, Markup, element, escape, label_words
from export.demo.model import ARMS, ModelRow, ProbeAuroc
from train.page.style import PALETTE
from train.page.svg import Scale, UnitSquare, draw_line, draw_shape, draw_text

__all__ = ["RocCurve", "latency_chart", "probe_chart", "roc_chart"]

FloatArray = NDArray[np.float64]
_INK, _MUTED, _LINE = PALETTE["ink"], PALETTE["muted"], PALETTE["line"]
_SERIES = (  # colour, dash, width of the first, second and third model
    (PALETTE["teacher"], "1 3.2", 2.6),
    (PALETTE["student"], "", 1.9),
    (PALETTE["int8"], "6 4", 1.9),
)
_ARM_WORDS = {
    "oct_informed": "photograph + OCT",
    "cfp_only": "photograph only",
    "shuffled_oct": "another eye's OCT",
    "no_pretraining": "no pretraining",
}
_ARM_FILL = {
    "oct_informed": PALETTE["teal"],
    "cfp_only": "#7fa9ad",
    "shuffled_oct": "#b9c4c9",
    "no_pretraining": "#dde3e6",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RocCurve:
    """ROC points of one model and label on test eyes; rates ascend from 0 to 1."""

    model: str
    label: str
    false_positive_rate: FloatArray
    true_positive_rate: FloatArray

    def __post_init__(self) -> None:
        """Refuse points that are not a curve from (0, 0) to (1, 1)."""
        x, y = self.false_positive_rate, self.true_positive_rate
        usable = x.ndim == 1 and x.shape == y.shape and x.size >= 2
        if not (usable and bool(np.isfinite(x).all() and np.isfinite(y).all())):
            raise ConfigError(f"ROC of {self.model} {self.label} has unusable points; recompute it")
        if (np.diff(x) < 0).any() or (np.diff(y) < 0).any():
            raise ConfigError(f"ROC of {self.model} {self.label} is not ascending; sort its points")


def roc_chart(label: str, curves: Sequence[RocCurve], models: Sequence[ModelRow]) -> Markup:
    """Return one label's ROC curves with each model's AUROC and interval."""
    plot = UnitSquare()
    lines = [plot.frame("false positive rate (1 - specificity)", "sensitivity")]
    names = [model.name for model in models]
    for curve in curves:
        colour, dash, width = _SERIES[names.index(curve.model) % 3 if curve.model in names else 0]
        points = plot.points(curve.false_positive_rate, curve.true_positive_rate)
        lines.append(
            draw_shape(
                "polyline",
                points=points,
                fill="none",
                stroke=colour,
                stroke_width=f"{width}",
                stroke_dasharray=dash or "none",
                stroke_linejoin="round",
            )
        )
    shown = [(i, model) for i, model in enumerate(models) if label in model.labels]
    for row, (index, model) in enumerate(shown):
        lines.append(_roc_key(row, len(shown), index, model, label))
    title = f"ROC, {label_words(label)}"
    summary = "; ".join(f"{m.name} AUROC {m.labels[label].auroc:.3f}" for _, m in shown)
    return _figure(title, "test patients", _svg(330, 318, f"{title}. {summary}", lines))


def _roc_key(row: int, num_rows: int, index: int, model: ModelRow, label: str) -> Markup:
    """Return one line of the key, in the empty lower right of the plot."""
    plot, (colour, dash, width) = UnitSquare(), _SERIES[index % 3]
    y = plot.y(0) - 14 - 28 * (num_rows - 1 - row)
    left = plot.x(0.30)
    result = model.labels[label]
    low, high = result.interval
    ground = draw_shape("rect", x=f"{left - 5:.1f}", y=f"{y - 14:.1f}", width="194", height="27",
                  fill="#ffffff", fill_opacity="0.9")  # fmt: skip
    line = draw_line(left, y, left + 30, y, colour, dash=dash, width=width)
    name = draw_text(left + 37, y - 1, f"{model.name} {result.auroc:.3f}", weight="600")
    interval = draw_text(left + 37, y + 10.5, f"95 % interval {low:.3f} to {high:.3f}", size=9.5)
    return Markup(ground + line + name + interval)


def probe_chart(label: str, arms: Mapping[str, Mapping[str, ProbeAuroc]]) -> Markup:
    """Return the AUROC of one label's linear probe for every pretraining arm, with its spread.

    Bars start at chance (0.5), so that their length is what the encoder knows.
    """
    results = [(arm, arms[arm][label]) for arm in ARMS if label in arms.get(arm, {})]
    ends = [(r.auroc_mean - r.auroc_sd, r.auroc_mean + r.auroc_sd) for _, r in results]
    low = min([0.45, *(end[0] for end in ends)])
    scale = Scale(low=np.floor(low * 20) / 20, high=1.0, left=126.0, width=150.0)
    height = 22 + 27 * len(results)
    parts = [_ticks(scale, (0.5, 0.75, 1.0), height - 14)]
    for row, (arm, result) in enumerate(results):
        parts.append(_probe_bar(scale, 6 + 27 * row, arm, result))
    parts.append(draw_line(scale.x(0.5), 0, scale.x(0.5), height - 14, _INK))
    words = "; ".join(f"{_ARM_WORDS[arm]} {r.auroc_mean:.3f}" for arm, r in results)
    title = f"Probe, {label_words(label)}"
    picture = _svg(330, height, f"{title}. AUROC: {words}", parts)
    return _figure(title, "test AUROC from chance 0.5, with ± 1 sd", picture)


def _probe_bar(scale: Scale, top: float, arm: str, result: ProbeAuroc) -> Markup:
    chance, end = scale.x(0.5), scale.x(result.auroc_mean)
    left, middle = min(chance, end), top + 9
    bar = draw_shape("rect", x=f"{left:.1f}", y=f"{top:.1f}", width=f"{abs(end - chance):.1f}",
               height="18", fill=_ARM_FILL[arm], stroke=_MUTED, stroke_width="0.6")  # fmt: skip
    low, high = (scale.x(result.auroc_mean + s * result.auroc_sd) for s in (-1, 1))
    whisker = draw_line(low, middle, high, middle, _INK, width=1.4)
    name = draw_text(120, middle + 4, _ARM_WORDS[arm], anchor="end", size=11.5)
    weight = "700" if arm == "oct_informed" else "400"
    value = draw_text(288, middle + 4, f"{result.auroc_mean:.3f}", size=12, weight=weight)
    return Markup(name + bar + whisker + value)


def latency_chart(models: Sequence[ModelRow]) -> Markup:
    """Return p50 as a bar and p99 as a whisker for every model that was timed."""
    timed = [(m.name, m.latency_ms) for m in models if m.latency_ms is not None]
    if not timed:
        return Markup("")
    longest = max(latency.p99 for _, latency in timed)
    scale = Scale(low=0.0, high=longest or 1.0, left=130.0, width=400.0)
    height = 14 + 34 * len(timed)
    parts = [draw_line(scale.x(0), 0, scale.x(0), height - 8, _INK)]
    for row, (name, latency) in enumerate(timed):
        top, middle = 4 + 34 * row, 15 + 34 * row
        colour = PALETTE["int8"] if "INT8" in name else PALETTE["student"]
        width = scale.x(latency.p50) - scale.x(0)
        parts.append(draw_text(122, middle + 4, name, anchor="end", size=13))
        parts.append(draw_shape("rect", x=f"{scale.x(0):.1f}", y=str(top), width=f"{width:.1f}",
                          height="22", fill=colour, fill_opacity="0.85"))  # fmt: skip
        end = scale.x(latency.p99)
        parts.append(draw_line(scale.x(latency.p50), middle, end, middle, _INK, width=1.5))
        parts.append(draw_line(end, middle - 6, end, middle + 6, _INK, width=1.5))
        words = f"p50 {latency.p50:.2f} ms, p99 {latency.p99:.2f} ms"
        parts.append(draw_text(end + 10, middle + 4, words, size=13))
    text = "; ".join(f"{name}: p50 {lat.p50:.2f} ms, p99 {lat.p99:.2f} ms" for name, lat in timed)
    picture = _svg(780, height, f"Latency. {text}", parts)
    unit = "batch 1, warm; bar p50, whisker to p99"
    return _figure("Latency of one inference", unit, picture, class_="wide")


def _ticks(scale: Scale, values: Sequence[float], height: float) -> Markup:
    parts = [draw_line(scale.x(v), 0, scale.x(v), height, _LINE) for v in values]
    parts += [draw_text(scale.x(v), height + 12, f"{v:g}", anchor="middle") for v in values]
    return Markup("".join(parts))


def _svg(width: int, height: float, summary: str, parts: Sequence[Markup]) -> Markup:
    title = element("title", f"{SYNTHETIC} data. {summary}")
    view = f"0 0 {width} {height:g}"
    return Markup(f'<svg viewBox="{view}" role="img">{title}{"".join(parts)}</svg>')


def _figure(title: str, unit: str, picture: Markup, *, class_: str = "chart") -> Markup:
    tag = element("b", SYNTHETIC, class_="synthetic")
    caption = element("figcaption", tag, " ", title, element("small", escape(unit)))
    return element("figure", caption, picture, class_=class_)
