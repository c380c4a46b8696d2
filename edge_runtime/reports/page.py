"""The screening report: one page that an operator reads on the device or on paper.

Both eyes stand as in the clinic's layout: the right eye (OD) on the left of the page, the left
eye (OS) on the right. Nothing is fetched: no scripts, fonts or links, and the page's own policy
forbids them. Everything that comes from outside is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from edge_runtime.reports.marks import (
    WORDS,
    answer_of,
    entry_kind,
    icon,
    is_doubted,
    mark,
    probability_bar,
    shared_mark,
)
from edge_runtime.reports.markup import Markup, element, escape
from edge_runtime.reports.next_steps import ANSWERS, next_step
from edge_runtime.reports.overview import model_facts, overview_markup, overview_of
from edge_runtime.reports.result_words import EYE_WORDS, POSITIVE, label_word, printable, told_apart
from edge_runtime.reports.style import STYLE
from edge_runtime.result import NOTICE, Decision, EyeResult, FieldResult, ScreeningResult
from edge_runtime.screening.entries import NOT_SCREENED, ReportEntry, Screened
from edge_runtime.screening.plan import PlannedEye, PlannedPicture

__all__ = ["PictureOf", "ReportOptions", "html_parts"]

# From a planned picture and the hash that was screened to a JPEG of what the model saw, or None.
PictureOf = Callable[[PlannedPicture, str], bytes | None]
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_NOTICE = f"{NOTICE[0].upper()}{NOTICE[1:]}"
_NOT_SCREENED_STEP = "The run was interrupted before it: start it again."
_DOUBTED_STEP = "Do not follow this answer before you know whose picture it is."
_LEGEND = (
    "Bars run from 0 to 1; the stroke is the threshold of the label. A probability that reaches it "
    "is positive. The worst eye decides."
)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What the page shows beside the answers.

    Attributes:
        standing_warnings: What the bundle and the engine have every answer say: told once, on top,
            where every answer of the run says it.
        with_names: Whether file names appear.
        picture_of: Gives the preprocessed pictures; None leaves them out.
    """

    standing_warnings: Sequence[str] = ()
    with_names: bool = False
    picture_of: PictureOf | None = None


def html_parts(
    read_entries: Callable[[], Iterable[ReportEntry]], options: ReportOptions
) -> Iterator[str]:
    """Yield the page in parts, so that a report of a large folder is never held in memory.

    Args:
        read_entries: Gives all examinations of the run in order, anew for each call: once for the
            top of the page, once for the table, once for the sections.
        options: What may be shown.
    """
    overview = overview_of(read_entries(), options.standing_warnings)
    standing = overview.standing_warnings
    title = "Screening report"
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>"
    )
    yield element("p", _NOTICE, class_="notice") + "\n<main>"
    yield element("h1", title) + overview_markup(overview)
    yield from _summary(read_entries(), options, standing)
    yield from (_examination(entry, options, standing) for entry in read_entries())
    end = element("p", f"{_LEGEND} {_NOTICE}.", class_="small")
    yield element("footer", end, class_="end") + "</main></body></html>\n"


def _summary(
    entries: Iterable[ReportEntry], options: ReportOptions, standing: Sequence[str]
) -> Iterator[str]:
    names = ("File",) if options.with_names else ()
    head = ("No.", "Answer", "Examination", "Eyes", "Reasons", "Warnings", *names)
    cells = "".join(element("th", cell, scope="col") for cell in head)
    yield f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead><tbody>\n'
    yield from (_summary_row(entry, options, standing) + "\n" for entry in entries)
    yield "</tbody></table></div>\n"


def _summary_row(entry: ReportEntry, options: ReportOptions, standing: Sequence[str]) -> Markup:
    number = element("a", entry.input_index, href=f"#e{entry.input_index}")
    result = None if entry.screened is None else entry.screened.result
    cells = [
        element("td", number),
        element("td", mark(answer_of(entry), entry_kind(entry)), shared_mark(entry)),
        element("td", _identity(entry), class_="name"),
        element("td", "" if result is None else _eye_words(result), class_="eyes-said"),
        element("td", "" if result is None else ", ".join(_all_reasons(result))),
        element("td", _short_warnings(_own_warnings(entry, standing)), class_="warned"),
    ]
    if options.with_names:
        cells.append(element("td", _names(entry.planned.eyes), class_="name"))
    return element("tr", *cells)


def _own_warnings(entry: ReportEntry, standing: Sequence[str]) -> list[str]:
    """What is to be said of this examination and not of all."""
    return [printable(text) for text in dict.fromkeys(entry.warnings) if text not in standing]


def _short_warnings(warnings: Sequence[str]) -> Markup:
    """How many, and the beginning of each; the examination has them whole."""
    if not warnings:
        return Markup("")
    noun = "warning" if len(warnings) == 1 else "warnings"
    count = element("strong", f"! {len(warnings)} {noun}", class_="flag unsure")
    return Markup("".join([count, *(element("div", text.split("; ")[0]) for text in warnings)]))


def _identity(entry: ReportEntry) -> str:
    return printable(entry.planned.examination_id or "-")


def _names(eyes: Iterable[PlannedEye]) -> str:
    pictures = (picture for eye in eyes for picture in eye.pictures if picture.path is not None)
    return ", ".join(printable(picture.name) for picture in pictures)


def _eye_words(result: ScreeningResult) -> Markup:
    texts = [
        element("div", f"{eye.eye}: {WORDS[eye.disposition.value]}")
        for eye in result.eyes
        if eye.eye != "unspecified"
    ]
    return Markup("".join(texts))


