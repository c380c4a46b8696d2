"""Acquisition times: what is read, what is refused, and that forms do not mix."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import DataError
from train.pairing.times import TimeForm, parse_moment, require_one_form


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)))
def test_a_local_time_is_read_back(moment):
    parsed = parse_moment(moment.isoformat())
    assert parsed.form is TimeForm.LOCAL
    assert parsed.day == moment.date()
    assert datetime(1970, 1, 1) + timedelta(microseconds=parsed.instant_us) == moment


@given(
    st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2050, 1, 1)),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_zoned_time_keeps_its_instant_and_its_own_day(moment, minutes):
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    parsed = parse_moment(zoned.isoformat())
    assert parsed.form is TimeForm.ZONED
    assert parsed.day == moment.date()  # as written, not the day in Greenwich
    assert parsed.instant_us == round(zoned.timestamp() * 1e6)


def test_the_accepted_forms():
    assert parse_moment("2026-01-05").day == date(2026, 1, 5)
    assert parse_moment("2026-01-05").form is TimeForm.DAY
    assert parse_moment("2026-01-05 09:30").form is TimeForm.LOCAL
    noon = parse_moment("2026-01-05T12:00:00Z").instant_us
    assert noon == parse_moment("2026-01-05T14:00:00.0+0200").instant_us


@pytest.mark.parametrize(
    "text",
    [
        *("", "5.1.2026", "2026-1-5", "2026-02-30", "2026-01-05T25:00", "2026-01-05T09:61"),
        *("2026-01-05T09", "2026-01-05T09:30 ", "2026-01-05T09:30+15:00", "20260105T0930"),
        *(
            "2026-01-05T09:30:00.1234567",
            "2026-01-05T09:30z",
            "\uff12\uff10\uff12\uff16-01-05",
            "0000-01-01",
        ),
    ],
)
def test_everything_else_is_refused(text):
    assert parse_moment(text) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-01-05T09:30", "2026-01-05T09:30Z"),
        ("2026-01-05", "2026-01-05T09:30"),
        ("2026-01-05T09:30+01:00", "2026-01-05"),
    ],
)
def test_two_forms_do_not_mix(first, second):
    rows = [(2, parse_moment(first)), (3, parse_moment(first)), (4, parse_moment(second))]
    with pytest.raises(DataError, match=r"row 2 has a .*row 4 has a .*one form"):
        require_one_form(rows)
    assert require_one_form(rows[:2]) is parse_moment(first).form
    assert require_one_form([]) is None
