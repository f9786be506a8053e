"""When a block is closed, what it merges, and what is said of an arm that cannot be seen."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from fiduciary.decide.counters.blocks import START, Samples, read
from fiduciary.decide.counters.exposure import Change, Exposure, exposure
from fiduciary.decide.counters.state import MOST_UNITS
from fiduciary.decide.experiment.world import Around
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.samples import SampleRatio
from tests.unit.decide.counters import played
from tests.unit.decide.counters.played import SCRAPE, Process, Request

END = played.START + 10 * 60_000
LONG_AGO = played.START - 3_600_000
HALF = (Change(LONG_AGO, LONG_AGO + 5_000, 50, 0),)


def minute(number: float) -> int:
    return played.START + round(number * 60_000)


def pair(seed: int = 1, **options: float) -> tuple[Process, Process]:
    chance = random.Random(seed)
    made: list[Process] = []
    for workload, phase in ((played.CHAMPION, 4_000), (played.CHALLENGER, 9_000)):
        pod = Process(f"{workload.name}-7d9c5-abcde", LONG_AGO, None, phase)
        pod.requests = played.requests(chance, 500, played.START - 60_000, END, **options)
        made.append(pod)
    return made[0], made[1]


def dark(pod: Process, since: float, until: float) -> frozenset[int]:
    return frozenset(at for at in pod.scrapes(END) if minute(since) < at < minute(until))


def samples(
    champion: Process,
    challenger: Process,
    until: int = END,
    gaps: tuple[frozenset[int], ...] = (frozenset(), frozenset()),
) -> Samples:
    return played.of_pods(played.pod_series(champion, until, gaps[0]), played.pod_series(challenger, until, gaps[1]))


def test_a_block_is_closed_two_scrapes_and_a_timeout_after_its_edge_and_no_sooner() -> None:
    plan, both = played.plan(), samples(*pair())
    settled = minute(1) + 2 * SCRAPE + played.TIMEOUT
    assert read(plan, START, both, HALF, settled - 1).blocks == ()
    assert [block.last for block in read(plan, START, both, HALF, settled).blocks] == [0]


def test_pods_that_are_scraped_one_after_the_other_make_no_sample_ratio_of_growing_traffic() -> None:
    """The one that is scraped later has always counted more of a rising rate, though each got every second request."""
    champion, challenger = pair()
    champion.phase, challenger.phase = 1_000, 14_000
    began = [minute(-1) + round(math.sqrt(k) * 1_900) for k in range(120_000)]
    champion.requests = [Request(at, at + 20) for at in began[::2]]
    challenger.requests = [Request(at, at + 20) for at in began[1::2]]
    blocks = read(played.plan(), START, samples(champion, challenger), HALF, END).blocks
    bounded, naive = SampleRatio.start((0.5, 0.5)), SampleRatio.start((0.5, 0.5))
    for block in blocks:
        k = block.first
        assert isinstance(bounded, SampleRatio)
        assert isinstance(naive, SampleRatio)
        bounded = bounded.fold(k, k, block.requests, block.around.opened, block.around.closed)
        naive = naive.fold(k, k, block.requests)
        inside = [sum(minute(k) < at <= minute(k + 1) for at in arm) for arm in (began[::2], began[1::2])]
        for count, opened, closed, true in zip(
            block.requests, block.around.opened, block.around.closed, inside, strict=True
        ):
            assert count - opened <= true <= count + closed
    assert isinstance(bounded, SampleRatio)
    assert isinstance(naive, SampleRatio)
    assert naive.log_e > math.log(1000)
    assert bounded.log_e < 0.0


def test_one_scrape_of_a_gateway_shows_both_arms() -> None:
    reading = read(played.plan("Gateway"), START, samples(*pair()), (), END)
    assert all(block.around == Around() for block in reading.blocks)


def test_a_pod_that_ends_or_begins_anew_takes_requests_with_it_that_nobody_counted() -> None:
    champion, challenger = pair()
    challenger.died = minute(3.5)
    other = replace(challenger, pod="m-bbbbbbbb-7d9c5-zzzzz", died=None)
    series = [*played.pod_series(challenger, END), *played.pod_series(other, END)]
    both = played.of_pods(played.pod_series(champion, END), series)
    lost = [block.last for block in read(played.plan(), START, both, HALF, END).blocks if block.around.lost]
    assert lost == [3, 4]  # its last sample is near the edge: what it did until its end may belong to the next
    challenger.died = None
    before, after = replace(challenger, died=minute(3.5)), replace(challenger, born=minute(3.5))
    series = [*played.pod_series(before, END), *played.pod_series(after, END)]
    again = played.of_pods(played.pod_series(champion, END), series)
    assert [block.last for block in read(played.plan(), START, again, HALF, END).blocks if block.around.lost] == [3]


def test_what_a_new_pod_had_before_its_first_sample_makes_no_sample_ratio() -> None:
    """Two hundred requests a second, each arm gets every second one; one arm moves to another pod before an edge."""
    champion, old = pair()
    every = [Request(at, at + 1) for at in range(minute(-1), END, 5)]
    new = replace(old, pod="m-bbbbbbbb-7d9c5-zzzzz", born=minute(4) - 24_000, phase=1_000)
    champion.requests, old.phase = every[::2], 14_000
    old.requests = [one for one in every[1::2] if one.began < new.born]
    new.requests = [one for one in every[1::2] if one.began >= new.born]
    unknown = frozenset(at for at in new.scrapes(END) if at < minute(4))  # Prometheus had to hear of it first
    series = [*played.pod_series(old, END), *played.pod_series(new, END, unknown)]
    both = played.of_pods(played.pod_series(champion, END), series)
    ratio = SampleRatio.start((0.5, 0.5))
    for block in read(played.plan(), START, both, HALF, END).blocks:
        k, around = block.first, block.around
        assert isinstance(ratio, SampleRatio)
        ratio = ratio.skip(k, k) if around.lost else ratio.fold(k, k, block.requests, around.opened, around.closed)
        assert isinstance(ratio, SampleRatio)
        assert ratio.log_e < 0.0, block


def test_pods_beyond_the_bound_are_requests_that_nobody_counted() -> None:
    champion, challenger = pair()
    pods = [replace(challenger, pod=f"m-bbbbbbbb-7d9c5-{number:05}") for number in range(MOST_UNITS + 1)]
    series = [one for pod in pods for one in played.pod_series(pod, minute(3))]
    both = played.of_pods(played.pod_series(champion, minute(3)), series)
    assert all(block.around.lost for block in read(played.plan(), START, both, HALF, minute(3)).blocks)


def test_pods_that_do_not_count_at_a_latency_say_nothing_of_it() -> None:
    """They were made before the spec named it: nobody is slow for that."""
    champion, challenger = pair()
    old = [one for one in played.pod_series(champion, END) if "le" not in one.labels]
    both = played.of_pods(old, played.pod_series(challenger, END))
    blocks = read(played.plan(), START, both, HALF, END).blocks
    known = read(played.plan(), START, samples(champion, challenger), HALF, END).blocks
    assert len(blocks) == len(known) > 5
    for block, whole in zip(blocks, known, strict=True):
        assert block.tests[:2] == whole.tests[:2], "errors are counted as ever"
        assert block.tests[2] == replace(whole.tests[2], champion=Counts(0, 0))
    new = replace(champion, pod="m-aaaaaaaa-7d9c5-zzzzz")
    both = played.of_pods([*old, *played.pod_series(new, END)], played.pod_series(challenger, END))
    one, other = (
        read(played.plan(), START, both, HALF, END),
        read(played.plan(), START, samples(new, challenger), HALF, END),
    )
    assert [block.tests[2] for block in one.blocks] == [block.tests[2] for block in other.blocks]


def test_an_outage_in_the_middle_of_a_block_costs_nothing() -> None:
    champion, challenger = pair()
    gaps = (dark(champion, 2.3, 2.7), dark(challenger, 2.3, 2.7))
    plan = played.plan()
    assert read(plan, START, samples(champion, challenger, gaps=gaps), HALF, END).blocks == (
        read(plan, START, samples(champion, challenger), HALF, END).blocks
    )


def test_an_outage_over_edges_is_one_merged_block_with_the_same_sum() -> None:
    champion, challenger = pair()
    gaps = (dark(champion, 2.5, 5.2), dark(challenger, 2.5, 5.2))
    reading = read(played.plan(), START, samples(champion, challenger, gaps=gaps), HALF, END)
    whole = read(played.plan(), START, samples(champion, challenger), HALF, END)
    assert [(block.first, block.last) for block in reading.blocks] == [(0, 0), (1, 1), (2, 5), (6, 6), (7, 7), (8, 8)]
    merged = reading.blocks[2]
    assert merged.merged
    assert merged.requests == tuple(sum(block.requests[arm] for block in whole.blocks[2:6]) for arm in (0, 1))
    assert [block.requests for block in reading.blocks[3:]] == [block.requests for block in whole.blocks[6:]]


def test_edges_at_which_an_arm_was_not_seen_are_counted_and_said() -> None:
    champion, challenger = pair()
    until = minute(5) + 41_000
    blind = samples(champion, challenger, until, (frozenset(), dark(challenger, 2.5, 9)))
    health = read(played.plan(), START, blind, HALF, until).health
    assert (health.champion_missed, health.challenger_missed) == (0, 3)
    assert "the challenger's series around the last 3 block edges" in health.message
    nothing = read(played.plan(), START, Samples(), HALF, until).health
    assert (nothing.champion_missed, nothing.challenger_missed) == (5, 5)


def test_one_good_edge_ends_the_count() -> None:
    champion, challenger = pair()
    until = minute(6) + 41_000
    blind = samples(champion, challenger, until, (frozenset(), dark(challenger, 2.5, 5.5)))
    assert read(played.plan(), START, blind, HALF, until).health.challenger_missed == 0


def test_a_challenger_without_requests_need_not_be_seen() -> None:
    champion, _ = pair()
    alone = played.of_pods(played.pod_series(champion, END), [])
    reading = read(played.plan(), START, alone, (), END)
    assert len(reading.blocks) == 9
    assert reading.health.challenger_missed == 0


def test_pods_of_a_shadow_count_as_mirrored() -> None:
    shadow = (Change(LONG_AGO, LONG_AGO + 5_000, 0, 100),)
    block = read(played.plan(), START, samples(*pair()), shadow, END).blocks[0]
    errors = block.tests[0]
    assert errors.champion.trials == block.requests[0] > 0
    assert errors.champion_mirror == errors.challenger == Counts(0, 0)
    assert errors.challenger_mirror.trials > 0
    assert block.requests[1] == 0


def test_pods_that_get_copies_beside_live_requests_count_for_harm_alone() -> None:
    both = (Change(LONG_AGO, LONG_AGO + 5_000, 50, 100),)
    block = read(played.plan(), START, samples(*pair()), both, END).blocks[0]
    assert block.requests == (0, 0)
    assert block.tests[0].champion == block.tests[0].challenger == Counts(0, 0)
    assert min(block.tests[0].champion_mirror.trials, block.tests[0].challenger_mirror.trials) > 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), Exposure(0, 0, False)),
        ((Change(100_000, 150_000, 5, 100),), Exposure(5, 100, False)),
        ((Change(100_000, None, 5, 100),), Exposure(5, 100, True)),
        ((Change(982_000, 982_000, 5, 0),), Exposure(5, 0, False)),
        ((Change(980_000, 982_001, 5, 0),), Exposure(5, 0, True)),  # the value at the edge may be from before
        ((Change(100_000, 150_000, 5, 0), Change(1_030_000, 1_040_000, 50, 0)), Exposure(50, 0, True)),
        ((Change(1_063_000, 1_070_000, 50, 0), Change(100_000, 150_000, 5, 0)), Exposure(5, 0, False)),
        # by Prometheus' clock it may have been inside
        ((Change(1_062_999, 1_070_000, 50, 0), Change(100_000, 150_000, 5, 0)), Exposure(50, 0, True)),
    ],
)
def test_weights_of_a_block_from_1000_to_1060(changes: tuple[Change, ...], expected: Exposure) -> None:
    assert exposure(changes, 1_000_000, 1_060_000, 15_000) == expected


def hung(share: float) -> Process:
    """One request a second; from minute 3 on this share of them is never answered."""
    pod = Process("m-bbbbbbbb-7d9c5-abcde", LONG_AGO, None, 9_000)
    chance = random.Random(3)
    for second in range(-60, 600):
        began = minute(0) + second * 1000
        lost = second >= 180 and chance.random() < share
        pod.requests.append(Request(began, None if lost else began + 20))
    return pod


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_requests_that_hang_are_bad_in_their_own_block(share: float) -> None:
    champion, _ = pair(lost=0.0, bad=0.0)
    reading = read(played.plan(), START, samples(champion, hung(share)), HALF, END)
    bad = [block.tests[0].challenger.bad for block in reading.blocks]
    assert bad[:3] == [0, 0, 0]
    assert bad[3] >= 60 * share * 0.6 - 4  # 2 * patience / block of them may still be answered in time
    assert sum(bad[3:]) >= 360 * share * 0.85
    slow = [block.tests[2].challenger.bad for block in reading.blocks]
    assert sum(slow) == pytest.approx(sum(bad), abs=3)


def test_requests_under_way_at_an_edge_are_not_bad() -> None:
    champion, _ = pair()
    pod = Process("m-bbbbbbbb-7d9c5-abcde", LONG_AGO, None, 0)  # scraped exactly at the edges
    pod.requests = [Request(began, began + 900) for began in range(minute(-1), END, 1_000)]
    reading = read(played.plan(), START, samples(champion, replace(pod)), HALF, END)
    assert {block.tests[0].challenger for block in reading.blocks} == {Counts(60, 0)}


def test_requests_in_flight_when_their_pod_is_killed_are_bad() -> None:
    champion, _ = pair()
    killed = Process("m-bbbbbbbb-7d9c5-abcde", LONG_AGO, minute(3.5), 9_000)
    killed.requests = [Request(began, began + 20) for began in range(minute(-1) + 500, minute(3.5), 1_000)]
    killed.requests += [Request(minute(3.3) + number, None) for number in range(2)]
    other = Process("m-bbbbbbbb-7d9c5-fghij", LONG_AGO, None, 2_000)
    both = played.pod_series(killed, END) + played.pod_series(other, END)
    reading = read(played.plan(), START, played.of_pods(played.pod_series(champion, END), both), HALF, END)
    assert [block.tests[0].challenger.bad for block in reading.blocks] == [0, 0, 0, 2, 0, 0, 0, 0, 0]


def test_breakers_read_what_is_not_settled_at_each_scrape() -> None:
    champion, challenger = pair(lost=0.0, bad=0.0)
    since = minute(4)
    challenger.requests = [replace(r, outcome="server_error") if r.began > since else r for r in challenger.requests]
    until = since + 25_000  # the block of minute 3 is not settled yet
    reading = read(played.plan(), START, samples(champion, challenger, until), HALF, until)
    assert reading.state.last == 2
    (live,) = reading.live
    assert live.breaker == 0
    edge = minute(3)
    last = challenger.scrapes(until)[-1]
    failed = challenger.answered(last, "server_error")
    assert failed > 5
    assert live.challenger.bad == pytest.approx(failed, abs=1)
    before = challenger.began(challenger.scrapes(edge)[-1])
    assert live.challenger.trials == challenger.began(last) - before
    assert live.champion.bad <= 1


def test_breakers_see_nothing_before_anything_was_counted() -> None:
    reading = read(played.plan(), START, Samples(), HALF, played.START - 5_000)
    assert reading.live == ()
    assert reading.blocks == ()
