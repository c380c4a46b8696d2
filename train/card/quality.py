"""The quality gate on a data set: reject against good, and who is refused.

Where a data set has `quality_grade` (0 good, 1 usable, 2 reject, as EyeQ has it), reject stands
against good and usable is left to the table of shares; elsewhere `gradable` 0 stands against 1.
A picture that the cheap gate refused is more ungradable than any that it let pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.metrics import Interval
from train.card import metrics
from train.card.cells import Verdicts
from train.card.config import CardConfig
from train.card.measures import Measure, measured, widened
from train.card.metrics import Scored
from train.card.subgroups import QUALITY
from train.card.tables import EyeRow
from train.labels import GRADABLE
from train.tasks.statistics import interval_of

__all__ = ["QualityReport", "RefusedShare", "quality_of"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
_WORDS = {0.0: "good", 1.0: "usable", 2.0: "reject"}


@dataclass(frozen=True, kw_only=True)
class RefusedShare:
    """How many eyes of one quality are refused.

    Attributes:
        quality: in words; 'all' for the whole data set.
        num_eyes: of that quality.
        num_refused: by the gate or by the model.
        num_gated: of them by the cheap gate.
        share: refused, with its interval over patients; None for fewer than two patients.
    """

    quality: str
    num_eyes: int
    num_refused: int
    num_gated: int
    share: Interval | None


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """The gate of one model on one data set.

    Attributes:
        dataset: name.
        model: name.
        against: what the AUROC separates, in words; '' where no quality is known.
        auroc: of ungradability; None where no quality is known.
        shares: by quality, then of all eyes.
    """

    dataset: str
    model: str
    against: str
    auroc: Measure | None
    shares: tuple[RefusedShare, ...]


def quality_of(verdicts: Verdicts, config: CardConfig) -> QualityReport:
    """The gate of one model on one data set."""
    against, truth = _ungradable(verdicts.eyes)
    words = np.array([_word(eye) for eye in verdicts.eyes], np.str_)
    shares = [
        _share(verdicts, name, words == name, config) for name in sorted(set(words.tolist()) - {""})
    ]
    shares.append(_share(verdicts, "all", np.ones(len(words), np.bool_), config))
    found = None
    if against:
        # Above 1: no probability of a picture that passed reaches it.
        doubt = np.where(verdicts.gated, 2.0, 1.0 - verdicts.gradable_probability)
        eyes = _scored(verdicts, np.isfinite(truth) & np.isfinite(doubt), truth == 1, doubt)
        found = measured("auroc", eyes, metrics.auroc, config)
    return QualityReport(
        dataset=verdicts.dataset,
        model=verdicts.model,
        against=against,
        auroc=found,
        shares=tuple(shares),
    )


def _ungradable(eyes: tuple[EyeRow, ...]) -> tuple[str, FloatArray]:
    """What is held against what, and (N,) 1 ungradable, 0 gradable, NaN neither or unknown."""
    if any(QUALITY in eye.values for eye in eyes):
        codes = {0.0: 0.0, 2.0: 1.0}
        values = [codes.get(eye.values.get(QUALITY, np.nan), np.nan) for eye in eyes]
        return "reject against good", np.array(values)
    if any(GRADABLE in eye.values for eye in eyes):
        values = [1.0 - eye.values.get(GRADABLE, np.nan) for eye in eyes]
        return "ungradable against gradable", np.array(values)
    return "", np.full(len(eyes), np.nan)


def _word(eye: EyeRow) -> str:
    if QUALITY in eye.values:
        return _WORDS.get(eye.values[QUALITY], "")
    if GRADABLE in eye.values:
        return "gradable" if eye.values[GRADABLE] else "ungradable"
    return ""


def _share(verdicts: Verdicts, quality: str, among: BoolArray, config: CardConfig) -> RefusedShare:
    calls = _scored(verdicts, among, np.ones(len(among), np.bool_), verdicts.refused.astype(float))
    interval = None
    if calls.num_patients > 1:
        interval = interval_of(
            metrics.sensitivity(calls),
            calls.num_patients,
            num_draws=config.num_draws,
            seed=config.seed,
            level=config.level,
        )
        interval = widened(interval, int(among.sum()))
    return RefusedShare(
        quality=quality,
        num_eyes=int(among.sum()),
        num_refused=int((verdicts.refused & among).sum()),
        num_gated=int((verdicts.gated & among).sum()),
        share=interval,
    )


def _scored(verdicts: Verdicts, among: BoolArray, truth: BoolArray, scores: FloatArray) -> Scored:
    ids = np.array([eye.patient_id for eye in verdicts.eyes], np.str_)[among]
    distinct, patients = np.unique(ids, return_inverse=True)
    return Scored(
        truth=truth[among],
        scores=scores[among],
        patients=patients.astype(np.int64).reshape(-1),
        num_patients=len(distinct),
    )
