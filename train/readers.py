"""The reader study: readers and groups of readers beside the model, on the same cases.

Groups are compared with the model at the decision that it ships with. Both may have said
'could not tell'; one rule, given by name, decides for both what that counts as.

Legend: R readers, C cases, B resamples of patients. Measures are sensitivity, specificity
and their mean, balanced accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import roc_curve
from train.reader_report import (
    Difference,
    GroupReport,
    MatchedPoint,
    ObserverReport,
    ReaderReport,
)
from train.reader_tables import MODEL, ReaderStudy
from train.reader_variance import MeanOverReaders, mean_over_readers
from train.tasks.statistics import holm

__all__ = ["MEASURES", "UNDECIDED", "Verdicts", "evaluate_readers", "verdicts"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

MEASURES = ("sensitivity", "specificity", "balanced_accuracy")
# What 'could not tell' counts as. 'refer': positive, as a screening program acts on it.
# 'wrong': a miss or a false alarm. 'leave_out': not at all; flatters who often cannot tell.
UNDECIDED = ("refer", "wrong", "leave_out")
_MAX_DRAWN_PER_DRAW = 11


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Decisions after the rule for 'could not tell': (O, C) positive and counted."""

    positive_oc: BoolArray
    counted_oc: BoolArray


def verdicts(
    decisions_oc: FloatArray, read_oc: BoolArray, truth_c: BoolArray, undecided: str
) -> Verdicts:
    """Turn decisions with NaN for 'could not tell' into positive or not, counted or not.

    Raises:
        ConfigError: `undecided` is no rule.
    """
    if undecided not in UNDECIDED:
        raise ConfigError(f"undecided is '{undecided}'; use one of {', '.join(UNDECIDED)}")
    unsure = np.isnan(decisions_oc) & read_oc
    stand_in = np.broadcast_to(~truth_c, unsure.shape) if undecided == "wrong" else unsure
    positive = np.where(unsure, stand_in, decisions_oc == 1)
    counted = read_oc & ~unsure if undecided == "leave_out" else read_oc
    return Verdicts(positive_oc=positive & counted, counted_oc=counted)


def evaluate_readers(
    study: ReaderStudy, *, undecided: str = "refer", num_draws: int = 2000, seed: int = 0
) -> ReaderReport:
    """Score readers, groups and the model, and compare.

    Args:
        study: one label.
        undecided: what 'could not tell' counts as, for readers and the model alike.
        num_draws: resamples of patients.
        seed: of the resamples.

    Raises:
        ConfigError: `undecided` is no rule, or too few draws.
        DataError: a reader or the model has no counted case of a class.
    """
    if num_draws < 100:
        raise ConfigError(f"num_draws is {num_draws}; give at least 100")
    everyone = verdicts(
        np.vstack([study.decisions_rc, study.model_c]),
        np.vstack([study.read_rc, np.ones_like(study.truth_c)]),
        study.truth_c,
        undecided,
    )
    _require_classes(study, everyone)
    weights, num_redrawn = _draws(study, everyone, num_draws, seed)
    rated = _Rated(study, everyone, weights)
    groups = _group_reports(study, rated)
    names = [*zip(study.reader_ids.tolist(), study.groups.tolist(), strict=True), (MODEL, MODEL)]
    unsure = [*(np.isnan(study.decisions_rc) & study.read_rc).sum(1), np.isnan(study.model_c).sum()]
    observers = [
        ObserverReport(
            observer=name,
            group=group,
            num_cases=int(everyone.counted_oc[o].sum()),
            num_undecided=int(unsure[o]),
            rates={measure: rated.mean([o], measure).interval for measure in MEASURES},
        )
        for o, (name, group) in enumerate(names)
    ]
    return ReaderReport(
        label=study.label,
        num_cases=len(study.truth_c),
        num_positive=int(study.truth_c.sum()),
        num_patients=len(np.unique(study.patient_ids)),
        undecided=undecided,
        num_draws=num_draws,
        num_redrawn=num_redrawn,
        synthetic=study.synthetic,
        model=observers[-1],
        readers=tuple(observers[:-1]),
        groups=groups,
    )


def _require_classes(study: ReaderStudy, everyone: Verdicts) -> None:
    paired = everyone.counted_oc & everyone.counted_oc[-1]
    for who, counted in zip([*study.reader_ids.tolist(), MODEL], paired, strict=True):
        have = int((counted & study.truth_c).sum()), int((counted & ~study.truth_c).sum())
        if min(have) == 0:
            raise DataError(
                f"label '{study.label}': '{who}' has {have[0]} positive and {have[1]} negative "
                "counted cases; both are needed: add readings, leave the reader out, or count "
                "'could not tell' in another way"
            )


