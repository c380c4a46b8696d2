"""One content, one row: repeats of a photograph are found by SHA-256 and never guessed about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from train.imports.records import LeftOut, Record

__all__ = ["Duplicates", "settle_duplicates"]


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What became of photographs that are there more than once.

    Attributes:
        kept: records that stay, in their order.
        left_out: records that do not.
        merged: name of a record that stays -> names of its copies that do not.
    """

    kept: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]
    merged: Mapping[str, tuple[str, ...]]


def settle_duplicates(records: Sequence[Record], sha256: Mapping[str, str]) -> Duplicates:
    """Keep the first of copies that agree; refuse all of those that contradict each other.

    Args:
        records: of the set.
        sha256: name of a record -> SHA-256 of its photograph's file.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[sha256[record.name]].append(record)
    gone: dict[str, LeftOut] = {}
    merged: dict[str, tuple[str, ...]] = {}
    for first, *copies in groups.values():
        if not copies:
            continue
        conflict = _conflict([first, *copies])
        if conflict is None:
            merged[first.name] = tuple(copy.name for copy in copies)
        for record in copies if conflict is None else [first, *copies]:
            others = ", ".join(r.name for r in (first, *copies) if r is not record)
            reason = f"same content as {others}" + (f", {conflict}" if conflict else "")
            gone[record.name] = LeftOut(what=f"{record.name} ({record.where})", reason=reason)
    return Duplicates(
        kept=tuple(record for record in records if record.name not in gone),
        left_out=tuple(gone.values()),
        merged=merged,
    )


def _conflict(group: Sequence[Record]) -> str | None:
    """In what copies of one photograph contradict each other; what is unknown does not."""
    if len({record.patient_id for record in group} - {None}) > 1:
        return "under two patients"
    if len({record.eye for record in group} - {""}) > 1:
        return "as two eyes"
    if len({record.split for record in group}) > 1:
        return "in two of the set's own splits"
    for name in sorted({name for record in group for name in record.labels}):
        if len({record.labels[name] for record in group if name in record.labels}) > 1:
            return f"with two values of {name}"
    return None
