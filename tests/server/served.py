"""A real server process on loopback, and clients for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "quant.spx-volatility"
PACKAGES = Path(__file__).parents[2] / "trainer_image"
COLUMNS = ("open", "high", "low", "close", "volume")


def document(digest: str, uri: str = "file:///nowhere", **changes: Any) -> dict[str, Any]:
    """The operator's document."""
    return {
        "contractVersion": 1, "namespace": "quant", "model": "spx-volatility", "version": "7", "digest": digest,
        "source": {"runId": None, "uri": uri, "trackingUri": None}, "latencyEdges": [0.005, 0.05, 0.25, 1.0],
        "records": {"url": None, "buffer": 1000, "batch": 50, "flushSeconds": 0.2},
        "probeKey": None, "threads": 1, "drainSeconds": 3,
    } | changes  # fmt: skip


def digest_of(folder: Path) -> str:
    return f"sha256:{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def environment(given: Mapping[str, Any]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PACKAGES), "FIDUCIARY_SERVING": json.dumps(given)}


class Served:
    """A process, its ports and clients.

    Attributes:
        process: of the server.
        http: client of the REST port; one connection.
        digest: of the version.
    """

    def __init__(self, folder: Path, scratch: Path, **changes: Any) -> None:
        self.digest = str(changes.pop("digest", None) or digest_of(folder))
        self.rest, self.grpc, self.metrics_port = free_ports(3)
        self.termination = scratch / "termination"
        self.log = scratch / "log"
        command = [sys.executable, "-m", "fiduciary_server", "serve", "--folder", str(folder), "--host", "127.0.0.1",
                   "--rest-port", str(self.rest), "--grpc-port", str(self.grpc),
                   "--metrics-port", str(self.metrics_port), "--termination-log", str(self.termination)]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment(document(self.digest, **changes)), stdout=log, stderr=log
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.rest}", timeout=30, trust_env=False)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.grpc}")
        self.stub = GRPCInferenceServiceStub(self.channel)

    def wait_until_ready(self) -> Served:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.http.get("/v2/health/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"never ready:\n{self.log.read_text()}")

    def infer(self, body: Any, model: str = NAME, **more: Any) -> httpx.Response:
        path = f"/v2/models/{model}/infer"
        if isinstance(body, bytes):
            return self.http.post(path, content=body, **more)
        return self.http.post(path, json=body, **more)

    def call(self, request: pb.ModelInferRequest, metadata: Sequence[tuple[str, str]] | None = None) -> Any:
        return self.stub.ModelInfer(request, metadata=(("fiduciary-model", NAME),) if metadata is None else metadata)

    def counters(self) -> dict[str, float]:
        """Every series of our own by name and varying labels; the version's own are checked and left out."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False).text
        found: dict[str, float] = {}
        for name, labels, value in re.findall(r"^(fiduciary_\w+)\{(.*?)\} (\S+)$", text, re.MULTILINE):
            pairs = dict(re.findall(r'(\w+)="(.*?)"', labels))
            own = (pairs.pop("model"), pairs.pop("version"), pairs.pop("digest"))
            assert own == (NAME, "7", self.digest[7:15]), own
            shown = ",".join(f"{key}={pairs[key]}" for key in sorted(pairs))
            found[f"{name}{{{shown}}}"] = float(value)
        return found

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        self.http.close()
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def serving(folder: Path, **changes: Any) -> Iterator[Served]:
    """A ready server."""
    with tempfile.TemporaryDirectory() as scratch:
        served = Served(folder, Path(scratch), **changes)
        try:
            yield served.wait_until_ready()
        finally:
            served.close()


def changes(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Counters that moved, without the histogram's buckets and sum."""
    assert set(after) == set(before), "no series comes or goes"
    return {
        name: after[name] - before[name]
        for name in after
        if after[name] != before[name] and "_bucket" not in name and "_sum" not in name
    }


def tensor(name: str, values: Any, datatype: str = "FP64") -> dict[str, Any]:
    array = np.asarray(values)
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


def window(bars: Mapping[str, np.ndarray], last: int, rows: int = 66) -> dict[str, Any]:
    """A request with the ``rows`` bars up to the one with number ``last``."""
    return {"inputs": [tensor(name, bars[name][last - rows + 1 : last + 1]) for name in COLUMNS]}


def message(body: Mapping[str, Any], *, raw: bool = False, **more: Any) -> pb.ModelInferRequest:
    """The same request for gRPC."""
    request = pb.ModelInferRequest(model_name=NAME, **more)
    for given in body["inputs"]:
        added = request.inputs.add(name=given["name"], datatype=given["datatype"], shape=given["shape"])
        if given["datatype"] == "BYTES":
            texts = [text.encode() for text in given["data"]]
            if raw:
                request.raw_input_contents.append(b"".join(len(text).to_bytes(4, "little") + text for text in texts))
            else:
                added.contents.bytes_contents.extend(texts)
        elif raw:
            request.raw_input_contents.append(np.asarray(given["data"], "<f8").tobytes())
        else:
            added.contents.fp64_contents.extend(given["data"])
    return request
