"""Many versions in one process, as Seldon's agent loads and unloads them: real folders and requests."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from tests.server.served import NAME, PACKAGES, digest_of, document, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRONG = "sha256:" + "0" * 64


class Shared:
    """The process, and what the agent does to it."""

    def __init__(self, scratch: Path) -> None:
        self.models = scratch / "models"
        self.models.mkdir()
        self.rest, self.grpc, self.metrics = free_ports(3)
        ports = {"MLSERVER_HTTP_PORT": str(self.rest), "MLSERVER_GRPC_PORT": str(self.grpc)}
        command = [sys.executable, "-m", "fiduciary_server", "share", "--host", "127.0.0.1", "--metrics-port",
                   str(self.metrics)]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(PACKAGES), "MLSERVER_MODELS_DIR": str(self.models), **ports}
        self.process = subprocess.Popen(command, env=environment)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.rest}", timeout=30, trust_env=False)

    def ready(self) -> Shared:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.http.get("/v2/health/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the server does not get ready")

    def bring(self, name: str, folder: Path, digest: str | None = None) -> httpx.Response:
        """Copy a version and load it, with the settings as the agent leaves them."""
        place = self.models / name
        shutil.copytree(folder, place)
        serving = json.dumps(document(digest or digest_of(folder)))
        parameters = {"uri": ".", "version": "1", "extra": {"serving": serving}}
        settings = {"name": name, "implementation": "fiduciary_server.shared.SharedRuntime", "parameters": parameters}
        (place / "model-settings.json").write_text(json.dumps(settings))
        return self.http.post(f"/v2/repository/models/{name}/load", json={})

    def example(self, name: str) -> dict[str, Any]:
        return self.http.get(f"/v2/models/{name}").raise_for_status().json()["parameters"]["exampleRequest"]

    def counted(self, outcome: str, digest: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.metrics}/metrics", trust_env=False).text
        assert text.count("# TYPE fiduciary_requests_total counter") == 1
        wanted = (f'digest="{digest[7:15]}"', f'outcome="{outcome}"', 'protocol="rest"')
        lines = [line for line in text.splitlines() if line.startswith("fiduciary_requests_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in wanted))

    def series(self) -> dict[tuple[str, str], float]:
        """Name and ``model_internal`` -> sum of the values."""
        found: dict[tuple[str, str], float] = {}
        for line in httpx.get(f"http://127.0.0.1:{self.metrics}/metrics", trust_env=False).text.splitlines():
            name, value = line.split("{")[0], line.rpartition(" ")[2]
            internal = re.search(r'model_internal="([^"]*)"', line)
            if line.startswith("fiduciary_"):
                assert internal is not None, f"whose is it? {line}"
                key = name, internal[1]
                found[key] = found.get(key, 0.0) + float(value)
        return found


@contextmanager
def running(scratch: Path) -> Iterator[Shared]:
    shared = Shared(scratch)
    try:
        yield shared.ready()
    finally:
        shared.process.kill()
        shared.process.wait()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    with running(tmp_path) as found:
        yield found


def test_versions_come_answer_and_go(shared: Shared, versions: Path) -> None:
    first, second = versions / "linear", versions / "har"
    assert shared.bring("a_1", first).status_code == 200
    assert shared.bring("b_1", second).status_code == 200
    for name, folder in (("a_1", first), ("b_1", second)):
        example = shared.example(name)
        for path in (f"/v2/models/{name}/infer", f"/v2/models/{name}/versions/1/infer"):
            answer = shared.http.post(path, json=example)
            assert answer.status_code == 200
            assert answer.headers["fiduciary-digest"] == digest_of(folder)
            assert answer.json()["model_name"] == NAME
        assert shared.http.post(f"/v2/models/{name}/infer", json={"inputs": []}).status_code == 400
        assert shared.counted("success", digest_of(folder)) == 2
        assert shared.counted("client_error", digest_of(folder)) == 1
    example = shared.example("a_1")
    assert shared.http.post("/v2/repository/models/a_1/unload", json={}).status_code == 200
    assert shared.http.post("/v2/models/a_1/infer", json=example).status_code == 404
    assert shared.http.post("/v2/models/b_1/infer", json=shared.example("b_1")).status_code == 200
    assert shared.bring("c_1", first).status_code == 200


def test_counters_are_known_by_the_agents_name_and_say_since_when_they_count(shared: Shared, versions: Path) -> None:
    """The same version under two names is two sets of series; one that comes again counts anew, and says so."""
    folder = versions / "linear"
    for name in ("a_1", "b_1"):
        assert shared.bring(name, folder).status_code == 200
    example = shared.example("a_1")
    for _ in range(2):
        assert shared.http.post("/v2/models/a_1/infer", json=example).status_code == 200
    first = shared.series()
    assert first["fiduciary_requests_total", "a_1"] == 2
    assert first["fiduciary_requests_started_total", "a_1"] == 2
    assert first["fiduciary_request_seconds_bucket", "a_1"] > 0
    assert first["fiduciary_requests_total", "b_1"] == 0
    assert time.time() - 60 < first["fiduciary_version_start_time_seconds", "a_1"] <= time.time()
    assert shared.http.post("/v2/repository/models/a_1/unload", json={}).status_code == 200
    assert ("fiduciary_requests_total", "a_1") not in shared.series()
    assert shared.http.post("/v2/repository/models/a_1/load", json={}).status_code == 200
    again = shared.series()
    assert again["fiduciary_requests_total", "a_1"] == 0
    begun = "fiduciary_version_start_time_seconds"
    assert again[begun, "a_1"] > first[begun, "a_1"]
    assert again[begun, "b_1"] == first[begun, "b_1"]


def test_another_artifact_is_not_loaded_and_says_so(shared: Shared, versions: Path) -> None:
    answer = shared.bring("a_1", versions / "linear", WRONG)
    assert answer.status_code == 500
    assert "DigestMismatch" in answer.json()["error"]
    assert WRONG in answer.json()["error"]
    assert shared.http.get("/v2/models/a_1").status_code == 404


def test_grpc_needs_no_name_of_ours(shared: Shared, versions: Path) -> None:
    folder = versions / "linear"
    assert shared.bring("a_1", folder).status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{shared.grpc}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(pb.ModelReadyRequest(name="a_1")).ready
        request = pb.ModelInferRequest(model_name="a_1", model_version="1")
        for tensor in shared.example("a_1")["inputs"]:
            contents = {"FP64": "fp64_contents", "BYTES": "bytes_contents"}[tensor["datatype"]]
            data = (
                [text.encode() for text in tensor["data"]] if tensor["datatype"] == "BYTES" else _flat(tensor["data"])
            )
            given = request.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
            getattr(given.contents, contents).extend(data)
        answer = stub.ModelInfer(request)
        assert answer.parameters["digest"].string_param == digest_of(folder)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(pb.ModelInferRequest(model_name="z_1"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_it_ends_when_told(shared: Shared, versions: Path) -> None:
    assert shared.bring("a_1", versions / "linear").status_code == 200
    shared.process.send_signal(signal.SIGTERM)
    assert shared.process.wait(30) == 0


def _flat(data: list[Any]) -> list[Any]:
    return [value for row in data for value in (_flat(row) if isinstance(row, list) else [row])]
