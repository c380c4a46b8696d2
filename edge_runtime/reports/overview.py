"""What the first page says of the whole run: model, engine, versions, time, counts, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_runtime.reports.marks import WORDS, answer_of, icon, kind_of
from edge_runtime.reports.markup import Markup, element
from edge_runtime.reports.result_words import printable
from edge_runtime.screening.entries import NOT_SCREENED, ReportEntry, Screened

__all__ = ["Overview", "model_facts", "overview_markup", "overview_of"]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What was found in going through all examinations once.

    Attributes:
        counts: Examinations by answer.
        num_shared: Examinations that have a picture of another one.
        facts: What answered, each combination once; more than one where a record holds answers of
            several.
        times: The first and the last time of an answer; None where there is none.
        standing_warnings: Those of the bundle and engine that every answer carries.
    """

    counts: Counter[str]
    num_shared: int
    facts: tuple[str, ...]
    times: tuple[str, str] | None
    standing_warnings: tuple[str, ...]


def overview_of(entries: Iterable[ReportEntry], standing_warnings: Sequence[str]) -> Overview:
    """Go through the examinations once.

    Args:
        entries: All examinations of the run.
        standing_warnings: What the bundle and the engine have every answer say. Only these can be
            told once for all: what is true of every picture of a short run is no such thing.
    """
    counts: Counter[str] = Counter()
    facts: dict[str, None] = {}
    times: list[str] = []
    standing = tuple(standing_warnings)
    num_shared = 0
    for entry in entries:
        counts[answer_of(entry)] += 1
        num_shared += bool(entry.shared_with)
        if entry.screened is not None:
            facts[model_facts(entry.screened)] = None
            times = _widened(times, entry.screened.screened_at)
            said = entry.screened.result.warnings
            standing = tuple(text for text in standing if text in said)
    return Overview(
        counts=counts,
        num_shared=num_shared,
        facts=tuple(facts),
        times=(times[0], times[-1]) if times else None,
        standing_warnings=standing if times else (),
    )


def model_facts(screened: Screened) -> str:
    """Return which model, engine and software gave an answer."""
    result = screened.result
    texts = (
        f"Model {result.bundle.name} {result.bundle.version}, SHA-256 {result.bundle.sha256}",
        f"engine {result.engine.name} {result.engine.precision}",
        f"INT8 gate {result.engine.int8_gate.replace('_', ' ')}",
        f"edge-screen {screened.software_version}",
    )
    return "; ".join(texts)


def overview_markup(overview: Overview) -> Markup:
    """Return the top of the page, below its title."""
    parts = [element("p", text, class_="small") for text in overview.facts]
    if overview.times is not None:
        times = " to ".join(dict.fromkeys(overview.times))
        parts.append(element("p", f"Screened {times}", class_="small"))
    parts += _counts(overview.counts)
    if overview.num_shared:
        text = (
            f"{overview.num_shared} examinations have a picture of another one: a NO REFER "
            "among them does not count before you know whose it is."
        )
        parts.append(element("p", text, class_="stopped"))
    if overview.standing_warnings:
        lead = element("b", "Warning for every examination: ")
        items = (element("li", lead, printable(text)) for text in overview.standing_warnings)
        parts.append(element("ul", *items, class_="warnings"))
    return Markup("".join(parts))


def _widened(times: list[str], time: str) -> list[str]:
    """The earliest and the latest; ISO 8601 in UTC sorts as text."""
    found = sorted([*times, time])
    return [found[0], found[-1]]


def _counts(counts: Counter[str]) -> list[Markup]:
    total = counts.total()
    noun = "examination" if total == 1 else "examinations"
    parts = [element("p", f"{total} {noun}")]
    if counts[NOT_SCREENED]:
        text = f"INTERRUPTED: {counts[NOT_SCREENED]} of {total} not screened yet."
        parts.append(element("p", text, class_="stopped"))
    items = [
        element(
            "li",
            icon(kind_of(answer)),
            element("b", counts[answer]),
            WORDS[answer],
            class_=kind_of(answer),
        )
        for answer in WORDS
        if counts[answer] or answer != NOT_SCREENED
    ]
    return [*parts, element("ul", *items, class_="counts")]
