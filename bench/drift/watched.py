"""Processor time of watching: what Prometheus answers for many models is decoded, read, folded, judged and written.

The answers have the texts that Prometheus sends for scorers with twenty features; decoding them is the client's own,
and so is everything up to the status as it goes to the API server. What is not here: the network, and the API server.
"""

from __future__ import annotations

import gc
import json
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.drift.cost import BINS, DIGEST, ROWS, benched
from fiduciary.api.versions import StandingVersion
from fiduciary.clients import prometheus_answers
from fiduciary.decide.drift import series
from fiduciary.decide.drift.report import stored
from fiduciary.decide.drift.windows import Edge
from fiduciary.decide.drift.world import ModelFacts, World
from fiduciary.decide.driftpolicy import decide
from fiduciary.decide.world import Platform
from fiduciary.engine.drift.counted import Scrapes, Want
from fiduciary.engine.drift.counters import Counters
from fiduciary.engine.metrics import Metrics
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from fiduciary.decide.counters.samples import Series

START = 1_767_225_600_000  # ms, 2026-01-01
MINUTE = 60_000


@dataclass
class Answers:
    """Prometheus over scorers of ``features`` each. ``making``: seconds in which its texts were written."""

    features: int
    rows: int = 0
    queries: int = 0
    making: float = 0.0

    async def matrix(self, promql: str, at: int) -> tuple[Series, ...]:
        self.queries += 1
        found = re.search(r'model=~"([^"]+)"', promql)
        assert found is not None
        begun = time.process_time()
        body = self._body(found[1].replace("\\\\", "").split("|"), series.FEATURES in promql, at)
        self.making += time.process_time() - begun
        return prometheus_answers.decoded("bench", 200, body).of("matrix")

    async def vector(self, promql: str, at: int) -> tuple[Series, ...]:
        raise AssertionError("no policy has a query here")

    def _body(self, names: list[str], whole: bool, at: int) -> bytes:
        result: list[dict[str, Any]] = []
        for name in names:
            labels = {
                "namespace": name.partition(".")[0], "pod": "fiduciary-outcomes-6d5f4c9b7-x2x9k",
                "job": "fiduciary-outcomes", "instance": "10.0.0.1:8082", "container": "outcomes",
                "model": name, "version": "1", "digest": DIGEST[7:15],
            }  # fmt: skip
            values = [[at / 1000 - 15, str(self.rows)]]
            result.append({"metric": {"__name__": series.ROWS, **labels}, "values": values})
            info = {"__name__": series.REFERENCE, **labels, "reference": "e"}
            result.append({"metric": info, "values": [[at / 1000 - 15, "1"]]})
            if not whole:
                continue
            for number in range(self.features):
                for place in range(BINS):
                    its = {"__name__": series.FEATURES, **labels, "feature": f"f{number}", "bin": str(place)}
                    count = self.rows // BINS + (place < self.rows % BINS)
                    result.append({"metric": its, "values": [[at / 1000 - 15, str(count)]]})
                its = {"__name__": series.MISSING, **labels, "feature": f"f{number}"}
                result.append({"metric": its, "values": [[at / 1000 - 15, "0"]]})
        data = {"resultType": "matrix", "result": result}
        return json.dumps({"status": "success", "data": data}, separators=(",", ":")).encode()


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
    names = [f"desk-{number // 10}.model-{number}" for number in range(models)]
    policies = dict.fromkeys(names, policy)

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
        state = None if before.status.evidence is None else stored(before.status.evidence)
        assert not isinstance(state, Refusal)
        moment = datetime.fromtimestamp(clock[0] / 1000, UTC)
        decision = decide(replace(world, policy=before, state=state, readings=(closing.reading,)), moment)
        assert decision.state is not None
        json.dumps(decision.status.body())
        policies[name] = policy.model_copy(update={"status": decision.status})
        aim(name, Edge(decision.state.edge, decision.state.window), closing.reading.at)

    for name in names:
        aim(name, Edge(None, -1), 0)
    await ask()
    looks = reads = judges = 0.0
    for window in range(windows):
        looks += await ask()
        answers.rows, answers.queries = ROWS * (window + 1), 0
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
    }
