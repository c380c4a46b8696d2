"""What reading a published set gives: records, what is left out, and which tables were used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import ConfigError, DataError

__all__ = ["LeftOut", "MaskSource", "ReadOptions", "Reading", "Record", "raise_problems"]

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the user adds to a set.

    Attributes:
        quality_tables: EyeQ's CSV files; only EyePACS has them.
        prepared: the folder is a reduced copy with one index.csv.
    """

    quality_tables: tuple[Path, ...] = ()
    prepared: bool = False

    def refuse_quality_tables(self, name: str) -> None:
        """Say no where a set cannot use them.

        Raises:
            ConfigError: some are given.
        """
        if self.quality_tables:
            raise ConfigError(f"--eyeq belongs to eyepacs, not to {name}; leave it out")


@dataclass(frozen=True, kw_only=True)
class MaskSource:
    """Where a mask's pixels come from.

    Attributes:
        files: one file, or several whose union is the mask.
        inside: pixel values that are inside; None = the file has two values at most, 0 is
            outside and the other inside.
        outside: pixel values that are outside, where `inside` is given.
    """

    files: tuple[Path, ...]
    inside: frozenset[int] | None = None
    outside: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Record:
    """One photograph of a set.

    Attributes:
        name: unique in the set; the stem of the file that is written.
        image: the photograph.
        where: the place in the set that names it, for messages.
        patient_id: None where the set does not say.
        eye: OD, OS, or "" where the set does not say.
        site: written as the index's site; the camera follows a slash where it is known.
        labels: of the vocabulary; what is absent is unknown.
        masks: by mask column of the index, or a name of `vocabulary.BESIDE`.
        split: the set's own, or None.
    """

    name: str
    image: Path
    where: str
    site: str
    patient_id: str | None = None
    eye: str = ""
    labels: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, MaskSource] = field(default_factory=dict)
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A row or file of the set that is not in the data set, and why."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A set as read.

    Attributes:
        records: in the order of the set.
        left_out: rows and files that give no record.
        tables: label tables that were read.
        notes: what a user has to know.
    """

    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...] = ()
    tables: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a set without a photograph, and two records of one name.

        Raises:
            DataError: either of them.
        """
        if not self.records:
            raise DataError("the folder gives no photograph; check SRC against docs/importing.md")
        first: dict[str, Record] = {}
        twice = [r for r in self.records if first.setdefault(r.name, r) is not r]
        raise_problems(
            [f"{r.where}: '{r.name}' is there already ({first[r.name].where})" for r in twice],
            "give every photograph one row",
        )


def raise_problems(problems: Sequence[str], remedy: str) -> None:
    """Stop at anything that was found, the first ten of it in words.

    Raises:
        DataError: `problems` is not empty.
    """
    if problems:
        more = len(problems) - _SHOWN
        tail = f"\n({more} more)" if more > 0 else ""
        raise DataError("\n".join(problems[:_SHOWN]) + tail + f"\n{remedy}")
