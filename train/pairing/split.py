"""Patient-disjoint splits: the same patient, salt and shares always give the same split."""

from __future__ import annotations

import hashlib

from train.data.index import SPLITS

__all__ = ["draw_split"]


def draw_split(patient_id: str, *, salt: str, shares: tuple[float, float, float]) -> str:
    """The split of one patient, from the hash of `salt`, a zero byte and the id.

    Args:
        patient_id: As index.csv has it (the pseudonym, where there is one).
        salt: Any text; another one draws other splits.
        shares: Of train, val and test; they sum to 1.
    """
    digest = hashlib.sha256(f"{salt}\0{patient_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    upper = 0.0
    for name, share in zip(SPLITS, shares, strict=True):
        upper += share
        if place < upper:
            return name
    # The shares sum to 1 up to rounding: the last one that is not empty takes what is left.
    return [name for name, share in zip(SPLITS, shares, strict=True) if share > 0][-1]
