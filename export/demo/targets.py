"""The numbers that a demo has to reach, judged from its report."""

from __future__ import annotations

from export.demo.model import PretrainingSummary, ScreeningSummary, Target, UnreadableFiles

__all__ = ["judge_targets"]

_MISSED_GAIN = "the cue appears abruptly and later in some seeds; give more steps"


def judge_targets(
    scale: str,
    pretraining: PretrainingSummary,
    student_to_teacher_ratio: float,
    int8_mean_auroc_drop: float,
    screening: ScreeningSummary,
) -> tuple[Target, ...]:
    """All targets of a scale, in reading order."""
    gains = {
        "macular edema": pretraining.edema_auroc_gain,
        "myopic schisis": pretraining.schisis_auroc_gain,
        "glaucoma": pretraining.glaucoma_auroc_gain,
    }
    return (
        *_gain_targets(scale, gains),
        Target.judge(
            name="student mean AUROC over the teacher's",
            value=student_to_teacher_ratio,
            relation=">=",
            limit=0.97,
        ),
        Target.judge(
            name="mean AUROC lost by INT8 against FP32",
            value=int8_mean_auroc_drop,
            relation="<=",
            limit=0.01,
        ),
        Target.judge(
            name="gradient leak of oct<-cfp",
            value=pretraining.gradient_leak,
            relation="==",
            limit=0.0,
        ),
        Target.judge(
            name="the same where OCT is the source (or the check is blind)",
            value=pretraining.gradient_leak_control,
            relation=">",
            limit=0.0,
        ),
        _unreadable_target(screening.unreadable_files),
    )


def _unreadable_target(files: UnreadableFiles) -> Target:
    """Not measured when nothing was damaged or when no intact picture is 'no refer'."""
    measured = files.num > 0 and files.num_control_no_refer > 0
    return Target.judge(
        name="'no refer' answers for files that cannot be read",
        value=float(files.num_no_refer) if measured else None,
        relation="==",
        limit=0.0,
        unit="files",
    )


def _gain_targets(scale: str, gains: dict[str, float | None]) -> tuple[Target, ...]:
    """Probe AUROC gain of OCT-informed over CFP-only pretraining."""
    if scale == "smoke":
        known = {name: value for name, value in gains.items() if value is not None}
        known.pop("macular edema", None)
        best = max(known, key=lambda name: known[name], default="schisis or glaucoma")
        name = f"AUROC gain by OCT, best of schisis and glaucoma ({best})"
        return (_gain_target(name, known.get(best), 0.05),)
    limits = {"macular edema": 0.15, "myopic schisis": 0.05, "glaucoma": 0.05}
    return tuple(
        _gain_target(f"AUROC gain by OCT, {name}", value, limits[name])
        for name, value in gains.items()
    )


def _gain_target(name: str, value: float | None, limit: float) -> Target:
    met = value is not None and value > limit
    note = "" if met else _MISSED_GAIN
    return Target.judge(name=name, value=value, relation=">", limit=limit, note=note)
