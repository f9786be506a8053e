"""A version that forecasts quantiles: the trainer's numbers over both protocols, and the point as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from mlserver.grpc import dataplane_pb2 as pb

from tests.server.served import NAME, Served, changes, message, serving, tensor, window
from tests.server.test_records import at, settings, sinking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    Bars = Mapping[str, np.ndarray]

LEVELS = "0.05,0.5,0.95"


@pytest.fixture(scope="module")
def served(versions: Path) -> Iterator[Served]:
    with serving(versions / "intervals") as made:
        yield made


@pytest.fixture(scope="module")
def known(versions: Path) -> Mapping[str, np.ndarray]:
    with np.load(versions / "intervals.npz") as stored:
        return dict(stored)


def outputs(answer: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in answer.json()["outputs"]}


def test_quantiles_over_rest_are_the_trainers(served: Served, bars: Bars, known: Mapping[str, np.ndarray]) -> None:
    for row, point, quantiles in list(zip(known["rows"], known["prediction"], known["quantiles"], strict=True))[-40:]:
        answer = served.infer(window(bars, row))
        assert [each["name"] for each in answer.json()["outputs"]] == ["prediction", "quantiles"], "the point first"
        found = outputs(answer)
        assert np.float32(found["prediction"]["data"][0]) == point
        np.testing.assert_allclose(found["quantiles"]["data"], quantiles, rtol=1e-6)  # softplus: another last digit
        assert found["quantiles"]["shape"] == [1, 3]
        assert found["quantiles"]["parameters"] == {"levels": LEVELS}
        assert "parameters" not in found["prediction"]


def test_several_rows_at_once(served: Served, bars: Bars, known: Mapping[str, np.ndarray]) -> None:
    rows = known["rows"][-5:]
    many = [window(bars, row) for row in rows]
    names = [given["name"] for given in many[0]["inputs"]]
    batch = {"inputs": [tensor(n, [one["inputs"][i]["data"] for one in many]) for i, n in enumerate(names)]}
    found = outputs(served.infer(batch))
    assert found["quantiles"]["shape"] == [5, 3]
    by_row = np.reshape(found["quantiles"]["data"], (5, 3))
    np.testing.assert_allclose(by_row, known["quantiles"][-5:], rtol=1e-6)
    assert (np.diff(by_row, axis=1) >= 0.0).all()
    assert found["prediction"]["shape"] == [5, 1]


@pytest.mark.parametrize("raw", [False, True])
def test_quantiles_over_grpc(served: Served, bars: Bars, known: Mapping[str, np.ndarray], raw: bool) -> None:
    answer = served.call(message(window(bars, known["rows"][-1]), raw=raw))
    point, quantiles = answer.outputs
    assert (point.name, quantiles.name, list(quantiles.shape)) == ("prediction", "quantiles", [1, 3])
    assert quantiles.parameters["levels"].string_param == LEVELS
    if raw:
        contents = [np.frombuffer(each, "<f4") for each in answer.raw_output_contents]
    else:
        contents = [np.float32(each.contents.fp32_contents) for each in answer.outputs]
    assert contents[0][0] == known["prediction"][-1]
    np.testing.assert_allclose(contents[1], known["quantiles"][-1], rtol=1e-6)


@pytest.mark.parametrize("name", ["prediction", "quantiles"])
def test_one_output_may_be_asked_for(served: Served, bars: Bars, name: str) -> None:
    body = window(bars, 4000)
    whole = outputs(served.infer(body))
    only = served.infer({**body, "outputs": [{"name": name}]})
    assert outputs(only) == {name: whole[name]}
    asked = message(body)
    asked.outputs.add(name=name)
    assert [each.name for each in served.call(asked).outputs] == [name]


def test_an_output_that_is_not_there_is_refused(served: Served, linear: Served, bars: Bars) -> None:
    body = window(bars, 4000)
    answer = served.infer({**body, "outputs": [{"name": "variance"}]})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("this model gives 'prediction' and 'quantiles'")
    answer = linear.infer({**body, "outputs": [{"name": "quantiles"}]})
    assert answer.status_code == 400
    assert answer.json()["error"].endswith("this model gives 'prediction'")


def test_metadata_names_the_levels(served: Served) -> None:
    point, quantiles = served.http.get(f"/v2/models/{NAME}").json()["outputs"]
    assert point["name"] == "prediction"
    assert (quantiles["name"], quantiles["shape"]) == ("quantiles", [-1, 3])
    assert quantiles["parameters"]["levels"] == LEVELS
    over_grpc = served.stub.ModelMetadata(pb.ModelMetadataRequest(name=NAME))
    assert [each.name for each in over_grpc.outputs] == ["prediction", "quantiles"]
    assert list(over_grpc.outputs[1].shape) == [-1, 3]


def test_counters_move_as_without_quantiles(served: Served, linear: Served, bars: Bars) -> None:
    moved = []
    for server in (served, linear):
        before = server.counters()
        for row in (3000, 3500, 4000):
            assert server.infer(window(bars, row)).status_code == 200
        moved.append(changes(before, server.counters()))
    assert moved[0] == moved[1]
    assert moved[0]["fiduciary_requests_total{outcome=success,protocol=rest}"] == 3


def test_records_hold_the_point_alone(versions: Path, bars: Bars) -> None:
    """They are what drift and outcomes read."""
    with sinking() as sink, serving(versions / "intervals", records=settings(sink.url)) as recorded:
        answer = outputs(recorded.infer(at(window(bars, 4000), str(bars["time"][4000]))))
        sink.wait(lambda sink: len(sink.records) == 1)
        [one] = sink.records
    assert one["prediction"] == answer["prediction"]["data"][0]
    assert "quantiles" not in one


def test_quantiles_that_cross_are_an_error_of_the_server(versions: Path, bars: Bars) -> None:
    """On quiet days this version is in order."""
    with serving(versions / "crossing") as broken:
        assert broken.infer(window(bars, 4600)).status_code == 200
        turmoil = int(np.argmax(bars["time"] == "2008-10-10"))
        answer = broken.infer(window(bars, turmoil))
        assert answer.status_code == 500
        assert "quantiles are not ascending finite numbers" in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("pointless", "to prediction and quantiles"), ("two-levels", "signature.json has 3 levels")],
)
def test_a_model_without_the_quantiles_that_it_claims_is_never_ready(
    versions: Path, tmp_path: Path, name: str, words: str
) -> None:
    broken = Served(versions / name, tmp_path)
    try:
        assert broken.process.wait(60) == 70
        ended = json.loads(broken.termination.read_text())
        assert ended["reason"] == "BadVersion"
        assert words in ended["message"]
    finally:
        broken.process.kill()
