"""Teacher, student FP32 and student INT8 on the same untouched test eyes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.run_models import score_models
from edge_runtime.bench.stages import run_bench
from edge_runtime.bundle import Bundle
from edge_runtime.bundle_parts.manifest import HeldOut
from edge_runtime.decision import probability
from edge_runtime.metrics import Interval, cluster_bootstrap, roc_curve, wilson_interval
from export.demo.charts import RocCurve
from export.demo.model import (
    LabelAuroc,
    Latency,
    MeanAuroc,
    ModelRow,
    OperatingPointRow,
    SplitPerformance,
)
from train.dataset_arrays import SplitArrays
from train.evaluate import ClassificationReport, Logits, evaluate_logits, teacher_logits
from train.teacher import GRADABLE, Teacher

__all__ = ["TestScores", "latencies", "model_rows", "operating_point_rows", "roc_curves", "score"]

TEACHER, FP32, INT8 = "teacher", "student FP32", "student INT8"
_MIB = 1024.0**2


@dataclass(frozen=True, kw_only=True)
class TestScores:
    """Logits of the three models over the test split and their evaluation."""

    __test__ = False  # not a pytest class

    logits: Mapping[str, Logits]
    reports: Mapping[str, ClassificationReport]
    label_names: tuple[str, ...]


def score(teacher: Teacher, bundle: Bundle, test: SplitArrays, *, seed: int) -> TestScores:
    """Run all three models over the test eyes; the student as the bundle's files run it."""
    files = {FP32: bundle.model_bytes("fp32"), INT8: bundle.model_bytes("int8_cpu")}
    student = score_models(files, test.images_nhwc)
    logits = {TEACHER: teacher_logits(teacher, test.images_nhwc)}
    for name, scores in student.items():
        logits[name] = Logits(diseases=scores.logits, gradability=scores.gradability_logits)
    names = bundle.manifest.label_names
    reports = {name: evaluate_logits(one, test, names, seed=seed) for name, one in logits.items()}
    return TestScores(logits=logits, reports=reports, label_names=tuple(names))


def latencies(bundle: Bundle, pictures: list[bytes], *, repeats: int) -> dict[str, Latency]:
    """Inference alone, warm, batch 1, one thread, both precisions interleaved."""
    report = run_bench(bundle, pictures, repeats=repeats)
    found = {}
    for name, precision in ((FP32, "fp32"), (INT8, "int8")):
        times = report.stages[precision]["inference"]
        found[name] = Latency(p50=times.p50_ms, p99=times.p99_ms)
    return found


def model_rows(
    scores: TestScores,
    teacher: Teacher,
    bundle: Bundle,
    teacher_weights: Path,
    student_parameters: int,
    latency_ms: Mapping[str, Latency],
) -> tuple[ModelRow, ...]:
    """The comparison table."""
    sizes = {
        TEACHER: teacher_weights.stat().st_size,
        FP32: len(bundle.model_bytes("fp32")),
        INT8: len(bundle.model_bytes("int8_cpu")),
    }
    counts = {TEACHER: sum(p.numel() for p in teacher.parameters())}
    return tuple(
        ModelRow(
            name=name,
            labels=_label_aurocs(scores.reports[name]),
            mean_auroc=_mean(scores.reports[name]),
            size_mib=sizes[name] / _MIB,
            latency_ms=latency_ms.get(name),
            num_parameters=counts.get(name, student_parameters),
        )
        for name in (TEACHER, FP32, INT8)
    )


def _label_aurocs(report: ClassificationReport) -> dict[str, LabelAuroc]:
    return {
        one.name: LabelAuroc(auroc=one.auroc.value, interval=(one.auroc.low, one.auroc.high))
        for one in (*report.labels, report.gradability)
        if one.auroc is not None
    }


def _mean(report: ClassificationReport) -> MeanAuroc:
    assert report.mean_auroc is not None
    mean = report.mean_auroc
    return MeanAuroc(value=mean.value, interval=(mean.low, mean.high))


def roc_curves(scores: TestScores, test: SplitArrays) -> tuple[RocCurve, ...]:
    """ROC points of every model and disease on gradable test eyes."""
    gradable = test.label(GRADABLE) != 0
    curves = []
    for k, label in enumerate(scores.label_names):
        known = gradable & np.isfinite(test.label(label))
        for name, logits in scores.logits.items():
            false_positive, true_positive, _ = roc_curve(
                test.label(label)[known], logits.diseases[known, k]
            )
            curves.append(
                RocCurve(
                    model=name,
                    label=label,
                    false_positive_rate=false_positive,
                    true_positive_rate=true_positive,
                )
            )
    return tuple(curves)


def operating_point_rows(
    bundle: Bundle, scores: TestScores, test: SplitArrays
) -> tuple[OperatingPointRow, ...]:
    """The shipped thresholds: what they reach on `val` held out, and on `test`."""
    gradable = test.label(GRADABLE) != 0
    logits = scores.logits[INT8]
    rows = []
    for k, spec in enumerate(bundle.manifest.labels):
        known = gradable & np.isfinite(test.label(spec.name))
        assert spec.operating_point is not None
        assert spec.temperature is not None
        probabilities = np.array(
            [probability(float(z), spec.temperature) for z in logits.diseases[known, k]]
        )
        point = spec.operating_point
        rows.append(
            OperatingPointRow(
                label=spec.name,
                threshold=point.threshold,
                target=point.target,
                val=_held_out(point.held_out),
                test=_on_test(
                    test.label(spec.name)[known],
                    probabilities,
                    point.threshold,
                    test.patient_ids[known],
                ),
            )
        )
    return tuple(rows)


def _held_out(point: HeldOut) -> SplitPerformance:
    return SplitPerformance(
        sensitivity=point.sensitivity,
        sensitivity_interval=point.sensitivity_interval,
        specificity=point.specificity,
        specificity_interval=point.specificity_interval,
    )


def _on_test(
    truth: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.float64],
    threshold: float,
    patient_ids: npt.NDArray[np.str_],
) -> SplitPerformance:
    positive, called = truth == 1, probabilities >= threshold
    sensitivity = _proportion(called[positive], patient_ids[positive])
    specificity = _proportion(~called[~positive], patient_ids[~positive])
    return SplitPerformance(
        sensitivity=sensitivity.value,
        sensitivity_interval=(sensitivity.low, sensitivity.high),
        specificity=specificity.value,
        specificity_interval=(specificity.low, specificity.high),
    )


def _proportion(hits: npt.NDArray[np.bool_], patient_ids: npt.NDArray[np.str_]) -> Interval:
    """The wider of the patient bootstrap and Wilson's interval.

    The bootstrap counts the correlation of a patient's eyes but collapses at 0 and 1.
    """
    wilson = wilson_interval(int(hits.sum()), hits.size)
    draws = cluster_bootstrap(lambda values: float(np.mean(values)), patient_ids, hits)
    return Interval(
        value=wilson.value, low=min(wilson.low, draws.low), high=max(wilson.high, draws.high)
    )
