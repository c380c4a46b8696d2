"""Judge every eye at a temperature and threshold that were chosen on other patients.

A threshold looks better on the eyes that chose it than on the next ones. Patients are therefore
dealt into groups; each group is judged by what the same rule chooses on all the others. Nothing
is spent: every eye is judged once, and the shipped threshold still comes from all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.probability import probabilities
from edge_runtime.errors import DataError

__all__ = ["Choice", "CrossFitted", "cross_fit", "deal_patients"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a rule chose: probability = sigmoid(logit / temperature), positive from threshold."""

    temperature: float
    threshold: float

    def calls(self, logits: FloatArray) -> BoolArray:
        """(N,) whether each eye is positive."""
        called: BoolArray = probabilities(logits, self.temperature) >= self.threshold
        return called


@dataclass(frozen=True, kw_only=True)
class CrossFitted:
    """Every eye as judged by the choice of the others' patients.

    Attributes:
        num_folds: groups of patients.
        probability_int8: (N,) of the INT8 logits at the held-out temperatures.
        called_int8: (N,) whether INT8 is positive at the held-out thresholds.
        called_fp32: (N,) the same for FP32, at the same temperatures and thresholds.
        choices: what was chosen for each group, on the others.
        fold_of: patient -> its group.
    """

    num_folds: int
    probability_int8: FloatArray
    called_int8: BoolArray
    called_fp32: BoolArray
    choices: tuple[Choice, ...]
    fold_of: Mapping[str, int]

    def calls(
        self, patient_ids: NDArray[np.str_], logits: FloatArray, otherwise: Choice
    ) -> BoolArray:
        """(M,) whether any eyes are positive, each judged without its own patient.

        Args:
            patient_ids: (M,) whose eye it is.
            logits: (M,).
            otherwise: the choice made on all groups, which never saw a patient of none of them.
        """
        by_patient = [
            self.choices[self.fold_of[name]] if name in self.fold_of else otherwise
            for name in patient_ids.tolist()
        ]
        temperature = np.array([choice.temperature for choice in by_patient])
        threshold = np.array([choice.threshold for choice in by_patient])
        called: BoolArray = probabilities(logits / temperature, 1.0) >= threshold
        return called


def cross_fit(
    patient_ids: NDArray[np.str_],
    labels: FloatArray,
    logits_int8: FloatArray,
    logits_fp32: FloatArray,
    choose: Callable[[FloatArray, FloatArray], Choice],
    *,
    num_folds: int,
    seed: int,
) -> CrossFitted:
    """Choose on all groups but one, judge that one, for every group.

    Args:
        patient_ids: (N,) whose eye it is.
        labels: (N,) 0 or 1.
        logits_int8: (N,) what the choice is made on, because INT8 is what ships.
        logits_fp32: (N,) judged by the same choice.
        choose: called with labels and INT8 logits of the other groups.
        num_folds: at most that many groups; fewer where a class has fewer patients.
        seed: of the deal.

    Raises:
        DataError: a class has fewer than two patients.
    """
    folds = deal_patients(patient_ids, labels, num_folds, seed)
    count = int(folds.max()) + 1
    probability = np.empty(labels.size)
    called_int8, called_fp32 = np.empty(labels.size, np.bool_), np.empty(labels.size, np.bool_)
    choices = []
    for fold in range(count):
        judged = folds == fold
        choice = choose(labels[~judged], logits_int8[~judged])
        choices.append(choice)
        probability[judged] = probabilities(logits_int8[judged], choice.temperature)
        called_int8[judged] = choice.calls(logits_int8[judged])
        called_fp32[judged] = choice.calls(logits_fp32[judged])
    return CrossFitted(
        num_folds=count,
        probability_int8=probability,
        called_int8=called_int8,
        called_fp32=called_fp32,
        choices=tuple(choices),
        fold_of=dict(zip(patient_ids.tolist(), folds.tolist(), strict=True)),
    )


def deal_patients(
    patient_ids: NDArray[np.str_], labels: FloatArray, num_folds: int, seed: int
) -> NDArray[np.int64]:
    """(N,) which group each eye is in, whole patients together, both classes in every rest.

    Patients are shuffled and dealt one after the other: first those with diseased eyes only,
    then those with both, then the others, so that each class is spread evenly.

    Raises:
        DataError: a class has fewer than two patients.
    """
    patients = np.unique(patient_ids, return_inverse=True)[1]
    num_patients = int(patients.max()) + 1
    has = [np.bincount(patients, weights=labels == k, minlength=num_patients) > 0 for k in (0, 1)]
    fewest = min(int(np.sum(one)) for one in has)
    if fewest < 2:
        raise DataError(
            f"{int(has[1].sum())} patients with a label and {int(has[0].sum())} without: a "
            "threshold cannot be tested on patients it was not chosen on; give 2 or more of each"
        )
    kind = np.where(has[1] & ~has[0], 0, np.where(has[1], 1, 2))
    shuffled = np.random.default_rng(seed).permutation(num_patients)
    order = shuffled[np.argsort(kind[shuffled], kind="stable")]
    fold_of = np.empty(num_patients, np.int64)
    fold_of[order] = np.arange(num_patients) % min(num_folds, fewest)
    return fold_of[patients]
