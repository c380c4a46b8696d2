"""The sections on use: operating points, and what the signed bundle said on camera pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.demo.cards import screened_gallery
from export.demo.html import (
    Markup,
    data_table,
    element,
    label_words,
    mark_disposition,
    mark_verdict,
    section,
    value_with_interval,
)
from export.demo.model import DemoReport, OperatingPointRow
from export.demo.pictures import ReportPictures

__all__ = ["operating_point_section", "screening_section"]

_MAX_LISTED = 24
_DISPOSITIONS = ("refer", "no_refer", "ungradable")


def operating_point_section(report: DemoReport) -> Markup:
    """Return thresholds, what they reached on val, and what they hold on test."""
    lead = (
        "Thresholds were fixed on the val patients; the val columns judge each of these by a "
        "threshold chosen on the others. What counts is what they hold on the test patients, whom "
        "nothing had touched."
    )
    rows = [_operating_point_row(row) for row in report.operating_points]
    head = ("label", "chosen for", "threshold", "sensitivity val", "sensitivity test",
            "specificity val", "specificity test")  # fmt: skip
    note = "In per cent, with 95 % intervals."
    table = data_table("Operating points", head, rows, words=(1,), note=note)
    return section("operating-points", "Operating points", lead, table)


def _operating_point_row(row: OperatingPointRow) -> tuple[object, ...]:
    def cell(split: str, name: str) -> Markup:
        performance = getattr(row, split)
        low, high = getattr(performance, f"{name}_interval")
        value = getattr(performance, name)
        return value_with_interval(100 * value, (100 * low, 100 * high), decimals=1)

    return (
        label_words(row.label),
        row.target.replace(">=", "≥"),
        f"{row.threshold:.3f}",
        *(
            cell(split, name)
            for name in ("sensitivity", "specificity")
            for split in ("val", "test")
        ),
    )


def screening_section(report: DemoReport, pictures: ReportPictures) -> Markup:
    """Return what the signed bundle said about held-out camera pictures."""
    screening = report.screening
    lead = (
        f"{screening.num_pictures} full-size camera pictures of test patients went through the "
        "device's own path: decode, field of view, quality, INT8 student, decision."
    )
    parts = [_agreement_table(report), _unreadable_table(report)]
    if pictures.screened:
        parts.append(element("h3", "Some screened eyes, right eye (OD) on the left"))
        parts.append(screened_gallery(pictures.screened))
    parts.append(_eye_table(screening.eyes))
    return section("screening", "Screening", lead, *parts)


def _agreement_table(report: DemoReport) -> Markup:
    screening = report.screening
    marks = [mark_disposition(name) for name in _DISPOSITIONS]
    rows: list[list[object]] = [
        [f"truth: {truth}", *(counts.get(name, 0) for name in _DISPOSITIONS), sum(counts.values())]
        for truth, counts in screening.agreement.items()
    ]
    totals = [screening.dispositions.get(name, 0) for name in _DISPOSITIONS]
    rows.append([element("b", "all pictures"), *totals, sum(totals)])
    return data_table("Eyes by truth and disposition", ["eyes", *marks, "all"], rows)


def _unreadable_table(report: DemoReport) -> Markup:
    """Both rows under operating points that make every readable picture 'no refer'."""
    files = report.screening.unreadable_files
    rows = [
        (
            "damaged or unreadable files",
            files.num,
            files.num_no_refer,
            "none may be",
            mark_verdict(files.num > 0 and files.num_no_refer == 0),
        ),
        (
            "the same pictures intact (control)",
            files.num_control,
            files.num_control_no_refer,
            "some must be, or the check is blind",
            mark_verdict(files.num_control_no_refer > 0),
        ),
    ]
    head = ("files", "given", "answered 'no refer'", "rule", "verdict")
    note = (
        "Screened with thresholds that no probability reaches, so that nothing but the runtime's "
        "own refusals stands between a damaged file and 'no refer'."
    )
    caption = "An eye that could not be read is never 'no refer'"
    return data_table(caption, head, rows, words=(3, 4), note=note)


def _eye_table(examinations: Sequence[Mapping[str, Any]]) -> Markup:
    pairs = [
        (exam, eye, field)
        for exam in examinations
        for eye in exam["eyes"]
        for field in eye["fields"]
    ]
    pairs_shown = pairs[:_MAX_LISTED]
    rows = [_eye_row(exam, eye, field) for exam, eye, field in pairs_shown]
    head = ("examination", "eye", "disposition", "leading label", "probability", "threshold",
            "quality", "time")  # fmt: skip
    caption = f"Screened eyes, {len(pairs_shown)} of {len(pairs)} (all in report.json)"
    note = "Leading label: the one furthest above its threshold, or nearest below it."
    return data_table(caption, head, rows, words=(1, 2, 3, 6), note=note)


def _eye_row(
    exam: Mapping[str, Any], eye: Mapping[str, Any], field: Mapping[str, Any]
) -> tuple[object, ...]:
    labels = sorted(field["labels"], key=lambda one: float(one["threshold"] - one["probability"]))
    top = labels[0] if labels else None
    reasons = ", ".join(field["quality"]["reasons"]) or "gradable"
    total = field["timings_ms"].get("total")
    return (
        exam["examination_id"] or "-",
        eye["eye"],
        mark_disposition(str(field["disposition"])),
        "not run" if top is None else label_words(str(top["name"])),
        "-" if top is None else f"{top['probability']:.3f}",
        "-" if top is None else f"{top['threshold']:.3f}",
        reasons,
        "-" if total is None else f"{total:.1f} ms",
    )
