"""What drift policies ask of Prometheus, against a real one: a scorer that moved, one that ended, and a neighbour who
claims in his own labels to be another."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fiduciary.clients.prometheus import Prometheus
from fiduciary.decide.drift import series
from fiduciary.decide.drift.state import FeatureCounts, Reading
from tests.prometheus.server import Exporter, Server, Target, program, wait
from tests.unit.decide.drift.newest import newest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fiduciary.decide.counters.samples import Series, Valued

REACH = 20_000
WATCHED = series.Watched("quant", "quant.spx", "7", "sha256:" + "89abcdef" * 8)


@dataclass
class Scorer(Target):
    """Exports ``rows`` rows of one version. ``reference``: hash of its edges."""

    rows: int = 0
    reference: str = "ab" * 32

    def exposition(self) -> str | None:
        own = 'model="quant.spx",version="7",digest="89abcdef"'
        lines = [f"{series.ROWS}{{{own}}} {self.rows}", f'{series.REFERENCE}{{{own},reference="{self.reference}"}} 1']
        for feature in ("rv_d", "rv_w"):
            for place, count in enumerate((self.rows - 3, 2, 1)):
                lines.append(f'{series.FEATURES}{{{own},feature="{feature}",bin="{place}"}} {count}')
            lines.append(f'{series.MISSING}{{{own},feature="{feature}"}} 0')
        lines += [f'{series.PREDICTION}{{{own},bin="{place}"}} {count}' for place, count in enumerate((self.rows, 0))]
        lines += [f'{series.JOINT}{{{own},bin="{place}"}} {count}' for place, count in enumerate((0, self.rows))]
        return "\n".join(lines) + "\n"


def reading(at: int, rows: int) -> Reading:
    features = tuple(FeatureCounts(name, (rows - 3, 2, 1), 0) for name in ("rv_d", "rv_w"))
    return Reading(at, rows, features, (rows, 0), (0, rows))


@dataclass
class Asked:
    server: Server
    exporter: Exporter

    def values(self, promql: str, at: int) -> Sequence[Valued]:
        return asyncio.run(self._ask("values", promql, at))

    def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        return asyncio.run(self._ask("matrix", promql, at))

    async def _ask(self, kind: str, promql: str, at: int):  # type: ignore[no-untyped-def]
        client = Prometheus(self.server.url, timeout=20)
        try:
            return await getattr(client, kind)(promql, at)
        finally:
            await client.close()

    def latest(self) -> series.Latest | None:
        at = round(time.time() * 1000)
        return series.latest(self.values(series.latest_query([WATCHED], REACH), at)).get(WATCHED.place)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    exporter = Exporter()
    server = Server(program(), tmp_path, exporter)
    try:
        server.start()
        yield Asked(server, exporter)
    finally:
        server.kill()
        exporter.close()


def test_the_newest_counts_of_the_scorers_own_pods_are_a_reading(asked: Asked) -> None:
    before = Scorer("quant", "fiduciary-outcomes-6d5f-aaaaa", rows=20)
    moved = Scorer("quant", "fiduciary-outcomes-6d5f-bbbbb", rows=21)
    foreign = Scorer("elsewhere", "fiduciary-outcomes-6d5f-ccccc", rows=99)
    pod = Scorer("quant", "somebody-6d5f-ddddd", rows=98)
    asked.server.scrape((before, moved, foreign, pod))
    wait(lambda: asked.latest() == series.Latest(21, "ab" * 32), 30, "both pods of the scorer are scraped")
    at = round(time.time() * 1000)
    text = series.counts_query([WATCHED], REACH)
    found = asked.values(text, at)
    assert series.readings(found, at) == {WATCHED.place: reading(at, 21)}, "neither the neighbour's nor another pod's"

    # What the tests of the engine take Prometheus to answer is what it answers.
    selector = text[text.index("{") : text.rindex("]") + 1]
    scripted = newest(text, asked.matrix(selector, at))
    assert {frozenset(labels.items()): value for labels, value in found} == {
        frozenset(labels.items()): value for labels, value in scripted
    }
    raw = series.by_version(asked.matrix(series.rows_query([WATCHED], REACH), at))
    assert series.rows_of(raw[WATCHED.place], REACH)[-1][1] == 21

    # A scorer that ended is still seen at the moments before which it was scraped.
    asked.server.scrape(())
    wait(lambda: not asked.server.scrapes(moved), 30, "nobody is scraped")
    assert asked.latest() == series.Latest(21, "ab" * 32)
    assert series.readings(asked.values(text, at), at) == {WATCHED.place: reading(at, 21)}


def test_two_references_are_none(asked: Asked) -> None:
    one = Scorer("quant", "fiduciary-outcomes-6d5f-aaaaa", rows=20)
    other = Scorer("quant", "fiduciary-outcomes-6d5f-bbbbb", rows=20, reference="cd" * 32)
    asked.server.scrape((one, other))
    wait(lambda: asked.latest() == series.Latest(20, None), 30, "both are scraped")
