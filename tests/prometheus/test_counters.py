"""Blocks from what a real Prometheus stored: what is counted is what its scrapes saw, whatever happened."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from fiduciary.decide.counters.blocks import START, read
from fiduciary.decide.counters.deltas import between
from fiduciary.decide.counters.state import STARTED, Stream
from tests.prometheus.story import BLOCK

if TYPE_CHECKING:
    from fiduciary.decide.counters.samples import Series
    from tests.prometheus.server import Target
    from tests.prometheus.story import Told


def raw(told: Told, target: Target, at: float | None = None, seconds: int = 120) -> tuple[tuple[int, float], ...]:
    """Stored samples of the started requests of a pod."""
    query = f'fiduciary_requests_started_total{{namespace="{target.namespace}",pod="{target.pod}"}}[{seconds}s]'
    series = told.ask(query, round((time.time() if at is None else at) * 1000), matrix=True)
    return series[0].samples if series else ()


def visible(told: Told, target: Target, *, from_zero: bool = False) -> int:
    """What the stored samples say it counted between the origin and the last edge, restarts added up by hand."""
    since, until = told.plan.origin * 1000, told.plan.edge(told.state.last)
    samples = [(at, value) for at, value in raw(told, target) if at <= until and not math.isnan(value)]
    before = [value for at, value in samples if at <= since]
    last = 0.0 if from_zero else before[-1]
    total = 0.0
    for at, value in samples:
        if at > since:
            total += value - last if value >= last else value
            last = value
    return int(total)


def now(told: Told) -> int:
    return round(time.time() * 1000)


def test_the_sum_of_all_blocks_is_what_was_scraped(told: Told) -> None:
    assert told.blocks[-1].last >= 6
    champion = sum(block.requests[0] for block in told.blocks)
    challenger = sum(block.requests[1] for block in told.blocks)
    assert champion == visible(told, told.steady) + visible(told, told.blinded)
    ours = (told.restarted, told.removed, told.broken)
    assert challenger == sum(visible(told, target) for target in ours) + visible(told, told.late, from_zero=True)
    assert min(champion, challenger) > 500
    for block in told.blocks:
        for test in block.tests:
            assert 0 <= test.champion.bad <= test.champion.trials
            assert 0 <= test.challenger.bad <= test.challenger.trials


def test_samples_are_what_was_exposed_at_the_times_of_the_scrapes(told: Told) -> None:
    stored = [(at, value) for at, value in raw(told, told.steady) if at < (told.at["killed"] - 1) * 1000]
    served = {counts["success"] + counts["server_error"]: at for at, counts in told.steady.served}
    assert len(stored) > 10
    for at, value in stored:
        assert at / 1000 - 0.05 <= served[value] <= at / 1000 + 1.5  # a scrape is dated with its beginning


def test_blocks_follow_each_other_and_an_outage_of_prometheus_merges_some(told: Told) -> None:
    last = -1
    for block in told.blocks:
        assert block.first == last + 1
        last = block.last
    number = int((told.at["killed"] - told.plan.origin) / BLOCK)
    inside = [block for block in told.blocks if block.first <= number < block.last]
    assert inside, told.blocks  # killed in one block, back in the next: their common edge was not seen
    assert inside[0].merged


def test_a_replay_of_everything_closes_the_same_blocks(told: Told) -> None:
    at = now(told)
    again = read(told.plan, START, told.samples(START, at), told.changes, at)
    count = len(told.blocks)
    assert again.blocks[:count] == tuple(told.blocks)


def test_a_pod_that_leaves_discovery_is_gone_at_once_and_its_count_is_kept(told: Told) -> None:
    """A staleness marker ends the series for `time=`, five minutes before its last sample would be too old."""
    last = raw(told, told.removed)[-1][0]
    assert last < raw(told, told.steady)[-1][0] - 5_000
    query = f'fiduciary_requests_started_total{{pod="{told.removed.pod}"}}'
    assert len(told.ask(query, last + 1)) == 1
    assert told.ask(query, last + 3_000) == ()
    samples = told.samples(START, now(told))
    tracks = samples.challenger["pods"]
    clock = told.plan.clock
    stream, delta = between(Stream("pods"), tracks, told.plan.fields, last - 3_000, last + 3_000, clock)
    assert f"quant/{told.removed.pod}" in {unit.key for unit in stream.units}
    assert delta.counts[STARTED] > 0


def test_a_failed_scrape_hides_a_pod_and_loses_nothing(told: Told) -> None:
    samples = raw(told, told.blinded)
    edge = (told.plan.origin + 3 * BLOCK) * 1000
    assert not [at for at, _ in samples if told.at["blinded"] * 1000 + 1_000 < at < told.at["sees"] * 1000 - 100]
    query = f'fiduciary_requests_started_total{{pod="{told.blinded.pod}"}}'
    assert told.ask(query, edge + 300) == ()  # marked as stale, not carried on


def test_what_is_no_number_arrives_as_such_and_is_no_sample(told: Told) -> None:
    assert [value for _, value in raw(told, told.broken) if math.isnan(value)]
    first = raw(told, told.broken)[0][1]
    assert first >= 1_010


def test_time_is_the_end_of_what_is_read(told: Told) -> None:
    samples = raw(told, told.steady)
    middle = samples[len(samples) // 2][0]
    until_it = raw(told, told.steady, at=middle / 1000)
    assert until_it[-1][0] == middle
    assert raw(told, told.steady, at=(middle - 1) / 1000)[-1][0] < middle
    vector = told.ask(f'fiduciary_requests_started_total{{pod="{told.steady.pod}"}}', middle)
    assert vector[0].samples == ((middle, until_it[-1][1]),)


def test_a_pod_cannot_speak_for_another_namespace(told: Told) -> None:
    at = now(told)
    claims: tuple[Series, ...] = told.ask('fiduciary_requests_started_total{exported_namespace="quant"}', at)
    assert [series.labels["namespace"] for series in claims] == ["elsewhere"]
    units = told.samples(START, at).challenger["pods"]
    assert not [key for key in units if "spoof" in key or "foreign" in key]
