"""card.html: one self-contained page, no network and no scripts."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.reports.markup import Markup, element
from edge_runtime.result import NOTICE
from train.card.card import Card
from train.card.sections import (
    comparison_section,
    data_section,
    dataset_section,
    method_section,
    model_section,
)
from train.card.sections_gate import folder_section, quality_section
from train.page.html import page, paragraph, synthetic_mark

__all__ = ["render_page", "write_page"]


def write_page(path: Path, card: Card) -> None:
    """Write the page, as a whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(render_page(card), encoding="utf-8")
    part.replace(path)


def render_page(card: Card) -> str:
    """Return the page."""
    sections = [data_section(card), model_section(card)]
    sections += [dataset_section(card, one) for one in card.data]
    sections += [comparison_section(card), quality_section(card)]
    if card.folders:
        sections.append(folder_section(card))
    sections.append(method_section(card))
    return page("Evaluation card", _header(card), sections, _footer())


def _header(card: Card) -> Markup:
    notice = paragraph(NOTICE.capitalize(), class_="notice")
    lead: list[object] = [f"{len(card.models)} models over {len(card.data)} data sets."]
    if any(one.synthetic for one in card.data):
        lead += [" ", synthetic_mark(), " marks tables of eyes that never belonged to anyone."]
    if card.config.split != "test":
        lead.append(
            f" These are eyes of the split '{card.config.split}', which choices were made on: no "
            "figure here is an estimate for new patients."
        )
    top = element("header", element("h1", "Evaluation card"), paragraph(*lead), class_="top")
    return Markup(notice + top)


def _footer() -> Markup:
    words = paragraph(f"{NOTICE.capitalize()}. Every number is in card.json.")
    return element("footer", words, class_="bottom")
