"""Acquisition times: ISO text with or without a zone, never both kinds in one list."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import Enum

from edge_runtime.errors import DataError

__all__ = ["Moment", "TimeForm", "parse_moment", "require_one_form"]

_ISO = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<clock>\d{2}:\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6}))?)?"
    r"(?P<zone>Z|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)


class TimeForm(str, Enum):
    """How a list writes its times. Two forms cannot be compared with each other."""

    DAY = "day only"
    LOCAL = "time without zone"
    ZONED = "time with zone"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When an image was taken.

    Attributes:
        form: How it was written.
        day: The calendar day as written, which is the day at the place of the examination.
        instant_us: Microseconds since 1970, UTC for a zoned time, wall clock otherwise, so
            that two moments of one form can be subtracted. A day alone is its midnight.
        text: As written.
    """

    form: TimeForm
    day: date
    instant_us: int
    text: str

    @classmethod
    def of_day(cls, day: date) -> Moment:
        """A day without a time."""
        midnight = datetime(day.year, day.month, day.day)
        return cls(
            form=TimeForm.DAY, day=day, instant_us=_microseconds(midnight), text=day.isoformat()
        )


def parse_moment(text: str) -> Moment | None:
    """Read `YYYY-MM-DD`, `YYYY-MM-DDTHH:MM[:SS[.ffffff]]`, and either zone `Z` or `+HH:MM`.

    Returns:
        None for anything else, and for a day or time that no calendar or clock shows.
    """
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    try:
        if match["clock"] is None:
            return Moment.of_day(date.fromisoformat(match["day"]))
        return _timed(match, text)
    except (ValueError, OverflowError):
        return None


def _timed(match: re.Match[str], text: str) -> Moment:
    fraction = (match["fraction"] or "").ljust(6, "0")
    written = f"{match['day']}T{match['clock']}:{match['second'] or '00'}.{fraction}"
    wall = datetime.fromisoformat(written)
    if match["zone"] is None:
        return Moment(
            form=TimeForm.LOCAL, day=wall.date(), instant_us=_microseconds(wall), text=text
        )
    utc = (wall - _offset(match["zone"])).replace(tzinfo=timezone.utc)
    return Moment(
        form=TimeForm.ZONED,
        day=wall.date(),
        instant_us=_microseconds(utc.replace(tzinfo=None)),
        text=text,
    )


def _offset(zone: str) -> timedelta:
    if zone == "Z":
        return timedelta(0)
    digits = zone[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 14 or minutes > 59:  # no place on earth is further from UTC
        raise ValueError(zone)
    return (1 if zone[0] == "+" else -1) * timedelta(hours=hours, minutes=minutes)


def _microseconds(wall: datetime) -> int:
    return (wall - _EPOCH) // timedelta(microseconds=1)


def require_one_form(moments: Iterable[tuple[int, Moment]]) -> TimeForm | None:
    """The one form of all times of a list; None when it has none.

    Args:
        moments: (row number, moment) of each row.

    Raises:
        DataError: Two rows are written in different forms; names both.
    """
    first: tuple[int, Moment] | None = None
    for row, moment in moments:
        if first is None:
            first = (row, moment)
        elif moment.form is not first[1].form:
            raise DataError(
                f"row {first[0]} has a {first[1].form.value}, row {row} has a "
                f"{moment.form.value}: which is nearer cannot be told; write every time of the "
                "list in one form"
            )
    return None if first is None else first[1].form
