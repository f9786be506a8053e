"""Requests that the gateway sent and the pods never received: a harm test of its own (statistics.md rule 1).

The gateway and the pods are scraped at different moments, so a plain difference is mostly traffic of a few seconds.
What is *certainly* lost by an edge is

    sent at the gateway's last sample before it − received at the pods' first sample after it,

less the same at the start with the pods' sample *before* the gateway's. It lags behind by what arrives between two
scrapes and is never too large. Where a process began, ended or restarted in the block, its last counts are unknown and
the comparison begins anew: pod failures have breakers of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide.counters.measures import settle
from fiduciary.decide.counters.state import PROBES, STARTED, Carry
from fiduciary.decide.counters.tracks import line
from fiduciary.decide.experiment.world import TRANSPORT
from fiduciary.evidence.blocks import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary.decide.counters.deltas import Clock, Delta
    from fiduciary.decide.counters.tracks import Frame, Track

TRANSIT = 1_000
"""Milliseconds within which a request that the gateway has sent is known to the pod."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One arm between two edges; None where the comparison is not possible.

    ``slack``: what may have been received between the compared samples, at the first and at the second edge.
    """

    sent: int
    received: int | None = None
    slack: tuple[int, int] = (0, 0)


def sent(
    streams: Mapping[str, Mapping[str, Track]],
    deltas: Mapping[str, Delta],
    fields: int,
    since: int,
    until: int,
    clock: Clock,
) -> Sent:
    """Sent and received of one arm."""
    through = [name for name in ("live", "mirror", "copies") if streams.get(name)]
    number = sum(deltas[name].counts[STARTED] for name in through)
    pods = streams.get("pods", {})
    if not through or not pods or not all(deltas[name].steady for name in (*through, "pods")):
        return Sent(number)
    proxies = [track for name in through for track in streams[name].values()]
    first = _around(proxies, pods.values(), fields, since, clock)
    second = _around(proxies, pods.values(), fields, until, clock)
    if first is None or second is None:
        return Sent(number)
    (low, high), (later_low, later_high) = first, second
    return Sent(number, later_high - high, (high - low, later_high - later_low))


def lost(sent: Sent, carry: Carry | None) -> tuple[Counts, Carry | None]:
    """Trials and certain losses of one block; no carry: the comparison begins anew."""
    if sent.received is None:
        return Counts(0, 0), None
    if carry is None:
        carry = Carry(TRANSPORT, "", -sent.slack[0])
    counts, carry = settle(carry, sent.sent, sent.sent - sent.received, 0)
    # without requests that bypass the gateway, no more than this can be uncertain
    return counts, Carry(TRANSPORT, "", max(carry.owed, -sent.slack[1]))


def _around(
    proxies: Iterable[Track], pods: Iterable[Track], fields: int, edge: int, clock: Clock
) -> tuple[int, int] | None:
    """(received before the gateway's samples at the edge, received after it); None where a sample is missing."""
    times: list[int] = []
    for track in proxies:
        before = [frame.at for frame in line(track, fields, edge - clock.before, edge).frames]
        if not before:
            return None
        times.append(before[-1])
    earliest = min(times)
    low = high = 0
    for track in pods:
        window = line(track, fields, edge - clock.before, edge + clock.after).frames
        before_it = [frame for frame in window if frame.at <= earliest]
        after_it = [frame for frame in window if frame.at >= edge + TRANSIT]
        if not before_it or not after_it:
            return None
        low += _received(before_it[-1])
        high += _received(after_it[0])
    return low, high


def _received(frame: Frame) -> int:
    return frame.values[STARTED] + frame.values[PROBES]
