"""What the units of one stream counted between two edges.

Rules (protocols.md §1, statistics.md §3.0):

- The value at an edge is that of the last sample at or before it. Increments are added up from sample to sample, so
  that a restart between two edges loses only what its process had counted after the last scrape.
- A process that began anew counts from 0. Where nothing says when it began, a counter of started requests that fell
  says so, unless another copy of the series is read from here on.
- A unit that was never seen before counts from 0 if its process began after the last edge, or so shortly before it that
  it had to be discovered and scraped first; or if its target was scraped at that edge and did not show it. Else nobody
  knows how old its counts are: its first sample is where counting begins, and that is said.
- A unit is *fresh* at an edge with a sample within the interval before it and one within the interval after it. One
  that only has the later sample *returns*: what it counts belongs to no known block, so the edge cannot close one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.decide.counters.state import (
    CLIENT,
    FAILED,
    FIELDS,
    FORGET,
    GOOD,
    MOST_UNITS,
    STARTED,
    TIMED,
    TIMED_ENDED,
    Stream,
    Unit,
)
from fiduciary.decide.counters.tracks import Line, Track, line, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary.decide.counters.tracks import Frame


DISCOVERY = 10_000
"""Milliseconds until Prometheus has heard of a new pod: it takes in changes every five seconds."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Milliseconds. ``scrape``: between two scrapes, ``timeout``: within which one is stored."""

    scrape: int
    timeout: int

    @property
    def after(self) -> int:
        """How long after an edge the next sample may come."""
        return self.scrape + self.timeout

    @property
    def before(self) -> int:
        """How far before an edge is read: to see what was there at the edge, and at the gateway's last scrape."""
        return 2 * self.scrape + self.timeout

    @property
    def unseen(self) -> int:
        """How long a process may run before its first sample. It is much less than a unit is remembered, so that what
        counts from 0 was never counted before."""
        return 2 * self.scrape + DISCOVERY

    @property
    def settled(self) -> int:
        """How long after an edge a block may be closed (rule 2)."""
        return 2 * self.scrape + self.timeout


@dataclass(frozen=True, slots=True)
class Delta:
    """One stream between two edges.

    Attributes:
        counts: increments, in the order of a unit's values.
        in_flight: requests of fresh units that have begun and not ended, at the second edge.
        timed_in_flight: the same among those whose duration is measured.
        adopted: requests in flight where the counting of a unit began: they end later, and began before.
        timed_adopted: the same among those whose duration is measured.
        opened: requests between the samples around the first edge: they may lie on either side of it.
        closed: the same around the second edge, not among ``counts``.
        lost: a process ended, and with it what it had counted after its last sample; or one was seen so late that
            what it had before is not known.
        steady: the same units before and after, none of them restarted: the sums of raw values can be compared.
        excess: units beyond the bound, whose counts are left out.
        notes: what was seen and could not be counted.
    """

    counts: tuple[int, ...]
    in_flight: int = 0
    timed_in_flight: int = 0
    adopted: int = 0
    timed_adopted: int = 0
    opened: int = 0
    closed: int = 0
    lost: bool = False
    steady: bool = True
    excess: int = 0
    notes: tuple[str, ...] = ()


def seen(stream: Stream, tracks: Mapping[str, Track], fields: int, edge: int, clock: Clock) -> bool:
    """Whether ``edge`` (ms) can close a block: a unit is fresh there, and no known one returns."""
    known = {unit.key: unit.copy for unit in stream.units}
    fresh = False
    for key, track in tracks.items():
        window = line(track, fields, edge - clock.after, edge + clock.after, known.get(key)).frames
        if not window or window[-1].at <= edge:
            continue
        if window[0].at <= edge:
            fresh = True
        elif key in known:
            return False
    return fresh


def between(
    stream: Stream,
    tracks: Mapping[str, Track],
    fields: int,
    since: int,
    until: int,
    clock: Clock,
    *,
    settled: bool = True,
) -> tuple[Stream, Delta]:
    """The stream at ``until``, and what it counted since ``since`` (ms). Looks at no sample after ``until + after``.

    Not ``settled``: nothing can have come after ``until`` yet, so every unit that was just seen is taken for alive.
    """
    known = {unit.key: unit for unit in stream.units}
    keys = [*known, *sorted(key for key in tracks if key not in known)]
    units: list[Unit] = []
    counts = [0] * fields
    notes: list[str] = []
    in_flight = timed = adopted = timed_adopted = opened = closed = excess = 0
    lost, steady = False, True
    for key in keys:
        unit = known.get(key)
        track = tracks.get(key, Track(key))
        prefer = None if unit is None else unit.copy
        read = line(track, fields, since - clock.before, until + clock.after, prefer)
        inside = [frame for frame in read.frames if frame.at <= until]
        later = read.frames[len(inside) :]
        if unit is None and not inside:  # it belongs to the next block, but for what it had before the edge
            had, unknown = _before_its_first(track, read, until, clock)
            closed, lost = closed + had, lost or unknown
            continue
        if unit is None and len(units) >= MOST_UNITS:
            excess += 1
            continue
        counted = _count(unit, track, read, inside, since, clock)
        if unit is None:
            adopted += _waiting(counted.base)
            timed_adopted += _unfinished(counted.base)
        unit = replace(counted.unit, missed=0 if later else counted.unit.missed + 1)
        notes += counted.notes
        counts = [one + other for one, other in zip(counts, counted.counts, strict=True)]
        opened += counted.opened
        closed += _begun(unit, later[0], read.copy) if later else 0
        # The last sample may be so near to the edge that the end came in the next block, and an end so near to it that
        # only the sample after the edge tells.
        ended = counted.restarted or (bool(later) and _restarted(unit, later[0], read.copy))
        lost = lost or ended or counted.unknown or 0 < unit.missed <= 2
        recent = unit.at > until - clock.after
        steady = steady and counted.steady and bool(later) and recent
        if unit.missed < FORGET:
            units.append(unit)
        if recent and (later or not settled):
            in_flight += _waiting(unit.values)
            timed += _unfinished(unit.values)
    delta = Delta(
        tuple(counts), in_flight, timed, adopted, timed_adopted, opened, closed, lost, steady, excess, tuple(notes)
    )
    return Stream(stream.name, tuple(sorted(units, key=lambda unit: unit.key))), delta


