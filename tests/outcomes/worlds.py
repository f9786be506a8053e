"""What the tests of the scorer share: documents, a store with its memory, a clock that stands still."""

from __future__ import annotations

import importlib.util
import json
import time
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from fiduciary_outcomes.batch import read_batch, read_outcomes
from fiduciary_outcomes.calendar import Calendars
from fiduciary_outcomes.closing import close_due
from fiduciary_outcomes.document import digest
from fiduciary_outcomes.ledgers import end_ledger, put_ledger, read_ledger
from fiduciary_outcomes.memory import Memory
from fiduciary_outcomes.outcomes import take_outcomes
from fiduciary_outcomes.sql import Busy, Store
from fiduciary_outcomes.taking import take_batch

NAMESPACE = "quant"
MODEL = "quant.spx"
CHAMPION = {"version": "7", "digest": "sha256:" + "7" * 64}
CHALLENGER = {"version": "8", "digest": "sha256:" + "8" * 64}
ARMS = {"champion": CHAMPION, "challenger": CHALLENGER}
WRITER = "system:serviceaccount:quant:writer"
DAY = 86400.0
# A busy machine makes single examples slow; a time is never a reason to fail.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ROOT = Path(__file__).resolve().parents[2]


@cache
def calendars() -> Calendars:
    """XNYS as the image's build makes it."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "operator" / "calendars" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.START = "2016-01-01"
    return Calendars({"XNYS": module.table("XNYS")})


def at(day: str, clock: str = "00:00:00") -> float:
    return datetime.fromisoformat(f"{day}T{clock}+00:00").timestamp()


def live(**changes: Any) -> dict[str, Any]:
    """A definition over plain days, closed one day after the label's end."""
    return {
        "contractVersion": 1,
        "kind": "Live",
        "model": MODEL,
        **ARMS,
        "label": {"kind": "Volatility", "horizon": 1},
        "calendar": "24/7",
        "pairing": "EntityTime",
        "graceSeconds": 86400,
        "firstSession": "2018-01-01",
        **changes,
    }


def prequential(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    document = {
        "contractVersion": 1,
        "kind": "Prequential",
        "model": MODEL,
        **ARMS,
        "label": {"kind": "Volatility", "horizon": 1},
        "calendar": "XNYS",
        "provenance": {"dataDigest": "sha256:" + "a" * 64},
        "rows": rows,
        **changes,
    }
    return {**document, "digest": digest(document)}


def record(time: str, prediction: float, entity: str = "", **changes: Any) -> dict[str, Any]:
    return {
        "predictionId": f"{time}/{entity}/{prediction}",
        "entity": entity,
        "time": time,
        "prediction": prediction,
        "bins": [1, 2],
        "predictionBin": 3,
        "jointBin": 4,
        "requestId": None,
        **changes,
    }


def batch(
    arm: str, records: list[dict[str, Any]], sequence: int = 1, sender: str = "", **changes: Any
) -> dict[str, Any]:
    return {
        "contractVersion": 1,
        "model": MODEL,
        **ARMS[arm],
        "reference": "ab" * 32,
        "sender": sender or f"pod-{arm}",
        "sequence": sequence,
        "features": ["rv_d", "rv_w"],
        "edges": [9, 9],
        "predictionEdges": 9,
        "jointEdges": 9,
        "dropped": [],
        "records": records,
        **changes,
    }


def outcome(label_end: str, value: float, entity: str = "", **changes: Any) -> dict[str, Any]:
    return {"entity": entity, "labelEnd": label_end, "value": value, **changes}


class Scorer:
    """A store with its memory and a clock that the test moves: the writer's work without its thread."""

    def __init__(self, store: Store, now: float = at("2018-01-01")) -> None:
        self.store = store
        self.now = now
        self.open()

    def open(self) -> None:
        self.memory = Memory(self.store.writer(), NAMESPACE, calendars())

    def restart(self) -> None:
        self.memory.db.close()
        while True:
            try:
                return self.open()
            except Busy:
                # PostgreSQL frees the lock when it has noticed that the connection is gone
                time.sleep(0.005)

    def to(self, day: str, clock: str = "00:00:00") -> int:
        """Move the clock; returns how many sessions were closed by it."""
        self.now = at(day, clock)
        return close_due(self.memory, self.now)

    def _change(self, apply: Any) -> Any:
        close_due(self.memory, self.now)
        with self.memory.transaction():
            result = apply()
        close_due(self.memory, self.now)
        return result

    def records(self, arm: str, records: list[dict[str, Any]], sequence: int | None = None, **changes: Any) -> Any:
        """Each call is a new batch of its own sender where no sequence is named."""
        if sequence is None:
            self._sent = getattr(self, "_sent", 0) + 1
            changes.setdefault("sender", f"sender-{id(self)}-{self._sent}")
        data = json.dumps(batch(arm, records, sequence or 1, **changes)).encode()
        return self._change(lambda: take_batch(self.memory, read_batch(data, NAMESPACE), self.now))

    def outcomes(self, items: list[dict[str, Any]], writer: str = WRITER) -> Any:
        data = json.dumps({"contractVersion": 1, "model": MODEL, "outcomes": items}).encode()
        model, found = read_outcomes(data, NAMESPACE)
        return self._change(lambda: take_outcomes(self.memory, model, found, writer, self.now))

    def put(self, name: str, document: dict[str, Any]) -> Any:
        definition, rows = read_ledger(json.loads(json.dumps(document)), NAMESPACE)
        return self._change(lambda: put_ledger(self.memory, name, definition, rows))

    def end(self, name: str, session: str) -> Any:
        return self._change(lambda: end_ledger(self.memory, name, session))

    def rows(self, name: str = "x") -> list[dict[str, Any]]:
        return [json.loads(row.document) for row in self.memory.rows(name)]
