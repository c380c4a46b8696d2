"""Patient-disjoint splits: the same patient, salt and shares always give the same split."""

from __future__ import annotations

import hashlib

from train.data.index import SPLITS

__all__ = ["draw_split", "place_of"]


def place_of(patient_id: str, *, salt: str) -> float:
    """A patient's place in [0, 1], from the hash of `salt`, a zero byte and the id."""
    digest = hashlib.sha256(f"{salt}\0{patient_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def draw_split(patient_id: str, *, salt: str, shares: tuple[float, float, float]) -> str:
    """The split of one patient, from its place.

    Args:
        patient_id: As index.csv has it (the pseudonym, where there is one).
        salt: Any text; another one draws other splits.
        shares: Of train, val and test; they sum to 1.
    """
    place = place_of(patient_id, salt=salt)
    upper = 0.0
    for name, share in zip(SPLITS, shares, strict=True):
        upper += share
        if place < upper:
            return name
    # The shares sum to 1 up to rounding: the last one that is not empty takes what is left.
    return [name for name, share in zip(SPLITS, shares, strict=True) if share > 0][-1]
