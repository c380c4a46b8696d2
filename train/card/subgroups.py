"""The same cell by subgroup, small ones suppressed with the reason, the worst one named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.card import metrics
from train.card.cells import Cell, score
from train.card.config import CardConfig
from train.card.measures import NO_THRESHOLD, RATES, Measure, measured, rate
from train.card.tables import EyeRow

__all__ = ["AGE", "AXES", "QUALITY", "SEX", "Subgroup", "group_of", "subgroups_of", "worst_of"]

# Labels that make subgroups, as `edge-screen data import` names them, besides eye and site.
AGE, SEX, QUALITY = "age_value", "sex_female", "quality_grade"
AXES = ("age", "sex", "eye", "quality", "site", "camera")
_SEX_WORDS = {0.0: "male", 1.0: "female"}
_QUALITY_WORDS = {0.0: "good", 1.0: "usable", 2.0: "reject"}


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Some of a cell's answered eyes.

    Attributes:
        axis: one of `AXES`.
        group: in words.
        num_eyes: answered eyes.
        num_patients: their patients.
        num_positive: positive eyes among them.
        suppressed: why there are no numbers; '' where there are.
        measures: AUROC, then sensitivity and specificity at the locked operating point.
    """

    axis: str
    group: str
    num_eyes: int
    num_patients: int
    num_positive: int
    suppressed: str
    measures: tuple[Measure, ...]


def group_of(eye: EyeRow, config: CardConfig) -> Mapping[str, str]:
    """Axis -> group of one eye; an axis that is unknown of it is left out.

    A site is written as in the index; a camera follows it after a slash.
    """
    found = {"eye": eye.eye} if eye.eye else {}
    if AGE in eye.values:
        found["age"] = _age_band(eye.values[AGE], config.age_edges)
    if eye.values.get(SEX) in _SEX_WORDS:
        found["sex"] = _SEX_WORDS[eye.values[SEX]]
    if eye.values.get(QUALITY) in _QUALITY_WORDS:
        found["quality"] = _QUALITY_WORDS[eye.values[QUALITY]]
    site, _, camera = eye.site.partition("/")
    if site:
        found["site"] = site
    if camera:
        found["camera"] = camera
    return found


def subgroups_of(cell: Cell, config: CardConfig) -> tuple[Subgroup, ...]:
    """Every group of every axis that has at least two groups among the answered eyes."""
    groups = [group_of(eye, config) for eye in cell.eyes]
    found = []
    for axis in AXES:
        names = np.array([one.get(axis, "") for one in groups], np.str_)
        shown = sorted(set(names[~cell.refused].tolist()) - {""})
        if len(shown) > 1:
            found += [
                _subgroup(cell, axis, one, (names == one) & ~cell.refused, config) for one in shown
            ]
    return tuple(found)


def worst_of(groups: tuple[Subgroup, ...]) -> Subgroup | None:
    """The group with the lowest AUROC among those that have one."""
    scored = [
        (one.measures[0].interval.value, place)
        for place, one in enumerate(groups)
        if one.measures and one.measures[0].interval is not None
    ]
    return groups[min(scored)[1]] if scored else None


def _subgroup(
    cell: Cell, axis: str, group: str, among: npt.NDArray[np.bool_], config: CardConfig
) -> Subgroup:
    eyes = score(cell, among)
    num_positive = int(eyes.truth.sum())
    reason = ""
    if eyes.num_patients < config.min_patients:
        reason = f"suppressed: {eyes.num_patients} patients, fewer than {config.min_patients}"
    elif num_positive < config.min_positives:
        reason = f"suppressed: {num_positive} positive eyes, fewer than {config.min_positives}"
    measures: list[Measure] = []
    if not reason:
        measures.append(measured("auroc", eyes, metrics.auroc, config))
        for name in RATES:
            if cell.threshold is None:
                measures.append(Measure(name=name, interval=None, reason=NO_THRESHOLD))
            else:
                measures.append(rate(name, eyes.called(cell.threshold), config))
    return Subgroup(
        axis=axis,
        group=group,
        num_eyes=len(eyes.truth),
        num_patients=eyes.num_patients,
        num_positive=num_positive,
        suppressed=reason,
        measures=tuple(measures),
    )


def _age_band(years: float, edges: tuple[float, ...]) -> str:
    place = int(np.searchsorted(edges, years, side="right"))
    if place == 0:
        return f"under {edges[0]:g}" if edges else "any age"
    if place == len(edges):
        return f"{edges[-1]:g} and over"
    return f"{edges[place - 1]:g} to under {edges[place]:g}"
