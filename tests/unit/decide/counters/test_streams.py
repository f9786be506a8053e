"""Random lives of pods: what is counted is what happened, in whatever portions and order it is read."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary.decide.counters.blocks import START, Reading, Samples, read
from fiduciary.decide.counters.exposure import Change
from fiduciary.decide.counters.state import Counters
from fiduciary.evidence import codec
from tests.unit.decide.counters import played
from tests.unit.decide.counters.played import SCRAPE, Process

if TYPE_CHECKING:
    from fiduciary.decide.counters.samples import Series

MINUTES = 14
END = played.START + MINUTES * 60_000
HALF = (Change(played.START - 3_600_000, played.START - 3_500_000, 50, 0),)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Process], list[Process], dict[str, frozenset[int]]]:
    """(champion's processes, challenger's, scrapes that failed per pod). Each arm has a pod that exists throughout."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    arms: list[list[Process]] = []
    skipped: dict[str, frozenset[int]] = {}
    failing = draw(st.sampled_from((0.0, 0.05, 0.3)))
    for workload in (played.CHAMPION, played.CHALLENGER):
        pods: list[Process] = []
        for number in range(draw(st.integers(1, 4))):
            born = played.START - chance.randrange(3_600_000)
            died = None
            if number:
                born = played.START + chance.randrange(-600_000, MINUTES * 60_000)
                died = born + chance.randrange(1_000, 900_000)
            pod = Process(f"{workload.name}-7d9c5-{number:05d}", born, died, chance.randrange(SCRAPE))
            pod.requests = played.requests(chance, chance.randrange(80), max(born, played.START - 120_000), died or END)
            pods.append(pod)
            again: Process | None = None
            if chance.random() < 0.4:  # its container is restarted: the same pod counts from 0
                pod.died = died = min(died or END, max(born + 1, played.START + chance.randrange(MINUTES * 60_000)))
                pod.requests = [request for request in pod.requests if request.began < died]
                again = Process(pod.pod, died + chance.randrange(20_000), None, pod.phase)
                again.requests = played.requests(chance, chance.randrange(80), again.born, END)
                pods.append(again)
            times = pod.scrapes(END) + (again.scrapes(END) if again else [])
            skipped[pod.pod] = frozenset(at for at in times if chance.random() < failing)
        arms.append(pods)
    return arms[0], arms[1], skipped


def samples_of(world: tuple[list[Process], list[Process], dict[str, frozenset[int]]], until: int) -> Samples:
    champion, challenger, skipped = world
    return played.of_pods(
        [series for pod in champion for series in played.pod_series(pod, until, skipped[pod.pod])],
        [series for pod in challenger for series in played.pod_series(pod, until, skipped[pod.pod])],
    )


def stored(state: Counters) -> Counters:
    """The state as the next reconcile, or the next replica, reads it from the status."""
    back = codec.decode(Counters, json.loads(json.dumps(codec.encode(state))))
    assert isinstance(back, Counters)
    return back


@given(worlds(), st.lists(st.integers(0, MINUTES * 60), max_size=12))
@settings(max_examples=30, deadline=None)
def test_a_replay_closes_the_same_blocks_as_the_stream(
    world: tuple[list[Process], list[Process], dict[str, frozenset[int]]], looks: list[int]
) -> None:
    plan = played.plan()
    whole = read(plan, START, samples_of(world, END), HALF, END)
    state, blocks = START, []
    for second in [*sorted(looks), MINUTES * 60]:
        now = played.START + second * 1000
        reading = read(plan, state, samples_of(world, now), HALF, now)
        blocks += reading.blocks
        state = stored(reading.state)
    assert tuple(blocks) == whole.blocks
    assert state == whole.state


