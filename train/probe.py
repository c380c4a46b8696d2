"""Linear probe: how much of a label a frozen encoder makes linearly readable.

A logistic regression on mean-pooled tokens, fitted on a few labelled training eyes; a
grade takes a ridge regression with cut points instead. The strength of its regularisation
is chosen by cross-validation inside those few labels, folds apart by patient, so nothing
outside the label budget is used.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold

from edge_runtime.errors import DataError
from edge_runtime.metrics import auroc
from train.arrays import normalize_cfp
from train.dataset_arrays import SplitArrays
from train.device import device_of
from train.encoder import CfpEncoder

__all__ = [
    "ProbeResult",
    "draw_labeled",
    "grades_by_share",
    "linear_probe",
    "pooled_features",
    "probe_grades",
    "probe_scores",
]

_STRENGTHS = (0.003, 0.03, 0.3)
_RIDGE_PENALTIES = (10.0, 100.0, 1000.0, 10000.0)
_NUM_FOLDS = 3
_NUM_GRADES = 5
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """AUROC on test eyes over draws of the labelled eyes.

    Attributes:
        label: which label.
        num_labels: labelled training eyes in each draw.
        auroc_mean: mean over draws.
        auroc_sd: standard deviation over draws (of the label draw, not of the test set).
        num_draws: draws.
    """

    label: str
    num_labels: int
    auroc_mean: float
    auroc_sd: float
    num_draws: int


def pooled_features(
    encoder: CfpEncoder, images_nhwc: npt.NDArray[np.uint8], *, batch_size: int = 256
) -> FloatArray:
    """(N, S, S, 3) uint8 -> (N, D) float64 means of the tokens."""
    parts, device = [], device_of(encoder)
    with torch.inference_mode():
        for start in range(0, len(images_nhwc), batch_size):
            batch = torch.from_numpy(images_nhwc[start : start + batch_size]).to(device)
            parts.append(encoder(normalize_cfp(batch)).mean(1).double().cpu().numpy())
    return np.concatenate(parts)


def linear_probe(
    train_features: FloatArray,
    train: SplitArrays,
    test_features: FloatArray,
    test: SplitArrays,
    *,
    label: str,
    num_labels: int,
    num_draws: int = 10,
    seed: int = 0,
) -> ProbeResult:
    """Fit on `num_labels` labelled training eyes, `num_draws` times; score all test eyes.

    Eyes without the label are left out on both sides.

    Raises:
        DataError: fewer labelled eyes than asked for, or a draw of one class or too few patients.
    """
    test_known = np.isfinite(test.label(label))
    scores = []
    for draw in range(num_draws):
        picked = draw_labeled(
            train.label(label), label=label, num_labels=num_labels, seed=seed, draw=draw
        )
        logits = probe_scores(
            train_features[picked],
            train.label(label)[picked],
            train.patient_ids[picked],
            test_features[test_known],
            label=label,
        )
        scores.append(auroc(test.label(label)[test_known], logits))
    return ProbeResult(
        label=label,
        num_labels=num_labels,
        auroc_mean=float(np.mean(scores)),
        auroc_sd=float(np.std(scores)),
        num_draws=num_draws,
    )


def draw_labeled(
    truth: npt.NDArray[Any], *, label: str, num_labels: int, seed: int, draw: int
) -> npt.NDArray[np.int64]:
    """Positions of `num_labels` eyes whose truth (N,) is known (not NaN), drawn by seed and draw.

    Raises:
        DataError: fewer eyes have the label.
    """
    known = np.flatnonzero(np.isfinite(truth))
    if len(known) < num_labels:
        raise DataError(f"label '{label}' is known for {len(known)} eyes, {num_labels} are needed")
    return np.random.default_rng([seed, draw]).permutation(known)[:num_labels]


def probe_scores(
    features: FloatArray,
    truth: npt.NDArray[Any],
    patients: npt.NDArray[np.str_],
    test_features: FloatArray,
    *,
    label: str,
) -> FloatArray:
    """Fit on labelled eyes, score others.

    Args:
        features: (N, D) of the labelled eyes.
        truth: (N,) 0 or 1.
        patients: (N,) ids; the folds that choose the strength are apart by patient.
        test_features: (K, D).
        label: named in errors.

    Returns:
        (K,) logits.

    Raises:
        DataError: one class only, or too few patients.
    """
    _require_both_classes(label, truth, patients)
    mean, spread = features.mean(0), features.std(0) + 1e-6
    model = _fit((features - mean) / spread, truth, patients)
    logits: FloatArray = model.decision_function((test_features - mean) / spread)
    return logits


def probe_grades(
    features: FloatArray,
    truth: npt.NDArray[Any],
    patients: npt.NDArray[np.str_],
    test_features: FloatArray,
    *,
    label: str,
) -> FloatArray:
    """As `probe_scores` for ordered grades: (K,) grades 0, 1, ...

    A ridge regression of the grade, then cut points that give held-out labelled eyes the
    same shares of grades as the labels have: rounding would call nearly every eye by the
    mean grade when little is readable.
    """
    _require_both_classes(label, truth, patients)
    mean, spread = features.mean(0), features.std(0) + 1e-6
    standard = (features - mean) / spread
    folds = list(GroupKFold(_NUM_FOLDS).split(standard, truth, patients))
    held_out = {
        penalty: _held_out_grades(penalty, standard, truth, folds) for penalty in _RIDGE_PENALTIES
    }
    errors = {penalty: float(((truth - out) ** 2).mean()) for penalty, out in held_out.items()}
    best = min(errors, key=lambda penalty: errors[penalty])
    model = Ridge(alpha=best).fit(standard, truth)
    return grades_by_share(model.predict((test_features - mean) / spread), held_out[best], truth)


def grades_by_share(
    values: npt.NDArray[Any], reference: npt.NDArray[Any], truth: npt.NDArray[Any]
) -> FloatArray:
    """Cut values into grades where `reference` values have the shares of grades of `truth`.

    Args:
        values: (K,) larger for a higher grade.
        reference: (M,) values of eyes like those of `truth`.
        truth: (N,) grades 0 to 4.

    Returns:
        (K,) grades 0 to 4.
    """
    shares = np.array([(truth <= grade).mean() for grade in range(_NUM_GRADES - 1)])
    cuts = np.quantile(reference, shares)
    cuts = np.where(shares <= 0, -np.inf, np.where(shares >= 1, np.inf, cuts))
    return np.searchsorted(cuts, values, side="left").astype(np.float64)


def _held_out_grades(
    penalty: float, features: FloatArray, truth: npt.NDArray[Any], folds: list[Any]
) -> FloatArray:
    out = np.zeros(len(truth))
    for inside, outside in folds:
        out[outside] = (
            Ridge(alpha=penalty).fit(features[inside], truth[inside]).predict(features[outside])
        )
    return out


def _require_both_classes(
    label: str, labels: npt.NDArray[Any], patients: npt.NDArray[np.str_]
) -> None:
    num_patients = len(np.unique(patients))
    if len(np.unique(labels)) < 2 or num_patients < _NUM_FOLDS:
        raise DataError(
            f"label '{label}': {len(labels)} labelled eyes of {num_patients} patients have one "
            "class only or too few patients for a probe; use more labels"
        )


def _fit(
    features: FloatArray, labels: npt.NDArray[Any], patients: npt.NDArray[np.str_]
) -> LogisticRegression:
    """Logistic regression with the strength that wins cross-validation by patient."""
    folds = list(GroupKFold(_NUM_FOLDS).split(features, labels, patients))
    best, best_score = _STRENGTHS[0], -np.inf
    for strength in _STRENGTHS:
        held_out = np.zeros(len(labels))
        for inside, outside in folds:
            if len(np.unique(labels[inside])) == 2:
                model = _regression(strength, features[inside], labels[inside])
                held_out[outside] = model.decision_function(features[outside])
        score = auroc(labels, held_out)
        if score > best_score:
            best, best_score = strength, score
    return _regression(best, features, labels)


def _regression(
    strength: float, features: FloatArray, labels: npt.NDArray[Any]
) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=300).fit(features, labels)
