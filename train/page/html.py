"""One self-contained page: skeleton, sections, tables and marks, without any dependency.

`Markup` is text that is already HTML. Everything else that enters the page passes `escape`.
Nothing on the page is fetched: no scripts, fonts or links; its policy forbids them.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from edge_runtime.reports.markup import Markup, element
from train.page.style import STYLE

__all__ = [
    "SYNTHETIC",
    "data_table",
    "mark_verdict",
    "page",
    "paragraph",
    "percent",
    "section",
    "synthetic_mark",
    "value_with_interval",
]

SYNTHETIC = "SYNTHETIC"


def synthetic_mark() -> Markup:
    """Return the word SYNTHETIC, set apart."""
    return element("b", SYNTHETIC, class_="synthetic")


def paragraph(*content: object, class_: str = "text") -> Markup:
    """Return one paragraph."""
    return element("p", *content, class_=class_)


def section(name: str, title: str, lead: object, *content: object) -> Markup:
    """Return a section with a heading and a sentence that says what is to be seen."""
    heading = element("h2", title, id=f"{name}-title")
    lead_text = paragraph(lead, class_="lead")
    return element(
        "section", heading, lead_text, *content, id=name, aria_labelledby=f"{name}-title"
    )


def data_table(
    caption: object,
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    words: Sequence[int] = (),
    note: object = "",
    synthetic: bool,
) -> Markup:
    """Return a table whose caption begins with the word SYNTHETIC where its eyes are.

    The first cell of a row is its header; the columns numbered in `words` are set left.
    """
    cells = [
        element("th", cell, scope="col", class_=_column_class(number, words))
        for number, cell in enumerate(head)
    ]
    body = element("tbody", *(_row(row, words) for row in rows))
    caption_line = element("caption", *([synthetic_mark(), " "] if synthetic else []), caption)
    table = element("table", caption_line, element("thead", element("tr", *cells)), body)
    after = paragraph(note, class_="note") if note else ""
    return element("div", table, after, class_="scroll", tabindex="0")


def _row(cells: Sequence[object], words: Sequence[int]) -> Markup:
    first = element("th", cells[0], scope="row")
    rest = (
        element("td", cell, class_=_column_class(number, words))
        for number, cell in enumerate(cells[1:], start=1)
    )
    return element("tr", first, *rest)


def _column_class(number: int, words: Sequence[int]) -> str:
    return "words" if number == 0 or number in words else "number"


def mark_verdict(met: bool, words: tuple[str, str] = ("met", "not met")) -> Markup:
    """Return the first or the second of the words, with a sign and a colour of its own."""
    sign, kind = ("✓", "good") if met else ("✗", "bad")
    word = words[0] if met else words[1]
    return element("span", element("i", sign, aria_hidden="true"), word, class_=f"mark {kind}")


def percent(share: float) -> str:
    """Return a share 0..1 as per cent with one decimal."""
    return f"{100 * share:.1f} %"


def value_with_interval(value: float, interval: Sequence[float], *, decimals: int = 3) -> Markup:
    """Return '0.912' with its interval small beneath."""
    low, high = (f"{end:.{decimals}f}" for end in interval)
    small = element("small", f"{low} to {high}")
    return Markup(f"{value:.{decimals}f} {small}")


def page(title: str, header: Markup, sections: Iterable[Markup], footer: Markup) -> str:
    """Return the whole document."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    )
    body = element("main", *sections)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n'
        f"<body>{header}\n{body}\n{footer}</body></html>\n"
    )
