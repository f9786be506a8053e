"""Closing blocks: from the state at the last edge and the samples since, one block after the other.

A block is closed at the first settled edge at which each arm that gets requests was seen. Where an edge cannot close
one, the next edge closes a merged block over both: nothing is dropped, and only the samples decide, so that a replay
merges the same blocks. All times inside are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fiduciary.decide.counters import transport
from fiduciary.decide.counters.deltas import Delta, between, seen
from fiduciary.decide.counters.exposure import Exposure, exposure
from fiduciary.decide.counters.measures import counted, share_of_probes
from fiduciary.decide.counters.state import Arm, Carry, Counters, Stream
from fiduciary.decide.experiment.world import TRANSPORT, ArmCounts, Around, ClosedBlock, Health, LiveCounts
from fiduciary.evidence.blocks import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fiduciary.decide.counters.exposure import Change
    from fiduciary.decide.counters.plan import Limit, Plan
    from fiduciary.decide.counters.tracks import Track

    Streams = Mapping[str, Mapping[str, Track]]
    """Name of the stream -> key of the unit -> its samples."""

LIVE, MIRROR, COPIES, PODS = "live", "mirror", "copies", "pods"
NAMES = (LIVE, MIRROR, COPIES, PODS)
START = Counters(-1, Arm(), Arm())
"""Before the first block: raw values at the origin are read from the samples before it."""
MESSAGE_LIMIT = 900


@dataclass(frozen=True, slots=True)
class Samples:
    """What was asked for, since ``Clock.before`` before the last edge at least."""

    champion: Streams = field(default_factory=dict[str, "Mapping[str, Track]"])
    challenger: Streams = field(default_factory=dict[str, "Mapping[str, Track]"])


@dataclass(frozen=True, slots=True)
class Reading:
    """``state`` belongs to ``blocks``: both are written together, or neither."""

    state: Counters
    blocks: tuple[ClosedBlock, ...]
    health: Health
    live: tuple[LiveCounts, ...]


def read(plan: Plan, state: Counters, samples: Samples, changes: Sequence[Change], now: int) -> Reading:
    """Every block that can be closed at ``now`` (ms), what is known of the one that is open, and whether it can see."""
    blocks: list[ClosedBlock] = []
    missed = [0, 0]
    notes: list[str] = []
    for number in range(state.last + 1, plan.closable(now) + 1):
        until = plan.edge(number)
        shown = exposure(changes, plan.edge(state.last), until, plan.clock.scrape)
        sees = (
            _sees(plan, state.champion, samples.champion, _of_champion(plan, shown), until),
            _sees(plan, state.challenger, samples.challenger, _of_challenger(plan, shown), until),
        )
        missed = [0 if visible else count + 1 for visible, count in zip(sees, missed, strict=True)]
        if not all(sees):
            continue
        champion = _advanced(plan, state.champion, samples.champion, plan.edge(state.last), until)
        challenger = _advanced(plan, state.challenger, samples.challenger, plan.edge(state.last), until)
        notes += (*champion.notes, *challenger.notes)
        made = _Block(plan, shown, plan.edge(state.last), until)
        block, arms = made.closed(state, champion, challenger, number)
        blocks.append(block)
        state = Counters(number, *arms)
    live, excess = _live(plan, state, samples, changes, now)
    health = Health(missed[0], missed[1], excess, _message(missed, excess, notes))
    return Reading(state, tuple(blocks), health, live)


def _of_champion(plan: Plan, shown: Exposure) -> tuple[str, ...]:
    if plan.source == "Runtime":
        return (PODS,)
    return () if shown.weight >= 100 else (LIVE,)


def _of_challenger(plan: Plan, shown: Exposure) -> tuple[str, ...]:
    """Streams that must be seen. While a route is on its way, the gateway need not know its backend yet."""
    if shown.mixed or not shown.any:
        return ()
    if plan.source == "Runtime":
        return (PODS,)
    return ((LIVE,) if shown.weight else ()) + ((MIRROR,) if shown.mirror else ())


def _sees(plan: Plan, arm: Arm, streams: Streams, needed: Iterable[str], edge: int) -> bool:
    return all(seen(_stream(arm, name), streams.get(name, {}), plan.fields, edge, plan.clock) for name in needed)


def _stream(arm: Arm, name: str) -> Stream:
    return next((stream for stream in arm.streams if stream.name == name), Stream(name))


@dataclass(frozen=True, slots=True)
class _Side:
    """One arm between two edges."""

    before: Arm
    streams: tuple[Stream, ...]
    deltas: Mapping[str, Delta]
    sent: transport.Sent

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for name in NAMES for note in self.deltas[name].notes)

    @property
    def excess(self) -> int:
        return max(delta.excess for delta in self.deltas.values())

    def carry(self, test: str, stream: str) -> Carry:
        kept = (carry for carry in self.before.carries if (carry.test, carry.stream) == (test, stream))
        return next(kept, Carry(test, stream))


def _advanced(plan: Plan, arm: Arm, streams: Streams, since: int, until: int, *, settled: bool = True) -> _Side:
    if plan.pod_edges:  # pods that were made before one of them was named do not count at it
        pods = streams.get(PODS, {})
        streams = {**streams, PODS: {key: track.timed_at(plan.pod_edges) for key, track in pods.items()}}
    made = {
        name: between(_stream(arm, name), streams.get(name, {}), plan.fields, since, until, plan.clock, settled=settled)
        for name in NAMES
    }
    deltas = {name: delta for name, (_, delta) in made.items()}
    sent = transport.sent(streams, deltas, plan.fields, since, until, plan.clock)
    return _Side(arm, tuple(stream for stream, _ in made.values() if stream.units), deltas, sent)


@dataclass(frozen=True, slots=True)
class _Block:
    plan: Plan
    shown: Exposure
    since: int
    until: int

    def closed(
        self, state: Counters, champion: _Side, challenger: _Side, number: int
    ) -> tuple[ClosedBlock, tuple[Arm, Arm]]:
        carries: tuple[list[Carry], list[Carry]] = ([], [])
        tests = [self.test(test, champion, challenger, carries) for test in self.plan.guardrails]
        for _, test in self.plan.breakers:
            self.test(test, champion, challenger, carries)  # its carry: what it owes goes on after the edge
        if self.plan.source == "Gateway":
            tests.append(self.lost(champion, challenger, carries))
        block = ClosedBlock(
            first=state.last + 1,
            last=number,
            weight=self.shown.weight,
            mirror=self.shown.mirror,
            requests=(self.requests(champion, True), self.requests(challenger, False)),
            tests=tuple(tests),
            mixed=self.shown.mixed,
            around=self.around(champion, challenger),
        )
        return block, (Arm(champion.streams, tuple(carries[0])), Arm(challenger.streams, tuple(carries[1])))

    def test(
        self, test: Limit, champion: _Side, challenger: _Side, carries: tuple[list[Carry], list[Carry]]
    ) -> ArmCounts:
        one, one_mirror = self.arm(test, champion, True, carries[0])
        other, other_mirror = self.arm(test, challenger, False, carries[1])
        return ArmCounts(test.measure.name, one, other, one_mirror, other_mirror)

    def arm(self, test: Limit, side: _Side, champion: bool, carries: list[Carry]) -> tuple[Counts, Counts]:
        """(live, mirrored) of one arm."""
        if test.source == "Runtime":
            counts = self.stream(test, side, PODS, (0, 0), carries)
            return (counts, Counts(0, 0)) if self.pods_are_live(champion) else (Counts(0, 0), counts)
        of_live, of_mirror = share_of_probes(*(side.deltas[name] for name in (PODS, LIVE, MIRROR, COPIES)))
        live = self.stream(test, side, LIVE, of_live, carries)
        return live, self.stream(test, side, MIRROR, of_mirror, carries)

    def stream(self, test: Limit, side: _Side, name: str, probes: tuple[int, int], carries: list[Carry]) -> Counts:
        carry = side.carry(test.measure.name, name)
        window = self.plan.window(self.until - self.since)
        counts, carried = counted(test.measure, side.deltas[name], probes, carry, window)
        carries.append(carried)
        return counts

    def lost(self, champion: _Side, challenger: _Side, carries: tuple[list[Carry], list[Carry]]) -> ArmCounts:
        found: list[Counts] = []
        for side, carried in zip((champion, challenger), carries, strict=True):
            known = [carry for carry in side.before.carries if carry.test == TRANSPORT]
            counts, carry = transport.lost(side.sent, known[0] if known else None)
            found.append(counts)
            carried += [carry] if carry is not None else []
        return ArmCounts(TRANSPORT, found[0], found[1])

    def requests(self, side: _Side, champion: bool) -> int:
        """Live requests of one arm: what the router drew, probes not among them."""
        if self.plan.source == "Runtime":
            return side.deltas[PODS].counts[0] if self.pods_are_live(champion) else 0
        (asked, _), _ = share_of_probes(*(side.deltas[name] for name in (PODS, LIVE, MIRROR, COPIES)))
        return max(0, side.deltas[LIVE].counts[0] - asked)

    def around(self, champion: _Side, challenger: _Side) -> Around:
        """Requests around the edges. One scrape of a proxy shows both arms, and what it loses it loses of both; pods
        are scraped one after the other, and end one by one."""
        if self.plan.source == "Gateway":
            return Around()
        one, other = champion.deltas[PODS], challenger.deltas[PODS]
        lost = one.lost or other.lost or one.excess + other.excess > 0
        return Around((one.opened, other.opened), (one.closed, other.closed), lost)

    def pods_are_live(self, champion: bool) -> bool:
        """Pods cannot tell copies from live requests: what may hold copies counts as mirrored, for harm alone."""
        if self.shown.mirror == 0:
            return True
        return champion and self.shown.weight == 0  # only the challenger is copied to before the split


def _live(
    plan: Plan, state: Counters, samples: Samples, changes: Sequence[Change], now: int
) -> tuple[tuple[LiveCounts, ...], int]:
    """For breakers: what was counted since the last edge, settled or not; and units beyond the bound."""
    since = plan.edge(state.last)
    until = max(now, since)
    champion = _advanced(plan, state.champion, samples.champion, since, until, settled=False)
    challenger = _advanced(plan, state.challenger, samples.challenger, since, until, settled=False)
    excess = max(champion.excess, challenger.excess)
    if until == since:
        return (), excess
    block = _Block(plan, exposure(changes, since, until, plan.clock.scrape), since, until)
    found: list[LiveCounts] = []
    for index, test in plan.breakers:
        counts = block.test(test, champion, challenger, ([], []))
        found.append(
            LiveCounts(
                index, _sum(counts.champion, counts.champion_mirror), _sum(counts.challenger, counts.challenger_mirror)
            )
        )
    return tuple(found), excess


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(one.trials + other.trials, one.bad + other.bad)


def _message(missed: Sequence[int], excess: int, notes: Sequence[str]) -> str:
    said: list[str] = []
    for name, count in zip(("champion", "challenger"), missed, strict=True):
        if count:
            said.append(
                f"no sample of the {name}'s series around the last {count} block edges: see that Prometheus scrapes "
                "its pods and the gateway"
            )
    if excess:
        said.append(
            f"{excess} pods or proxies beyond the bound are not counted: scale in, or wait until old ones are forgotten"
        )
    said += dict.fromkeys(notes)
    text = "; ".join(said)
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
