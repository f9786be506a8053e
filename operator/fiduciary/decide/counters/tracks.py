"""The series of one process on one time line: frames of values that were scraped together."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from fiduciary.decide.counters.samples import count_of
from fiduciary.decide.counters.state import TIMED, TIMED_ENDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_SECONDS = 1e11
"""A time beyond it, some 3,000 years, is none."""


@dataclass(frozen=True, slots=True)
class Frame:
    """All values of a unit at one scrape. ``start``: when its process began, ms; None where nothing says so."""

    at: int
    values: tuple[int, ...]
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Strand:
    """One series of a unit: to which fields it adds, and its samples."""

    series: str
    """Name and labels as one text: what makes it this series."""
    copy: str
    """Labels without a meaning of their own: two scrape jobs, or two replicas of Prometheus, make copies."""
    fields: tuple[int, ...]
    samples: tuple[tuple[int, float], ...]
    """In the order of their times, one a time."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A series that says that a scrape target runs: when its process began (start, seconds since 1970), or for how long
    it has been running (uptime, seconds)."""

    series: str
    copy: str
    kind: Literal["start", "uptime"]
    samples: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Track:
    """One unit in the samples that were read, and its scrape target's pulse."""

    key: str
    strands: tuple[Strand, ...] = ()
    pulses: tuple[Pulse, ...] = ()

    def timed_at(self, places: frozenset[int]) -> Track:
        """Without durations where its histogram does not end at each of these: it says how long requests took, but not
        whether it was too long."""
        counted = {place for strand in self.strands for place in strand.fields}
        if TIMED_ENDED not in counted or places <= counted:
            return self
        strands = (
            replace(one, fields=tuple(place for place in one.fields if place not in (TIMED, TIMED_ENDED)))
            for one in self.strands
        )
        return replace(self, strands=tuple(strands))


@dataclass(frozen=True, slots=True)
class Line:
    """One copy of a track: complete frames, oldest first, and how long the process had been running (ms, ms) at each
    sample of its pulse, None where the pulse says it otherwise."""

    copy: str = ""
    frames: tuple[Frame, ...] = ()
    uptime: tuple[tuple[int, int | None], ...] = ()


def line(track: Track, fields: int, since: int, until: int, prefer: str | None = None) -> Line:
    """The best copy of a track in (``since``, ``until``]: the preferred one if it has a frame, else the fullest.

    A frame is complete where every series that was there before is there: one scrape is stored as a whole, so that what
    is missing was not scraped or was no count. A series that appears later was 0 before.
    """
    copies: dict[str, list[tuple[Strand, dict[int, int | None]]]] = {}
    for strand in track.strands:
        kept = {at: count_of(value) for at, value in _within(strand.samples, since, until)}
        if kept:
            copies.setdefault(strand.copy, []).append((strand, kept))
    lines = [_line(track, copy, strands, fields, since, until) for copy, strands in copies.items()]
    found = [made for made in lines if made.frames]
    return min(found, key=lambda made: (made.copy != prefer, -len(made.frames), made.copy), default=Line())


def shown(track: Track, since: int, until: int) -> bool:
    """Whether any of its series has a sample in (``since``, ``until``], be it a count or not."""
    return any(_within(strand.samples, since, until) for strand in track.strands)


def _line(
    track: Track,
    copy: str,
    strands: Sequence[tuple[Strand, Mapping[int, int | None]]],
    fields: int,
    since: int,
    until: int,
) -> Line:
    starts: dict[int, int] = {}
    uptime: dict[int, int | None] = {}
    for pulse in track.pulses:
        if pulse.copy != copy:
            continue
        for at, value in _within(pulse.samples, since, until):
            if not 0.0 <= value <= MOST_SECONDS:
                continue
            if pulse.kind == "start":
                starts[at] = round(value * 1000)
                uptime.setdefault(at, None)
            else:
                uptime[at] = round(value * 1000)
    return Line(_short(copy), _frames(strands, fields, starts), tuple(sorted(uptime.items(), key=lambda item: item[0])))


def _within(samples: tuple[tuple[int, float], ...], since: int, until: int) -> tuple[tuple[int, float], ...]:
    """Samples with since < time <= until, of samples in the order of their times."""
    return samples[bisect_right(samples, since, key=_time) : bisect_right(samples, until, key=_time)]


def _time(sample: tuple[int, float]) -> int:
    return sample[0]


def _short(copy: str) -> str:
    """A copy's name as the state keeps it."""
    return hashlib.sha256(copy.encode()).hexdigest()[:8]


def _frames(
    strands: Sequence[tuple[Strand, Mapping[int, int | None]]], fields: int, starts: Mapping[int, int]
) -> tuple[Frame, ...]:
    times = sorted({at for _, kept in strands for at in kept})
    first = [min(kept) for _, kept in strands]
    found: list[Frame] = []
    for at in times:
        values = [0] * fields
        whole = True
        for (strand, kept), born in zip(strands, first, strict=True):
            if born > at:
                continue
            value = kept.get(at)
            if value is None:
                whole = False
                break
            for place in strand.fields:
                values[place] += value
        if whole:
            found.append(Frame(at, tuple(values), starts.get(at)))
    return tuple(found)


def merged(tracks: Iterable[Track]) -> tuple[Track, ...]:
    """Tracks of the same unit as one, in the order of their keys: answers of several queries may overlap."""
    by_key: dict[str, Track] = {}
    for track in tracks:
        known = by_key.get(track.key, Track(track.key))
        by_key[track.key] = Track(track.key, _union(known.strands + track.strands), _union(known.pulses + track.pulses))
    return tuple(by_key[key] for key in sorted(by_key))


Part = TypeVar("Part", Strand, Pulse)


def _union(parts: Iterable[Part]) -> tuple[Part, ...]:
    by_series: dict[str, Part] = {}
    for part in parts:
        known = by_series.get(part.series)
        if known is not None:
            samples = {**dict(known.samples), **dict(part.samples)}
            part = replace(part, samples=tuple(sorted(samples.items(), key=_time)))
        by_series[part.series] = part
    return tuple(by_series[series] for series in sorted(by_series))
