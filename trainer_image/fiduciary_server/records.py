"""One record for each prediction, sent in batches to the outcome scorer from a bounded buffer.

Nothing here may slow a request: it appends a tuple, and a thread of its own turns tuples into bins and JSON. Records
that cannot be kept are counted, and the scorer is told how many there were of each date.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from fiduciary_features.transforms import Transform
    from fiduciary_server.contract import Serving
    from fiduciary_server.metrics import Metrics
    from fiduciary_server.reference import Reference

CONTRACT_VERSION = 1
SECONDS = 5.0
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0


class Record(NamedTuple):
    """A prediction that was answered, or (``prediction`` None) refused because features were missing or out of range.

    ``features`` are raw values of the predicted row, shape ``(F,)``, NaN where missing or out of range; ``time`` is the
    row's.
    """

    prediction_id: str
    request_id: str | None
    entity: str
    time: str | None
    prediction: float | None
    features: NDArray[np.float64]


class Records:
    """Keeps and sends records.

    Args:
        serving: names the version and the sink; without a sink nothing is kept.
        names: of the features, in order.
        reference: whose edges the bins are on.
        transform: from features to the model's inputs, whose distance is taken.
        metrics: where records and losses are counted.
    """

    def __init__(
        self, serving: Serving, names: Sequence[str], reference: Reference, transform: Transform, metrics: Metrics
    ) -> None:
        self._settings = serving.records
        self._url = urlsplit(serving.records.url or "")
        self._path = self._url._replace(scheme="", netloc="").geturl() or "/"
        self._connection: http.client.HTTPConnection | None = None
        self._reference = reference
        self._transform = transform
        self._metrics = metrics
        self._head = {
            "contractVersion": CONTRACT_VERSION,
            "model": serving.name,
            "version": serving.version,
            "digest": serving.digest,
            "reference": reference.sha256,
            "sender": f"{socket.gethostname()}-{secrets.token_hex(8)}",
            "features": list(names),
            "edges": [len(edges) for edges in reference.edges],
            "predictionEdges": len(reference.prediction_edges),
        }
        if reference.joint is not None:
            self._head["jointEdges"] = len(reference.joint.edges)
        self._waiting: deque[Record] = deque()
        self._lost: Counter[str | None] = Counter()
        self._lost_guard = threading.Lock()
        self._sequence = 0
        self._wake = threading.Event()
        self._ending: float | None = None
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self.enabled = self._settings.url is not None

    def start(self) -> None:
        """Begin to send."""
        if self.enabled:
            self._thread.start()

    def add(self, records: Sequence[Record]) -> None:
        """Take the records of one request. Never waits."""
        if not self.enabled:
            return
        self._metrics.recorded(len(records))
        room = self._settings.buffer - len(self._waiting)
        if room < len(records):
            self._lose(records[max(room, 0) :], "buffer_full")
            records = records[: max(room, 0)]
        self._waiting.extend(records)
        if len(self._waiting) >= self._settings.batch and not self._wake.is_set():
            self._wake.set()

    def close(self, patience: float) -> None:
        """Send what waits, for at most ``patience`` seconds; the rest is counted as dropped."""
        if not self._thread.is_alive():
            return
        self._ending = time.monotonic() + patience
        self._wake.set()
        self._thread.join(patience + SECONDS)
        self._lose(list(self._waiting), "shutdown")
        self._waiting.clear()

    def _lose(self, records: Iterable[Record], reason: str) -> None:
        times = [record.time for record in records]
        self._metrics.dropped(reason, len(times))
        with self._lost_guard:
            self._lost.update(times)

    def _run(self) -> None:
        while True:
            if self._ending is None and len(self._waiting) < self._settings.batch:
                self._wake.wait(self._settings.flush_seconds)
            self._wake.clear()
            while self._waiting or self._lost:
                if not self._deliver(self._batch()):
                    return
                if self._ending is None and len(self._waiting) < self._settings.batch:
                    break
            if self._ending is not None:
                return

    def _batch(self) -> tuple[list[Record], bytes]:
        """The oldest records, and the body that carries them; the same bytes however often it must be sent."""
        records = [self._waiting.popleft() for _ in range(min(self._settings.batch, len(self._waiting)))]
        with self._lost_guard:
            lost, self._lost = self._lost, Counter()
        self._sequence += 1
        dropped = [{"count": count} if day is None else {"time": day, "count": count} for day, count in lost.items()]
        return records, orjson.dumps(
            {**self._head, "sequence": self._sequence, "dropped": dropped, "records": self._documents(records)}
        )

    def _documents(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        if not records:
            return []
        raw = np.stack([record.features for record in records])
        values = np.array([record.prediction for record in records], dtype=np.float64)  # None: NaN
        # All rows at once: done record by record, this would cost as much as answering.
        bins: list[list[int | None]] = self._reference.bins(raw).tolist()
        places = np.searchsorted(self._reference.prediction_edges, values, side="left").tolist()
        together = self._together(raw)
        missing: list[list[int]] = [[] for _ in records]
        for row, column in np.argwhere(~np.isfinite(raw)).tolist():
            bins[row][column] = None
            missing[row].append(column)
            together[row] = None
        return [
            {
                "predictionId": record.prediction_id,
                "requestId": record.request_id,
                "entity": record.entity,
                "time": record.time,
                "prediction": record.prediction,
                "predictionBin": None if record.prediction is None else place,
                "jointBin": joint,
                "bins": own,
                "missing": absent,
            }
            for record, place, joint, own, absent in zip(records, places, together, bins, missing, strict=True)
        ]

    def _together(self, raw: NDArray[np.float64]) -> list[int | None]:
        joint = self._reference.joint
        return [None] * len(raw) if joint is None else joint.bins(self._transform.apply(raw)).tolist()

    def _deliver(self, batch: tuple[list[Record], bytes]) -> bool:
        """Send one batch until it is taken or refused; False where the process ends first."""
        records, body = batch
        delay = FIRST_DELAY
        while True:
            taken, pause = self._post(body)
            if taken is not None:
                if not taken:
                    self._lose(records, "refused")
                return True
            if self._ending is not None and time.monotonic() + delay > self._ending:
                self._lose(records, "shutdown")
                return False
            self._pause(max(delay, pause))
            delay = min(2.0 * delay, LONGEST_DELAY)

    def _pause(self, seconds: float) -> None:
        """Wait between tries; the end of the process cuts it short."""
        end = time.monotonic() + seconds
        while self._ending is None and (left := end - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()
        if self._ending is not None:
            time.sleep(min(FIRST_DELAY, max(0.0, end - time.monotonic())))

    def _post(self, body: bytes) -> tuple[bool | None, float]:
        """Whether the sink took a batch (False: it never will); None and how long to wait where it may later."""
        kept = self._connection is not None
        try:
            status, retry_after = self._exchange(body)
        except (OSError, http.client.HTTPException):
            self._disconnect()
            # A connection that was idle may have been closed at the other end: that says nothing of the sink.
            return self._post(body) if kept else (None, 0.0)
        if status in (400, 413, 422):
            return False, 0.0
        return (True, 0.0) if 200 <= status < 300 else (None, _seconds(retry_after))

    def _exchange(self, body: bytes) -> tuple[int, str | None]:
        headers = {"Content-Type": "application/json"}
        if self._settings.token_file is not None:
            headers["Authorization"] = f"Bearer {Path(self._settings.token_file).read_text().strip()}"
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self._url.netloc, timeout=SECONDS)
        self._connection.request("POST", self._path, body, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("Retry-After")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _seconds(text: str | None) -> float:
    return min(float(text), LONGEST_DELAY) if text and text.isascii() and text.isdigit() else 0.0