def _waiting(values: Sequence[int]) -> int:
    return max(0, values[STARTED] - values[GOOD] - values[CLIENT] - values[FAILED])


def _unfinished(values: Sequence[int]) -> int:
    return max(0, values[TIMED] - values[TIMED_ENDED])


@dataclass(frozen=True, slots=True)
class _Counted:
    unit: Unit
    base: Sequence[int]  # the values where counting began
    counts: Sequence[int]
    opened: int
    restarted: bool
    unknown: bool  # what it had before its first sample is left out
    steady: bool
    notes: tuple[str, ...] = ()


def _count(unit: Unit | None, track: Track, read: Line, inside: Sequence[Frame], since: int, clock: Clock) -> _Counted:
    notes: list[str] = []
    restarted, unknown, steady = False, False, unit is not None
    if unit is None:
        unit, unknown = _first(track, read, inside, since, clock)
        steady = unit.at <= since and not unknown
        if unknown:
            notes.append(f"{track.key} was not scraped when it began: what it had counted before is left out")
    nothing = (0,) * len(unit.values)
    base, counts = unit.values, list(nothing)
    opened = 0 if unit.at > since else _begun(unit, next((f for f in read.frames if f.at > since), None), read.copy)
    for frame in inside:
        if frame.at <= unit.at:
            continue
        start = frame.start
        if _restarted(unit, frame, read.copy):
            restarted, steady = True, False
            before = nothing
        elif frame.values[STARTED] < unit.values[STARTED]:
            notes.append(f"{track.key} counts fewer requests than before in the same process: the sample is left out")
            continue
        else:
            before = unit.values
            start = unit.start if start is None else start
        after = tuple(max(one, other) for one, other in zip(frame.values, before, strict=True))
        counts = [total + new - old for total, new, old in zip(counts, after, before, strict=True)]
        unit = Unit(unit.key, frame.at, start, after, read.copy, unit.missed)
    return _Counted(unit, base, counts, opened, restarted, unknown, steady, tuple(dict.fromkeys(notes)))


def _begun(unit: Unit, frame: Frame | None, copy: str) -> int:
    """Requests that began between a unit's values and a later sample."""
    if frame is None:
        return 0
    return max(0, frame.values[STARTED] - (0 if _restarted(unit, frame, copy) else unit.values[STARTED]))


def _before_its_first(track: Track, read: Line, until: int, clock: Clock) -> tuple[int, bool]:
    """(requests that a unit may have had before ``until``, whether the next block will not know them either)."""
    first = next(iter(read.frames), None)
    if first is None or (first.start is not None and first.start > until):
        return 0, False
    _, unknown = _first(track, read, read.frames, until, clock)
    return (0, True) if unknown else (first.values[STARTED], False)


def _first(track: Track, read: Line, inside: Sequence[Frame], since: int, clock: Clock) -> tuple[Unit, bool]:
    """Where counting a new unit begins, and whether that is only where it was seen first."""
    seen = [frame for frame in inside if frame.at <= since]
    if seen:
        return _at(track.key, seen[-1], read.copy), False
    first = inside[0]
    absent = not shown(track, since - clock.before, since)
    witnessed = absent and any(since - clock.after < at <= since for at, _ in read.uptime)
    began = first.start if first.start is not None else _began(read, first.at)
    if witnessed or (began is not None and began >= since - clock.unseen):
        return Unit(track.key, since, first.start, (0,) * len(first.values), read.copy), False
    return _at(track.key, first, read.copy), True


def _began(read: Line, at: int) -> int | None:
    """When the process began, by how long it says that it runs: to a second or so, which is why resets never use it."""
    return next((at - running for time, running in read.uptime if time == at and running is not None), None)


def _at(key: str, frame: Frame, copy: str) -> Unit:
    return Unit(key, frame.at, frame.start, frame.values, copy)


def _restarted(unit: Unit, frame: Frame, copy: str) -> bool:
    if unit.start is not None and frame.start is not None:
        return frame.start != unit.start
    return frame.values[STARTED] < unit.values[STARTED] and unit.copy == copy


def fields_of(thresholds: Sequence[int]) -> int:
    """How many values a unit has with these latency thresholds."""
    return len(FIELDS) + len(thresholds)
