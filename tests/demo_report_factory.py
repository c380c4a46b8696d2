"""A plausible demo report with phantom pictures, for tests and for looking at the page."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from gate_factory import gate_report

from edge_runtime.bundle_parts.gate_record import GateReport
from edge_runtime.metrics import roc_curve
from export.demo.charts import RocCurve
from export.demo.html import label_words
from export.demo.model import (
    DataSummary,
    DemoReport,
    LabelAuroc,
    Latency,
    MeanAuroc,
    ModelRow,
    OperatingPointRow,
    PretrainingSummary,
    ProbeAuroc,
    ScreeningSummary,
    SplitPerformance,
    Target,
    UnreadableFiles,
)
from export.demo.pictures import ReportPictures, ScreenedEye, Triple
from train.phantom.eye import render_eye

LABELS = ("macular_edema", "myopic_schisis", "glaucoma", "referable_dr", "amd")
MODELS = ("teacher", "student FP32", "student INT8")
_ARM_LEVEL = {
    "oct_informed": 0.86,
    "cfp_only": 0.67,
    "shuffled_oct": 0.66,
    "no_pretraining": 0.6,
}


def make_report(**changes: Any) -> DemoReport:
    """Return the report, with whole fields replaced."""
    fields: dict[str, Any] = {
        "scale": "small",
        "seed": 7,
        "code_version": "0.1.0",
        "machine": {"processor": "2 x86-64 cores", "python": "3.11.2", "torch": "2.14.1"},
        "duration_s": {"phantom": 64.2, "pretrain": 1420.0, "finetune": 320.5, "distill": 410.9,
                       "export": 12.4, "calibrate": 31.7, "evaluate": 55.0, "screen": 8.2},
        "data": DataSummary(
            num_patients=1500,
            num_eyes={"train": 2096, "val": 302, "test": 602},
            prevalence={name: 0.1 + 0.04 * i for i, name in enumerate(LABELS)},
            excluded=3,
        ),
        "pretraining": make_pretraining(),
        "models": tuple(_model(i, name) for i, name in enumerate(MODELS)),
        "student_to_teacher_ratio": 0.984,
        "int8_mean_auroc_drop": 0.0014,
        "operating_points": tuple(_operating_point(name) for name in (*LABELS, "gradable")),
        "gate": _gate(),
        "screening": make_screening(),
        "targets": make_targets(),
    }  # fmt: skip
    return DemoReport(**{**fields, **changes})


def make_pretraining(**changes: Any) -> PretrainingSummary:
    arms = {
        arm: {
            name: ProbeAuroc(
                auroc_mean=level - 0.012 * i + 0.15 * (name == "glaucoma" and arm == "cfp_only"),
                auroc_sd=0.011 + 0.002 * i,
            )
            for i, name in enumerate(LABELS)
        }
        for arm, level in _ARM_LEVEL.items()
    }
    fields: dict[str, Any] = {
        "num_labels": 300,
        "arms": arms,
        "edema_auroc_gain": 0.19,
        "schisis_auroc_gain": 0.19,
        "glaucoma_auroc_gain": 0.04,
        "gradient_leak": 0.0,
        "gradient_leak_control": 0.0231,
        "shuffled_oct_loss_ratio": 1.38,
        "flatten_error_rows": {"bias": 0.3, "share_of_scans_off": 0.01, "num_scans": 800.0},
        "num_steps": 1800,
        "seconds_per_arm": {"oct_informed": 520.0, "cfp_only": 455.0, "shuffled_oct": 445.0},
    }
    return PretrainingSummary(**{**fields, **changes})


def make_targets() -> tuple[Target, ...]:
    return (
        Target.judge(name="edema AUROC gain of OCT", value=0.19, relation=">", limit=0.15),
        Target.judge(
            name="glaucoma AUROC gain of OCT",
            value=0.04,
            relation=">",
            limit=0.05,
            note="1,800 steps fit the budget; the gain was still growing",
        ),
        Target.judge(name="student / teacher mean AUROC", value=0.984, relation=">=", limit=0.97),
        Target.judge(name="mean AUROC lost to INT8", value=0.0014, relation="<=", limit=0.01),
        Target.judge(name="gradient leak", value=0.0, relation="==", limit=0.0),
        Target.judge(name="unreadable eyes answered 'no refer'", value=0, relation="==", limit=0),
        Target.judge(name="time", value=38.7, relation="<=", limit=50, unit="min"),
    )


def _auroc(model: int, label: int) -> float:
    return 0.93 - 0.018 * label - 0.012 * model + (0.01 if model == 2 else 0.0)


def _model(index: int, name: str) -> ModelRow:
    labels = {
        label: LabelAuroc(auroc=_auroc(index, i), interval=(_auroc(index, i) - 0.03,
                                                            _auroc(index, i) + 0.025))
        for i, label in enumerate(LABELS)
    }  # fmt: skip
    mean = float(np.mean([result.auroc for result in labels.values()]))
    return ModelRow(
        name=name,
        labels=labels,
        mean_auroc=MeanAuroc(value=mean, interval=(mean - 0.015, mean + 0.014)),
        size_mib=(22.4, 10.9, 2.91)[index],
        latency_ms=None if index == 0 else Latency(p50=(0, 6.12, 2.31)[index], p99=10.1 / index),
        num_parameters=(5_812_301, 2_804_112, 2_804_112)[index],
    )


def _operating_point(label: str) -> OperatingPointRow:
    def split(shift: float) -> SplitPerformance:
        return SplitPerformance(
            sensitivity=0.9 - shift,
            sensitivity_interval=(0.82 - shift, 0.95 - shift),
            specificity=0.84 - shift,
            specificity_interval=(0.79 - shift, 0.88 - shift),
        )

    target = "sensitivity >= 0.90"
    return OperatingPointRow(
        label=label, threshold=0.213, target=target, val=split(0), test=split(0.02)
    )


def _gate() -> GateReport:
    return gate_report(LABELS, decision_flips=1)


def make_screening(**changes: Any) -> ScreeningSummary:
    fields: dict[str, Any] = {
        "num_pictures": 40,
        "dispositions": {"refer": 17, "no_refer": 19, "ungradable": 4},
        "agreement": {
            "diseased": {"refer": 14, "no_refer": 2, "ungradable": 1},
            "healthy": {"refer": 3, "no_refer": 17, "ungradable": 0},
            "cannot be graded": {"refer": 0, "no_refer": 0, "ungradable": 3},
        },
        "unreadable_files": UnreadableFiles(
            num=6, num_no_refer=0, num_control=2, num_control_no_refer=1
        ),
        "eyes": tuple(_examination(i) for i in range(4)),
    }
    return ScreeningSummary(**{**fields, **changes})


def _examination(number: int) -> dict[str, Any]:
    unread = number == 3
    labels = [
        {"name": name, "probability": 0.05 + 0.17 * i * (number == 0), "threshold": 0.213,
         "decision": "negative"}
        for i, name in enumerate(LABELS)
    ]  # fmt: skip
    disposition = "ungradable" if unread else "refer" if number == 0 else "no_refer"
    field = {
        "image_sha256": "0" * 64,
        "disposition": disposition,
        "quality": {
            "gradable": not unread,
            "gradable_probability": None if unread else 0.97,
            "gradable_threshold": 0.5,
            "reasons": ["dark"] if unread else [],
            "measures": {},
        },
        "labels": [] if unread else labels,
        "evidence": None,
        "timings_ms": {"decode": 30.1, "total": 38.4},
        "error": None,
    }
    eye = {
        "eye": "OS" if number % 2 else "OD",
        "disposition": disposition,
        "reasons": field["quality"]["reasons"],
        "fields": [field],
    }
    return {
        "schema_version": 3,
        "examination_id": f"P{number // 2:06d}",
        "disposition": disposition,
        "eyes": [eye],
    }


def make_pictures(*, num_triples: int = 4, num_patients: int = 3) -> ReportPictures:
    """Return phantom pictures with pretended reconstructions and evidence."""
    rng = np.random.default_rng(1)
    return ReportPictures(
        triples=tuple(_triple(rng, number) for number in range(1, 1 + num_triples)),
        screened=tuple(
            _screened(number, side) for number in range(num_patients) for side in ("OS", "OD")
        ),
        roc=tuple(_roc(rng, i, name, k) for i, name in enumerate(MODELS) for k in range(5)),
    )


def _triple(rng: np.random.Generator, number: int) -> Triple:
    eye = render_eye(0, number, "OD")
    hidden = np.kron(rng.random((16, 16)) < 0.7, np.ones((8, 8)))[..., None] > 0
    masked = np.where(hidden & (eye.cfp_hwc > 3), np.uint8(128), eye.cfp_hwc)
    scans = [_z_score(scan) for scan in eye.oct_zx]
    blurred = [0.7 * cv2.GaussianBlur(scan, (0, 0), 1.2) for scan in scans]
    present = [label_words(n) for n in LABELS if eye.eye.labels()[n]]
    return Triple(
        eye="OD",
        truth=", ".join(present) or "no disease",
        cfp_hwc=eye.cfp_hwc,
        oct_h=eye.oct_zx[0],
        oct_v=eye.oct_zx[1],
        cfp_masked_hwc=masked,
        cfp_reconstructed_hwc=cv2.GaussianBlur(eye.cfp_hwc, (0, 0), 2.0),
        oct_target_h=scans[0],
        oct_target_v=scans[1],
        oct_predicted_h=blurred[0],
        oct_predicted_v=blurred[1],
    )


def _z_score(scan_zx: np.ndarray) -> np.ndarray:
    small = cv2.resize(scan_zx.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
    return (small - small.mean()) / small.std()


def _screened(number: int, side: str) -> ScreenedEye:
    eye = render_eye(0, number, side, image_px=256)
    y, x = np.mgrid[0:8, 0:8]
    peak = 3.0 * np.exp(-((x - 3.2) ** 2 + (y - 3.6) ** 2) / 3.0) - 0.8
    ungradable, positive = number == 2 and side == "OS", number == 0
    return ScreenedEye(
        examination=f"P{number:06d}",
        eye=side,
        image_hwc=eye.cfp_hwc,
        evidence_hw=None if ungradable else (peak if positive else 0.15 * peak),
        label=None if ungradable else "referable_dr",
        probability=None if ungradable else (0.83 if positive else 0.04),
        threshold=None if ungradable else 0.213,
        disposition="ungradable" if ungradable else "refer" if positive else "no_refer",
        truth="referable DR grade 4" if positive else "no disease",
        reason="blur" if ungradable else "",
    )


def _roc(rng: np.random.Generator, index: int, model: str, label: int) -> RocCurve:
    truth = rng.random(600) < 0.25
    scores = rng.standard_normal(600) + truth * (2.1 - 0.2 * label - 0.1 * index)
    false_positive, true_positive, _ = roc_curve(truth, scores)
    return RocCurve(
        model=model,
        label=LABELS[label],
        false_positive_rate=false_positive,
        true_positive_rate=true_positive,
    )
