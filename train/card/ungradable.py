"""Sensitivity and specificity with refused eyes counted three ways.

gradable_only     refused eyes are left out: what a reader of the answers alone sees
ungradable_refer  a refused eye is referred: right where it is diseased
worst_case        a refused eye is wrong: missed where diseased, referred where healthy
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.card.cells import Cell, score
from train.card.config import CardConfig
from train.card.measures import NO_THRESHOLD, RATES, Measure, rate

__all__ = ["WAYS", "UngradableCounts", "count_ungradable"]

WAYS = ("gradable_only", "ungradable_refer", "worst_case")


@dataclass(frozen=True, kw_only=True)
class UngradableCounts:
    """One way of counting.

    Attributes:
        way: of `WAYS`.
        num_eyes: counted.
        sensitivity: at the locked operating point.
        specificity: likewise.
    """

    way: str
    num_eyes: int
    sensitivity: Measure
    specificity: Measure


def count_ungradable(cell: Cell, config: CardConfig) -> tuple[UngradableCounts, ...]:
    """All three ways."""
    return tuple(_count(cell, way, config) for way in WAYS)


def _count(cell: Cell, way: str, config: CardConfig) -> UngradableCounts:
    counted = ~cell.refused if way == "gradable_only" else np.ones(len(cell.truth), np.bool_)
    if cell.threshold is None:
        pair = [Measure(name=name, interval=None, reason=NO_THRESHOLD) for name in RATES]
    else:
        called = np.where(cell.refused, False, cell.probability >= cell.threshold)
        if way == "ungradable_refer":
            called = called | cell.refused
        elif way == "worst_case":
            called = np.where(cell.refused, ~cell.truth, called)
        calls = score(cell, counted, called.astype(np.float64))
        pair = [rate(name, calls, config) for name in RATES]
    return UngradableCounts(
        way=way, num_eyes=int(counted.sum()), sensitivity=pair[0], specificity=pair[1]
    )
