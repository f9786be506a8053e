"""Windows: where they end, what is in them, and when they are not judged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary.decide.drift.calibrate import Grid
from fiduciary.decide.drift.state import FeatureCounts, Reading
from fiduciary.decide.drift.windows import Edge, Window, due, edges_between, windows

ROWS = Grid(rows=21, per_entity=21, length=0, least=15, most=26)
HOURS = Grid(rows=500, per_entity=500, length=3_600_000, least=250, most=750)
START = Edge(None, -1)


def at(rows: int, time: int | None = None, missing: int = 0) -> Reading:
    """All rows in one bin, one reading a second."""
    return Reading(1000 * rows if time is None else time, rows, (FeatureCounts("f", (rows - missing, 0), missing),))


def closed(grid: Grid, edge: Edge, *readings: Reading) -> list[Window | Edge]:
    return list(windows(grid, edge, readings))


def test_a_window_of_rows_ends_where_the_counter_passes_its_multiple_and_what_is_over_belongs_to_the_next() -> None:
    one, two = closed(ROWS, START, at(5), at(20), at(23), at(41), at(42))
    assert isinstance(one, Window)
    assert isinstance(two, Window)
    assert (one.first, one.last, one.rows, one.why) == (0, 0, 23, "")
    assert (two.first, two.last, two.rows, two.features[0].bins) == (1, 1, 19, (19, 0))


def test_windows_stand_still_whoever_looks_when() -> None:
    # seen from the second window on, the edges are the same
    first = closed(ROWS, START, at(21), at(42), at(63))
    later = closed(ROWS, Edge(at(42), 1), at(21), at(42), at(63))
    assert later == first[2:]


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        ((at(21), at(84)), "no counts at the ends of 3 windows in a row"),
        ((at(21), at(48)), "27 rows, at most 26"),
        ((Reading(1, 21, (FeatureCounts("f", (19, 5), 0),)),), "a feature counts 24 of 21 rows"),
    ],
)
def test_what_cannot_be_compared_is_not_judged(readings: tuple[Reading, ...], said: str) -> None:
    window = closed(ROWS, START, *readings)[-1]
    assert isinstance(window, Window)
    assert said in window.why


def test_a_version_that_is_seen_late_begins_with_the_next_whole_window() -> None:
    late, begin, window = closed(ROWS, START, at(500), at(503), at(505), at(520), at(526))
    assert late == Edge(None, 22)
    assert begin == Edge(at(505), 23)
    assert isinstance(window, Window)
    assert (window.first, window.last, window.rows, window.why) == (24, 24, 21, "")
    assert closed(ROWS, Edge(None, 22), at(21), at(42), at(505)) == [begin]  # what was before does not come back


def test_a_store_that_was_lost_begins_anew() -> None:
    edge, window = closed(ROWS, Edge(at(42, 1), 1), at(3, 2), at(21, 3))
    assert edge == Edge(Reading(2, 0), -1)
    assert isinstance(window, Window)
    assert (window.last, window.rows, window.why) == (0, 21, "")


def test_a_bin_that_falls_is_told() -> None:
    before = Reading(1, 21, (FeatureCounts("f", (10, 11), 0),))
    after = Reading(2, 42, (FeatureCounts("f", (9, 30), 0),))
    (window,) = closed(ROWS, Edge(before, 0), after)
    assert isinstance(window, Window)
    assert "a counter fell" in window.why


def test_windows_of_a_length_end_on_the_wall_clock_and_begin_with_one_that_was_seen() -> None:
    hour = HOURS.length
    found = closed(HOURS, START, at(100, hour + 7), at(400, 2 * hour), at(1000, 3 * hour), at(1100, 4 * hour))
    assert found[0] == Edge(at(400, 2 * hour), 1)
    assert isinstance(found[1], Window)
    assert isinstance(found[2], Window)
    assert (found[1].first, found[1].rows, found[1].why) == (2, 600, "")
    assert found[2].why == "100 rows, at least 250 are needed"
    (gap,) = closed(HOURS, Edge(at(400, 2 * hour), 1), at(1000, 5 * hour))
    assert isinstance(gap, Window)
    assert "3 windows in a row" in gap.why
    (two,) = closed(HOURS, Edge(at(400, 2 * hour), 1), at(1000, 4 * hour))
    assert isinstance(two, Window)
    assert "2 windows in a row" in two.why  # though it holds as many rows as one
    assert closed(HOURS, Edge(at(400, 2 * hour), 1), at(400, 2 * hour)) == []  # the edge itself, read again
    assert edges_between(HOURS, 2 * hour, 4 * hour + 5) == (3 * hour, 4 * hour)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.data())
def test_any_split_of_the_readings_closes_the_same_windows_each_once(steps: list[int], data: st.DataObject) -> None:
    total, readings = 0, []
    for second, step in enumerate(steps):
        total += step
        readings.append(at(total, 1000 * second))
    whole = closed(ROWS, START, *readings)
    cut = data.draw(st.integers(0, len(readings)))
    edge, split = START, []
    # the second part repeats all that was read before, as a restart does
    for part in (readings[:cut], readings):
        for step in windows(ROWS, edge, part):
            split.append(step)
            edge = step if isinstance(step, Edge) else Edge(step.end, step.last)
    assert split == whole
    rows = [window.rows for window in whole if isinstance(window, Window)]
    assert sum(rows) <= total
    assert total - sum(rows) < ROWS.rows
    assert due(ROWS, START, [(one.at, one.rows) for one in readings]) == tuple(
        window.end.at for window in whole if isinstance(window, Window)
    )
