"""The screening report: one page that an operator reads on the device or on paper.

Both eyes stand as in the clinic's layout: the right eye (OD) on the left of the page, the left
eye (OS) on the right. Nothing is fetched: no scripts, fonts or links, and the page's own policy
forbids them. Everything that comes from outside is escaped.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edge_runtime.reports.marks import (
    WORDS,
    answer_of,
    icon,
    kind_of,
    mark,
    probability_bar,
)
from edge_runtime.reports.markup import Markup, element, escape
from edge_runtime.reports.next_steps import ANSWERS, next_step
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
_LEGEND = (
    "Bars run from 0 to 1; the stroke is the threshold of the label. A probability that reaches it "
    "is positive. The worst eye decides."
)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What the page may show of a patient beside the answers.

    Attributes:
        with_names: Whether file names appear.
        picture_of: Gives the preprocessed pictures; None leaves them out.
    """

    with_names: bool = False
    picture_of: PictureOf | None = None


def html_parts(
    read_entries: Callable[[], Iterable[ReportEntry]], options: ReportOptions
) -> Iterator[str]:
    """Yield the page in parts, so that a report of a large folder is never held in memory.

    Args:
        read_entries: Gives all examinations of the run in order, anew for each call: once for the
            counts, once for the table, once for the sections.
        options: What may be shown.
    """
    counts = Counter(answer_of(entry) for entry in read_entries())
    title = "Screening report"
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>"
    )
    yield element("p", _NOTICE, class_="notice") + "\n<main>"
    yield element("h1", title) + _counts(counts)
    yield from _summary(read_entries(), options)
    yield from (_examination(entry, options) for entry in read_entries())
    end = element("p", f"{_LEGEND} {_NOTICE}.", class_="small")
    yield element("footer", end, class_="end") + "</main></body></html>\n"


def _counts(counts: Counter[str]) -> Markup:
    total = counts.total()
    noun = "examination" if total == 1 else "examinations"
    parts = [element("p", f"{total} {noun}")]
    if counts[NOT_SCREENED]:
        parts.append(
            element(
                "p",
                f"INTERRUPTED: {counts[NOT_SCREENED]} of {total} not screened yet.",
                class_="stopped",
            )
        )
    items = [
        element(
            "li", icon(answer), element("b", counts[answer]), WORDS[answer], class_=kind_of(answer)
        )
        for answer in WORDS
        if counts[answer] or answer != NOT_SCREENED
    ]
    return Markup("".join([*parts, element("ul", *items, class_="counts")]))


def _summary(entries: Iterable[ReportEntry], options: ReportOptions) -> Iterator[str]:
    names = ("File",) if options.with_names else ()
    head = ("No.", "Answer", "Examination", "Eyes", "Reasons", *names)
    cells = "".join(element("th", cell, scope="col") for cell in head)
    yield f'<div class="scroll" tabindex="0"><table><thead><tr>{cells}</tr></thead><tbody>\n'
    yield from (_summary_row(entry, options) + "\n" for entry in entries)
    yield "</tbody></table></div>\n"


def _summary_row(entry: ReportEntry, options: ReportOptions) -> Markup:
    number = element("a", entry.input_index, href=f"#e{entry.input_index}")
    result = None if entry.screened is None else entry.screened.result
    cells = [
        element("td", number),
        element("td", mark(answer_of(entry))),
        element("td", _identity(entry), class_="name"),
        element("td", "" if result is None else _eye_words(result), class_="eyes-said"),
        element("td", "" if result is None else ", ".join(_all_reasons(result))),
    ]
    if options.with_names:
        cells.append(element("td", _names(entry.planned.eyes), class_="name"))
    return element("tr", *cells)


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


def _examination(entry: ReportEntry, options: ReportOptions) -> str:
    identity = entry.planned.examination_id
    title = "Examination" if identity is None else f"Examination {printable(identity)}"
    head = element(
        "header",
        element("h2", title),
        element("div", f"No. {entry.input_index}", class_="small"),
    )
    body = [head, _verdict(answer_of(entry))]
    if entry.screened is not None:
        body += _answered(entry, entry.screened, options)
    return element("section", *body, class_="exam", id=f"e{entry.input_index}") + "\n"


def _verdict(answer: str) -> Markup:
    step = _NOT_SCREENED_STEP if answer == NOT_SCREENED else ANSWERS[Decision(answer)].next_step
    words = element("div", element("b", WORDS[answer]), element("span", step))
    return element("div", icon(answer), words, class_=f"verdict {kind_of(answer)}")


def _answered(entry: ReportEntry, screened: Screened, options: ReportOptions) -> list[Markup]:
    result = screened.result
    eyes = [
        _eye(eye, planned, options)
        for eye, planned in zip(result.eyes, entry.planned.eyes, strict=True)
    ]
    kind = "eyes" if len(eyes) > 1 else "eyes alone"
    parts = [element("div", *eyes, class_=kind)]
    if result.warnings:
        items = (element("li", element("b", "Warning: "), text) for text in result.warnings)
        parts.append(element("ul", *items, class_="warnings"))
    parts.append(_facts(screened))
    return parts


def _eye(eye: EyeResult, planned: PlannedEye, options: ReportOptions) -> Markup:
    pictures = zip(eye.fields, _padded(planned, len(eye.fields)), strict=True)
    fields = [
        _field(one, picture, options, number if len(eye.fields) > 1 else None)
        for number, (one, picture) in enumerate(pictures, start=1)
    ]
    title = element("h3", EYE_WORDS[eye.eye])
    return element("article", title, mark(eye.disposition.value), *fields, class_="eye")


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
    result = screened.result
    texts = (
        f"Model {result.bundle.name} {result.bundle.version}, SHA-256 {result.bundle.sha256}",
        f"engine {result.engine.name} {result.engine.precision}",
        f"INT8 gate {result.engine.int8_gate.replace('_', ' ')}",
        f"edge-screen {screened.software_version}",
        f"screened {screened.screened_at}",
        NOTICE,
    )
    return element("p", "; ".join(texts), class_="small facts")