@given(worlds(), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_order_and_repetition_of_answers_change_nothing(
    world: tuple[list[Process], list[Process], dict[str, frozenset[int]]], seed: int
) -> None:
    champion, challenger, skipped = world
    chance = random.Random(seed)
    plain = [s for pod in (*champion, *challenger) for s in played.pod_series(pod, END, skipped[pod.pod])]
    torn: list[Series] = []
    for series in plain:  # answers that overlap, in any order
        cut = chance.randrange(len(series.samples) + 1)
        again = max(0, cut - 3)
        torn += [replace(series, samples=series.samples[:cut]), replace(series, samples=series.samples[again:])]
    torn += chance.sample(plain, len(plain) // 2)
    chance.shuffle(torn)
    plan = played.plan()
    expected = read(plan, START, played.of_pods(plain, []), HALF, END)
    assert read(plan, START, played.of_pods(torn, []), HALF, END) == expected


@given(worlds())
@settings(max_examples=60, deadline=None)
def test_the_sum_over_blocks_is_what_happened(
    world: tuple[list[Process], list[Process], dict[str, frozenset[int]]],
) -> None:
    plan = played.plan()
    reading = read(plan, START, samples_of(world, END), HALF, END)
    check_blocks(reading)
    assert "fewer requests" not in reading.health.message
    if "was not scraped when it began" in reading.health.message:
        return  # nobody can know what it had counted
    edge = plan.edge(reading.state.last)
    for arm, pods in enumerate(world[:2]):
        seen = [visible(pod, world[2][pod.pod], edge) for pod in pods if not replaced_before_start(pod, pods, world[2])]
        started = sum(after.began - before.began for before, after in seen)
        failed = sum(after.failed - before.failed for before, after in seen)
        refused = sum(after.refused - before.refused for before, after in seen)
        assert sum(block.requests[arm] for block in reading.blocks) == started
        errors, client = (
            [(block.tests[place].champion, block.tests[place].challenger)[arm] for block in reading.blocks]
            for place in (0, 1)
        )
        assert sum(counts.trials for counts in errors) == started
        kept = reading.state.champion if arm == 0 else reading.state.challenger
        owed = {carry.test: carry for carry in kept.carries}
        if reading.blocks:
            assert sum(counts.bad for counts in client) + owed["refused"].owed == refused
            # failed, or never answered and no longer excused as under way
            waiting = sum(after.waiting for _, after in seen) - sum(before.waiting for before, _ in seen)
            adopted = sum(before.waiting for before, _ in seen)
            bad = sum(counts.bad for counts in errors) + owed["errors"].owed + owed["errors"].excused
            assert bad == failed + waiting + adopted


def check_blocks(reading: Reading) -> None:
    last = -1
    for block in reading.blocks:
        assert block.first == last + 1 <= block.last
        last = block.last
        for test in block.tests:
            for counts in (test.champion, test.challenger, test.champion_mirror, test.challenger_mirror):
                assert 0 <= counts.bad <= counts.trials
    assert reading.state.last == last


class Seen:
    """What the last scrape of a process at or before ``at`` showed."""

    def __init__(self, pod: Process, at: int | None) -> None:
        self.began = self.failed = self.refused = self.waiting = 0
        if at is not None:
            self.began = pod.began(at)
            self.failed = pod.answered(at, "server_error")
            self.refused = pod.answered(at, "client_error")
            self.waiting = self.began - pod.ended(at)


def replaced_before_start(pod: Process, pods: list[Process], skipped: dict[str, frozenset[int]]) -> bool:
    """The pod's next process was seen before the origin."""
    later = [other for other in pods if other.pod == pod.pod and other.born > pod.born]
    return any(at not in skipped[pod.pod] for other in later for at in other.scrapes(played.START))


def visible(pod: Process, skipped: frozenset[int], edge: int) -> tuple[Seen, Seen]:
    """(before the origin, at the edge)."""
    times = [at for at in pod.scrapes(edge) if at not in skipped]
    before = [at for at in times if at <= played.START]
    gone = not times or times[-1] <= played.START - played.plan().clock.before  # unseen when the experiment began
    if gone:
        return Seen(pod, None), Seen(pod, None)
    return Seen(pod, before[-1] if before else None), Seen(pod, times[-1])
