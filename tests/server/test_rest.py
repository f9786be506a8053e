"""The protocol over HTTP: good answers, and for everything else a status and a sentence."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.server.served import COLUMNS, NAME, Served, changes, serving, tensor, window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Bars = Mapping[str, np.ndarray]
    from pathlib import Path


def test_an_answer_says_who_answered(linear: Served, bars: Bars) -> None:
    response = linear.infer({**window(bars, 4000), "id": "mine"})
    assert response.status_code == 200
    body = response.json()
    assert response.headers["fiduciary-version"] == "7"
    assert response.headers["fiduciary-digest"] == linear.digest
    identity = response.headers["fiduciary-prediction-id"]
    assert body["parameters"] == {"version": "7", "digest": linear.digest, "predictionId": identity}
    assert body["model_name"] == NAME
    assert body["model_version"] == "7"
    assert body["id"] == "mine"
    [output] = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("prediction", "FP32", [1, 1])
    assert -7 < output["data"][0] < -2, "log of a daily volatility"
    other = linear.infer(window(bars, 4000))
    assert other.headers["fiduciary-prediction-id"] != identity
    assert "id" not in other.json()


def test_the_version_may_be_named(linear: Served, bars: Bars) -> None:
    assert linear.http.post(f"/v2/models/{NAME}/versions/7/infer", json=window(bars, 4000)).status_code == 200
    assert linear.http.get(f"/v2/models/{NAME}/versions/7").status_code == 200
    assert linear.http.get(f"/v2/models/{NAME}/ready").status_code == 200


@pytest.mark.parametrize("name", ["har", "linear", "lstm"])
def test_the_example_of_the_metadata_passes_every_check(versions: Path, name: str) -> None:
    with serving(versions / name) as served:
        response = served.http.get(f"/v2/models/{NAME}")
        assert response.headers["fiduciary-version"] == "7"
        assert response.headers["fiduciary-digest"] == served.digest
        metadata = response.json()
        assert metadata["name"] == NAME
        assert metadata["versions"] == ["7"]
        example = metadata["parameters"]["exampleRequest"]
        sent = {given["name"]: given["shape"] for given in example["inputs"]}
        said = {given["name"]: given["shape"][1:] for given in metadata["inputs"] if given["datatype"] == "FP64"}
        assert sent == said, "the raw form, so that a probe computes features too"
        answered = served.infer(example)
        assert answered.status_code == 200, answered.text
        assert answered.json()["outputs"][0]["name"] == metadata["outputs"][0]["name"]
        rows = metadata["parameters"]["featureRows"]
        assert rows["shape"][-1] == len(rows["features"])


def test_every_version_asks_for_what_the_feature_set_reads(versions: Path, bars: Bars) -> None:
    """HAR reads 22 rows without volume; its successor in the same spec reads 66 with it. Clients see no difference."""
    body = window(bars, 4000)
    with serving(versions / "har") as har, serving(versions / "linear") as linear:
        examples = [
            each.http.get(f"/v2/models/{NAME}").json()["parameters"]["exampleRequest"] for each in (har, linear)
        ]
        for served in (har, linear):
            for example in (*examples, body, window(bars, 4000, 90)):
                assert served.infer(example).status_code == 200
        alone = har.infer(body).json()["outputs"][0]["data"]
        body["inputs"][4]["data"][65] = None  # what HAR does not read may be missing
        assert har.infer(body).json()["outputs"][0]["data"] == alone
        for wrong in (window(bars, 4000, 65), {"inputs": body["inputs"][:4]}):
            assert {served.infer(wrong).status_code for served in (har, linear)} == {400}


def test_columns_of_no_form_are_left_alone(linear: Served, bars: Bars) -> None:
    body = window(bars, 4000)
    body["inputs"].append({"name": "note", "datatype": "BYTES", "shape": [1], "data": ["x"]})
    assert linear.infer(body).status_code == 200


def test_nested_arrays_and_whole_numbers_are_numbers(linear: Served, bars: Bars) -> None:
    body = window(bars, 4000)
    flat = linear.infer(body).json()["outputs"][0]["data"]
    for given in body["inputs"]:
        given["shape"], given["data"] = [1, 66], [given["data"]]
    body["inputs"][4] |= {"datatype": "INT64", "data": [[int(value) for value in body["inputs"][4]["data"][0]]]}
    assert linear.infer(body).json()["outputs"][0]["data"] == flat


def test_a_missing_bar_within_the_history_is_no_obstacle(linear: Served, bars: Bars) -> None:
    body = window(bars, 4000)
    body["inputs"][3]["data"][30] = None
    assert linear.infer(body).status_code == 200
    body["inputs"][3]["data"][65] = None
    refused = linear.infer(body)
    assert refused.status_code == 400
    assert "rv_1" in refused.json()["error"]
    assert "cannot be computed" in refused.json()["error"]


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["inputs"].remove(next(each for each in body["inputs"] if each["name"] == name))


def put(place: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["inputs"][place].update(fields)


def add(given: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["inputs"].append(given)


def value(place: int, at: int, number: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["inputs"][place]["data"].__setitem__(at, number)


def scale(factor: float, rows: slice) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        for given in body["inputs"][:4]:
            given["data"][rows] = [number * factor for number in given["data"][rows]]

    return change


DAYS = [f"2018-03-{day:02d}" for day in range(1, 32)] * 3
BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "column missing": (drop("volume"), "no tensor 'volume'; sent were close, high, low, open; expected one tensor"),
    "wrong name": (put(0, name="Open"), "no tensor 'open'"),
    "same name twice": (add(tensor("close", [1.0])), "the same name"),
    "type": (put(1, datatype="BYTES"), "datatype 'BYTES'; expected FP64"),
    "unknown type": (put(1, datatype="FP128"), "datatype 'FP128'; expected FP64"),
    "type is no text": (put(1, datatype={"a": 1}), "expected FP64"),
    "text for numbers": (value(1, 3, "12.5"), "holds strings; expected numbers"),
    "truth value": (value(1, 3, True), "holds booleans; expected numbers"),
    "fractions as integers": (put(1, datatype="INT64"), "holds fractions"),
    "object in data": (value(1, 3, {"a": 1}), "holds objects"),
    "data is no array": (put(1, data=5), "expected an array"),
    "data is missing": (lambda body: body["inputs"][0].pop("data"), "an input is no"),
    "shape of another rank": (put(1, shape=[1, 1, 66]), "expected the same for each"),
    "shape and data differ": (put(1, data=[1.0, 2.0]), "has 2 values; its shape [66] says 66"),
    "shape zero": (put(0, shape=[0]), "expected positive integers"),
    "shape negative": (put(0, shape=[-1]), "expected positive integers"),
    "shape of text": (put(0, shape=["66"]), "expected positive integers"),
    "shape huge": (put(0, shape=[10**12]), "expected the same for each"),
    "ragged": (
        lambda body: [each.update(shape=[2, 66], data=[[1.0] * 66, [1.0] * 65]) for each in body["inputs"]],
        "has 66 values",
    ),
    "too few rows": (
        lambda body: [each.update(shape=[20], data=each["data"][:20]) for each in body["inputs"]],
        "at least 66 rows",
    ),
    "last row missing": (value(3, 65, None), "cannot be computed from the rows sent"),
    "most of the history missing": (
        lambda body: [value(3, at, None)(body) for at in range(40)],
        "rv_66 cannot be computed",
    ),
    "price zero": (value(0, 10, 0.0), "expected positive prices"),
    "price negative": (value(2, 10, -4.0), "expected positive prices"),
    "high below low": (value(1, 10, 0.5), "expected high ≥ low"),
    "number too large": (value(0, 10, 10**400), "no JSON"),
    "jump from dollars to cents": (scale(100.0, slice(65, 66)), "ten times the range of training"),
    "time is no time": (add({"name": "time", "datatype": "BYTES", "shape": [1], "data": ["yesterday"]}), "ISO 8601"),
    "time of numbers": (add(tensor("time", [20180102.0])), "expected BYTES"),
    "times of another number": (
        add({"name": "time", "datatype": "BYTES", "shape": [3], "data": DAYS[:3]}),
        "expected [1] or [66]",
    ),
    "newest first": (
        add({"name": "time", "datatype": "BYTES", "shape": [66], "data": [f"20{90 - i}-01-02" for i in range(66)]}),
        "does not ascend",
    ),
    "zones and none": (
        add(
            {
                "name": "time",
                "datatype": "BYTES",
                "shape": [66],
                "data": [f"19{10 + i}-01-02" + ("T00:00:00Z" if i else "") for i in range(66)],
            }
        ),
        "with and without a zone",
    ),
    "entity too long": (
        add({"name": "entity", "datatype": "BYTES", "shape": [1], "data": ["x" * 300]}),
        "at most 253 characters",
    ),
    "entities of another number": (
        add({"name": "entity", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}),
        "one for each prediction",
    ),
    "another output": (lambda body: body.update(outputs=[{"name": "variance"}]), "this model gives 'prediction'"),
    "outputs are no list": (lambda body: body.update(outputs=5), "an output no"),
    "id is a number": (lambda body: body.update(id=5), "expected a string"),
    "id is a novel": (lambda body: body.update(id="x" * 5000), "at most 128"),
    "inputs are no list": (lambda body: body.update(inputs={"open": 1}), "the body is not"),
    "input is no object": (add(5), "an input is no"),
    "no inputs": (lambda body: body.update(inputs=[]), "sent were none"),
    "features of another width": (
        lambda body: body.update(inputs=[tensor("features", [[0.0] * 13])]),
        "expected ['n', 14]: rv_1, rv_5",
    ),
    "features with a null": (
        lambda body: body.update(inputs=[{**tensor("features", [[0.0] * 14]), "data": [None] + [0.0] * 13}]),
        "rv_1 cannot be computed",
    ),
    "features out of range": (
        lambda body: body.update(inputs=[tensor("features", [[-5.0] * 3 + [-500.0] + [0.0] * 10])]),
        "rv_66 is -500; expected",
    ),
    "features and columns": (add(tensor("features", [[0.0] * 14])), "beside 'features'"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_told_what_is_wrong(linear: Served, bars: Bars, what: str) -> None:
    change, expected = BAD[what]
    body = window(bars, 4000)
    change(body)
    before = linear.counters()
    response = linear.infer(json.dumps(body).encode())
    assert response.status_code == 400, response.text
    assert expected in response.json()["error"]
    assert set(response.json()) == {"error"}
    assert len(response.json()["error"]) < 600
    assert "Traceback" not in response.text
    assert response.headers["fiduciary-version"] == "7"
    assert changes(before, linear.counters()) == {
        "fiduciary_requests_started_total{protocol=rest}": 1,
        "fiduciary_requests_total{outcome=client_error,protocol=rest}": 1,
        "fiduciary_request_seconds_count{protocol=rest}": 1,
    }


NOT_JSON = {
    "nothing": b"",
    "half": b'{"inputs": [',
    "NaN": b'{"inputs": [{"name": "open", "datatype": "FP64", "shape": [1], "data": [NaN]}]}',
    "Infinity": b'{"inputs": [{"name": "open", "datatype": "FP64", "shape": [1], "data": [Infinity]}]}',
    "bytes": bytes(range(256)),
    "a number": b"5",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "deep within": b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "form": b"a=b&c=d",
}


@pytest.mark.parametrize("what", NOT_JSON)
def test_a_body_that_is_no_request(linear: Served, what: str) -> None:
    response = linear.infer(NOT_JSON[what])
    assert response.status_code == 400
    assert response.json()["error"]
    assert "Traceback" not in response.text


def test_ten_megabytes_are_refused_and_the_connection_goes_on(linear: Served, bars: Bars) -> None:
    before = linear.counters()
    response = linear.infer(b" " * 10_000_000)
    assert response.status_code == 413
    assert response.json()["error"].startswith("the body has 10000000 bytes; at most 4194304")

    def pieces() -> Any:
        for _ in range(100):
            yield b" " * 100_000

    chunked = linear.http.post(f"/v2/models/{NAME}/infer", content=pieces())
    assert chunked.status_code == 413
    assert linear.infer(window(bars, 4000)).status_code == 200
    moved = changes(before, linear.counters())
    assert moved["fiduciary_requests_total{outcome=client_error,protocol=rest}"] == 2
    assert moved["fiduciary_requests_started_total{protocol=rest}"] == 3


def test_what_is_just_small_enough_is_answered(linear: Served, bars: Bars) -> None:
    """Many series in one request: worked on apart, so that others do not wait."""
    series = 700
    body = {"inputs": [tensor(n, [np.round(bars[n][4000 - 65 : 4001], 2).tolist()] * series) for n in COLUMNS]}
    content = json.dumps(body).encode()
    assert 1_000_000 < len(content) < 4 << 20
    predictions = linear.infer(content).json()["outputs"][0]
    assert predictions["shape"] == [series, 1]
    assert len(set(predictions["data"])) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"content-encoding": "gzip"}, "not compressed"),
        ({"inference-header-content-length": "10"}, "use gRPC"),
    ],
)
def test_encodings_that_are_not_served(linear: Served, headers: dict[str, str], expected: str) -> None:
    response = linear.infer(b"{}", headers=headers)
    assert response.status_code == 415
    assert expected in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        ("POST", "/v2/models/quant.other/infer", 404, "model 'quant.other' is not served here; this is quant.spx-vol"),
        ("GET", "/v2/models/quant.spx-volatility2", 404, "model 'quant.spx-volatility2' is not served here"),
        ("POST", f"/v2/models/{NAME}/versions/8/infer", 404, "version '8' of quant.spx-volatility is not served here"),
        ("GET", f"/v2/models/{NAME}/versions/8", 404, "this is version 7"),
        ("GET", f"/v2/models/{NAME}/infer", 405, "POST"),
        ("POST", f"/v2/repository/models/{NAME}/unload", 404, "nothing is at"),
        ("POST", "/v2/repository/index", 404, "nothing is at"),
        ("POST", f"/v2/models/{NAME}/generate", 404, "nothing is at"),
        ("POST", f"/v2/models/{NAME}/infer_stream", 404, "nothing is at"),
        ("GET", "/", 404, "nothing is at"),
        ("GET", "/v2/docs", 404, "nothing is at"),
        ("POST", "/v2/models/" + "x" * 3000 + "/infer", 404, "is not served here"),
    ],
)
def test_what_is_not_here(linear: Served, method: str, path: str, status: int, expected: str) -> None:
    before = linear.counters()
    response = linear.http.request(method, path, json={} if method == "POST" else None)
    assert response.status_code == status
    assert expected in response.json()["error"]
    assert len(response.content) < 500
    assert changes(before, linear.counters()) == {}, "what callers write becomes no series and no request of this model"


def test_liveness_readiness_and_the_servers_own_metadata(linear: Served) -> None:
    assert linear.http.get("/v2/health/live").status_code == 200
    assert linear.http.get("/v2/health/ready").status_code == 200
    assert linear.http.get("/v2").json()["name"] == "fiduciary"


@pytest.mark.parametrize("name", ["crashing", "nan"])
def test_a_model_that_fails_on_some_inputs(versions: Path, bars: Bars, name: str) -> None:
    """It is ready and answers its example; where it fails the client gets 500 and no traceback."""
    with serving(versions / name) as served:
        example = served.http.get(f"/v2/models/{NAME}").json()["parameters"]["exampleRequest"]
        assert served.infer(example).status_code == 200
        turmoil = int(np.argmax(bars["time"] == "2008-10-10"))
        before = served.counters()
        response = served.infer(window(bars, turmoil))
        assert response.status_code == 500
        assert "the model" in response.json()["error"]
        assert "Traceback" not in response.text
        assert response.headers["fiduciary-digest"] == served.digest
        moved = changes(before, served.counters())
        assert moved["fiduciary_requests_total{outcome=server_error,protocol=rest}"] == 1


def until(look: Callable[[], Any], good: Callable[[Any], Any] = bool) -> Any:
    """Look until what is seen is good."""
    for _ in range(1000):
        if good(seen := look()):
            return seen
        time.sleep(0.01)
    raise AssertionError(seen)


def ended(moved: Mapping[str, float]) -> bool:
    return "fiduciary_requests_total{outcome=client_error,protocol=rest}" in moved


def test_a_client_that_leaves_is_counted_once(linear: Served) -> None:
    before = linear.counters()
    with socket.create_connection(("127.0.0.1", linear.rest)) as leaving:
        leaving.sendall(f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{{".encode())
        until(lambda: changes(before, linear.counters()))
    moved = until(lambda: changes(before, linear.counters()), ended)
    assert moved["fiduciary_requests_started_total{protocol=rest}"] == 1
    assert moved["fiduciary_requests_total{outcome=client_error,protocol=rest}"] == 1
