"""Splits by patient: the set's own where it has some, else drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.errors import ConfigError, DataError
from train.pairing.split import place_of

__all__ = ["SplitRule", "assign_splits"]


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How patients are drawn.

    Attributes:
        seed: another one draws others.
        val_share: of the patients, for val.
        test_share: of the patients, for test, where the set has no test split of its own.
    """

    seed: int = 0
    val_share: float = 0.15
    test_share: float = 0.15

    def __post_init__(self) -> None:
        """Refuse shares that leave nobody to train on."""
        shares = (self.val_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError(f"shares {shares} of val and test must be 0 or more and below 1")


def assign_splits(
    official: Sequence[tuple[str, str | None]], rule: SplitRule
) -> tuple[dict[str, str], str]:
    """The split of each patient.

    A set that names train and test only gives val a share of its train patients. A set that
    names nothing but train has no test part here: its patients are drawn like those of a set
    without splits.

    Args:
        official: (patient, the set's own split or None) of each row.
        rule: of the draw.

    Returns:
        Patient -> train, val or test; and in words how.

    Raises:
        DataError: the set has a patient in two splits.
    """
    own = _own(official)
    named = set(own.values())
    if named <= {None, "train"}:
        return _drawn(own, rule, ("test", rule.test_share), ("val", rule.val_share)), (
            f"drawn by patient with seed {rule.seed}"
        )
    if None in named:
        raise DataError("some rows have a split and some have none; give all of them one")
    splits = {patient: split for patient, split in own.items() if split is not None}
    if "val" in named or "train" not in named:
        return splits, "the set's own"
    train = [patient for patient, split in splits.items() if split == "train"]
    drawn = _drawn(train, rule, ("val", rule.val_share))
    return {**splits, **drawn}, (
        f"the set's own test; val drawn by patient from its train with seed {rule.seed}"
    )


def _own(official: Sequence[tuple[str, str | None]]) -> Mapping[str, str | None]:
    own: dict[str, str | None] = {}
    for patient, split in official:
        if own.setdefault(patient, split) != split:
            raise DataError(
                f"the set has patient '{patient}' in '{own[patient]}' and in '{split}'; no split "
                "by patient can keep both, correct the table"
            )
    return own


def _drawn(patients: Iterable[str], rule: SplitRule, *parts: tuple[str, float]) -> dict[str, str]:
    """Patients by their hash: the first ones to the first part, what is left to train.

    Every part with a share gets one patient at least, as long as train keeps one.
    """
    salt = f"edge-screen import {rule.seed}"
    order = sorted(patients, key=lambda patient: (place_of(patient, salt=salt), patient))
    splits = dict.fromkeys(order, "train")
    start = 0
    for name, share in parts:
        count = max(round(share * len(order)), 1 if share > 0 else 0)
        count = max(0, min(count, len(order) - start - 1))
        splits.update(dict.fromkeys(order[start : start + count], name))
        start += count
    return splits
