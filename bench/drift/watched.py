"""Processor time of watching: what Prometheus answers for many models is decoded, read, folded, judged and written.

The answers have the texts that Prometheus sends for scorers with twenty features; decoding them is the client's own,
and so is everything up to the status as it goes to the API server. What is not here: the network, and the API server.
Policies have seen a hundred windows before: their states are as large as they become.
"""

from __future__ import annotations

import gc
import json
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import psutil

from bench.drift.cost import BINS, DIGEST, ROWS, benched
from fiduciary.api.versions import StandingVersion
from fiduciary.clients import prometheus_answers
from fiduciary.decide.drift import series
from fiduciary.decide.drift.report import stored
from fiduciary.decide.drift.state import FeatureCounts, Reading, State
from fiduciary.decide.drift.windows import Edge
from fiduciary.decide.drift.world import ModelFacts, World
from fiduciary.decide.driftpolicy import decide
from fiduciary.decide.world import Platform
from fiduciary.engine.drift.counted import Scrapes, Want
from fiduciary.engine.drift.counters import Counters
from fiduciary.engine.drift.states import States
from fiduciary.engine.metrics import Metrics
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.decide.counters.samples import Series, Valued

Found = TypeVar("Found")
START = 1_767_225_600_000  # ms, 2026-01-01
MINUTE = 60_000
BEFORE = 100


@dataclass
class Answers:
    """Prometheus over scorers of ``features`` each. ``making``: seconds in which its texts were written; ``bytes``: of
    the longest."""

    features: int
    windows: int = 0
    queries: int = 0
    making: float = 0.0
    bytes: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(2)
        self.counts = np.zeros((self.features, BINS), dtype=int)

    def window(self) -> None:
        """One more of every model, whose market is the same."""
        self.windows += 1
        self.counts += self._rng.multinomial(ROWS, [1 / BINS] * BINS, size=self.features)

    @property
    def rows(self) -> int:
        return ROWS * self.windows

    def reading(self, at: int) -> Reading:
        """As it is read from the answers."""
        features = tuple(FeatureCounts(f"f{k}", tuple(row)) for k, row in enumerate(self.counts.tolist()))
        return Reading(at, self.rows, tuple(sorted(features, key=lambda its: its.name)))

    async def values(self, promql: str, at: int) -> Sequence[Valued]:
        return self._answer(promql, at, prometheus_answers.valued)

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        return self._answer(promql, at, prometheus_answers.decoded).of("matrix")

    async def vector(self, promql: str, at: int) -> tuple[Series, ...]:
        raise AssertionError("no policy has a query here")

    def _answer(self, promql: str, at: int, decoded: Callable[[str, int, bytes], Found]) -> Found:
        self.queries += 1
        found = re.search(r'model=~"([^"]+)"', promql)
        assert found is not None
        begun = time.process_time()
        names = found[1].replace("\\\\", "").split("|")
        made = self._raw(names, at) if promql.endswith("]") else self._newest(names, series.FEATURES in promql, at)
        kind = "matrix" if promql.endswith("]") else "vector"
        data = {"resultType": kind, "result": list(made)}
        body = json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode()
        self.making += time.process_time() - begun
        self.bytes = max(self.bytes, len(body))
        return decoded("bench", 200, body)

    def _raw(self, names: list[str], at: int) -> Iterator[dict[str, Any]]:
        for name in names:
            labels = {
                "namespace": name.partition(".")[0], "pod": "fiduciary-outcomes-6d5f4c9b7-x2x9k",
                "job": "fiduciary-outcomes", "instance": "10.0.0.1:8082", "container": "outcomes",
                "model": name, "version": "1", "digest": DIGEST[7:15],
            }  # fmt: skip
            yield {"metric": {"__name__": series.ROWS, **labels}, "values": [[at / 1000 - 15, str(self.rows)]]}

    def _newest(self, names: list[str], whole: bool, at: int) -> Iterator[dict[str, Any]]:
        """In the order of labels' names, as Prometheus writes them."""

        def one(counter: str, count: int, **labels: str) -> dict[str, Any]:
            return {"metric": {"__name__": counter, **labels}, "value": [at / 1000, str(count)]}

        for name in names:
            place = f"{name.partition('.')[0]}/{name}/1/{DIGEST[7:15]}"
            yield one(series.ROWS, self.rows, place=place)
            if not whole:
                yield one(series.REFERENCE, 1, place=place, reference="e")
                continue
            for number, counts in enumerate(self.counts.tolist()):
                for bin_, count in enumerate(counts):
                    yield one(series.FEATURES, count, bin=str(bin_), feature=f"f{number}", place=place)
                yield one(series.MISSING, 0, feature=f"f{number}", place=place)


