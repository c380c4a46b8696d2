"""The sections of the page, each from the card alone."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runtime.reports.markup import Markup, element
from train.card.card import Card, CellReport
from train.card.charts import reliability_chart, roc_chart
from train.card.comparison import Comparison
from train.card.datasets import DataFacts
from train.card.readers import ModelFacts
from train.card.ungradable import WAYS
from train.card.words import (
    interval_cell,
    measure_cell,
    method_sentences,
    metric_words,
    reasons_of,
)
from train.page.html import data_table, paragraph, section

__all__ = [
    "comparison_section",
    "data_section",
    "dataset_section",
    "method_section",
    "model_section",
]

_WAY_WORDS = {
    "gradable_only": "gradable only",
    "ungradable_refer": "ungradable = refer",
    "worst_case": "ungradable = wrong (worst case)",
}


def data_section(card: Card) -> Markup:
    """What was scored."""
    rows = [
        (
            one.name,
            "synthetic" if one.synthetic else "not declared synthetic",
            one.role,
            one.split,
            one.num_eyes,
            one.num_patients,
            "; ".join(one.derived) or "-",
            one.terms or "not recorded",
            one.fingerprint[:16],
        )
        for one in card.data
    ]
    head = ("data set", "eyes are", "role", "split", "eyes", "patients", "derived labels")
    table = data_table(
        "Data sets",
        (*head, "terms", "fingerprint"),
        rows,
        words=(1, 2, 3, 6, 7, 8),
        synthetic=all(one.synthetic for one in card.data),
    )
    notes = [paragraph(f"{sentence}.", class_="note") for sentence in card.unscored]
    return section("data", "Data", "Whose eyes were scored, and under which terms.", table, *notes)


def model_section(card: Card) -> Markup:
    """Who was scored."""
    rows = [
        (
            one.name,
            one.kind,
            ", ".join(one.labels),
            _operating_points(one),
            one.sha256[:16],
        )
        for one in card.models
    ]
    table = data_table(
        "Models",
        ("model", "what it is", "outputs", "locked operating points", "SHA-256"),
        rows,
        words=(1, 2, 3, 4),
        synthetic=False,
    )
    return section("models", "Models", "What looked at the eyes.", table)


def _operating_points(model: ModelFacts) -> str:
    """'glaucoma 0.312, gradability 0.500', or that there is none."""
    points = [*zip(model.labels, model.thresholds, strict=True)]
    points.append(("gradability", model.gradable_threshold))
    return ", ".join(f"{name} {one:.4f}" for name, one in points if one is not None) or "none"


def dataset_section(card: Card, facts: DataFacts) -> Markup:
    """Everything about one data set."""
    cells = [one for one in card.cells if one.dataset == facts.name]
    content: list[object] = [_mean_table(card, facts)]
    for title in dict.fromkeys(cell.title for cell in cells):
        content.extend(_label_content([one for one in cells if one.title == title], facts))
    if not cells:
        content = [paragraph("No model has an output that this data set has a label for.")]
    lead = f"{facts.role}, split '{facts.split}', {facts.num_eyes} eyes."
    number = [one.name for one in card.data].index(facts.name)
    return section(f"set-{number}", facts.name, lead, *content)


def comparison_section(card: Card) -> Markup:
    """Differences to the reference, a table a data set."""
    tables = [
        _comparison_table([one for one in card.comparisons if one.dataset == facts.name], facts)
        for facts in card.data
        if any(one.dataset == facts.name for one in card.comparisons)
    ]
    lead = f"AUROC minus that of '{card.reference}', on the same eyes and the same resamples."
    if not tables:
        lead = "There is one model only, or no output that two models share."
    return section("differences", "Differences", lead, *tables)


def method_section(card: Card) -> Markup:
    """How the numbers were made."""
    items = element("ul", *(element("li", one) for one in method_sentences(card)))
    return section("method", "How to read this", "What each figure is and is not.", items)


def _mean_table(card: Card, facts: DataFacts) -> Markup:
    own = [one for one in card.means if one.dataset == facts.name]
    if not own:
        return paragraph("No output that all models share has both classes.", class_="note")
    rows = [(one.model, one.num_eyes, measure_cell(one.measure)) for one in own]
    caption = f"Mean AUROC over {', '.join(own[0].outputs)}; eyes that every model answers"
    head = ("model", "eyes", "mean AUROC")
    note = " ".join(dict.fromkeys(one.measure.reason for one in own if one.measure.reason))
    return data_table(caption, head, rows, note=note, synthetic=facts.synthetic)


def _comparison_table(found: list[Comparison], facts: DataFacts) -> Markup:
    rows = [
        (
            one.title,
            one.model,
            one.num_eyes,
            one.num_patients,
            one.reason if one.interval is None else interval_cell(one.interval, decimals=4),
            "-" if one.p_value is None else f"{one.p_value:.4f}",
            "-" if one.p_holm is None else f"{one.p_holm:.4f}",
        )
        for one in found
    ]
    head = ("output", "model", "eyes", "patients", "difference", "p", "p, Holm")
    caption = f"Paired differences on {facts.name}"
    return data_table(caption, head, rows, words=(1,), synthetic=facts.synthetic)


def _label_content(cells: list[CellReport], facts: DataFacts) -> Iterator[Markup]:
    first = cells[0]
    yield element("h3", first.title)
    head = ("model", *(metric_words(one.name) for one in first.measures))
    rows = [(one.model, *(measure_cell(m) for m in one.measures)) for one in cells]
    caption = (
        f"{first.title}: {first.num_positive} positive of {first.num_eyes} eyes, "
        f"{first.num_patients} patients"
    )
    yield data_table(caption, head, rows, note=reasons_of(cells), synthetic=facts.synthetic)
    charts = [make(cells, synthetic=facts.synthetic) for make in (roc_chart, reliability_chart)]
    yield element("div", *charts, class_="charts")
    yield _ungradable_table(cells, facts)
    yield _subgroup_table(cells, facts)


def _ungradable_table(cells: list[CellReport], facts: DataFacts) -> Markup:
    rows = [
        (
            cell.model,
            _WAY_WORDS[one.way],
            one.num_eyes,
            cell.num_refused,
            measure_cell(one.sensitivity),
            measure_cell(one.specificity),
        )
        for cell in cells
        for one in cell.ungradable
    ]
    head = ("model", "refused eyes count", "eyes", "refused", "sensitivity", "specificity")
    caption = f"{cells[0].title}, locked threshold, ungradable counted {len(WAYS)} ways"
    note = reasons_of(cells)
    return data_table(caption, head, rows, words=(1,), note=note, synthetic=facts.synthetic)


def _subgroup_table(cells: list[CellReport], facts: DataFacts) -> Markup:
    rows = [
        (
            cell.model,
            f"{one.axis}: {one.group}",
            one.num_eyes,
            one.num_patients,
            one.num_positive,
            *([measure_cell(m) for m in one.measures] or [one.suppressed, "-", "-"]),
        )
        for cell in cells
        for one in cell.subgroups
    ]
    worst = " ".join(
        f"Worst of {cell.model}: {': '.join(cell.worst_subgroup)}."
        for cell in cells
        if cell.worst_subgroup is not None
    )
    head = ("model", "subgroup", "eyes", "patients", "positive", "AUROC", "sensitivity")
    return data_table(
        f"{cells[0].title} by subgroup",
        (*head, "specificity"),
        rows,
        words=(1,),
        note=worst or "No subgroup is large enough.",
        synthetic=facts.synthetic,
    )
