"""Classification on a split: AUROC, sensitivity and specificity with patient intervals.

Diseases are scored on gradable eyes whose label is known; the eyes of one patient are
correlated, so every interval resamples patients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.metrics import Interval, auroc, cluster_bootstrap
from train.arrays import normalize_cfp
from train.dataset_arrays import SplitArrays
from train.device import device_of
from train.labels import GRADABLE
from train.teacher import Teacher

__all__ = ["ClassificationReport", "LabelReport", "Logits", "evaluate_logits", "teacher_logits"]


@dataclass(frozen=True, kw_only=True)
class Logits:
    """Model outputs over a split.

    Attributes:
        diseases: (N, L) float.
        gradability: (N,) float, high = gradable.
    """

    diseases: npt.NDArray[np.float64]
    gradability: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """One label's AUROC.

    Attributes:
        name: label.
        auroc: value with its 95 % patient-cluster interval; None when one class is absent.
        num_positive: positive eyes scored.
        num_negative: negative eyes scored.
    """

    name: str
    auroc: Interval | None
    num_positive: int
    num_negative: int


@dataclass(frozen=True, kw_only=True)
class ClassificationReport:
    """All labels of one model on one split.

    Attributes:
        labels: one report a disease.
        gradability: the same for gradability, over all eyes.
        mean_auroc: mean over the diseases that could be scored, with its interval.
        num_eyes: eyes in the split.
        num_ungradable: of them labelled ungradable, left out of the diseases.
    """

    labels: tuple[LabelReport, ...]
    gradability: LabelReport
    mean_auroc: Interval | None
    num_eyes: int
    num_ungradable: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def teacher_logits(
    teacher: Teacher, images_nhwc: npt.NDArray[np.uint8], *, batch_size: int = 256
) -> Logits:
    """Run the teacher, where it is, in float32 over (N, S, S, 3) uint8."""
    diseases, gradability, device = [], [], device_of(teacher)
    with torch.inference_mode():
        for start in range(0, len(images_nhwc), batch_size):
            batch = torch.from_numpy(images_nhwc[start : start + batch_size]).to(device)
            output = teacher(normalize_cfp(batch))
            diseases.append(output.logits.double().cpu().numpy())
            gradability.append(output.gradability_logit[:, 0].double().cpu().numpy())
    return Logits(diseases=np.concatenate(diseases), gradability=np.concatenate(gradability))


def evaluate_logits(
    logits: Logits,
    data: SplitArrays,
    label_names: tuple[str, ...],
    *,
    num_draws: int = 2000,
    seed: int = 0,
) -> ClassificationReport:
    """Score logits against labels.

    Args:
        logits: rows as in `data`.
        data: a split that no choice was made on, if the figures are to be reported.
        label_names: order of the disease columns.
        num_draws: bootstrap draws.
        seed: of the draws.
    """
    gradable = data.label(GRADABLE)
    labels = np.stack([data.label(name) for name in label_names], 1)
    labels = np.where((gradable != 0)[:, None], labels, np.nan)

    def interval(statistic: Callable[..., float], *arrays: Any) -> Interval:
        return cluster_bootstrap(
            statistic, data.patient_ids, *arrays, num_draws=num_draws, seed=seed
        )

    reports = tuple(
        _label_report(name, labels[:, k], logits.diseases[:, k], data.patient_ids, num_draws, seed)
        for k, name in enumerate(label_names)
    )
    scored = [k for k, report in enumerate(reports) if report.auroc is not None]
    mean = interval(_mean_auroc, labels[:, scored], logits.diseases[:, scored]) if scored else None
    return ClassificationReport(
        labels=reports,
        gradability=_label_report(
            GRADABLE, gradable, logits.gradability, data.patient_ids, num_draws, seed
        ),
        mean_auroc=mean,
        num_eyes=len(data),
        num_ungradable=int((gradable == 0).sum()),
    )


def _mean_auroc(labels_nl: npt.NDArray[Any], logits_nl: npt.NDArray[Any]) -> float:
    """Mean of the columns' AUROC over known labels; ValueError if a class is absent."""
    values = []
    for k in range(labels_nl.shape[1]):
        known = np.isfinite(labels_nl[:, k])
        values.append(auroc(labels_nl[known, k], logits_nl[known, k]))
    return float(np.mean(values))


def _label_report(
    name: str,
    labels: npt.NDArray[Any],
    scores: npt.NDArray[np.float64],
    patients: npt.NDArray[np.str_],
    num_draws: int,
    seed: int,
) -> LabelReport:
    known = np.isfinite(labels)
    truth = labels[known]
    positive, negative = int((truth == 1).sum()), int((truth == 0).sum())
    interval = None
    if positive and negative:
        interval = cluster_bootstrap(
            auroc, patients[known], truth, scores[known], num_draws=num_draws, seed=seed
        )
    return LabelReport(name=name, auroc=interval, num_positive=positive, num_negative=negative)
