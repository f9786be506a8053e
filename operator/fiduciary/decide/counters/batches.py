"""The queries of one template for all experiments together, and whose answer is whose.

One query holds every metric of the template, so that what was scraped together is read together; it is split only where
its answer would be too large. It is an instant query for a range of raw samples that ends at a given time:
``{…}[80s]`` with ``time=``. PromQL's ``rate()`` and ``increase()`` extrapolate, ``histogram_quantile()`` interpolates;
none of them feeds a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide.counters.templates import Owned, Vital
from fiduciary.decide.counters.tracks import Pulse, Strand, Track, merged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fiduciary.decide.counters.samples import Series
    from fiduciary.decide.counters.templates import Template, Workload

MOST_SAMPLES = 50_000
"""Samples that one answer may hold, by estimate: about 1.5 MB of JSON, decoded in some 50 ms."""


@dataclass(frozen=True, slots=True)
class Need:
    """Samples of one version in (``since``, ``until``], ms. ``units``: how many it had last time."""

    workload: Workload
    thresholds: tuple[int, ...]
    since: int
    until: int
    units: int = 1


@dataclass(frozen=True, slots=True)
class Query:
    """One instant query. ``at``: its evaluation time, ms."""

    promql: str
    at: int
    needs: tuple[Need, ...]


def queries(template: Template, needs: Iterable[Need], scrape: int, most: int = MOST_SAMPLES) -> tuple[Query, ...]:
    """As few queries as the bound allows. Needs with the same end go together, those that reach far back by themselves.

    ``scrape``: milliseconds between two samples of a series.
    """
    by_end: dict[tuple[int, int], list[Need]] = {}
    for need in needs:
        # a need of one block must not make all others read hours: lengths are grouped by powers of two of a minute
        length = max(1, -(-(need.until - need.since) // 60_000))
        by_end.setdefault((need.until, (length - 1).bit_length()), []).append(need)
    made: list[Query] = []
    for (until, _), group in sorted(by_end.items()):
        part: list[Need] = []
        size = 0
        for need in sorted(group, key=lambda need: (need.workload.namespace, need.workload.name)):
            samples = template.series(need.thresholds) * max(1, need.units) * (1 + (need.until - need.since) // scrape)
            if part and size + samples > most:
                made.append(query(template, part, until))
                part, size = [], 0
            part.append(need)
            size += samples
        made.append(query(template, part, until))
    return tuple(made)


def query(template: Template, needs: Sequence[Need], until: int) -> Query:
    """One query for all these needs, up to ``until``, ms."""
    workloads = list(dict.fromkeys(need.workload for need in needs))
    thresholds = sorted({threshold for need in needs for threshold in need.thresholds})
    matchers = template.matchers(workloads, thresholds)
    text = ",".join(f'{label}=~"{_quoted("|".join(choices))}"' for label, choices in matchers.items())
    length = until - min(need.since for need in needs)
    return Query(f"{{{text}}}[{max(1, length)}ms]", until, tuple(needs))


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def tracks(
    template: Template, answer: Iterable[Series], thresholds: Sequence[int]
) -> Mapping[Workload, Mapping[str, Mapping[str, Track]]]:
    """Workload -> stream -> unit -> its samples. Series of nobody's are left out; overlapping answers are one.

    A unit has the pulses of its scrape target, and those of its own.
    """
    owned: list[tuple[Owned, Strand]] = []
    pulses: dict[str, list[Pulse]] = {}
    for series in answer:
        found = template.classify(series.labels, thresholds)
        text, copy = _names(template, series.labels)
        if isinstance(found, Vital):
            pulses.setdefault(found.target, []).append(Pulse(text, copy, found.kind, series.samples))
        elif isinstance(found, Owned):
            owned.append((found, Strand(text, copy, found.fields, series.samples)))
    by_stream: dict[Workload, dict[str, list[Track]]] = {}
    for found, strand in owned:
        target = "/".join(found.unit.split("/")[:2])
        beats = (pulse for key in dict.fromkeys((target, found.unit)) for pulse in pulses.get(key, ()))
        track = Track(found.unit, (strand,), tuple(beats))
        by_stream.setdefault(found.workload, {}).setdefault(found.stream, []).append(track)
    return {
        workload: {stream: {track.key: track for track in merged(found)} for stream, found in streams.items()}
        for workload, streams in by_stream.items()
    }


def _names(template: Template, labels: Mapping[str, str]) -> tuple[str, str]:
    """(of the series, of its copy)."""
    own = {"__name__", *template.labels}
    pairs = sorted(labels.items())
    return (
        ",".join(f"{name}={value}" for name, value in pairs),
        ",".join(f"{name}={value}" for name, value in pairs if name not in own),
    )
