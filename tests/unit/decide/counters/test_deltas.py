"""One stream between two edges, case by case: what is counted, and what is known not to be known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fiduciary.decide.counters.deltas import Clock, between, seen
from fiduciary.decide.counters.state import CLIENT, FAILED, FORGET, GOOD, MOST_UNITS, STARTED, Stream, Unit
from fiduciary.decide.counters.tracks import Pulse, Strand, Track, merged

CLOCK = Clock(15_000, 10_000)
SINCE, UNTIL = 600_000, 660_000
FIELDS = 9
BORN = 100.0  # s


def strand(field: int, *samples: tuple[float, float], copy: str = "a") -> Strand:
    return Strand(f"{field}{copy}", copy, (field,), tuple((round(at * 1000), value) for at, value in samples))


def pulse(*samples: tuple[float, float], kind: str = "start", copy: str = "a") -> Pulse:
    times = tuple((round(at * 1000), value) for at, value in samples)
    return Pulse(kind + copy, copy, kind, times)  # type: ignore[arg-type]


def pod(*samples: tuple[float, float], start: float | None = BORN, copy: str = "a") -> Track:
    """A unit whose started requests are these, with the start of its process beside each sample."""
    pulses = () if start is None else (pulse(*((at, start) for at, _ in samples), copy=copy),)
    return Track("pod", (strand(STARTED, *samples, copy=copy),), pulses)


def known(
    started: int, at: float = 595, start: int | None = 100_000, missed: int = 0, copy: str | None = None
) -> Stream:
    values = (started, *(0,) * (FIELDS - 1))
    name = Unit("pod", round(at * 1000), start, values, missed=missed)
    return Stream("pods", (name if copy is None else replace(name, copy=copy),))


def started(stream: Stream, track: Track | None) -> int:
    tracks = {} if track is None else {track.key: track}
    return between(stream, tracks, FIELDS, SINCE, UNTIL, CLOCK)[1].counts[STARTED]


USUAL = ((595, 10), (610, 12), (625, 15), (640, 15), (655, 20), (670, 22))


def test_what_was_counted_between_the_last_samples_before_each_edge() -> None:
    stream, delta = between(known(10), {"pod": pod(*USUAL)}, FIELDS, SINCE, UNTIL, CLOCK)
    assert delta.counts[STARTED] == 10
    assert delta.steady
    assert stream.units[0].at == 655_000
    assert stream.units[0].values[STARTED] == 20


def test_requests_between_the_samples_around_an_edge_may_lie_on_either_side() -> None:
    delta = between(known(10), {"pod": pod(*USUAL)}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (delta.opened, delta.closed) == (2, 2)
    again = pod((595, 10), (655, 20), (670, 7), start=None)
    assert between(known(10), {"pod": again}, FIELDS, SINCE, UNTIL, CLOCK)[1].closed == 7  # it began anew, from 0
    born = pod((615, 3), (655, 5), (670, 6), start=603)
    late = between(Stream("pods"), {"pod": born}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (late.counts[STARTED], late.opened, late.closed) == (5, 3, 1)
    ended = between(known(10), {"pod": pod((595, 10), (610, 12))}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (ended.opened, ended.closed) == (2, 0)


def test_what_a_new_unit_had_before_the_edge_is_known_by_its_first_sample() -> None:
    nothing = Stream("pods")
    young = between(nothing, {"pod": pod((670, 9), start=650)}, FIELDS, SINCE, UNTIL, CLOCK)
    assert (young[0].units, young[1].counts[STARTED], young[1].closed, young[1].lost) == ((), 0, 9, False)
    after = between(nothing, {"pod": pod((670, 9), start=661)}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (after.closed, after.lost) == (0, False)
    old = between(nothing, {"pod": pod((670, 9))}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (old.closed, old.lost) == (0, True)  # counting begins with the sample: nobody knows what was before
    found = between(nothing, {"pod": pod((625, 9), (655, 11), (670, 12))}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (found.counts[STARTED], found.lost) == (2, True)


def test_a_process_that_ended_just_before_the_edge_is_seen_by_the_sample_after_it() -> None:
    track = merged((pod((595, 10), (610, 12), (655, 20)), pod((670, 7), start=659.0)))[0]
    assert between(known(10), {"pod": track}, FIELDS, SINCE, UNTIL, CLOCK)[1].lost


def test_a_block_without_a_sample_lies_between_two() -> None:
    delta = between(known(10), {"pod": pod((595, 10), (670, 22))}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (delta.counts[STARTED], delta.opened, delta.closed) == (0, 12, 12)


def test_a_sample_at_the_edge_belongs_to_the_block_that_it_ends() -> None:
    samples = ((600, 10), (615, 12), (630, 14), (645, 16), (660, 18), (675, 20))
    assert started(known(10, at=600), pod(*samples)) == 8


def test_without_a_state_the_sample_before_the_first_edge_is_the_base() -> None:
    assert started(Stream("pods"), pod(*USUAL)) == 10


def test_folded_samples_count_no_second_time_not_even_those_of_a_process_before() -> None:
    old = pod((565, 400), (580, 410))
    new = pod((595, 10), *USUAL[1:], start=590.0)
    assert started(known(10, start=590_000), merged((old, new))[0]) == 10


def test_a_process_that_began_anew_counts_from_zero_even_above_its_old_count() -> None:
    before, after = pod((595, 10), (610, 12)), pod((625, 30), (640, 31), (655, 33), (670, 34), start=612.0)
    delta = between(known(10), {"pod": merged((before, after))[0]}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert delta.counts[STARTED] == 2 + 33
    assert not delta.steady


def test_where_nothing_says_when_a_process_began_a_fall_does() -> None:
    samples = ((595, 10), (610, 12), (625, 3), (640, 4), (655, 5), (670, 6))
    assert started(known(10, start=None), pod(*samples, start=None)) == 2 + 5


def test_a_process_whose_start_is_hidden_for_a_while_is_reset_once() -> None:
    track = Track(
        "pod", pod((595, 10), (610, 3), (625, 4), (655, 6), (670, 6)).strands, (pulse((595, BORN), (655, 601.0)),)
    )
    assert started(known(10), track) == 6


def test_a_fall_within_one_process_is_an_older_sample_not_a_reset() -> None:
    samples = ((595, 10), (610, 12), (625, 11), (640, 15), (655, 20), (670, 22))
    stream, delta = between(known(10), {"pod": pod(*samples)}, FIELDS, SINCE, UNTIL, CLOCK)
    assert delta.counts[STARTED] == 10
    assert "fewer requests than before" in delta.notes[0]
    assert stream.units[0].values[STARTED] == 20


@pytest.mark.parametrize(
    ("start", "counted"),
    [(602.0, 20), (561.0, 20), (559.0, 5), (None, 5)],
    ids=["began in the block", "shortly before the edge", "earlier: not seen until now", "nobody knows"],
)
def test_a_new_unit_counts_from_zero_only_if_it_is_new(start: float | None, counted: int) -> None:
    delta = between(
        Stream("pods"),
        {"pod": pod((625, 15), (640, 17), (655, 20), (670, 22), start=start)},
        FIELDS,
        SINCE,
        UNTIL,
        CLOCK,
    )[1]
    assert delta.counts[STARTED] == counted
    assert bool(delta.notes) == (counted == 5)


def test_a_cluster_that_its_proxy_did_not_show_at_the_edge_is_new() -> None:
    uptime = pulse(*((at, at - 50) for at in (580, 595, 610, 625, 640, 655, 670)), kind="uptime")
    track = Track("pod", (strand(STARTED, (625, 15), (640, 17), (655, 20), (670, 22)),), (uptime,))
    assert started(Stream("live"), track) == 20


def test_a_proxy_that_is_new_itself_counts_from_zero() -> None:
    uptime = pulse(*((at, at - 615) for at in (625, 640, 655, 670)), kind="uptime")
    track = Track("pod", (strand(STARTED, (625, 15), (640, 17), (655, 20), (670, 22)),), (uptime,))
    assert started(Stream("live"), track) == 20


def test_a_proxy_that_was_not_scraped_may_be_old() -> None:
    uptime = pulse(*((at, at - 50) for at in (625, 640, 655, 670)), kind="uptime")
    track = Track("pod", (strand(STARTED, (625, 15), (640, 17), (655, 20), (670, 22)),), (uptime,))
    assert started(Stream("live"), track) == 5


def test_a_series_that_was_there_but_no_count_is_not_new() -> None:
    uptime = pulse(*((at, at - 50) for at in (595, 610, 625, 640, 655, 670)), kind="uptime")
    track = Track("pod", (strand(STARTED, (595, math.nan), (610, 15), (655, 20), (670, 22)),), (uptime,))
    assert started(Stream("live"), track) == 5


def test_a_class_of_answers_that_appears_later_was_zero_before() -> None:
    track = Track("pod", (*pod(*USUAL).strands, strand(FAILED, (640, 2), (655, 3), (670, 3))))
    delta = between(known(10), {"pod": track}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (delta.counts[STARTED], delta.counts[FAILED]) == (10, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 12.5, 2.0**60])
def test_what_is_no_count_is_no_sample(value: float) -> None:
    samples = ((595, 10), (610, value), (625, 15), (640, value), (655, value), (670, 22))
    stream, delta = between(known(10), {"pod": pod(*samples)}, FIELDS, SINCE, UNTIL, CLOCK)
    assert delta.counts[STARTED] == 5
    assert stream.units[0].at == 625_000


def test_a_scrape_of_which_a_part_is_missing_is_left_out_whole() -> None:
    good = strand(GOOD, (595, 9), (610, 11), (625, 14), (640, 15), (670, 21))
    stream, delta = between(known(10), {"pod": Track("pod", (*pod(*USUAL).strands, good))}, FIELDS, SINCE, UNTIL, CLOCK)
    assert stream.units[0].at == 640_000
    assert delta.counts[STARTED] == 5


@pytest.mark.parametrize(
    ("samples", "visible"),
    [
        (USUAL, True),
        (USUAL[:-1], False),  # nothing after the edge: stale
        (((595, 10), (610, 12), (670, 22)), False),  # nothing just before it: it returns
        (((640, 10), (684, 12)), True),
        (((640, 10), (686, 12)), False),
        ((), False),
    ],
)
def test_an_edge_is_seen_with_a_sample_on_both_sides(samples: tuple[tuple[float, float], ...], visible: bool) -> None:
    assert seen(known(10), {"pod": pod(*samples)}, FIELDS, UNTIL, CLOCK) == visible


def test_a_new_pod_that_comes_after_the_edge_does_not_keep_it_from_being_seen() -> None:
    other = replace(pod((665, 1), (680, 2)), key="other")
    assert seen(known(10), {"pod": pod(*USUAL), "other": other}, FIELDS, UNTIL, CLOCK)


def test_a_unit_that_vanishes_keeps_its_last_count_and_is_forgotten_in_the_end() -> None:
    stream, delta = between(known(10), {"pod": pod((595, 10), (610, 12))}, FIELDS, SINCE, UNTIL, CLOCK)
    assert delta.counts[STARTED] == 2
    assert not delta.steady
    assert stream.units[0].missed == 1
    for _ in range(FORGET - 2):
        stream, delta = between(stream, {}, FIELDS, SINCE, UNTIL, CLOCK)
        assert stream.units
    assert between(stream, {}, FIELDS, SINCE, UNTIL, CLOCK)[0].units == ()


def test_a_unit_that_comes_back_counts_on_from_where_it_was() -> None:
    assert started(known(4, at=300, missed=5), pod(*USUAL)) == 16


def test_the_number_of_units_is_bounded_and_the_known_ones_stay() -> None:
    names = [f"p{number:03d}" for number in range(MOST_UNITS + 3)]
    tracks = {name: replace(pod(*USUAL), key=name) for name in names}
    stream = Stream("pods", (Unit("p066", 595_000, 100_000, (10,) + (0,) * (FIELDS - 1)),))
    after, delta = between(stream, tracks, FIELDS, SINCE, UNTIL, CLOCK)
    assert delta.excess == 3
    assert len(after.units) == MOST_UNITS
    assert "p066" in {unit.key for unit in after.units}
    assert delta.counts[STARTED] == 10 * MOST_UNITS


def test_copies_of_a_series_are_counted_once() -> None:
    twice = merged((pod(*USUAL), pod(*((at + 3, value) for at, value in USUAL), copy="b")))[0]
    assert started(Stream("pods"), twice) == 10


def test_the_copy_that_was_read_is_read_on_and_another_one_is_no_reset() -> None:
    stream, _ = between(Stream("pods"), {"pod": pod(*USUAL, start=None)}, FIELDS, SINCE, UNTIL, CLOCK)
    behind = [(at + 60, value + 9) for at, value in USUAL]  # 19 at 655: the other replica's clock is late
    more = pod(*((at, value + 9) for at, value in behind[:1]), *behind[1:], start=None, copy="b")
    after, delta = between(stream, {"pod": more}, FIELDS, UNTIL, UNTIL + 60_000, CLOCK)
    assert delta.counts[STARTED] == 29 - 20
    assert after.units[0].copy != stream.units[0].copy


def test_requests_in_flight_where_counting_begins_are_known() -> None:
    answered = strand(GOOD, (595, 4), (610, 9), (625, 12), (640, 13), (655, 17), (670, 20))
    refused = strand(CLIENT, (595, 1), (610, 1), (625, 1), (640, 1), (655, 1), (670, 1))
    track = Track("pod", (*pod(*USUAL).strands, answered, refused))
    delta = between(Stream("pods"), {"pod": track}, FIELDS, SINCE, UNTIL, CLOCK)[1]
    assert (delta.adopted, delta.in_flight) == (5, 2)


def test_unsettled_counts_go_up_to_now_and_need_no_later_sample() -> None:
    delta = between(known(10), {"pod": pod(*USUAL[:3])}, FIELDS, SINCE, 630_000, CLOCK, settled=False)[1]
    assert delta.counts[STARTED] == 5
    assert delta.in_flight == 15