async def watched(models: int = 1000, features: int = 20, windows: int = 3) -> dict[str, float]:
    """Figures of ``models`` policies whose windows all end at the same moment: milliseconds, and queries."""
    policy, its = benched(features)
    # As the operator's process collects its garbage (``fiduciary.__main__``).
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    answers, clock = Answers(features), [START]
    counters = Counters(answers, Scrapes(15, 10), lambda key: None, Metrics(), now=lambda: clock[0])
    since = datetime.fromtimestamp(START / 1000, UTC)
    facts = ModelFacts(label="Volatility", champion=StandingVersion(version="1", digest=DIGEST, since=since))
    world = World(policy, facts, Platform("c", "i", "v", {}, ()), its, reference="e")
    states = States()
    names = [f"desk-{number // 10}.model-{number}" for number in range(models)]
    old = aged(world, answers)
    policies = dict.fromkeys(names, old)
    resident = psutil.Process().memory_info().rss

    def aim(name: str, edge: Edge, last: int) -> None:
        place = series.Watched(name.partition(".")[0], name, "1", DIGEST)
        counters.aim(name, Want(place, its.grid, edge, last))

    async def ask() -> float:
        """Seconds of the operator's part."""
        clock[0] += MINUTE
        answers.making, begun = 0.0, time.process_time()
        await counters.ask()
        return time.process_time() - begun - answers.making

    def reconcile(name: str) -> None:
        found, before = counters.results(name), policies[name]
        assert found is not None
        (closing,) = found.closings
        assert closing.reading is not None
        state = states.of(name, before.status.evidence)
        assert not isinstance(state, Refusal)
        moment = datetime.fromtimestamp(clock[0] / 1000, UTC)
        decision = decide(replace(world, policy=before, state=state, readings=(closing.reading,)), moment)
        assert decision.state is not None
        json.dumps(decision.status.body())
        assert decision.status.evidence is not None
        states.keep(name, decision.status.evidence, decision.state)
        policies[name] = before.model_copy(update={"status": decision.status})
        aim(name, Edge(decision.state.edge, decision.state.window), closing.reading.at)

    assert old.status.evidence is not None
    begun = stored(old.status.evidence)
    assert isinstance(begun, State)
    for name in names:
        states.keep(name, old.status.evidence, begun)
        aim(name, Edge(begun.edge, begun.window), begun.ended)
    await ask()
    looks = reads = judges = 0.0
    for _ in range(windows):
        looks += await ask()
        answers.window()
        answers.queries = 0
        reads += await ask()
        begun = time.process_time()
        for name in names:
            reconcile(name)
        judges += time.process_time() - begun
    each = 1000.0 / (models * windows)
    return {
        "cpu_ms_per_model_window": (reads + judges) * each,
        "cpu_ms_read": reads * each,
        "cpu_ms_judged_and_written": judges * each,
        "cpu_ms_per_model_look": looks * each,
        "queries_per_window": float(answers.queries),
        "queries_per_look": 1.0,
        "answer_mib": answers.bytes / 2**20,
        "resident_kib_per_policy": (psutil.Process().memory_info().rss - resident) / models / 1024,
    }


def aged(world: World, answers: Answers) -> DriftPolicy:
    """The policy after :data:`BEFORE` windows, the last of which ended at :data:`START`."""
    for number in range(BEFORE):
        answers.window()
        at = START - (BEFORE - 1 - number) * 86_400_000
        moment = datetime.fromtimestamp(at / 1000, UTC)
        decision = decide(replace(world, readings=(answers.reading(at),)), moment)
        policy = world.policy.model_copy(update={"status": decision.status})
        world = replace(world, policy=policy, state=decision.state)
    return world.policy