def _draws(
    study: ReaderStudy, everyone: Verdicts, num_draws: int, seed: int
) -> tuple[FloatArray, int]:
    """(B, C) how often each case is drawn, whole patients at a time, and how many were redrawn.

    A resample in which some observer has no case of a class is drawn again.
    """
    patients = np.unique(study.patient_ids, return_inverse=True)[1].ravel()
    num_patients = int(patients.max()) + 1
    paired = everyone.counted_oc & everyone.counted_oc[-1]
    classes = np.vstack([paired & study.truth_c, paired & ~study.truth_c]).astype(np.float64)
    rng = np.random.default_rng(seed)
    kept: list[FloatArray] = []
    for drawn in range(_MAX_DRAWN_PER_DRAW * num_draws):
        times = np.bincount(rng.integers(0, num_patients, num_patients), minlength=num_patients)
        weights = times[patients].astype(np.float64)
        if (classes @ weights > 0).all():
            kept.append(weights)
        if len(kept) == num_draws:
            return np.stack(kept), drawn + 1 - num_draws
    raise DataError(
        f"label '{study.label}': nearly every resample of {num_patients} patients lacks a class "
        "for some reader; give more patients of the rarer class"
    )


class _Rated:
    """Every observer's measures on all cases and on every resample.

    `own` are on the observer's counted cases; `paired` on those that the model counts, too,
    with the model's on the very same cases beside them.
    """

    def __init__(self, study: ReaderStudy, everyone: Verdicts, weights_bc: FloatArray) -> None:
        truth, counted = study.truth_c, everyone.counted_oc
        paired = counted & counted[-1]
        model = np.broadcast_to(everyone.positive_oc[-1], counted.shape)
        weights = np.vstack([np.ones((1, len(truth))), weights_bc])  # row 0: all cases
        self.own = _measures(everyone.positive_oc, counted, truth, weights)
        reader = _measures(everyone.positive_oc, paired, truth, weights)
        beside = _measures(model, paired, truth, weights)
        self.difference = {name: beside[name] - reader[name] for name in MEASURES}
        self.patients = [len(np.unique(study.patient_ids[cases])) for cases in (truth, ~truth)]

    def _summary(
        self, table: dict[str, FloatArray], rows: list[int], measure: str, low: float
    ) -> MeanOverReaders:
        """Of the observers at `rows`; `low` is the least that a value can be."""
        patients = {"sensitivity": self.patients[0], "specificity": self.patients[1]}
        values = table[measure][:, rows]
        return mean_over_readers(
            values[0],
            values[1:],
            num_patients=patients.get(measure, min(self.patients)),
            bounds=(low, 1.0),
        )

    def mean(self, rows: list[int], measure: str) -> MeanOverReaders:
        return self._summary(self.own, rows, measure, 0.0)

    def mean_difference(self, rows: list[int], measure: str) -> MeanOverReaders:
        return self._summary(self.difference, rows, measure, -1.0)


def _measures(
    positive_oc: BoolArray, counted_oc: BoolArray, truth_c: BoolArray, weights_bc: FloatArray
) -> dict[str, FloatArray]:
    """(B, O) of each measure: weighted shares, for all resamples and observers at once."""

    def share(right_oc: BoolArray, of_oc: BoolArray) -> FloatArray:
        found: FloatArray = weights_bc @ (right_oc & of_oc).T.astype(np.float64)
        found /= weights_bc @ of_oc.T.astype(np.float64)
        return found

    sensitivity = share(positive_oc, counted_oc & truth_c)
    specificity = share(~positive_oc, counted_oc & ~truth_c)
    return dict(
        zip(MEASURES, (sensitivity, specificity, (sensitivity + specificity) / 2), strict=True)
    )


def _group_reports(study: ReaderStudy, rated: _Rated) -> tuple[GroupReport, ...]:
    names = sorted(set(study.groups.tolist()))
    rows = {name: np.flatnonzero(study.groups == name).tolist() for name in names}
    found = {(n, m): rated.mean_difference(rows[n], m) for n in names for m in MEASURES}
    adjusted = {
        m: dict(zip(names, holm([found[n, m].p_value for n in names]), strict=True))
        for m in MEASURES
    }
    reports = []
    for name in names:
        rates = {measure: rated.mean(rows[name], measure).interval for measure in MEASURES}
        differences = {
            measure: Difference(
                interval=found[name, measure].interval,
                p_value=found[name, measure].p_value,
                p_holm=adjusted[measure][name],
                over_readers=found[name, measure].over_readers,
            )
            for measure in MEASURES
        }
        reports.append(
            GroupReport(
                group=name,
                num_readers=len(rows[name]),
                rates=rates,
                model_minus_group=differences,
                matched=_matched(study, rates["specificity"].value),
            )
        )
    return tuple(reports)


def _matched(study: ReaderStudy, specificity: float) -> MatchedPoint:
    """Best sensitivity among the model's thresholds that are at least so specific.

    A case without a score, where the model could not tell, is no part of the curve.
    """
    scored = np.isfinite(study.score_c)
    false_positive, true_positive, thresholds = roc_curve(
        study.truth_c[scored], study.score_c[scored]
    )
    # 1e-12: a specificity of 0.9 may be written 0.8999999999999999
    best = int(np.flatnonzero(1 - false_positive >= specificity - 1e-12)[-1])
    threshold = float(thresholds[best])
    return MatchedPoint(
        sensitivity=float(true_positive[best]),
        specificity=float(1 - false_positive[best]),
        threshold=threshold if np.isfinite(threshold) else None,
    )
