"""A FinancialModel on any cluster by kubectl alone, and clients of it: see test_any_cluster.py."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import yaml

from sandbox import inference
from sandbox.market import Market

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BACKEND = os.environ.get("FIDUCIARY_E2E_BACKEND", "")
NAMESPACE = os.environ.get("NAMESPACE", "quant")
SERVES = 300.0


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

    def experiment(self, version: str) -> dict[str, Any]:
        """The ModelExperiment of this challenger; empty while there is none."""
        items = json.loads(kubectl("-n", NAMESPACE, "get", "mx", "-o", "json"))["items"]
        mine = [one for one in items if one["spec"]["modelRef"]["name"] == self.name]
        return next((one for one in mine if one["spec"]["challenger"]["version"] == version), {})

    def challenger(self, training: dict[str, Any], seconds: float) -> dict[str, str]:
        """Change the training; the version that passed the gates, as in status.challenger."""
        known = {record["to"]["digest"] for record in self.records() if record["action"] == "Accept"}
        self.patch({"training": training})

        def accepted() -> Any:
            status, found = self.condition("CandidateRejected")
            assert status != "True", f"the gates refuse it: {found}"
            challenger = self.status.get("challenger", {})
            return challenger if challenger.get("digest") not in (None, *known) else None

        return until("another version passes the gates", accepted, seconds)

    def records(self) -> list[dict[str, Any]]:
        label = f"fiduciary.dev/model={self.name}"
        items = json.loads(kubectl("-n", NAMESPACE, "get", "md", "-l", label, "-o", "json"))["items"]
        return sorted((item["spec"] for item in items), key=lambda record: record["sequence"])


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
    """Sends requests again and again, by default the model's own example, and keeps who answered."""

    def __init__(self, url: str, headers: dict[str, str], requests: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(daemon=True)
        self.answers: list[tuple[int, str]] = []
        self._url, self._over = url, threading.Event()
        self._http = httpx.Client(headers=headers, timeout=30, trust_env=False)
        metadata = self._http.get(url).raise_for_status().json()
        self._requests = requests or [metadata["parameters"]["exampleRequest"]]

    def run(self) -> None:
        while not self._over.is_set():
            request = self._requests[len(self.answers) % len(self._requests)]
            try:
                answer = self._http.post(f"{self._url}/infer", json=request)
                self.answers.append((answer.status_code, answer.headers.get("fiduciary-version", "")))
            except httpx.HTTPError as error:
                self.answers.append((0, str(error)))
            time.sleep(0.02)

    def close(self) -> None:
        self._over.set()
        self.join(40)

    @property
    def failed(self) -> list[tuple[int, str]]:
        return [answer for answer in self.answers if answer[0] != 200]

    @property
    def lately(self) -> set[str]:
        """Versions that gave the last answers."""
        return {version for _, version in self.answers[-20:]}


@contextmanager
def asking(model: Model, requests: Sequence[dict[str, Any]] = ()) -> Iterator[Clients]:
    """Clients that ask from before the block until after it."""
    with reached(model) as (url, headers):
        clients = Clients(url, headers, requests)
        clients.start()
        try:
            until("clients are answered", lambda: len(clients.answers) > 20, 60)
            yield clients
        finally:
            clients.close()


def market(image: str) -> list[dict[str, Any]]:
    """Requests of days after the sample's asOf, from the data that a trainer's image ships; its pod runs as confined as
    the namespace asks."""
    name = f"e2e-market-{secrets.token_hex(3)}"
    container = {
        "name": "market",
        "image": image,
        "command": Market.command(),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
    }
    confined = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": confined}
    metadata = {"name": name, "namespace": NAMESPACE}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "containers": [container]}}
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    try:
        kubectl("-n", NAMESPACE, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=110s")
        found = Market.parse(kubectl("-n", NAMESPACE, "logs", name))
    finally:
        kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait=false")
    return [inference.document(found.bars(day, 90)) for day in found.after("2017-12-29")[:20]]
