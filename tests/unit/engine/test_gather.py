"""Asking Prometheus for experiments together: how many questions, when, and what an answer that is none becomes."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from fiduciary.clients.prometheus_answers import PrometheusError
from fiduciary.decide.counters.blocks import START, read
from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.exposure import Change
from fiduciary.decide.counters.runtime import Runtime, Seldon
from fiduciary.decide.counters.templates import Workload
from fiduciary.engine.experiments import asking, gather
from fiduciary.engine.experiments.asking import Sources, Want
from fiduciary.engine.experiments.gather import Gatherer
from fiduciary.engine.experiments.past import DAY, Past, Pasts
from fiduciary.engine.metrics import Metrics
from fiduciary.evidence.blocks import Counts
from tests.unit.decide.counters.played import ORIGIN, plan
from tests.unit.engine.counting import SCRAPE, Counter, MemoryPrometheus

SOURCES = Sources(Runtime(), Seldon(), None, scrape_seconds=15, timeout_seconds=10)
BOTH = Sources(Runtime(), Seldon(), Contour(("projectcontour",)), scrape_seconds=15, timeout_seconds=10)
EDGE = ORIGIN * 1000
MINUTE = 60_000
SETTLED = 2 * SCRAPE + 10_000


class Asked:
    """A gatherer over pods that count ten requests a second, and its clock."""

    def __init__(self, count: int = 1, sources: Sources = SOURCES, **options: Any) -> None:
        self.now = EDGE
        self.prometheus = MemoryPrometheus()
        self.changed: list[Any] = []
        self.metrics = Metrics()
        self.gatherer = Gatherer(
            self.prometheus, sources, self.changed.append, self.metrics, now=lambda: self.now, **options
        )
        for number in range(count):
            for arm in "ab":
                pod = f"m{number}-{arm}-7d9c5-x1"
                self.prometheus.pods[pod] = Counter("quant", pod, EDGE - 10 * MINUTE)
        self.scraped = EDGE - 10 * MINUTE
        self.scrape()

    def scrape(self) -> None:
        while self.scraped + SCRAPE <= self.now:
            self.scraped += SCRAPE
            for counter in self.prometheus.pods.values():
                counter.take(150, 0.02)
            self.prometheus.scrape(self.scraped)

    def want(self, number: int = 0, last: int = -1, **changes: Any) -> Want:
        each = changes.pop("each_scrape", False)
        champion, challenger = (Workload("quant", f"m{number}-{arm}") for arm in "ab")
        return Want(plan(**changes), champion, challenger, last, each)

    def until(self, at: int) -> None:
        """Play to this moment, asking when it is due."""
        while True:
            due = self.gatherer.next_due()
            if due is None or due > at:
                self.now = at
                self.scrape()
                return
            self.now = max(self.now, due)
            self.scrape()
            asyncio.run(self.gatherer.ask())

    def blocks(self, last: int = -1) -> Any:
        want, result = self.want(last=last), self.gatherer.results(0, last)
        assert result is not None
        return read(want.plan, START, result.samples, (Change(0, 0, 50, 0),), result.at)


def test_it_asks_when_an_edge_is_settled_and_what_is_answered_closes_its_block() -> None:
    asked = Asked()
    asked.gatherer.aim(0, asked.want())
    asked.until(EDGE + MINUTE + SETTLED - 1)
    assert asked.prometheus.queries == []
    asked.until(EDGE + MINUTE + SETTLED)
    assert [at for _, at in asked.prometheus.queries] == [EDGE + MINUTE + SETTLED]
    assert asked.changed == [0]
    (block,) = asked.blocks().blocks
    assert (block.first, block.last, block.requests) == (0, 0, (600, 600))
    # until it is folded it is asked for again with each scrape, then with the next edge
    asked.until(EDGE + MINUTE + SETTLED + 2 * SCRAPE)
    assert len(asked.prometheus.queries) == 3
    asked.gatherer.aim(0, asked.want(last=0))
    asked.until(EDGE + 2 * MINUTE + SETTLED)
    assert [at for _, at in asked.prometheus.queries[3:]] == [EDGE + 2 * MINUTE + SETTLED]


def test_breakers_are_fed_at_each_scrape_at_the_same_moments() -> None:
    asked = Asked(count=3)
    for number in range(3):
        asked.gatherer.aim(number, asked.want(number, each_scrape=number < 2))
    asked.until(EDGE + 4 * MINUTE)
    moments = sorted({at for _, at in asked.prometheus.queries})
    assert len(moments) == len(asked.prometheus.queries), "one question for all"
    apart = [later - at for at, later in itertools.pairwise(moments[1:])]
    assert set(apart) == {SCRAPE}
    assert EDGE + MINUTE + SETTLED in moments


def test_two_hundred_experiments_are_a_handful_of_questions() -> None:
    asked = Asked(count=200, most=50_000)
    for number in range(200):
        asked.gatherer.aim(number, asked.want(number))
    asked.until(EDGE + MINUTE + SETTLED)
    assert len(asked.prometheus.queries) == 4, "nobody knows yet how many pods there are"
    assert sorted(asked.changed) == list(range(200))
    for number in range(200):
        asked.gatherer.aim(number, asked.want(number, last=0))
    asked.until(EDGE + 2 * MINUTE + SETTLED)
    assert len(asked.prometheus.queries) == 4 + 2
    text = asked.metrics.render().decode()
    assert 'fiduciary_prometheus_queries_total{template="Runtime"}' in text
    assert "fiduciary_experiments_counted 200.0" in text


class Hanging:
    """A Prometheus before which some versions' queries hang until they are let go, or run into their time limit."""

    def __init__(self, inner: MemoryPrometheus, *names: str) -> None:
        self.inner = inner
        self.names = names
        self.asked: list[str] = []
        self.hangs, self.go = asyncio.Event(), asyncio.Event()
        self.timeout = False

    async def matrix(self, promql: str, at: int) -> Any:
        self.asked.append(promql)
        if any(f"{name}(" in promql for name in self.names):
            if self.timeout:
                raise PrometheusError("PrometheusTimeout", "no answer within 10 s")
            self.hangs.set()
            await self.go.wait()
        return await self.inner.matrix(promql, at)


