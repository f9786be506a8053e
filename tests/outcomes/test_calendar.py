"""Sessions, label ends and closes of an exchange as the image's table says them, against exchange_calendars itself."""

from __future__ import annotations

import exchange_calendars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary_outcomes.calendar import OutsideCalendar, PlainDays, canonical_time
from fiduciary_outcomes.document import Refused
from tests.outcomes.worlds import PATIENT, at, calendars

XNYS = exchange_calendars.get_calendar("XNYS", start="2016-01-01", end="2026-06-30")
CLOSES = [close.timestamp() for close in XNYS.closes]
DAYS = st.dates(min_value=XNYS.first_session.date(), max_value=XNYS.last_session.date())


@PATIENT
@given(DAYS, st.integers(0, 20))
def test_sessions_ahead_and_their_closes(day: object, steps: int) -> None:
    ours = calendars().get("XNYS")
    session = XNYS.date_to_session(str(day), direction="previous")
    assert ours.session_of(str(day)) == f"{session:%Y-%m-%d}"
    position = XNYS.sessions.get_loc(session)
    if position + steps < len(XNYS.sessions):
        ahead = XNYS.sessions[position + steps]
        assert ours.ahead(ours.session_of(str(day)), steps) == f"{ahead:%Y-%m-%d}"
        assert ours.ends(f"{ahead:%Y-%m-%d}") == XNYS.closes[ahead].timestamp()


@PATIENT
@given(st.floats(at("2016-02-01"), at("2026-06-01")))
def test_the_last_session_that_ended(now: float) -> None:
    ended = sum(close <= now for close in CLOSES)
    assert calendars().get("XNYS").last_ended(now) == f"{XNYS.sessions[ended - 1]:%Y-%m-%d}"


@pytest.mark.parametrize(
    ("time", "session"),
    [
        ("2018-01-12", "2018-01-12"),
        ("2018-01-13", "2018-01-12"),
        ("2018-01-15", "2018-01-12"),  # Martin Luther King Day
        ("2018-01-16T03:00:00Z", "2018-01-12"),  # still Monday evening in New York
        ("2018-01-16T05:00:00Z", "2018-01-16"),
        ("2018-11-23", "2018-11-23"),
    ],
)
def test_to_which_session_a_decision_belongs(time: str, session: str) -> None:
    assert calendars().get("XNYS").session_of(time) == session


def test_an_early_close_and_summer_time() -> None:
    ours = calendars().get("XNYS")
    assert ours.ends("2018-11-23") == at("2018-11-23", "18:00:00")
    assert ours.ends("2018-07-02") == at("2018-07-02", "20:00:00")
    assert ours.ends("2018-12-03") == at("2018-12-03", "21:00:00")


def test_outside_of_the_table() -> None:
    ours = calendars().get("XNYS")
    for ask in (
        lambda: ours.session_of("2015-12-31"),
        lambda: ours.session_of("2090-01-01"),
        lambda: ours.ahead("2016-01-04", -1),
        lambda: ours.last_ended(at("2090-01-01")),
    ):
        with pytest.raises(OutsideCalendar, match=r"the calendar of XNYS covers .*; run a newer image"):
            ask()
    with pytest.raises(Refused, match="this scorer knows 24/7, XNYS"):
        calendars().get("XXXX")


def test_plain_days() -> None:
    days = PlainDays()
    assert days.session_of("2018-01-13T23:00:00Z") == "2018-01-13"
    assert days.ahead("2018-02-28", 1) == "2018-03-01"
    assert days.ends("2018-01-13") == at("2018-01-14")
    assert (days.last_ended(at("2018-01-14")), days.last_ended(at("2018-01-14") - 1)) == ("2018-01-13", "2018-01-12")


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("2018-01-02", "2018-01-02"),
        ("2018-01-02T00:00:00Z", "2018-01-02"),
        ("2018-01-02T00:00:00", "2018-01-02"),
        ("2018-01-02T01:00:00+01:00", "2018-01-02"),
        ("2018-01-02T21:00:00.5+00:00", "2018-01-02T21:00:00.500000Z"),
        ("20180102", "2018-01-02"),
    ],
)
def test_one_spelling_for_one_instant(written: str, canonical: str) -> None:
    assert canonical_time(written) == canonical
