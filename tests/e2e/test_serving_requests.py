"""What clients get: the numbers that were judged, and for a request that is wrong an answer that says what is."""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fiduciary.clients import oip
from sandbox import inference
from tests.e2e.cluster import condition
from tests.e2e.offline import predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.e2e.cluster import Cluster
    from tests.e2e.inference import Model
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry
    from tests.e2e.serving import Service, TwoVersions

Document = dict[str, Any]


@pytest.fixture(scope="module")
def model(two_versions: TwoVersions) -> Model:
    return two_versions.service.model


def test_a_prediction_is_what_onnx_says_offline(
    two_versions: TwoVersions, model: Model, node: Node, registry: Registry
) -> None:
    champion = two_versions.service.found["status"]["champion"]
    offline = predictions(node, registry, champion["runId"], two_versions.requests)
    served = [model.predict(bars) for bars in two_versions.requests]
    assert [one.value for one in served] == pytest.approx(offline, rel=1e-6)
    assert {(one.version, one.digest) for one in served} == {(champion["version"], champion["digest"])}
    assert len({one.id for one in served}) == len(served), "a prediction id names one prediction"


# A user's program: MLServer's own client code, in a pod of the cluster.
GRPC_CLIENT = """
import json, sys
import grpc
from fiduciary_server import absent
absent.stand_in()
from mlserver.grpc import converters, dataplane_pb2_grpc
from mlserver.types import InferenceRequest
told = json.load(sys.stdin)
for tensor in told["document"]["inputs"]:
    if tensor["datatype"] == "BYTES":
        tensor["data"] = [text.encode() for text in tensor["data"]]
with grpc.insecure_channel(told["address"]) as channel:
    stub = dataplane_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = converters.ModelInferRequestConverter.from_types(
        InferenceRequest.model_validate(told["document"]), model_name=told["model"], model_version=None
    )
    answer = stub.ModelInfer(request, metadata=[*told["metadata"].items()])
print(converters.ModelInferResponseConverter.to_types(answer).model_dump_json())
"""


def test_grpc_says_the_same(two_versions: TwoVersions, model: Model) -> None:
    service = two_versions.service
    champion = service.found["status"]["champion"]
    told = {
        "address": "envoy.projectcontour.svc:80",
        "model": model.name,
        "metadata": model.metadata,
        "document": inference.document(two_versions.request()),
    }
    pod = service.pods(champion)[0]["metadata"]["name"]
    words = ("exec", "-i", pod, "-c", "server", "--", "python", "-c", GRPC_CLIENT)
    answer = json.loads(service.cluster.kubectl(*words, stdin=json.dumps(told), namespace=service.namespace))
    said = inference.Prediction.of(answer)
    assert (said.version, said.digest) == (champion["version"], champion["digest"])
    assert said.value == pytest.approx(model.predict(two_versions.request()).value, rel=1e-6)