def hanging(count: int, *names: str, most: int, **options: Any) -> tuple[Asked, Hanging]:
    """The first edge is settled, every experiment is due, and what is asked about ``names`` hangs."""
    asked = Asked(count=count)
    asked.now = EDGE + MINUTE + SETTLED
    asked.scrape()
    slow = Hanging(asked.prometheus, *names)
    asked.gatherer = Gatherer(
        slow, SOURCES, asked.changed.append, Metrics(), now=lambda: asked.now, most=most, **options
    )
    for number in range(count):
        asked.gatherer.aim(number, asked.want(number, each_scrape=True))
    return asked, slow


async def turns(condition: Any) -> None:
    """Let the others work until it is so."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


def test_a_slow_answer_for_one_delays_nobody_else() -> None:
    async def scenario() -> None:
        asked, slow = hanging(3, "m1-a", most=500)  # a query for each version
        under_way = asyncio.create_task(asked.gatherer.ask())
        await turns(lambda: sorted(asked.changed) == [0, 2])
        assert asked.gatherer.results(1, -1) is None
        slow.go.set()
        await under_way
        assert sorted(asked.changed) == [0, 1, 2]
        assert asked.gatherer.results(1, -1) is not None

    asyncio.run(scenario())


def test_the_next_scrape_is_asked_about_while_an_answer_is_awaited_and_who_waits_is_asked_once() -> None:
    async def scenario() -> None:
        asked, slow = hanging(2, "m1-a", most=500)
        under_way = asyncio.create_task(asked.gatherer.ask())
        await turns(lambda: asked.changed == [0])
        for _ in range(3):
            due = asked.gatherer.next_due()
            assert due is not None
            asked.now = due
            asked.scrape()
            await asked.gatherer.ask()
        assert asked.changed == [0] * 4
        assert sum("m1-a(" in query for query in slow.asked) == 1
        slow.go.set()
        await under_way
        assert asked.changed == [0] * 4 + [1]
        assert asked.gatherer.next_due() is not None

    asyncio.run(scenario())


def test_the_loop_itself_goes_on_while_an_answer_is_awaited() -> None:
    """The real task with the real pauses: what begins later has its answer while an earlier question hangs."""

    async def scenario() -> None:
        asked, slow = hanging(1, "m0-a", most=500)
        told = asyncio.Event()
        asked.gatherer._changed = lambda key: told.set() if key == 7 else None
        task = asyncio.create_task(asked.gatherer.run())
        await asyncio.wait_for(slow.hangs.wait(), 20)
        asked.gatherer.aim(7, asked.want(7, each_scrape=True))
        await asyncio.wait_for(told.wait(), 20)
        assert asked.gatherer.results(0, -1) is None
        asked.gatherer.close()
        await task

    asyncio.run(scenario())


def test_what_is_caught_up_on_never_takes_the_turn_of_the_present() -> None:
    async def scenario() -> None:
        asked = Asked(count=2)
        asked.now = EDGE + 600 * MINUTE
        asked.scrape()
        slow, urgent = Hanging(asked.prometheus, "m0-a", "m0-b"), Hanging(asked.prometheus)
        asked.gatherer = Gatherer(
            slow, SOURCES, asked.changed.append, Metrics(), urgent=urgent, now=lambda: asked.now, most=2_000
        )
        asked.gatherer.aim(0, asked.want(0, each_scrape=True))  # ten hours behind
        asked.gatherer.aim(1, asked.want(1, last=597, each_scrape=True))
        under_way = asyncio.create_task(asked.gatherer.ask())
        await turns(lambda: asked.changed == [1])
        assert all("m1-" in query and "m0-" not in query for query in urgent.asked)
        assert all("m0-" in query for query in slow.asked)
        slow.go.set()
        await under_way

    asyncio.run(scenario())


def test_who_makes_a_question_slow_is_soon_asked_about_alone() -> None:
    """Prometheus gives no answer in time to whatever holds one version: in a few scrapes all others are seen again."""
    asked, slow = hanging(8, "m3-a", most=50_000)
    slow.timeout = True

    def blind() -> set[int]:
        results = {number: asked.gatherer.results(number, -1) for number in range(8)}
        return {number for number, result in results.items() if result is None or result.error is not None}

    asyncio.run(asked.gatherer.ask())
    assert blind() == set(range(8)), "they share a query"
    for _ in range(5):
        due = asked.gatherer.next_due()
        assert due is not None
        asked.now = due
        asked.scrape()
        asyncio.run(asked.gatherer.ask())
    assert blind() == {3}
    asyncio.run(asked.gatherer.ask())
    slow.timeout, slow.names = False, ()
    for _ in range(2):
        asked.now += SCRAPE
        asked.scrape()
        asked.prometheus.queries.clear()
        asyncio.run(asked.gatherer.ask())
    assert len(asked.prometheus.queries) == 1, "all in one again"


def test_who_is_slow_even_alone_stays_alone_and_costs_the_others_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, _ = hanging(8, most=50_000)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=lambda: clock.now))

    class Slow(Hanging):
        """Nine seconds for one version alone, more than it has where another one is asked about, too."""

        async def matrix(self, promql: str, at: int) -> Any:
            if "m3-" in promql:
                clock.now += 9.0
                if any(f"m{number}-" in promql for number in range(8) if number != 3):
                    raise PrometheusError("PrometheusTimeout", "no answer within 10 s")
            return await self.inner.matrix(promql, at)

    asked.gatherer = Gatherer(
        Slow(asked.prometheus), SOURCES, asked.changed.append, Metrics(), now=lambda: asked.now, most=50_000
    )
    for number in range(8):
        asked.gatherer.aim(number, asked.want(number, each_scrape=True))
    blind: list[int] = []
    for _ in range(20):
        asyncio.run(asked.gatherer.ask())
        found = (asked.gatherer.results(number, -1) for number in range(8))
        blind.append(sum(result is None or result.error is not None for result in found))
        due = asked.gatherer.next_due()
        assert due is not None
        asked.now = due
        asked.scrape()
    assert blind[0] == 8, "they share a query"
    assert not any(blind[6:]), blind


@pytest.mark.parametrize(("reason", "most"), [("PrometheusTimeout", 5), ("PrometheusTooLarge", 2)])
def test_who_is_slow_or_wrong_for_everybody_is_not_asked_ever_more(reason: Any, most: int) -> None:
    """Two hundred experiments were 400 questions a scrape, and 796 in one of them: against 4 to 9 of one that is away,
    whose number grows with what is to be caught up on."""

    def asked_of(reason: Any) -> list[int]:
        asked, _ = hanging(200, most=50_000)
        count = 0

        class Failing:
            async def matrix(self, promql: str, at: int) -> Any:
                nonlocal count
                count += 1
                raise PrometheusError(reason, "no answer")

        gatherer = Gatherer(Failing(), SOURCES, asked.changed.append, Metrics(), now=lambda: asked.now, most=50_000)
        for number in range(200):
            gatherer.aim(number, asked.want(number, each_scrape=True))
        counts: list[int] = []
        for _ in range(12):
            count = 0
            asyncio.run(gatherer.ask())
            counts.append(count)
            due = gatherer.next_due()
            assert due is not None
            asked.now = due
        return counts

    away, found = asked_of("PrometheusUnreachable"), asked_of(reason)
    assert max(found[1:]) <= most * max(away), found
    assert found[0] <= 33 * away[0], "the halves of a question, until none of them was any better"


def test_everybody_is_seen_again_where_only_large_questions_are_too_slow() -> None:
    asked, _ = hanging(64, most=50_000)

    class Small:
        async def matrix(self, promql: str, at: int) -> Any:
            if promql.count("(-predictor)") > 8:
                raise PrometheusError("PrometheusTimeout", "no answer within 10 s")
            return await asked.prometheus.matrix(promql, at)

    gatherer = Gatherer(Small(), SOURCES, asked.changed.append, Metrics(), now=lambda: asked.now, most=50_000)
    for number in range(64):
        gatherer.aim(number, asked.want(number, each_scrape=True))
    seen: set[int] = set()
    for _ in range(12):
        asyncio.run(gatherer.ask())
        for number in range(64):
            result = gatherer.results(number, -1)
            seen |= {number} if result is not None and result.error is None else set()
        due = gatherer.next_due()
        assert due is not None
        asked.now = due
        asked.scrape()
    assert seen == set(range(64))


@pytest.mark.timeout(30)
def test_an_answer_that_breaks_us_is_no_answer_and_blinds_him_alone_whose_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = asking.tracks

    def broken(template: Any, answer: Any, thresholds: Any) -> Any:
        if any(series.labels["pod"].startswith("m3-") for series in answer):
            raise ValueError("nobody thought of that")
        return known(template, answer, thresholds)

    monkeypatch.setattr(asking, "tracks", broken)
    told: list[str] = []
    monkeypatch.setattr(gather, "log", SimpleNamespace(exception=told.append, warning=lambda *_, **__: None))

    async def life() -> None:
        asked, _ = hanging(4, most=50_000)
        inner = asked.prometheus.matrix

        async def confined(promql: str, at: int) -> Any:
            return tuple(
                one for one in await inner(promql, at) if f"{one.labels['pod'].rpartition('-7d9c5')[0]}(" in promql
            )

        monkeypatch.setattr(asked.prometheus, "matrix", confined)

        def blind() -> set[int]:
            results = {number: asked.gatherer.results(number, -1) for number in range(4)}
            return {number for number, result in results.items() if result is None or result.error is not None}

        for expected in (set(range(4)), {3}, {3}):
            await asked.gatherer._round(asked.gatherer._due())
            assert blind() == expected
            due = asked.gatherer.next_due()
            assert due is not None
            asked.now = due
            asked.scrape()

    asyncio.run(life())
    assert told == ["gather.bug"] * 3


def test_gateway_and_pods_are_one_question_each() -> None:
    asked = Asked(sources=BOTH)
    asked.gatherer.aim(0, asked.want(source="Gateway"))
    asked.until(EDGE + MINUTE + SETTLED)
    names = [query for query, _ in asked.prometheus.queries]
    assert len(names) == 2
    assert sum("envoy_cluster_upstream_rq_total" in name for name in names) == 1


def test_what_is_no_answer_is_a_result_with_its_reason_and_is_counted() -> None:
    asked = Asked()
    asked.prometheus.away = "PrometheusTimeout"
    asked.gatherer.aim(0, asked.want())
    asked.until(EDGE + MINUTE + SETTLED)
    result = asked.gatherer.results(0, -1)
    assert result is not None
    assert result.error is not None
    assert (result.error.reason, result.samples.champion) == ("PrometheusTimeout", {})
    assert 'errors_total{reason="PrometheusTimeout",template="Runtime"} 1.0' in asked.metrics.render().decode()
    asked.until(EDGE + MINUTE + SETTLED + SCRAPE)
    assert len(asked.prometheus.queries) == 2, "the next scrape asks again, nothing sooner"
    asked.prometheus.away = None
    asked.until(EDGE + MINUTE + SETTLED + 2 * SCRAPE)
    assert len(asked.blocks().blocks) == 1


def test_an_answer_that_does_not_reach_back_far_enough_is_none() -> None:
    asked = Asked()
    asked.gatherer.aim(0, asked.want(last=3))
    asked.until(EDGE + 5 * MINUTE + SETTLED)
    assert asked.gatherer.results(0, 3) is not None
    assert asked.gatherer.results(0, 4) is not None
    assert asked.gatherer.results(0, 2) is None, "the status write was lost: what it needs lies before"


def test_what_piled_up_is_read_in_stretches_and_closes_every_block() -> None:
    asked = Asked(most=2_000)
    asked.now = EDGE + 600 * MINUTE  # ten hours nobody looked
    asked.scrape()
    last, closed, state = -1, [], START
    while last < 595:
        asked.gatherer.aim(0, asked.want(last=last))
        asyncio.run(asked.gatherer.ask())
        result = asked.gatherer.results(0, last)
        assert result is not None
        reading = read(asked.want().plan, state, result.samples, (Change(0, 0, 50, 0),), result.at)
        assert reading.blocks
        closed += reading.blocks
        last, state = reading.state.last, reading.state
    assert [block.first for block in closed] == list(range(last + 1)), "each by itself, none merged"
    sizes = [len(query) for query, _ in asked.prometheus.queries]
    assert len(sizes) > 5


def test_a_gap_that_is_longer_than_a_stretch_is_passed() -> None:
    asked = Asked(most=2_000)
    asked.prometheus.blind = True
    asked.now = EDGE + 600 * MINUTE
    asked.scrape()
    asked.prometheus.blind = False
    asked.now += 10 * MINUTE
    asked.scrape()
    asked.gatherer.aim(0, asked.want())
    for _ in range(12):
        asyncio.run(asked.gatherer.ask())
        if asked.blocks().blocks:
            break
    first = asked.blocks().blocks[0]
    assert (first.first, first.merged) == (0, True)
    assert first.last >= 599


def test_nobody_is_asked_about_what_is_over() -> None:
    asked = Asked()
    asked.gatherer.aim(0, asked.want())
    asked.gatherer.drop(0)
    assert asked.gatherer.next_due() is None
    asyncio.run(asked.gatherer.ask())
    assert asked.prometheus.queries == []


@pytest.mark.timeout(30)
def test_the_task_asks_by_itself_and_ends_when_it_is_closed() -> None:
    async def life() -> None:
        asked = Asked()
        asked.now = EDGE + MINUTE + SETTLED
        asked.scrape()
        told = asyncio.Event()
        asked.gatherer._changed = lambda key: told.set()
        task = asyncio.create_task(asked.gatherer.run())
        await asyncio.sleep(0)
        asked.gatherer.aim(0, asked.want())
        await asyncio.wait_for(told.wait(), 20)
        asked.gatherer.close()
        await asyncio.wait_for(task, 20)

    asyncio.run(life())


# --- the champion's past


class Before(Asked):
    """A champion that has been counting for ``days``."""

    def __init__(self, days: float, **options: Any) -> None:
        super().__init__()
        self.now = EDGE + round(days * DAY) * 1000
        self.scrape()
        self.pasts = Pasts(self.prometheus, SOURCES, self.changed.append, self.metrics, now=lambda: self.now, **options)

    def read(self) -> None:
        self.pasts.aim(0, plan(), Workload("quant", "m0-a"))
        while self.pasts.next_due() is not None:
            asyncio.run(self.pasts.step())


def test_a_day_of_blocks_is_counted_up_to_now_and_numbered_up_to_minus_one() -> None:
    before = Before(1.1)
    before.read()
    assert before.pasts.unread(0) == ""
    assert before.changed == [0]
    errors = next(history for history in before.pasts.history(0) if history.name == "errors")
    assert errors.dispersion.last == -1
    blocks = errors.dispersion.scatters[0].blocks
    assert 1_550 <= blocks <= 1_600
    assert abs(errors.counts.trials - 600 * blocks) <= 600 * 12
    assert errors.counts.bad == pytest.approx(0.02 * errors.counts.trials, rel=0.01)
    assert errors.dispersion.estimate(1_440) == pytest.approx(1.0)
    slow = next(history for history in before.pasts.history(0) if history.name == "slow")
    assert slow.counts == Counts(0, 0), "its pods have no such edge: nobody was slow for that"


def test_stretches_make_no_difference_but_for_where_the_first_block_begins() -> None:
    short, long = Before(0.3, most=3_000), Before(0.3, most=40_000)
    short.read()
    long.read()
    one, other = short.pasts.history(0)[0], long.pasts.history(0)[0]
    assert abs(one.dispersion.scatters[0].blocks - other.dispersion.scatters[0].blocks) <= 10
    assert one.counts.trials == pytest.approx(other.counts.trials, rel=0.02)
    assert one.dispersion.estimate(100) == other.dispersion.estimate(100) == 1.0
    assert len(short.prometheus.queries) > 2 * len(long.prometheus.queries)


def test_a_champion_without_a_past_may_begin() -> None:
    before = Before(0.01)
    before.prometheus.pods.clear()
    before.read()
    assert before.pasts.unread(0) == ""
    assert all(history.counts.trials == 0 for history in before.pasts.history(0))


def test_a_champion_that_was_trained_lately_is_not_asked_about_before_that() -> None:
    before = Before(0.3)
    workload = Workload("quant", "m0-a")
    for key, born in ((0, 0), (1, before.now - round(0.2 * DAY) * 1000)):
        asked = len(before.prometheus.queries)
        before.pasts.aim(key, plan(), workload, born)
        while before.pasts.next_due() is not None:
            asyncio.run(before.pasts.step())
        assert before.pasts.unread(key) == ""
        print(key, len(before.prometheus.queries) - asked)
    week, life = (next(one for one in before.pasts.history(key) if one.name == "errors") for key in (0, 1))
    blocks = life.dispersion.scatters[0].blocks
    assert 0.19 * 1_440 <= blocks <= 0.2 * 1_440 + 1 < week.dispersion.scatters[0].blocks
    fresh = Before(0.001)
    asked = len(fresh.prometheus.queries)
    fresh.pasts.aim(0, plan(), workload, fresh.now - 60_000)
    while fresh.pasts.next_due() is not None:
        asyncio.run(fresh.pasts.step())
    assert len(fresh.prometheus.queries) - asked <= 2, "a version of a minute has no week to be read"
    assert fresh.pasts.unread(0) == ""


def test_without_an_answer_it_says_why_and_asks_again_a_while_later() -> None:
    before = Before(0.5)
    before.prometheus.away = "PrometheusUnauthorized"
    before.pasts.aim(0, plan(), Workload("quant", "m0-a"))
    asyncio.run(before.pasts.step())
    assert before.pasts.unread(0).startswith("PrometheusUnauthorized")
    due = before.pasts.next_due()
    assert due is not None
    assert due > before.now
    before.prometheus.away = None
    before.read()
    assert before.pasts.unread(0) == ""


def test_a_past_that_prometheus_does_not_tell_in_time_keeps_nobody_else_waiting() -> None:
    before = Before(0.5)
    slow = Hanging(before.prometheus, "m0-a")
    slow.timeout = True
    before.pasts = Pasts(slow, SOURCES, before.changed.append, before.metrics, now=lambda: before.now)
    before.pasts.aim(0, plan(), Workload("quant", "m0-a"))
    asyncio.run(before.pasts.step())
    assert before.pasts.unread(0).startswith("PrometheusTimeout")
    before.pasts.aim(1, plan(), Workload("quant", "m0-b"))
    due = before.pasts.next_due()
    assert due is not None
    assert due <= before.now, "its turn is now"
    while before.pasts.unread(1):
        asyncio.run(before.pasts.step())
    assert before.changed[-1] == 1


def test_a_champion_of_many_pods_is_read_in_stretches_that_an_answer_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Before(1.1)
    inner, refused = before.prometheus.matrix, 0

    async def bounded(promql: str, at: int) -> Any:
        nonlocal refused
        found = await inner(promql, at)
        if found and int(promql.rpartition("[")[2].removesuffix("ms]")) > 3_600_000:
            refused += 1
            raise PrometheusError("PrometheusTooLarge", "more than 16 MiB")
        return found

    monkeypatch.setattr(before.prometheus, "matrix", bounded)
    before.pasts.aim(0, plan(), Workload("quant", "m0-a"))
    for _ in range(400):
        if before.pasts.next_due() is None:
            break
        asyncio.run(before.pasts.step())
    assert before.pasts.unread(0) == ""
    assert before.pasts.history(0)[0].dispersion.scatters[0].blocks > 1_500
    assert refused < 20, "what an answer can hold is remembered"


def test_too_much_for_one_answer_makes_the_past_shorter() -> None:
    before = Before(2.0)
    past = Past.begin(plan(), Workload("quant", "m0-a"), before.now)
    later = past.later(before.now - DAY * 1000)
    assert past.plan.origin < later.plan.origin < before.now // 1000 - DAY
    assert later.plan.origin % later.plan.block == 0
