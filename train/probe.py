"""Linear probe: how much of a label a frozen encoder makes linearly readable.

A logistic regression on mean-pooled tokens, fitted on a few labelled training eyes. The
strength of its regularisation is chosen by cross-validation inside those few labels,
folds apart by patient, so nothing outside the label budget is used.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from edge_runtime.errors import DataError
from edge_runtime.metrics import auroc
from train.arrays import normalize_cfp
from train.dataset_arrays import SplitArrays
from train.device import device_of
from train.encoder import CfpEncoder

__all__ = ["ProbeResult", "linear_probe", "pooled_features"]

_STRENGTHS = (0.003, 0.03, 0.3)
_NUM_FOLDS = 3
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
    known = np.flatnonzero(np.isfinite(train.label(label)))
    if len(known) < num_labels:
        raise DataError(f"label '{label}' is known for {len(known)} eyes, {num_labels} are needed")
    test_known = np.isfinite(test.label(label))
    truth = test.label(label)[test_known]
    scores = []
    for draw in range(num_draws):
        picked = np.random.default_rng([seed, draw]).permutation(known)[:num_labels]
        _require_both_classes(label, train.label(label)[picked], train.patient_ids[picked])
        mean, spread = train_features[picked].mean(0), train_features[picked].std(0) + 1e-6
        model = _fit(
            (train_features[picked] - mean) / spread,
            train.label(label)[picked],
            train.patient_ids[picked],
        )
        logits = model.decision_function((test_features[test_known] - mean) / spread)
        scores.append(auroc(truth, logits))
    return ProbeResult(
        label=label,
        num_labels=num_labels,
        auroc_mean=float(np.mean(scores)),
        auroc_sd=float(np.std(scores)),
        num_draws=num_draws,
    )


def _require_both_classes(
    label: str, labels: npt.NDArray[np.float32], patients: npt.NDArray[np.str_]
) -> None:
    num_patients = len(np.unique(patients))
    if len(np.unique(labels)) < 2 or num_patients < _NUM_FOLDS:
        raise DataError(
            f"label '{label}': {len(labels)} labelled eyes of {num_patients} patients have one "
            "class only or too few patients for a probe; use more labels"
        )


def _fit(
    features: FloatArray, labels: npt.NDArray[np.float32], patients: npt.NDArray[np.str_]
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
    strength: float, features: FloatArray, labels: npt.NDArray[np.float32]
) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=300).fit(features, labels)
