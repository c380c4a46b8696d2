"""Answers as marks on a page: a shape, a sign in it, a word, and only then a colour."""

from __future__ import annotations

from edge_runtime.reports.markup import Markup, element
from edge_runtime.reports.next_steps import ANSWERS
from edge_runtime.result import Decision, LabelResult
from edge_runtime.screening.entries import NOT_SCREENED, ReportEntry

__all__ = [
    "WORDS",
    "answer_of",
    "entry_kind",
    "icon",
    "is_doubted",
    "kind_of",
    "mark",
    "probability_bar",
    "shared_mark",
]

WORDS = {**{one.value: ANSWERS[one].word for one in Decision}, NOT_SCREENED: "NOT SCREENED"}
_KINDS = {
    Decision.REFER.value: "refer",
    Decision.NO_REFER.value: "clear",
    Decision.UNGRADABLE.value: "unsure",
    NOT_SCREENED: "absent",
}
# Drawn as strokes, so that no font is needed: triangle with !, disc with a tick, square with ?,
# diamond with a bar.
_SHAPES = {
    "refer": '<path d="M24 5 45 43H3Z"/><path d="M24 18v12M24 35v3"/>',
    "clear": '<circle cx="24" cy="24" r="20"/><path d="m14 25 7 7 13-15"/>',
    "unsure": '<rect x="5" y="5" width="38" height="38" rx="3"/>'
    '<path d="M17 19a7 7 0 1 1 10 7c-3 1.5-3 3-3 5M24 36v2"/>',
    "absent": '<path d="M24 3 45 24 24 45 3 24Z"/><path d="M15 24h18"/>',
}
_BAR_WIDTH, _BAR_HEIGHT = 200, 16
_MOST_NUMBERS = 3  # the warnings name all


def answer_of(entry: ReportEntry) -> str:
    """Return the disposition of an examination, or that it was not screened."""
    return NOT_SCREENED if entry.screened is None else entry.screened.result.disposition.value


def kind_of(answer: str) -> str:
    """Return the class of an answer in the style sheet."""
    return _KINDS[answer]


def icon(kind: str) -> Markup:
    """Return the shape of a kind; it says nothing that the word beside it does not say."""
    return Markup(
        '<svg viewBox="0 0 48 48" aria-hidden="true" focusable="false" fill="none" '
        'stroke="currentColor" stroke-width="4" stroke-linecap="round" stroke-linejoin="round">'
        f"{_SHAPES[kind]}</svg>"
    )


def mark(answer: str, kind: str | None = None) -> Markup:
    """Return shape and word on one line; the kind is the answer's own where none is given."""
    kind = kind or kind_of(answer)
    return element("span", icon(kind), WORDS[answer], class_=f"mark {kind}")


def entry_kind(entry: ReportEntry) -> str:
    """Return the class of an examination's answer: a doubted 'no refer' does not look clear."""
    return "unsure" if is_doubted(entry) else kind_of(answer_of(entry))


def is_doubted(entry: ReportEntry) -> bool:
    """Whether 'no refer' stands for a picture that another examination was given, too."""
    return bool(entry.shared_with) and answer_of(entry) == Decision.NO_REFER.value


def shared_mark(entry: ReportEntry) -> Markup:
    """Return what stands right beside the answer where a picture is another examination's, too."""
    if not entry.shared_with:
        return Markup("")
    numbers = ", ".join(str(index) for index, _ in entry.shared_with[:_MOST_NUMBERS])
    more = " and others" if len(entry.shared_with) > _MOST_NUMBERS else ""
    return element("strong", f"! SAME PICTURE AS No. {numbers}{more}", class_="flag unsure")


def probability_bar(label: LabelResult) -> Markup:
    """Return a bar from 0 to 1 filled up to the probability, with a stroke at the threshold."""
    fill = label.probability * _BAR_WIDTH
    limit = min(max(label.threshold * _BAR_WIDTH, 1.0), _BAR_WIDTH - 1.0)
    return Markup(
        f'<svg viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" preserveAspectRatio="none" '
        'aria-hidden="true" focusable="false">'
        f'<rect class="track" x="0.5" y="0.5" width="{_BAR_WIDTH - 1}" '
        f'height="{_BAR_HEIGHT - 1}"/>'
        f'<rect class="fill" x="0" y="4" width="{fill:.1f}" height="{_BAR_HEIGHT - 8}"/>'
        f'<path class="limit" d="M{limit:.1f} 0v{_BAR_HEIGHT}"/></svg>'
    )
