"""The sections of the page about who is refused: the quality gate, and folders of pictures."""

from __future__ import annotations

from edge_runtime.metrics import Interval
from edge_runtime.reports.markup import Markup
from train.card.card import Card
from train.card.words import interval_cell, interval_text
from train.page.html import data_table, mark_verdict, section

__all__ = ["folder_section", "quality_section"]


def quality_section(card: Card) -> Markup:
    """The gate and the gradability output."""
    tables = []
    for facts in card.data:
        own = [one for one in card.quality if one.dataset == facts.name]
        rows = [
            (
                one.model,
                share.quality,
                share.num_eyes,
                share.num_refused,
                share.num_gated,
                interval_cell(share.share),
            )
            for one in own
            for share in one.shares
        ]
        found = [
            f"{one.model}: AUROC of {one.against} {_plain(one.auroc.interval, one.auroc.reason)}."
            for one in own
            if one.auroc is not None
        ]
        tables.append(
            data_table(
                f"Refused eyes of {facts.name}",
                ("model", "quality", "eyes", "refused", "by the gate", "share refused"),
                rows,
                words=(1,),
                note=" ".join(found) or "The data set does not say which eyes are gradable.",
                synthetic=facts.synthetic,
            )
        )
    lead = "Who is refused at each model's locked gradability threshold, by the known quality."
    return section("quality", "Quality gate", lead, *tables)


def folder_section(card: Card) -> Markup:
    """Pictures screened end to end."""
    rows = [
        (
            one.name,
            one.model,
            one.num_pictures,
            one.num_refused,
            interval_cell(one.share),
            mark_verdict(one.num_refused == one.num_pictures, ("all refused", "not all refused"))
            if one.must_refuse
            else ", ".join(f"{word} {n}" for word, n in one.dispositions.items()),
            ", ".join(f"{reason} {n}" for reason, n in one.reasons.items()) or "-",
            f"{one.median_ms:.0f} / {one.max_ms:.0f}",
        )
        for one in card.folders
    ]
    head = ("folder", "bundle", "pictures", "refused", "share", "outcome", "reasons")
    table = data_table(
        "Folders screened end to end",
        (*head, "ms, median / longest"),
        rows,
        words=(1, 5, 6),
        synthetic=False,
    )
    return section("folders", "Folders of pictures", "The whole path of a camera.", table)


def _plain(interval: Interval | None, reason: str) -> str:
    return reason if interval is None else interval_text(interval)
