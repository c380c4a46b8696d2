"""Where a data set comes from, in words that every later stage repeats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError

__all__ = ["DataOrigin", "read_origin"]


@dataclass(frozen=True, kw_only=True)
class DataOrigin:
    """Whether a data set is synthetic, and its SHA-256 over rows and files."""

    synthetic: bool
    fingerprint: str

    @property
    def sentence(self) -> str:
        """One line for people; says 'synthetic' where it is."""
        if self.synthetic:
            return "synthetic phantom eyes, no patients"
        return "images given by the user; not declared synthetic"


def read_origin(root: Path, *, fingerprint: str) -> DataOrigin:
    """Read `dataset.json` of a data set; a set without one is not declared synthetic.

    Raises:
        DataError: dataset.json is there and cannot be understood.
    """
    path = root / "dataset.json"
    if not path.exists():
        return DataOrigin(synthetic=False, fingerprint=fingerprint)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"dataset.json cannot be read: {error}; repair or remove it") from error
    synthetic = record.get("synthetic") if isinstance(record, dict) else None
    if not isinstance(synthetic, bool):
        raise DataError(
            f"dataset.json says synthetic = {synthetic!r}; it must be true or false: repair it"
        )
    return DataOrigin(synthetic=synthetic, fingerprint=fingerprint)
