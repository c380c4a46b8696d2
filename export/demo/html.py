"""What the demo's page adds to `train.page.html`: its words, and SYNTHETIC on every table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge_runtime.reports.markup import Markup, element, escape
from train.page.html import (
    SYNTHETIC,
    mark_verdict,
    page,
    paragraph,
    percent,
    section,
    value_with_interval,
)
from train.page.html import data_table as page_table

__all__ = [
    "SYNTHETIC",
    "Markup",
    "data_table",
    "duration",
    "element",
    "escape",
    "label_words",
    "mark_disposition",
    "mark_verdict",
    "page",
    "paragraph",
    "percent",
    "section",
    "value_with_interval",
]

_LABEL_WORDS = {
    "amd": "AMD",
    "dr_grade": "DR grade",
    "gradable": "gradability",
    "referable_dr": "referable DR",
}
_DISPOSITIONS = {
    "refer": ("▲", "refer", "bad"),
    "no_refer": ("●", "no refer", "good"),
    "ungradable": ("■", "ungradable", "unsure"),
}


def data_table(
    caption: object,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    words: Sequence[int] = (),
    note: object = "",
) -> Markup:
    """Return a table whose caption begins with the word SYNTHETIC, as the demo's eyes are."""
    return page_table(caption, head, rows, words=words, note=note, synthetic=True)


def mark_disposition(disposition: str) -> Markup:
    """Return a disposition with a shape, a word and a colour."""
    sign, word, kind = _DISPOSITIONS.get(disposition, ("?", disposition, "unsure"))
    return element("span", element("i", sign, aria_hidden="true"), word, class_=f"mark {kind}")


def label_words(name: str) -> str:
    """Return a label as people say it: 'referable_dr' -> 'referable DR'."""
    return _LABEL_WORDS.get(name, name.replace("_", " "))


def duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
