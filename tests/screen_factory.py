"""Screening results and report entries for the tests of records and reports, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.result import (
    BundleIdentity,
    Decision,
    EngineIdentity,
    EyeQuality,
    EyeResult,
    FieldResult,
    LabelResult,
    ScreeningResult,
)
from edge_runtime.screening.entries import ReportEntry, Screened
from edge_runtime.screening.inputs import planned_picture
from edge_runtime.screening.plan import PlannedExamination, PlannedEye

SCREENED_AT = "2026-11-28T10:00:00+00:00"
LABELS = ("macular_edema", "glaucoma")


def field_result(
    probability: float = 0.1,
    *,
    reasons: Sequence[str] = (),
    error: str | None = None,
    seed: int = 0,
) -> FieldResult:
    """One picture: refers from 0.5 on, ungradable with a reason."""
    missing = "missing image" in reasons
    labels = () if reasons else tuple(_label(name, probability) for name in LABELS)
    refers = Decision.REFER if probability >= 0.5 else Decision.NO_REFER
    return FieldResult(
        image_sha256=None if missing else f"{seed:064x}",
        input_sha256=None if reasons else f"{seed:064x}",
        disposition=Decision.UNGRADABLE if reasons else refers,
        quality=EyeQuality(
            gradable=not reasons,
            gradable_probability=None if reasons else 0.9,
            gradable_threshold=0.5,
            reasons=tuple(reasons),
            measures={"luma": 90.0},
        ),
        labels=labels,
        timings_ms={"total": 10.0},
        error=error,
    )


def screening_result(
    eyes: dict[str, Sequence[FieldResult]],
    *,
    examination_id: str | None = None,
    warnings: Sequence[str] = (),
) -> ScreeningResult:
    """One examination, decided by its worst eye."""
    found = tuple(
        EyeResult(eye=eye, disposition=_worst(fields), fields=tuple(fields))
        for eye, fields in eyes.items()
    )
    return ScreeningResult(
        examination_id=examination_id,
        disposition=_worst(found),
        eyes=found,
        bundle=BundleIdentity(name="tiny", version="0.1.0", sha256="b" * 64, key_id="k"),
        engine=EngineIdentity(name="onnxruntime", precision="int8", int8_gate="passed"),
        warnings=tuple(warnings),
    )


def entry(
    index: int,
    result: ScreeningResult | None,
    *,
    names: Sequence[str] = ("photos/eye.jpg",),
    shared_with: Sequence[tuple[int, str]] = (),
) -> ReportEntry:
    """One row of a plan; without a result, two eyes that were not screened."""
    eyes = ("OD", "OS") if result is None else tuple(eye.eye for eye in result.eyes)
    pictures = tuple(planned_picture(Path(name)) for name in names)
    planned = PlannedExamination(
        eyes=tuple(PlannedEye(eye=eye, pictures=pictures) for eye in eyes),
        examination_id=None if result is None else result.examination_id,
    )
    return ReportEntry(
        input_index=index,
        planned=planned,
        screened=None if result is None else screened(result),
        shared_with=tuple(shared_with),
    )


def screened(result: ScreeningResult) -> Screened:
    """The answer with a fixed time and version."""
    return Screened(result=result, screened_at=SCREENED_AT, software_version="0.1.0")


def _label(name: str, probability: float) -> LabelResult:
    return LabelResult(name=name, probability=probability, threshold=0.5)


def _worst(parts: Sequence[FieldResult] | Sequence[EyeResult]) -> Decision:
    found = [part.disposition for part in parts]
    if Decision.REFER in found:
        return Decision.REFER
    clear = bool(found) and all(one is Decision.NO_REFER for one in found)
    return Decision.NO_REFER if clear else Decision.UNGRADABLE