@pytest.mark.parametrize(
    ("metadata", "spoil", "code"),
    [
        ({}, None, grpc.StatusCode.UNIMPLEMENTED),
        ({"fiduciary-model": "nobody.nothing"}, None, grpc.StatusCode.UNIMPLEMENTED),
        (None, "klose", grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["no metadata", "unknown model", "unknown input"],
)
def test_grpc_errors_are_a_clients(
    two_versions: TwoVersions,
    model: Model,
    metadata: dict[str, str] | None,
    spoil: str | None,
    code: grpc.StatusCode,
) -> None:
    """Without the metadata no route matches: the gateway's 404 is UNIMPLEMENTED to a gRPC client."""
    document = copy.deepcopy(inference.document(two_versions.request()))
    if spoil is not None:
        _named(document, "close")["name"] = spoil
    sent = model.metadata if metadata is None else metadata
    with grpc.insecure_channel(model.authority) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(oip.MODEL_INFER)(
            oip.infer_request(model.name, document), metadata=[*sent.items()], timeout=10
        )
    error = refused.value
    assert isinstance(error, grpc.Call)
    assert error.code() == code, error
    assert "Traceback" not in (error.details() or "")


def test_kubectl_shows_where_it_answers(two_versions: TwoVersions) -> None:
    service = two_versions.service
    table = service.cluster.kubectl("get", "fm", service.name, namespace=service.namespace).splitlines()
    heads, row = table[0].split(), table[1]
    assert "READY" in heads
    assert " True " in row
    wide = service.cluster.kubectl("get", "fm", service.name, "-o", "wide", namespace=service.namespace)
    assert service.found["status"]["endpoint"]["url"] in wide


@dataclass(frozen=True, slots=True)
class Wrong:
    """A way to spoil a good request, the status that it deserves, and words that the answer must hold."""

    spoil: Callable[[Document], object]
    words: tuple[str, ...]
    status: int = 400


def _named(document: Document, name: str) -> Document:
    return next(entry for entry in document["inputs"] if entry["name"] == name)


def _rows(document: Document, rows: int) -> None:
    for entry in document["inputs"]:
        entry["data"], entry["shape"] = entry["data"][-rows:], [rows]


def _without(document: Document, name: str) -> None:
    document["inputs"] = [entry for entry in document["inputs"] if entry["name"] != name]


WRONG: Mapping[str, Wrong] = {
    "unknown-name": Wrong(lambda d: _named(d, "close").update(name="klose"), ("klose", "close")),
    "missing-column": Wrong(lambda d: _without(d, "close"), ("close",)),
    "no-inputs": Wrong(lambda d: d.update(inputs=[]), ("close", "none")),
    "type-of-a-price": Wrong(lambda d: _named(d, "close").update(datatype="BYTES", data=["dear"] * 90), ("close",)),
    "text-in-numbers": Wrong(lambda d: _named(d, "close")["data"].__setitem__(0, "dear"), ("close",)),
    "shape": Wrong(lambda d: _named(d, "close").update(shape=[91]), ("close", "91", "90")),
    "one-column-is-short": Wrong(
        lambda d: _named(d, "low").update(shape=[89], data=_named(d, "low")["data"][1:]), ("low", "89", "90")
    ),
    "too-few-rows": Wrong(lambda d: _rows(d, 5), ("5",)),
    "nan": Wrong(lambda d: _named(d, "close")["data"].__setitem__(-1, math.nan), ("NaN",)),
    "null": Wrong(lambda d: _named(d, "close")["data"].__setitem__(-1, None), ("rv_1", "last row")),
    "negative-price": Wrong(lambda d: _named(d, "low")["data"].__setitem__(-1, -1.0), ("low", "positive")),
    "low-above-high": Wrong(lambda d: _named(d, "low")["data"].__setitem__(-1, 1e9), ("low", "high")),
    "infinite": Wrong(lambda d: _named(d, "high")["data"].__setitem__(-1, 1e400), ("Infinity",)),
    "time-goes-back": Wrong(lambda d: _named(d, "time")["data"].reverse(), ("time",)),
    "no-date": Wrong(lambda d: _named(d, "time")["data"].__setitem__(0, "yesterday"), ("time", "yesterday")),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_answered_with_what_is_wrong(two_versions: TwoVersions, model: Model, name: str) -> None:
    document = copy.deepcopy(inference.document(two_versions.request()))
    wrong = WRONG[name]
    wrong.spoil(document)
    answer = model.post(document)
    assert answer.status_code == wrong.status, f"{answer.status_code} {answer.text[:500]}"
    said = answer.json()["error"]
    for word in wrong.words:
        assert word in said, f"the answer does not say {word!r}: {said}"
    assert "Traceback" not in answer.text
    assert len(answer.content) < 4096, "an answer to a wrong request does not send it back"


def test_features_far_outside_of_training_are_refused(model: Model) -> None:
    rows = model.http.get(model.path).json()["parameters"]["featureRows"]
    names, width = rows["features"], len(rows["features"])
    features = {"name": "features", "datatype": "FP64", "shape": [1, width], "data": [1e6] * width}
    answer = model.post({"inputs": [features]})
    assert answer.status_code == 400, answer.text[:300]
    assert names[0] in answer.json()["error"]
    assert "training" in answer.json()["error"]


def test_a_body_that_is_no_json_is_a_clients_error(model: Model) -> None:
    for body in (b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"null"):
        answer = model.post(body)
        assert 400 <= answer.status_code < 500, f"{body!r}: {answer.status_code} {answer.text[:300]}"
        assert "Traceback" not in answer.text


def test_ten_megabytes_are_refused_and_the_next_request_is_answered(two_versions: TwoVersions, model: Model) -> None:
    body = inference.body(two_versions.request())
    answer = model.post(body[:-1] + b" " * 10_000_000 + b"}")
    assert answer.status_code == 413, f"{answer.status_code} {answer.text[:300]}"
    model.predict(two_versions.request())


def test_versions_and_models_that_are_not_there_are_not_found(two_versions: TwoVersions, model: Model) -> None:
    body = inference.body(two_versions.request())
    assert model.post(body, "/versions/4711/infer").status_code == 404
    path = model.path.rpartition(".")[0] + ".nobody/infer"
    assert model.http.post(path, content=body, headers=dict(model.headers)).status_code == 404
    assert model.http.get(model.path + "/infer").status_code in (404, 405)


def test_wrong_requests_count_against_the_client_and_not_the_model(
    cluster: Cluster, two_versions: TwoVersions, model: Model
) -> None:
    """Prometheus, by the labels of the scrape target: what the runtime counted is what was sent, to the request."""
    service = two_versions.service
    before = counts_now(cluster, service)
    for _ in range(7):
        model.predict(two_versions.request())
    for _ in range(3):
        assert model.post({"inputs": []}).status_code == 400
    expected = {
        "success": before["success"] + 7,
        "client_error": before["client_error"] + 3,
        "server_error": before["server_error"],
    }
    cluster.poll(lambda: counted(cluster, service.namespace), lambda seen: seen == expected, 30, f"{expected}")
    champion = service.found["status"]["champion"]
    assert {series["pod"] for series in series_of(cluster, service.namespace)} >= {
        pod["metadata"]["name"] for pod in service.pods(champion)
    }


def series_of(cluster: Cluster, namespace: str) -> list[dict[str, str]]:
    query = f'fiduciary_requests_total{{namespace="{namespace}"}}'
    return [found["metric"] for found in cluster.query(query)]


def counts_now(cluster: Cluster, service: Service) -> Counter[str]:
    """The same from the pods themselves, without waiting for a scrape."""
    counts: Counter[str] = Counter()
    for pod in cluster.list("pod", service.namespace, service.selector):
        for line in cluster.pod(service.namespace, pod["metadata"]["name"], 8082, "metrics").text.splitlines():
            if match := re.match(r'fiduciary_requests_total\{.*outcome="(\w+)".*\} (\S+)', line):
                counts[match[1]] += int(float(match[2]))
    return counts


def counted(cluster: Cluster, namespace: str) -> dict[str, int]:
    """Requests of a namespace's models by outcome, as Prometheus has them now."""
    found = cluster.query(f'sum by (outcome) (fiduciary_requests_total{{namespace="{namespace}"}})')
    return {series["metric"]["outcome"]: int(series["value"][1]) for series in found}


def test_ready_speaks_of_a_real_request(two_versions: TwoVersions) -> None:
    found = two_versions.service.found
    assert condition(found, "Served")["status"] == "True"
    message = condition(found, "Ready")["message"]
    assert found["status"]["champion"]["version"] in message, message
