"""The gateway as the source: live and mirrored streams, probes, requests that never arrive."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary.decide.counters.blocks import START, Reading, Samples, read
from fiduciary.decide.counters.exposure import Change
from fiduciary.decide.experiment.world import TRANSPORT
from fiduciary.evidence.blocks import Counts
from tests.unit.decide.counters import played
from tests.unit.decide.counters.played import SCRAPE, Process, Request

MINUTES = 8
END = played.START + MINUTES * 60_000
LONG_AGO = played.START - 3_600_000
HALF = (Change(LONG_AGO, LONG_AGO + 5_000, 50, 0),)
SHADOW = (Change(LONG_AGO, LONG_AGO + 5_000, 0, 100),)


@dataclass(frozen=True)
class Arm:
    pods: list[Process]
    live: list[Process]  # its cluster in each proxy
    mirror: list[Process]


def arm(
    name: str,
    sent: list[Request],
    chance: random.Random,
    *,
    lost: float = 0.0,
    mirrored: list[Request] | None = None,
    proxies: int = 2,
    probes: int = 0,
) -> Arm:
    """Requests that two proxies sent to two pods; a part of them is lost on the way."""
    pods = [Process(f"{name}-7d9c5-{number:05d}", LONG_AGO, None, chance.randrange(SCRAPE)) for number in range(2)]
    live = [Process(f"envoy-{number}", LONG_AGO - 9, None, (number * 7_919) % SCRAPE) for number in range(proxies)]
    mirror = [replace(proxy, requests=[]) for proxy in live]
    for clusters, requests in ((live, sent), (mirror, mirrored or [])):
        for request in requests:
            chance.choice(clusters).requests.append(request)
            if chance.random() >= lost:
                travelled = replace(request, began=request.began + chance.randrange(1, 40))
                chance.choice(pods).requests.append(travelled)
    for _ in range(probes):  # through the route: the gateway counts them as requests, the pod as probes
        probe = Request(chance.randrange(played.START, END), None)
        probe = replace(probe, ended=probe.began + 5)
        chance.choice(live).requests.append(probe)
        chance.choice(pods).probes.append(probe)
    return Arm(pods, live, mirror)


def samples(champion: Arm, challenger: Arm, until: int = END, *, mirror: bool = False) -> Samples:
    pods = [series for one in (champion, challenger) for pod in one.pods for series in played.pod_series(pod, until)]
    proxies = []
    for one, workload in ((champion, played.CHAMPION), (challenger, played.CHALLENGER)):
        for process in one.live:
            proxies += played.proxy_series(process, f"quant_{workload.name}_8080", LONG_AGO, until)
        for process in one.mirror if mirror else ():
            proxies += played.proxy_series(process, f"quant_{workload.name}-mirror_8080", LONG_AGO, until)
    return played.of_all(pods, proxies)


def calm(chance: random.Random, count: int, **options: float) -> list[Request]:
    return played.requests(chance, count, LONG_AGO // 1000 * 1000 + 3_500_000, END, **options)


def transport(reading: Reading) -> tuple[Counts, Counts]:
    """Sums over all blocks of (champion, challenger)."""
    found = [test for block in reading.blocks for test in block.tests if test.name == TRANSPORT]
    return (
        Counts(sum(one.champion.trials for one in found), sum(one.champion.bad for one in found)),
        Counts(sum(one.challenger.trials for one in found), sum(one.challenger.bad for one in found)),
    )


@given(st.integers(0, 2**32), st.integers(0, 600), st.integers(0, 600))
@settings(max_examples=25, deadline=None)
def test_where_nothing_is_lost_nothing_is_said_to_be_lost(seed: int, many: int, few: int) -> None:
    chance = random.Random(seed)
    champion = arm("m-aaaaaaaa", calm(chance, many), chance, probes=9)
    # its traffic comes in bursts: plain differences of counters that are scraped apart would be off by hundreds
    edge = chance.choice((played.START + 118_000, played.START + 299_000))
    burst = [Request(edge + chance.randrange(3_000), edge + 9_000) for _ in range(few)]
    challenger = arm("m-bbbbbbbb", calm(chance, 40) + burst, chance, probes=9)
    reading = read(played.plan("Gateway"), START, samples(champion, challenger), HALF, END)
    assert len(reading.blocks) == MINUTES - 1
    assert [counts.bad for counts in transport(reading)] == [0, 0]


@given(st.integers(0, 2**32), st.sampled_from((0.02, 0.2, 1.0)))
@settings(max_examples=25, deadline=None)
def test_what_is_lost_is_found_and_never_more_than_that(seed: int, lost: float) -> None:
    chance = random.Random(seed)
    sent = calm(chance, 4_000)
    champion, challenger = arm("m-aaaaaaaa", calm(chance, 900), chance), arm("m-bbbbbbbb", sent, chance, lost=lost)
    reading = read(played.plan("Gateway"), START, samples(champion, challenger), HALF, END)
    received = sum(len(pod.requests) for pod in challenger.pods)
    _, counts = transport(reading)
    assert counts.bad <= len(sent) - received
    inside = [request for request in sent if played.START < request.began < played.START + (MINUTES - 1) * 60_000]
    rate = len(inside) / (MINUTES - 1) / 60_000
    assert counts.bad >= lost * len(inside) * 0.8 - 3 * rate * SCRAPE - 20


def test_probes_that_came_through_the_route_are_no_trials() -> None:
    chance = random.Random(5)
    champion, challenger = arm("m-aaaaaaaa", [], chance, probes=40), arm("m-bbbbbbbb", [], chance, probes=40)
    reading = read(played.plan("Gateway"), START, samples(champion, challenger), HALF, END)
    assert len(reading.blocks) == MINUTES - 1
    for block in reading.blocks:
        for test in block.tests[:3]:
            # pods and gateway are scraped apart: a probe near an edge may be in one count and not yet in the other
            assert max(test.champion.trials, test.challenger.trials) <= 3
    assert sum(test.champion.trials for block in reading.blocks for test in block.tests[:1]) <= 12


def test_probes_beside_real_traffic_are_taken_off() -> None:
    chance = random.Random(6)
    sent = calm(chance, 700)
    champion, challenger = arm("m-aaaaaaaa", sent, chance, probes=50), arm("m-bbbbbbbb", calm(chance, 700), chance)
    reading = read(played.plan("Gateway"), START, samples(champion, challenger), HALF, END)
    inside = sum(played.START < request.began < played.START + (MINUTES - 1) * 60_000 for request in sent)
    assert sum(block.requests[0] for block in reading.blocks) == pytest.approx(inside, abs=40)


def test_mirrored_requests_are_a_stream_of_their_own() -> None:
    chance = random.Random(7)
    sent = calm(chance, 800, bad=0.0, lost=0.0)
    copies = [replace(request, began=request.began + 1, outcome="server_error") for request in sent]
    champion, challenger = arm("m-aaaaaaaa", sent, chance), arm("m-bbbbbbbb", [], chance, mirrored=copies)
    reading = read(played.plan("Gateway"), START, samples(champion, challenger, mirror=True), SHADOW, END)
    assert len(reading.blocks) == MINUTES - 1
    for block in reading.blocks:
        errors = block.tests[0]
        assert (block.weight, block.mirror, block.mixed) == (0, 100, False)
        assert block.requests[0] == errors.champion.trials > 50
        assert block.requests[1] == errors.challenger.trials == 0
        assert errors.challenger_mirror.trials > 50
        assert errors.champion_mirror.trials == 0
    mirrored = [block.tests[0].challenger_mirror for block in reading.blocks]
    assert sum(counts.bad for counts in mirrored) > 0.95 * sum(counts.trials for counts in mirrored)


def test_a_challenger_whose_cluster_comes_with_its_step_counts_from_zero() -> None:
    chance = random.Random(8)
    begun = played.START + 3 * 60_000 + 20_000
    changes = (*SHADOW[:0], Change(begun, begun + 2_000, 20, 0))
    sent = [request for request in calm(chance, 2_000) if request.began > begun + 500]
    champion, challenger = arm("m-aaaaaaaa", calm(chance, 900), chance), arm("m-bbbbbbbb", sent, chance)
    pods = [s for one in (champion, challenger) for pod in one.pods for s in played.pod_series(pod, END)]
    proxies = [s for p in champion.live for s in played.proxy_series(p, "quant_m-aaaaaaaa_8080", LONG_AGO, END)]
    proxies += [s for p in challenger.live for s in played.proxy_series(p, "quant_m-bbbbbbbb_8080", begun, END)]
    reading = read(played.plan("Gateway"), START, played.of_all(pods, proxies), changes, END)
    assert [(block.weight, block.mixed) for block in reading.blocks] == [
        *[(0, False)] * 3,
        (20, True),
        *[(20, False)] * 3,
    ]
    edge = played.START + 7 * 60_000
    seen = sum(p.began(p.scrapes(edge)[-1]) for p in challenger.live)
    assert sum(block.requests[1] for block in reading.blocks) == seen
    assert reading.health.message == ""
