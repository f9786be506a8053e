"""What is asked of Prometheus for drift policies: how often, for whom together, and what an answer, or none, leaves."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.clients.prometheus_answers import PrometheusError, Reason
from fiduciary.decide.counters.samples import Series
from fiduciary.decide.drift import series
from fiduciary.decide.drift.calibrate import Grid
from fiduciary.decide.drift.windows import Edge
from fiduciary.engine.drift.counted import Scrapes, Want
from fiduciary.engine.drift.counters import Counters
from fiduciary.engine.drift.ends import MOST_WINDOWS
from fiduciary.engine.metrics import Metrics
from tests.unit.decide.drift.newest import newest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary.decide.counters.samples import Valued

SCRAPES = Scrapes(15, 10)
ROWS = Grid(rows=21, per_entity=21, length=0, least=15, most=26)
HOURS = Grid(rows=60, per_entity=60, length=3_600_000, least=30, most=90)
DIGEST = "sha256:" + "8" * 64
START = 1_767_225_600_000
"""ms; an hour begins."""


@dataclass
class Server:
    """Scrapes every 15 seconds; ``rows`` (models by name) as they were at each scrape."""

    rows: dict[str, int] = field(default_factory=dict[str, int])
    queries: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    samples: list[tuple[int, dict[str, int]]] = field(default_factory=list[tuple[int, dict[str, int]]])
    before: dict[str, int] = field(default_factory=dict[str, int])
    """What the scorer's pod of before still shows, 7 seconds after the scrapes of the new one, every other time."""
    away: str = ""
    spoilt: str = ""  # a model whose series are too many
    counts_away: bool = False
    hangs: asyncio.Event | None = None  # until then queries of monitors have no answer
    broken: str = ""  # a model whose series no code of ours can read
    bug: str = ""  # a model whose answer cannot be decoded
    value_away: Reason | None = None  # why queries of monitors have no answer

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        self.queries.append((promql, at))
        return self._raw(promql, at)

    async def values(self, promql: str, at: int) -> Sequence[Valued]:
        self.queries.append((promql, at))
        return newest(promql, self._raw(promql, at))

    def _raw(self, promql: str, at: int) -> tuple[Series, ...]:
        models, span = re.search(r'model=~"([^"]+)"', promql), re.search(r"\[(\d+)ms\]", promql)
        assert models is not None
        assert span is not None
        names = [name.rpartition(".")[2] for name in models[1].split("|")]
        if self.away or (self.counts_away and series.FEATURES in promql):
            raise PrometheusError("PrometheusUnreachable", "away")
        if self.spoilt in names:
            raise PrometheusError("PrometheusTooLarge", "too many series")
        found: list[Series] = []
        for name in names:
            target = {"namespace": "quant", "pod": "fiduciary-outcomes-6d5f-x2x9k", "model": f"quant.{name}"}
            target |= {"version": "1", "digest": "8" * 8}
            kept = [(t, float(rows[name])) for t, rows in self.samples if at - int(span[1]) < t <= at and name in rows]
            if name == self.bug:
                raise RuntimeError("a bug of ours")
            if kept:
                samples: Any = None if name == self.broken else tuple(kept)
                found.append(Series({"__name__": series.ROWS, **target}, samples))
            if kept and name in self.before:
                old = tuple((t, float(self.before[name])) for t, _ in kept if t % 30_000)
                target["pod"] = "fiduciary-outcomes-6d5f-aaaaa"
                found[-1] = Series(found[-1].labels, tuple((t - 7_000, value) for t, value in kept))
                if old:
                    found.append(Series({"__name__": series.ROWS, **target}, old))
        return tuple(found)

    async def vector(self, promql: str, at: int) -> tuple[Series, ...]:
        self.queries.append((promql, at))
        if self.hangs is not None:
            await self.hangs.wait()
        if self.value_away:
            raise PrometheusError(self.value_away, "away")
        return (Series({}, ((at, 1.0),)), Series({"a": "b"}, ((at, 1.0),)))


