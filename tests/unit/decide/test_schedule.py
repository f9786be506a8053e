"""Ticks in time zones with daylight saving, on exchange days, and after an absence."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary.api.training import Schedule
from fiduciary.decide.calendar import CalendarUnknown, is_session
from fiduciary.decide.schedule import ScheduleImpossible, newest_tick, next_tick

XNYS: dict[str, Any] = {
    "timeZone": "America/New_York",
    "weekmask": "1111100",
    "open": "09:30",
    "close": "16:00",
    "holidays": ["2026-11-26", "2026-12-25"],
    "special": {"2026-11-27": ["09:30", "13:00"]},
    "from": "2024-01-02",
    "to": "2027-11-24",
}
CALENDARS = {"XNYS": XNYS}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def nightly(zone: str = "America/New_York", cron: str = "0 22 * * 1-5") -> Schedule:
    return Schedule(cron=cron, time_zone=zone)


def test_next_tick_is_local_time() -> None:
    assert next_tick(nightly(), None, {}, utc("2026-07-01T12:00")) == utc("2026-07-02T02:00")  # 22:00 EDT
    assert next_tick(nightly(), None, {}, utc("2026-12-01T12:00")) == utc("2026-12-02T03:00")  # 22:00 EST


def test_a_tick_at_this_very_moment_has_happened() -> None:
    tick = utc("2026-07-02T02:00")
    assert newest_tick(nightly(), None, {}, tick - timedelta(hours=1), tick) == tick
    assert next_tick(nightly(), None, {}, tick) == utc("2026-07-03T02:00")


def test_an_hour_that_does_not_exist_ticks_once_after_it() -> None:
    at_half_past_two = Schedule(cron="30 2 * * *", time_zone="America/New_York")
    tick = next_tick(at_half_past_two, None, {}, utc("2026-03-08T05:00"))  # clocks go from 02:00 to 03:00
    assert tick == utc("2026-03-08T07:00")
    following = next_tick(at_half_past_two, None, {}, tick)
    assert following == utc("2026-03-09T06:30")


def test_an_hour_that_happens_twice_ticks_once() -> None:
    at_half_past_one = Schedule(cron="30 1 * * *", time_zone="America/New_York")
    first = next_tick(at_half_past_one, None, {}, utc("2026-11-01T04:00"))
    assert next_tick(at_half_past_one, None, {}, first).date() == date(2026, 11, 2)


def test_days_without_a_session_are_left_out() -> None:
    wednesday = utc("2026-11-26T03:30")  # 22:30 on the eve of Thanksgiving
    assert next_tick(nightly(), "XNYS", CALENDARS, wednesday) == utc("2026-11-28T03:00")  # Friday 22:00
    assert newest_tick(nightly(), "XNYS", CALENDARS, wednesday, utc("2026-11-27T12:00")) is None


def test_the_exchange_day_counts_not_the_schedules() -> None:
    """22:00 in New York is the next day in Tokyo; whether New York traded is asked of New York's date."""
    tokyo = Schedule(cron="0 12 * * *", time_zone="Asia/Tokyo")
    assert next_tick(tokyo, "XNYS", CALENDARS, utc("2026-11-26T12:00")) == utc("2026-11-28T03:00")


def test_missed_ticks_collapse_into_the_newest() -> None:
    week_ago = utc("2026-06-22T12:00")
    assert newest_tick(nightly(), None, {}, week_ago, utc("2026-06-27T12:00")) == utc("2026-06-27T02:00")
    assert newest_tick(nightly(), None, {}, utc("2026-06-27T02:00"), utc("2026-06-27T12:00")) is None


def test_ticks_of_long_ago_are_forgotten() -> None:
    yearly = Schedule(cron="0 0 1 1 *")
    assert newest_tick(yearly, None, {}, utc("2020-01-01T00:00"), utc("2026-06-01T00:00")) is None


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (Schedule(cron="0 22 * * *", time_zone="Mars/Olympus"), "Mars/Olympus"),
        (Schedule(cron="0 0 30 2 *"), "0 0 30 2"),
    ],
)
def test_a_schedule_that_cannot_be_followed_says_why(schedule: Schedule, says: str) -> None:
    with pytest.raises(ScheduleImpossible, match=says.replace("*", r"\*")):
        next_tick(schedule, None, {}, utc("2026-06-01T00:00"))


def test_an_unknown_exchange_and_an_ended_table_are_named() -> None:
    with pytest.raises(CalendarUnknown, match=r"XLON.*knows XNYS"):
        next_tick(nightly(), "XLON", CALENDARS, utc("2026-06-01T00:00"))
    with pytest.raises(CalendarUnknown, match="2024-01-02 to 2027-11-24"):
        next_tick(nightly(), "XNYS", CALENDARS, utc("2030-01-01T00:00"))


@pytest.mark.parametrize(
    ("day", "open_"),
    [("2026-11-25", True), ("2026-11-26", False), ("2026-11-27", True), ("2026-11-28", False), ("2024-01-02", True)],
)
def test_sessions(day: str, open_: bool) -> None:
    assert is_session(CALENDARS, "XNYS", date.fromisoformat(day)) is open_
    assert is_session({}, "24/7", date.fromisoformat(day))


Moments = st.datetimes(datetime(2025, 1, 1), datetime(2027, 6, 1), timezones=st.just(UTC))
Crons = st.sampled_from(["0 22 * * 1-5", "*/5 * * * *", "30 2 * * *", "15 1 1 * *", "* * * * *"])
Zones = st.sampled_from(["UTC", "America/New_York", "Europe/Berlin", "Asia/Tokyo", "Australia/Lord_Howe"])


@given(Crons, Zones, Moments)
def test_the_next_tick_is_the_newest_once_it_has_come(cron: str, zone: str, now: datetime) -> None:
    schedule = Schedule(cron=cron, time_zone=zone)
    tick = next_tick(schedule, None, {}, now)
    assert tick > now
    assert newest_tick(schedule, None, {}, now, tick) == tick
    assert newest_tick(schedule, None, {}, tick, tick) is None
