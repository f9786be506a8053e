"""Promotion and rollback on any cluster, by backend: ``make e2e BACKEND=seldon|kserve|gateway``.

It asks for nothing but kubectl and what docs/<backend>.md installs; where that is not there it is skipped, and says
what is missing. Clients' requests go on all the time and none may fail. In the environment:

- ``KUBECONFIG``: the cluster, with the operator on it;
- ``NAMESPACE`` (quant): labelled and confined as deploy/kustomize/namespace has it; with Seldon's scheduler and Server;
- ``GATEWAY``: ``<namespace>/<name>``; not needed with Seldon, whose mesh is asked through a port-forward then;
- ``CLIENT_URL``: where the Gateway is reached from here, if not at its own address.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BACKEND = os.environ.get("FIDUCIARY_E2E_BACKEND", "")
NAMESPACE = os.environ.get("NAMESPACE", "quant")
SAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "samples" / "spx-volatility.yaml"
NAMES = {"seldon": "Seldon", "kserve": "KServe", "gateway": "Gateway"}
CRDS = {
    "seldon": ("models.mlops.seldon.io", "experiments.mlops.seldon.io", "servers.mlops.seldon.io"),
    "kserve": ("inferenceservices.serving.kserve.io", "httproutes.gateway.networking.k8s.io"),
    "gateway": ("httproutes.gateway.networking.k8s.io",),
}
TRAINED, SERVES = 1800.0, 300.0

HOW = "runs on a cluster of yours: make e2e BACKEND=seldon|kserve|gateway"
pytestmark = pytest.mark.skipif(not BACKEND, reason=HOW)


def kubectl(*words: str, stdin: str | None = None) -> str:
    done = subprocess.run(["kubectl", *words], input=stdin, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise AssertionError(f"kubectl {' '.join(words)}\n{done.stderr.strip()}")
    return done.stdout


def until(what: str, look: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Skips, and says why, where the backend is not there."""
    if BACKEND not in NAMES:
        pytest.exit(f"BACKEND is {BACKEND!r}; expected one of {', '.join(NAMES)}", returncode=2)
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    try:
        kubectl("version", "--request-timeout=20s")
    except AssertionError as error:
        pytest.skip(f"no cluster answers; set KUBECONFIG: {str(error).splitlines()[-1]}")
    for crd in ("financialmodels.fiduciary.dev", *CRDS[BACKEND]):
        try:
            kubectl("get", "crd", crd)
        except AssertionError as error:
            page = "install.md" if crd.endswith("fiduciary.dev") else f"{BACKEND}.md"
            pytest.skip(f"{crd} is not on this cluster (docs/{page} says how it comes there): {error}")
    if BACKEND == "seldon":
        servers = json.loads(kubectl("-n", NAMESPACE, "get", "servers.mlops.seldon.io", "-o", "json"))["items"]
        if not any("fiduciary-onnx" in (one["spec"].get("capabilities") or ()) for one in servers):
            pytest.skip(f"no Server in namespace {NAMESPACE} offers fiduciary-onnx: kubectl apply -k deploy/seldon")
    elif "GATEWAY" not in os.environ:
        pytest.skip("name the Gateway of the models: GATEWAY=<namespace>/<name>")


