"""Records of predictions as the outcome scorer receives them, and what becomes of those that cannot be sent."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.server.served import NAME, message, serving, tensor, window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Bars = Mapping[str, np.ndarray]


class Sink:
    """An HTTP server that keeps batches. ``answers``: statuses to give first, then 200; ``away``: 503 while set."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.answers: list[int] = []
        self.away = False
        self.changed = threading.Condition()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with sink.changed:
                    status = 503 if sink.away else sink.answers.pop(0) if sink.answers else 200
                    sink.bodies.append(body)
                    sink.headers.append(dict(self.headers))
                    if status == 200:
                        sink.batches.append(json.loads(body))
                    sink.changed.notify_all()
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if status == 503:
                    self.send_header("Retry-After", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1/records"

    @property
    def records(self) -> list[dict[str, Any]]:
        return [record for batch in self.batches for record in batch["records"]]

    def wait(self, good: Callable[[Sink], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: good(self), 30), (
                f"{len(self.batches)} batches, {len(self.bodies)} posts"
            )


@contextmanager
def sinking() -> Iterator[Sink]:
    sink = Sink()
    thread = threading.Thread(target=sink.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.server.shutdown()
        sink.server.server_close()
        thread.join()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinking() as sink:
        yield sink


def settings(url: str | None, **more: Any) -> dict[str, Any]:
    return {"url": url, "buffer": 1000, "batch": 50, "flushSeconds": 0.1} | more


def at(body: dict[str, Any], when: str, entity: str = "SPX") -> dict[str, Any]:
    extra = [("time", when), ("entity", entity)]
    inputs = [*body["inputs"], *({"name": n, "datatype": "BYTES", "shape": [1], "data": [v]} for n, v in extra)]
    return {**body, "inputs": inputs}


def test_each_prediction_leaves_a_record(versions: Path, bars: Bars, sink: Sink) -> None:
    reference = json.loads((versions / "linear" / "drift_reference.json").read_bytes())
    with np.load(versions / "linear.npz") as stored:
        features = stored["features"]
    with serving(versions / "linear", records=settings(sink.url)) as served:
        when = [str(bars["time"][row]) for row in (4000, 4001)]
        first = served.infer({**at(window(bars, 4000), when[0]), "id": "r-1"})
        second = served.call(message(at(window(bars, 4001), f"{when[1]}T21:00:00+01:00"), raw=True))
        sink.wait(lambda sink: len(sink.records) == 2)
        head = sink.batches[0]
        signature = json.loads((versions / "linear" / "signature.json").read_bytes())
        assert head["features"] == signature["inputs"][0]["features"]
        known = ("contractVersion", "model", "version", "digest", "reference", "dropped")
        assert {name: head[name] for name in known} == {
            "contractVersion": 1, "model": NAME, "version": "7", "digest": served.digest,
            "reference": reference["edgesSha256"], "dropped": [],
        }  # fmt: skip
        assert head["edges"] == [len(reference["features"][name]["edges"]) for name in head["features"]]
        assert head["predictionEdges"] == len(reference["prediction"]["edges"])
        one, two = sink.records
        assert one["predictionId"] == first.headers["fiduciary-prediction-id"]
        assert one["requestId"] == "r-1"
        assert (one["entity"], one["time"]) == ("SPX", when[0])
        assert one["prediction"] == first.json()["outputs"][0]["data"][0]
        assert one["missing"] == []
        for place, name in enumerate(head["features"]):
            edges = reference["features"][name]["edges"]
            value = features[4000, place]
            number = one["bins"][place]
            assert number == 0 or edges[number - 1] < value
            assert number == len(edges) or value <= edges[number]
        expected = int(np.searchsorted(reference["prediction"]["edges"], one["prediction"], side="left"))
        assert one["predictionBin"] == expected
        joint = reference["joint"]
        assert head["jointEdges"] == len(joint["edges"])
        its = json.loads((versions / "linear" / "features.json").read_bytes())["transform"]
        inputs = np.clip((features[4000] - its["mean"]) * its["scale"], -its["clip"], its["clip"])
        distance = np.linalg.norm(np.array(joint["whiten"]) @ (inputs - joint["center"]))
        assert one["jointBin"] == int(np.searchsorted(joint["edges"], distance, side="left"))
        assert two["predictionId"] == second.parameters["predictionId"].string_param
        assert two["time"] == f"{when[1]}T20:00:00Z", "in UTC"
        assert two["requestId"] is None
        assert served.counters()["fiduciary_records_total{}"] == 2


def test_the_gateways_request_id_ties_mirrored_copies_together(versions: Path, bars: Bars, sink: Sink) -> None:
    with serving(versions / "har", records=settings(sink.url)) as served:
        served.infer(window(bars, 4000), headers={"x-request-id": "gw-1"})
        served.call(message(window(bars, 4000)), (("fiduciary-model", NAME), ("x-request-id", "gw-2")))
        sink.wait(lambda sink: len(sink.records) == 2)
        assert [record["requestId"] for record in sink.records] == ["gw-1", "gw-2"]
        assert [record["time"] for record in sink.records] == [None, None]


def test_a_batch_of_rows_leaves_a_record_each(versions: Path, bars: Bars, sink: Sink) -> None:
    rows = [4000, 4001, 4002]
    many = [window(bars, row) for row in rows]
    inputs = [
        tensor(given["name"], [one["inputs"][i]["data"] for one in many]) for i, given in enumerate(many[0]["inputs"])
    ]
    inputs.append({"name": "entity", "datatype": "BYTES", "shape": [3], "data": ["A", "B", "C"]})
    days = [[str(day) for day in bars["time"][row - 65 : row + 1]] for row in rows]
    inputs.append({"name": "time", "datatype": "BYTES", "shape": [3, 66], "data": days})
    with serving(versions / "har", records=settings(sink.url)) as served:
        response = served.infer({"inputs": inputs})
        assert response.status_code == 200, response.text
        sink.wait(lambda sink: len(sink.records) == 3)
        identity = response.headers["fiduciary-prediction-id"]
        assert [record["predictionId"] for record in sink.records] == [f"{identity}-{place}" for place in range(3)]
        assert [record["entity"] for record in sink.records] == ["A", "B", "C"]
        assert [record["time"] for record in sink.records] == [str(bars["time"][row]) for row in rows]


def test_missing_features_are_refused_and_recorded(versions: Path, bars: Bars, sink: Sink) -> None:
    body = at(window(bars, 4000), "2018-01-02")
    body["inputs"][4]["data"][65] = None
    with serving(versions / "linear", records=settings(sink.url)) as served:
        assert served.infer(body).status_code == 400
        sink.wait(lambda sink: len(sink.records) == 1)
        [record] = sink.records
        place = sink.batches[0]["features"].index("volume_rel")
        assert record["missing"] == [place]
        assert record["bins"][place] is None
        assert record["bins"].count(None) == 1
        assert (record["prediction"], record["predictionBin"], record["jointBin"]) == (None, None, None)


def test_features_out_of_range_are_refused_and_recorded_as_missing(versions: Path, bars: Bars, sink: Sink) -> None:
    """The newest close in cents: nobody knows what the returns are, and a policy on missing rows has to hear of it."""
    body = at(window(bars, 4000), "2018-01-02")
    body["inputs"][3]["data"][65] *= 100.0
    body["inputs"][1]["data"][65] *= 100.0
    with serving(versions / "linear", records=settings(sink.url)) as served:
        assert served.infer(body).status_code == 400
        sink.wait(lambda sink: len(sink.records) == 1)
        [record] = sink.records
        features = sink.batches[0]["features"]
        gone = {features[place] for place in record["missing"]}
        assert {"ret_1", "abs_ret_1"} <= gone
        assert "volume_rel" not in gone, "what is in range is what it is"
        assert [place for place, number in enumerate(record["bins"]) if number is None] == record["missing"]
        assert (record["prediction"], record["predictionBin"]) == (None, None)


def test_probes_and_bad_requests_leave_none(versions: Path, bars: Bars, sink: Sink) -> None:
    from tests.server.test_counting import PUBLIC, base64, header

    key = base64.b64encode(PUBLIC).decode()
    with serving(versions / "har", records=settings(sink.url), probeKey=key) as served:
        body = window(bars, 4000)
        assert served.infer(body, headers={"fiduciary-probe": header("*")}).status_code == 200
        assert served.infer({"inputs": []}).status_code == 400
        served.infer({**body, "id": "the only one"})
        sink.wait(lambda sink: bool(sink.records))
        assert [record["requestId"] for record in sink.records] == ["the only one"]


def test_a_batch_is_sent_again_with_the_same_bytes_until_it_is_taken(versions: Path, bars: Bars, sink: Sink) -> None:
    sink.answers = [503, 500, 401]
    with serving(versions / "har", records=settings(sink.url)) as served:
        served.infer(window(bars, 4000))
        sink.wait(lambda sink: len(sink.records) == 1)
        served.infer(window(bars, 4001))
        sink.wait(lambda sink: len(sink.records) == 2)
    assert len(sink.bodies) == 5
    assert len(set(sink.bodies[:4])) == 1
    assert [batch["sequence"] for batch in sink.batches] == [1, 2]
    assert len({batch["sender"] for batch in sink.batches}) == 1


def test_a_batch_that_is_refused_is_dropped_and_told(versions: Path, bars: Bars, sink: Sink) -> None:
    sink.answers = [400]
    with serving(versions / "har", records=settings(sink.url)) as served:
        served.infer(at(window(bars, 4000), "2018-01-02"))
        sink.wait(lambda sink: len(sink.batches) == 1)
        assert sink.batches[0]["dropped"] == [{"time": "2018-01-02", "count": 1}]
        counters = served.counters()
    assert counters["fiduciary_records_total{}"] == 1
    assert counters["fiduciary_records_dropped_total{reason=refused}"] == 1


def test_a_full_buffer_drops_the_newest_and_says_how_many(versions: Path, bars: Bars) -> None:
    """The sink is away: nobody waits for it, and what is lost is known by date once it is back."""
    with sinking() as sink:
        sink.away = True
        small = settings(sink.url, buffer=5, batch=5, flushSeconds=0.05)
        with serving(versions / "har", records=small) as served:
            served.infer(at(window(bars, 4000), "2018-01-01"))
            sink.wait(lambda sink: len(sink.bodies) > 0)
            for day in ("2018-01-02", "2018-01-03"):
                for _ in range(4):
                    assert served.infer(at(window(bars, 4000), day)).status_code == 200
            counters = served.counters()
            assert counters["fiduciary_records_total{}"] == 9
            assert counters["fiduciary_records_dropped_total{reason=buffer_full}"] == 3
            sink.away = False
            sink.wait(lambda sink: len(sink.records) == 6)
            assert [batch["dropped"] for batch in sink.batches] == [[], [{"time": "2018-01-03", "count": 3}]]


def test_a_sink_that_does_not_exist_costs_no_request(versions: Path, bars: Bars) -> None:
    away = settings("http://127.0.0.1:9/none", buffer=3, batch=2, flushSeconds=0.05)
    with serving(versions / "har", records=away, drainSeconds=0.5) as served:
        for _ in range(20):
            assert served.infer(window(bars, 4000)).status_code == 200
        counters = served.counters()
        assert counters["fiduciary_records_total{}"] == 20
        assert 15 <= counters["fiduciary_records_dropped_total{reason=buffer_full}"] <= 17
        served.terminate()
        assert served.process.wait(30) == 0


def test_what_waits_is_sent_before_the_end(versions: Path, bars: Bars, sink: Sink) -> None:
    slow = settings(sink.url, flushSeconds=3600.0)
    with serving(versions / "har", records=slow, drainSeconds=0.5) as served:
        for _ in range(7):
            served.infer(window(bars, 4000))
        assert sink.records == []
        served.terminate()
        assert served.process.wait(30) == 0
    assert len(sink.records) == 7


def test_the_token_is_read_for_each_request(versions: Path, bars: Bars, sink: Sink, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with serving(versions / "har", records=settings(sink.url, tokenFile=str(token))) as served:
        served.infer(window(bars, 4000))
        sink.wait(lambda sink: len(sink.records) == 1)
        token.write_text("second")
        served.infer(window(bars, 4000))
        sink.wait(lambda sink: len(sink.records) == 2)
    assert [headers["Authorization"] for headers in sink.headers] == ["Bearer first", "Bearer second"]
