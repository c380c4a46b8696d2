"""MODEL_CARD.md: what the models are for, on whom they were measured, and where that ends.

Made from the card alone, so that no sentence of it can say more than card.json does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_runtime.result import NOTICE
from train.card.card import Card, CellReport
from train.card.datasets import DataFacts
from train.card.subgroups import Subgroup
from train.card.words import interval_text, measure_text, method_sentences, metric_words

__all__ = ["model_card", "write_model_card"]

_SHOWN = ("auroc", "auprc", "sensitivity", "specificity", "balanced_accuracy", "ece", "brier")


def write_model_card(path: Path, card: Card) -> None:
    """Write the model card, as a whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(model_card(card), encoding="utf-8")
    part.replace(path)


def model_card(card: Card) -> str:
    """Return the model card as Markdown."""
    parts = [_intended_use(card), _data(card), _figures(card), _subgroups(card), _limits(card)]
    return "\n".join(["# Model card", "", *(line for part in parts for line in part)])


def _intended_use(card: Card) -> Iterator[str]:
    yield f"**{NOTICE.capitalize()}.** Made by `edge-screen evaluate card` from its tables."
    yield ""
    yield "## Intended use"
    yield ""
    yield "Research on screening colour fundus photographs. Not for any decision about a patient."
    yield ""
    yield from _table(
        ("model", "what it is", "outputs", "SHA-256"),
        [(one.name, one.kind, ", ".join(one.labels), one.sha256) for one in card.models],
    )


def _data(card: Card) -> Iterator[str]:
    yield "## Data"
    yield ""
    rows = [
        (
            one.name,
            _kind(one),
            one.role,
            one.split,
            f"{one.num_eyes} of {one.num_patients} patients",
            one.terms or "not recorded",
            one.fingerprint,
        )
        for one in card.data
    ]
    head = ("data set", "eyes are", "role", "split", "eyes", "terms", "fingerprint")
    yield from _table(head, rows)
    for one in card.data:
        yield from (f"- {one.name}: {sentence}" for sentence in one.derived)
    yield from (f"- {sentence}" for sentence in card.unscored)
    yield ""


def _figures(card: Card) -> Iterator[str]:
    yield "## Figures"
    for one in card.data:
        cells = [cell for cell in card.cells if cell.dataset == one.name]
        if not cells:
            continue
        yield ""
        yield f"### {one.name} ({_kind(one)}, {one.role})"
        yield ""
        head = ("output", "model", "positive / eyes", "refused", *map(metric_words, _SHOWN))
        yield from _table(head, [_row(cell) for cell in cells])
        means = [mean for mean in card.means if mean.dataset == one.name]
        for mean in means:
            outputs = ", ".join(mean.outputs)
            yield f"- Mean AUROC of {mean.model}: {measure_text(mean.measure)} over {outputs}"
        for diff in (d for d in card.comparisons if d.dataset == one.name):
            words = diff.reason
            if diff.interval is not None and diff.p_holm is not None:
                words = f"{interval_text(diff.interval, 4)}, p after Holm {diff.p_holm:.4f}"
            yield f"- AUROC of {diff.model} minus {diff.reference}, {diff.title}: {words}"
        for gate in (g for g in card.quality if g.dataset == one.name and g.auroc is not None):
            assert gate.auroc is not None
            words = measure_text(gate.auroc)
            yield f"- Gradability of {gate.model}, AUROC of {gate.against}: {words}"
    for folder in card.folders:
        yield (
            f"- {folder.name}: {folder.num_refused} of {folder.num_pictures} pictures refused by "
            f"{folder.model}"
        )
    yield ""


def _row(cell: CellReport) -> tuple[str, ...]:
    return (
        cell.title,
        cell.model,
        f"{cell.num_positive} / {cell.num_eyes}",
        str(cell.num_refused),
        *(measure_text(cell.measure(name)) for name in _SHOWN),
    )


def _subgroups(card: Card) -> Iterator[str]:
    yield "## Subgroups"
    yield ""
    head = ("data set", "output", "model", "worst subgroup", "eyes", "patients", "AUROC")
    rows = [
        (_named(card, cell.dataset), cell.title, cell.model, *_worst(worst))
        for cell in card.cells
        if (worst := _worst_of(cell)) is not None
    ]
    if rows:
        yield from _table(head, rows)
    suppressed = sum(bool(one.suppressed) for cell in card.cells for one in cell.subgroups)
    yield f"{suppressed} subgroups are too small for a number and are suppressed in the card."
    yield ""


def _worst_of(cell: CellReport) -> Subgroup | None:
    return next((g for g in cell.subgroups if (g.axis, g.group) == cell.worst_subgroup), None)


def _worst(group: Subgroup) -> tuple[str, ...]:
    return (
        f"{group.axis}: {group.group}",
        str(group.num_eyes),
        str(group.num_patients),
        measure_text(group.measures[0]),
    )


def _limits(card: Card) -> Iterator[str]:
    yield "## Limits"
    yield ""
    if card.config.split != "test":
        yield (
            f"- The eyes are of split '{card.config.split}', which choices were made on: no figure "
            "is an estimate for new patients."
        )
    if any(one.synthetic for one in card.data):
        yield "- Figures on synthetic eyes say that the method runs, nothing about patients."
    if not any(one.role == "external" for one in card.data):
        yield "- No external data set: nothing is known about other cameras and clinics."
    if not any(one.subgroups for one in card.cells):
        yield "- The data sets say nothing that makes subgroups."
    yield from (f"- {sentence}" for sentence in method_sentences(card))
    yield ""


def _named(card: Card, dataset: str) -> str:
    return f"{dataset} (synthetic)" if card.is_synthetic(dataset) else dataset


def _kind(facts: DataFacts) -> str:
    return "synthetic" if facts.synthetic else "not declared synthetic"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(_cell(one) for one in row)} |" for row in rows)
    yield ""


def _cell(text: str) -> str:
    """A bar or a line break would end the cell."""
    return " ".join(text.replace("|", "\\|").split())
