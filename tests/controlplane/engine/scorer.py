"""A real outcome scorer that counts rows of one version, as a target of a real Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from tests.outcomes.process import Process
from tests.outcomes.worlds import at
from tests.prometheus.server import Exporter, Server, Target, program
from tests.unit.decide.drift.watch import NAMES, draw, reference

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from fiduciary.decide.drift.reference import Histogram

FIRST_DAY = datetime(2018, 1, 1, tzinfo=UTC)
WEIGHTS = np.array([0.5, 0.1, 0.2])


@dataclass
class Shown(Target):
    """What the scorer's own port of metrics says."""

    url: str = ""

    def exposition(self) -> str | None:
        try:
            return httpx.get(self.url, timeout=5).text
        except httpx.TransportError:
            return None


class Counted:
    """Sends rows as the runtime does: bin numbers on the edges of the version's reference."""

    def __init__(self, namespace: str, model: str, version: str, digest: str, folder: Path) -> None:
        self.arm = {"model": f"{namespace}.{model}", "version": version, "digest": digest}
        self.rows: list[np.ndarray] = []
        self._rng = np.random.default_rng(11)
        self._sequence = 0
        self._exporter = Exporter()
        (folder / "scorer").mkdir()
        (folder / "prometheus").mkdir()
        self.prometheus = Server(program(), folder / "prometheus", self._exporter)
        self.process = Process(folder / "scorer", namespace=namespace)
        self.process.set_clock(at("2030-01-01"))
        self.process.start()
        self.target = Shown(namespace, "fiduciary-outcomes-6d5f4c-x2x9k")
        self.target.url = f"http://127.0.0.1:{self.process.metrics_port}/metrics"
        self.prometheus.start()
        self.prometheus.scrape((self.target,))

    def stop(self) -> None:
        self.prometheus.kill()
        self.process.kill()
        self._exporter.close()

    def send(self, rows: int, shift: float = 0.0) -> None:
        """The next days' rows in one batch."""
        its = reference()
        raw = draw(self._rng, rows, shift)
        body: dict[str, Any] = {
            "contractVersion": 1,
            **self.arm,
            "reference": its.edges_digest,
            "sender": "spx-0/1",
            "sequence": self._sequence,
            "features": list(NAMES),
            "edges": [len(one.edges) for one in its.features],
            "predictionEdges": len(its.prediction.edges),
            "records": [self._record(number, row) for number, row in enumerate(raw)],
        }
        answer = self.process.send("POST", "/v1/records", body)
        assert answer.status_code == 200, answer.text
        self._sequence += 1
        self.rows.append(raw)

    def scraped(self) -> bool:
        """Whether Prometheus has a sample of every row that was sent: the next window is in a later one."""
        query = {"query": "fiduciary_histogram_rows_total"}
        try:
            answer = httpx.get(f"{self.prometheus.url}/api/v1/query", params=query, timeout=5).json()
        except httpx.TransportError:
            return False
        return [int(one["value"][1]) for one in answer["data"]["result"]] == [sum(map(len, self.rows))]

    def _record(self, number: int, row: np.ndarray) -> dict[str, Any]:
        return record_of(FIRST_DAY + timedelta(days=sum(map(len, self.rows)) + number), row, float(row @ WEIGHTS))


def record_of(day: date, row: np.ndarray, prediction: float) -> dict[str, Any]:
    """What a runtime says of one request."""
    its = reference()
    return {
        "predictionId": f"{day:%Y%m%d}",
        "entity": "",
        "time": f"{day:%Y-%m-%d}",
        "prediction": prediction,
        "bins": [_bin(one, value) for one, value in zip(its.features, row, strict=True)],
        "predictionBin": _bin(its.prediction, prediction),
        "requestId": None,
    }


def _bin(its: Histogram, value: float) -> int:
    return int(np.searchsorted(its.edges, value, side="left"))