def _all_reasons(result: ScreeningResult) -> list[str]:
    found = (text for eye in result.eyes for one in eye.fields for text in one.quality.reasons)
    return list(dict.fromkeys(found))


def _examination(entry: ReportEntry, options: ReportOptions, standing: Sequence[str]) -> str:
    identity = entry.planned.examination_id
    title = "Examination" if identity is None else f"Examination {printable(identity)}"
    head = element(
        "header",
        element("h2", title),
        element("div", f"No. {entry.input_index}", class_="small"),
    )
    body = [head, _verdict(entry), *_warnings(_own_warnings(entry, standing))]
    if entry.screened is not None:
        body += _answered(entry, entry.screened, options)
    return element("section", *body, class_="exam", id=f"e{entry.input_index}") + "\n"


def _verdict(entry: ReportEntry) -> Markup:
    answer, kind, shared = answer_of(entry), entry_kind(entry), shared_mark(entry)
    word = element("b", WORDS[answer], *([" ", shared] if shared else []))
    words = element("div", word, element("span", _step(entry)))
    return element("div", icon(kind), words, class_=f"verdict {kind}")


def _step(entry: ReportEntry) -> str:
    if is_doubted(entry):
        return _DOUBTED_STEP
    answer = answer_of(entry)
    return _NOT_SCREENED_STEP if answer == NOT_SCREENED else ANSWERS[Decision(answer)].next_step


def _warnings(warnings: Sequence[str]) -> list[Markup]:
    if not warnings:
        return []
    items = (element("li", element("b", "Warning: "), text) for text in warnings)
    return [element("ul", *items, class_="warnings")]


def _answered(entry: ReportEntry, screened: Screened, options: ReportOptions) -> list[Markup]:
    result = screened.result
    kind = entry_kind(entry) if is_doubted(entry) else None
    eyes = [
        _eye(eye, planned, options, kind)
        for eye, planned in zip(result.eyes, entry.planned.eyes, strict=True)
    ]
    layout = "eyes" if len(eyes) > 1 else "eyes alone"
    return [element("div", *eyes, class_=layout), _facts(screened)]


def _eye(eye: EyeResult, planned: PlannedEye, options: ReportOptions, kind: str | None) -> Markup:
    pictures = zip(eye.fields, _padded(planned, len(eye.fields)), strict=True)
    fields = [
        _field(one, picture, options, number if len(eye.fields) > 1 else None)
        for number, (one, picture) in enumerate(pictures, start=1)
    ]
    title = element("h3", EYE_WORDS[eye.eye])
    return element("article", title, mark(eye.disposition.value, kind), *fields, class_="eye")


def _padded(planned: PlannedEye, number: int) -> list[PlannedPicture | None]:
    """The planned pictures, and None for every field that the protocol asks for beyond them."""
    return [*planned.pictures, *[None] * (number - len(planned.pictures))]


def _field(
    one: FieldResult, picture: PlannedPicture | None, options: ReportOptions, number: int | None
) -> Markup:
    parts = [] if number is None else [element("h4", f"Field {number}")]
    if options.with_names and picture is not None and picture.path is not None:
        parts.append(element("p", printable(picture.name), class_="small"))
    if one.quality.reasons:
        items = (_reason(reason) for reason in one.quality.reasons)
        parts.append(element("ul", *items, class_="reasons"))
    if one.error is not None:
        parts.append(element("p", printable(one.error)))
    parts += [*_picture(one, picture, options), *_gradable(one), *_labels(one)]
    if one.image_sha256 is not None:
        parts.append(element("p", f"SHA-256 {one.image_sha256}", class_="small"))
    return element("div", *parts)


def _reason(reason: str) -> Markup:
    return element("li", element("b", reason), " ", next_step(reason).replace("`", ""))


def _picture(
    one: FieldResult, picture: PlannedPicture | None, options: ReportOptions
) -> list[Markup]:
    if options.picture_of is None or picture is None or one.image_sha256 is None or one.error:
        return []
    jpeg = options.picture_of(picture, one.image_sha256)
    if jpeg is None:
        return [
            element("p", "(the file is gone or has changed: no picture to show)", class_="small")
        ]
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return [Markup(f'<img class="picture" alt="photograph as the model saw it" src="{source}">')]


def _gradable(one: FieldResult) -> list[Markup]:
    if one.quality.gradable_probability is None:
        return []
    found, needed = told_apart(one.quality.gradable_probability, one.quality.gradable_threshold)
    return [element("p", f"gradable: {found} (at least {needed} is needed)")]


def _labels(one: FieldResult) -> list[Markup]:
    if not one.labels:
        return []
    head = ("Label", "Probability", "Threshold", "Decision")
    kinds = ("", "number", "number", "")
    cells = (
        element("th", text, scope="col", class_=k) for text, k in zip(head, kinds, strict=True)
    )
    rows = []
    for label in one.labels:
        found, needed = told_apart(label.probability, label.threshold)
        word = label_word(one, label)
        name = element(
            "th", escape(label.name.replace("_", " ")), probability_bar(label), scope="row"
        )
        rows.append(
            element(
                "tr",
                name,
                element("td", found, class_="number"),
                element("td", needed, class_="number"),
                element("td", element("b", "POSITIVE") if word == POSITIVE else word),
            )
        )
    table = element(
        "table", element("thead", element("tr", *cells)), element("tbody", *rows), class_="labels"
    )
    return [table]


def _facts(screened: Screened) -> Markup:
    texts = (model_facts(screened), f"screened {screened.screened_at}", NOTICE)
    return element("p", "; ".join(texts), class_="small facts")