class Rig:
    def __init__(self, **models: int) -> None:
        self.server = Server(dict(models))
        self.now = START
        self.told: list[Any] = []
        self.counters = Counters(self.server, SCRAPES, self.told.append, Metrics(), now=lambda: self.now)

    def aim(self, name: str, grid: Grid = ROWS, edge: Edge | None = None, since: int = 0, **more: Any) -> None:
        watched = series.Watched("quant", f"quant.{name}", "1", DIGEST)
        self.counters.aim(name, Want(watched, grid, edge or Edge(None, -1), since, **more))

    def run(self, seconds: int) -> None:
        """Scrapes and questions as they come due."""
        until = self.now + seconds * 1000
        while self.now < until:
            self.now += 5_000
            if self.now % 15_000 == 0:
                self.server.samples.append((self.now, dict(self.server.rows)))
            self.ask()

    def ask(self) -> None:
        while (due := self.counters.next_due()) is not None and due <= self.now:
            asyncio.run(self.counters.ask())

    def ends(self, name: str) -> list[tuple[int, int]]:
        """(seconds since the start, rows) of what was read and not folded."""
        found = self.counters.results(name)
        assert found is not None
        return [((its.at - START) // 1000, its.reading.rows) for its in found.closings if its.reading is not None]


def test_all_policies_are_asked_about_together_and_counts_only_where_windows_end() -> None:
    rig = Rig(**{f"m{number}": 0 for number in range(300)})
    for number in range(300):
        rig.aim(f"m{number}")
    rig.run(300)
    assert len(rig.server.queries) <= 6, "one a minute"
    assert not [text for text, _ in rig.server.queries if series.FEATURES in text]
    rig.server.queries.clear()
    for number in range(270):
        rig.server.rows[f"m{number}"] = 21
    rig.run(120)
    counts = [text for text, _ in rig.server.queries if series.FEATURES in text]
    assert len(counts) == 2, "270 versions, at most 250 in a query"
    assert len(rig.server.queries) - len(counts) == 3, "whether, twice, and when"
    assert rig.ends("m0")
    assert rig.ends("m299") == []


def test_who_was_away_finds_the_moments_that_he_would_have_found() -> None:
    there, away = Rig(spx=0), Rig(spx=0)
    there.aim("spx")
    away.aim("spx")
    for rig in (there, away):
        rig.run(60)
    ask, away.ask = away.ask, lambda: None  # type: ignore[method-assign]
    for _ in range(5):
        for rig in (there, away):
            rig.server.rows["spx"] += 21
            rig.run(180)
    assert away.ends("spx") == []
    away.ask = ask  # type: ignore[method-assign]
    for rig in (there, away):
        rig.run(60)
    assert len(there.ends("spx")) == 5
    assert away.ends("spx") == there.ends("spx")
    assert there.told


def test_a_scorer_that_moves_is_no_store_that_was_lost() -> None:
    """The pod of before shows fewer rows, in between the scrapes of the new one."""
    rig = Rig(spx=0)
    rig.aim("spx")
    rig.run(60)
    rig.server.before = {"spx": 14}
    for rows in range(14, 50, 7):
        rig.server.rows["spx"] = rows
        rig.run(60)
    rig.run(120)
    assert [rows for _, rows in rig.ends("spx")] == [21, 42]


def test_a_long_past_is_read_in_parts_that_are_folded_in_between() -> None:
    rig = Rig(spx=0)
    rig.run(15)
    for _ in range(2 * MOST_WINDOWS):
        rig.server.rows["spx"] += 21
        rig.run(60)
    rig.aim("spx", since=START + 15_000)
    rig.run(30)
    first = rig.ends("spx")
    assert len(first) == MOST_WINDOWS
    found = rig.counters.results("spx")
    assert found is not None
    assert found.behind
    last = found.closings[-1].reading
    assert last is not None
    rig.aim("spx", edge=Edge(last, MOST_WINDOWS - 1), since=last.at)
    rig.run(30)
    assert [rows for _, rows in rig.ends("spx")] == [21 * (MOST_WINDOWS + 1 + number) for number in range(MOST_WINDOWS)]


def test_windows_of_a_length_are_read_at_their_edges() -> None:
    rig = Rig(spx=7)
    rig.run(600)
    rig.aim("spx", HOURS)
    rig.run(4 * 3600)
    assert [at for at, _ in rig.ends("spx")] == [3600, 7200, 10800, 14400], "before the first edge nothing was scraped"
    looks = [text for text, _ in rig.server.queries if series.FEATURES not in text]
    assert len(looks) <= 6, "an hour's window is looked at once an hour"


def blind_alone(rig: Rig, name: str) -> str:
    """Why this one of the three has no windows, while the others have theirs."""
    for each in ("spx", "other", "third"):
        rig.aim(each)
    rig.run(90)
    assert all(rig.ends(each) for each in ("spx", "other", "third") if each != name)
    found = rig.counters.results(name)
    assert found is not None
    assert found.error is not None
    return found.error.reason


def test_a_neighbour_with_too_many_series_makes_nobody_else_blind() -> None:
    rig = Rig(spx=21, other=21, third=21)
    rig.server.spoilt = "other"
    assert blind_alone(rig, "other") == "PrometheusTooLarge"


def test_counts_that_were_not_given_are_asked_for_again_at_their_moment() -> None:
    rig = Rig(spx=0)
    rig.aim("spx")
    rig.run(60)
    rig.server.counts_away = True
    rig.server.rows["spx"] = 21
    rig.run(120)
    rig.server.rows["spx"] = 30
    rig.run(60)
    found = rig.counters.results("spx")
    assert found is not None
    assert found.error is not None
    assert rig.ends("spx") == []
    told = len(rig.told)
    rig.server.counts_away = False
    rig.run(90)
    assert rig.ends("spx") == [(75, 21)], "as it was then"
    assert len(rig.told) > told


@pytest.mark.parametrize("fault", ["broken", "bug"])
def test_a_bug_over_one_policy_ends_nobody_elses_windows(fault: str) -> None:
    rig = Rig(spx=21, other=21, third=21)
    setattr(rig.server, fault, "other")
    assert blind_alone(rig, "other") == "InternalError"
    setattr(rig.server, fault, "")
    rig.run(90)
    assert rig.ends("other"), "it is asked about again"


def test_a_window_whose_query_got_no_answer_is_read_again_as_a_whole() -> None:
    rig = Rig(spx=0)
    rig.aim("spx", queries=(("errors", "sum(errors)"),))
    rig.run(60)
    rig.server.value_away = "PrometheusUnreachable"
    rig.server.rows["spx"] = 21
    rig.run(90)
    found = rig.counters.results("spx")
    assert found is not None
    assert found.closings == (), "counts alone are no window"
    assert found.error is not None
    assert "monitor errors" in found.error.message
    rig.server.value_away = None
    rig.server.rows["spx"] = 30
    rig.run(90)
    assert rig.ends("spx") == [(75, 21)], "as it was then"
    found = rig.counters.results("spx")
    assert found is not None
    assert found.error is None
    assert found.closings[0].values[0].at == START + 75_000


def test_a_query_that_never_answers_keeps_no_histogram_from_its_windows() -> None:
    rig = Rig(spx=0)
    rig.aim("spx", queries=(("slow", "count({__name__=~'.+'}[1y])"),))
    rig.run(60)
    rig.server.value_away = "PrometheusTimeout"
    rig.server.rows["spx"] = 21
    rig.run(300)
    found = rig.counters.results("spx")
    assert found is not None
    (closing,) = found.closings
    assert closing.reading is not None
    assert closing.values[0].value is None
    assert "asked 3 times" in closing.values[0].message


def test_a_query_that_finds_two_series_has_no_value() -> None:
    rig = Rig(spx=21)
    rig.aim("spx", queries=(("errors", "sum(errors)"),))
    rig.run(120)
    found = rig.counters.results("spx")
    assert found is not None
    (value,) = found.closings[0].values
    assert (value.monitor, value.value) == ("errors", None)
    assert "finds 2 series" in value.message


def test_a_slow_query_keeps_nobody_else_from_its_windows() -> None:
    rig = Rig(spx=21, other=21)
    rig.run(60)

    async def story() -> None:
        rig.server.hangs, told = asyncio.Event(), asyncio.Event()

        def changed(key: object) -> None:
            if key == "spx":
                told.set()

        rig.counters = Counters(rig.server, SCRAPES, changed, Metrics(), now=lambda: rig.now)
        rig.aim("spx", queries=(("slow", "count({__name__=~'.+'}[1y])"),))
        rig.aim("other")
        async with asyncio.timeout(30):
            await rig.counters.ask()
        assert rig.ends("other")
        assert rig.counters.results("spx") is None or rig.ends("spx") == []
        asked = len(rig.server.queries)
        rig.now += 600_000
        rig.server.samples.append((rig.now - 60_000, {"spx": 42, "other": 42}))
        async with asyncio.timeout(30):
            await rig.counters.ask()
        assert len(rig.ends("other")) == 2
        assert "spx" not in "".join(text for text, _ in rig.server.queries[asked:]), "its turn is not over"
        rig.server.hangs.set()
        async with asyncio.timeout(30):
            await told.wait()
        assert len(rig.ends("spx")) == 1
        rig.now += 60_000
        rig.server.samples.append((rig.now - 30_000, {"spx": 42, "other": 42}))
        await rig.counters.ask()
        assert len(rig.ends("spx")) == 2, "the window of the meantime is found as well"

    asyncio.run(story())


def test_a_policy_that_is_gone_is_asked_about_no_more() -> None:
    rig = Rig(spx=0)
    rig.aim("spx")
    rig.run(60)
    rig.counters.drop("spx")
    assert rig.counters.next_due() is None
    assert rig.counters.results("spx") is None


def test_it_asks_by_itself_and_stops() -> None:
    rig = Rig(spx=21)
    rig.run(60)

    async def story() -> None:
        told = asyncio.Event()
        rig.counters = Counters(rig.server, SCRAPES, lambda key: told.set(), Metrics(), now=lambda: rig.now)
        task = asyncio.create_task(rig.counters.run())
        rig.aim("spx")
        async with asyncio.timeout(30):
            await told.wait()
        rig.counters.close()
        await task

    asyncio.run(story())
    assert rig.ends("spx")