class Model:
    """One FinancialModel of the test."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(kubectl("-n", NAMESPACE, "get", "fm", self.name, "-o", "json"))

    @property
    def status(self) -> dict[str, Any]:
        return self.body.get("status", {})

    def condition(self, kind: str) -> tuple[str, str]:
        found = [entry for entry in self.status.get("conditions", ()) if entry["type"] == kind]
        return (found[0]["status"], f"{found[0]['reason']}: {found[0]['message']}") if found else ("", "")

    def patch(self, spec: dict[str, Any]) -> None:
        kubectl("-n", NAMESPACE, "patch", "fm", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def serves(self, version: str) -> None:
        def look() -> bool:
            status = self.status
            return status.get("champion", {}).get("version") == version and self.condition("Ready")[0] == "True"

        try:
            until(f"version {version} serves", look, SERVES)
        except AssertionError as error:
            raise AssertionError(f"{error}; Ready is {self.condition('Ready')}") from error

    def pin(self, version: dict[str, str]) -> None:
        self.patch({"promotion": {"mode": "Pinned", "pinned": version}})

    def records(self) -> list[dict[str, Any]]:
        label = f"fiduciary.dev/model={self.name}"
        items = json.loads(kubectl("-n", NAMESPACE, "get", "md", "-l", label, "-o", "json"))["items"]
        return sorted((item["spec"] for item in items), key=lambda record: record["sequence"])


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    name = f"e2e-{BACKEND}-{secrets.token_hex(3)}"
    body = yaml.safe_load(SAMPLE.read_text())
    body["metadata"] = {"name": name, "namespace": NAMESPACE}
    serving = body["spec"]["serving"]
    serving["backend"] = NAMES[BACKEND]
    serving.pop("gateway", None)
    if "GATEWAY" in os.environ:
        namespace, _, gateway = os.environ["GATEWAY"].partition("/")
        serving["gateway"] = {"parentRefs": [{"name": gateway, "namespace": namespace}]}
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    yield Model(name)
    kubectl("-n", NAMESPACE, "delete", "fm", name, "--timeout=120s")


@contextmanager
def reached(model: Model) -> Iterator[tuple[str, dict[str, str]]]:
    """(URL, headers) of the model from here."""
    endpoint = model.status["endpoint"]
    parts, headers = urlsplit(endpoint["url"]), dict(endpoint.get("headers", {}))
    if BACKEND != "seldon" or "GATEWAY" in os.environ:
        yield os.environ.get("CLIENT_URL", f"{parts.scheme}://{parts.netloc}").rstrip("/") + parts.path, headers
        return
    forward = subprocess.Popen(
        ["kubectl", "-n", NAMESPACE, "port-forward", "service/seldon-mesh", ":80"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert forward.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        assert port is not None, "kubectl port-forward does not start"
        yield f"http://127.0.0.1:{port[1]}{parts.path}", headers
    finally:
        forward.terminate()
        forward.wait()


class Clients(threading.Thread):
    """Sends the model's own example again and again, and keeps who answered."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[int, str]] = []
        self._url, self._over = url, threading.Event()
        self._http = httpx.Client(headers=headers, timeout=30, trust_env=False)
        metadata = self._http.get(url).raise_for_status().json()
        self._example = metadata["parameters"]["exampleRequest"]

    def run(self) -> None:
        while not self._over.is_set():
            try:
                answer = self._http.post(f"{self._url}/infer", json=self._example)
                self.answers.append((answer.status_code, answer.headers.get("fiduciary-version", "")))
            except httpx.HTTPError as error:
                self.answers.append((0, str(error)))
            time.sleep(0.02)

    def close(self) -> None:
        self._over.set()
        self.join(40)


def moved(model: Model, version: dict[str, str]) -> None:
    """Move every request to a version while clients ask; nobody is refused."""
    before = model.status["champion"]["version"]
    with reached(model) as (url, headers):
        clients = Clients(url, headers)
        clients.start()
        until("clients are answered", lambda: len(clients.answers) > 20, 60)
        begun = time.monotonic()
        model.pin(version)
        model.serves(version["version"])
        until(
            "all answers are the new version's",
            lambda: {v for _, v in clients.answers[-20:]} == {version["version"]},
            60,
        )
        seconds = time.monotonic() - begun
        clients.close()
    failed = [answer for answer in clients.answers if answer[0] != 200]
    print(f"{BACKEND}: version {before} -> {version['version']} in {seconds:.1f} s, {len(clients.answers)} requests")
    assert not failed, f"{len(failed)} of {len(clients.answers)} failed: {failed[:3]}"
    assert {version for _, version in clients.answers} == {before, version["version"]}


def test_a_model_is_trained_and_serves(model: Model) -> None:
    until("it is trained", lambda: model.status.get("champion"), TRAINED)
    model.serves("1")
    record = model.records()[-1]
    assert record["action"] == "Shift"
    assert record.get("backend", "Gateway") == NAMES[BACKEND]


def test_a_promotion_and_a_rollback_refuse_nobody(model: Model) -> None:
    model.patch({"training": {"architecture": "Linear"}})
    challenger = until("a second version passes", lambda: model.status.get("challenger"), TRAINED)
    first = {key: model.status["champion"][key] for key in ("version", "digest")}
    moved(model, {key: challenger[key] for key in ("version", "digest")})
    moved(model, first)
    assert [record["action"] for record in model.records()][-2:] == ["Promote", "RollBack"]
