"""The init container: a version comes from its store, is the one that is wanted, or is not served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fiduciary_features import artifact
from fiduciary_server import contract
from fiduciary_server.ending import Ended
from fiduciary_server.fetching import fetch
from tests.server.served import digest_of, document, environment, free_ports
from tests.trainer import s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MLFLOW = os.environ.get("FIDUCIARY_TEST_MLFLOW_URI", "")
needs_mlflow = pytest.mark.skipif(not MLFLOW, reason="FIDUCIARY_TEST_MLFLOW_URI names no MLflow server")


class Pod:
    """Folders as the init container has them."""

    def __init__(self, root: Path) -> None:
        self.version, self.claims, self.secrets = (root / name for name in ("version", "data", "secret"))
        for folder in (self.version, self.claims, self.secrets):
            folder.mkdir()
        self.message = root / "message"

    def fetch(self, digest: str, uri: str, *, tracking: str | None = None, patience: float = 0.0) -> None:
        given = document(digest, uri)
        given["source"]["trackingUri"] = tracking
        serving = contract.parse(json.dumps(given))
        fetch(serving, self.version, self.claims, self.secrets, patience=patience)

    def refused(self, *args: Any, **more: Any) -> Ended:
        with pytest.raises(Ended) as caught:
            self.fetch(*args, **more)
        return caught.value

    def run(self, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The process itself: exit code and termination message."""
        places = {
            "folder": self.version,
            "claims": self.claims,
            "secrets": self.secrets,
            "termination-log": self.message,
        }
        options = [word for name, place in places.items() for word in (f"--{name}", str(place))]
        command = [sys.executable, "-m", "fiduciary_server", "fetch", *options]
        code = subprocess.run(command, env=environment(given), timeout=120).returncode
        return code, json.loads(self.message.read_text()) if self.message.exists() else {}


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.fixture
def claimed(pod: Pod, versions: Path) -> Path:
    """A version on a claim."""
    folder = pod.claims / "models" / "spx" / "7"
    shutil.copytree(versions / "linear", folder)
    return folder


def test_from_a_claim(pod: Pod, claimed: Path) -> None:
    digest = digest_of(claimed)
    pod.fetch(digest, "pvc://models/spx/7")
    assert artifact.verify(pod.version) == digest
    for file in claimed.iterdir():
        file.unlink()
    pod.fetch(digest, "pvc://models/spx/7")  # the kubelet started the container again: what is there is enough


def test_what_is_left_of_another_version_is_removed(pod: Pod, claimed: Path) -> None:
    (pod.version / "model.onnx").write_bytes(b"half of a download")
    (pod.version / "stray").write_bytes(b"x")
    pod.fetch(digest_of(claimed), "pvc://models/spx/7")
    assert artifact.verify(pod.version) == digest_of(claimed)


@pytest.mark.parametrize("name", artifact.FILES)
def test_a_changed_file_never_serves(pod: Pod, claimed: Path, name: str) -> None:
    content = bytearray((claimed / name).read_bytes())
    content[-2] ^= 1
    (claimed / name).write_bytes(content)
    refused = pod.refused(digest_of(claimed), "pvc://models/spx/7")
    assert refused.reason == "DigestMismatch"
    assert name in refused.message
    with pytest.raises((ValueError, OSError)):
        artifact.verify(pod.version)


def test_another_version_than_the_one_wanted_never_serves(pod: Pod, claimed: Path, versions: Path) -> None:
    wanted = digest_of(versions / "har")
    refused = pod.refused(wanted, "pvc://models/spx/7")
    assert refused.reason == "DigestMismatch"
    assert wanted in refused.message
    assert digest_of(claimed) in refused.message
    assert list(pod.version.iterdir()) == [], "nothing is downloaded before the manifest is right"


def test_a_manifest_of_other_files_is_no_version(pod: Pod, claimed: Path) -> None:
    (claimed / "manifest.json").write_text(json.dumps({"files": {"model.pkl": "00"}}))
    refused = pod.refused(digest_of(claimed), "pvc://models/spx/7")
    assert refused.reason == "BadVersion"
    assert "model.pkl" in refused.message


def test_what_is_not_there(pod: Pod, claimed: Path) -> None:
    assert pod.refused(digest_of(claimed), "pvc://models/spx/8").reason == "ArtifactNotFound"
    (claimed / "ledger.csv").unlink()
    refused = pod.refused(digest_of(claimed), "pvc://models/spx/7")
    assert (refused.reason, "ledger.csv" in refused.message) == ("ArtifactNotFound", True)


@pytest.mark.parametrize(
    "uri", ["gs://bucket/x", "relative/path", "pvc://models/../../etc", "mlflow-artifacts:/1/run/artifacts/version"]
)
def test_places_that_cannot_be_read(pod: Pod, uri: str) -> None:
    assert pod.refused("sha256:" + "0" * 64, uri).reason == "BadContract"


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(pod: Pod) -> Callable[..., None]:
    def write(**values: str) -> None:
        for name, value in values.items():
            (pod.secrets / name).write_text(value)

    return write


def test_from_s3(pod: Pod, versions: Path, secret: Callable[..., None]) -> None:
    digest = digest_of(versions / "linear")
    with s3_server.running() as store:
        for file in (versions / "linear").iterdir():
            store.put(f"spx/7/{file.name}", file.read_bytes())
        secret(AWS_ACCESS_KEY_ID=store.key, AWS_SECRET_ACCESS_KEY=store.secret, AWS_ENDPOINT_URL=store.address)
        pod.fetch(digest, f"s3://{s3_server.BUCKET}/spx/7")
        assert artifact.verify(pod.version) == digest
        absent = pod.refused("sha256:" + "0" * 64, f"s3://{s3_server.BUCKET}/spx/8")
        assert absent.reason == "ArtifactNotFound"
        for wrong in ({"AWS_SECRET_ACCESS_KEY": "of-another-key"}, {"AWS_ACCESS_KEY_ID": "AKIDOFSOMEBODY"}):
            secret(**wrong)
            denied = pod.refused("sha256:" + "0" * 64, f"s3://{s3_server.BUCKET}/spx/7")
            assert denied.reason == "RegistryUnauthorized"
            assert not any(value in denied.message for value in (store.secret, *wrong.values()))
    away = pod.refused("sha256:" + "0" * 64, f"s3://{s3_server.BUCKET}/spx/7")
    assert away.reason == "ArtifactStoreUnreachable"


# --- MLflow -----------------------------------------------------------------------------------------------------------


def logged(folder: Path) -> tuple[str, str]:
    """Log a version to a run as the trainer does; returns the run's id and the artifact's URI."""
    api = httpx.Client(base_url=MLFLOW, trust_env=False, timeout=60)
    name = f"quant.fetch-{uuid.uuid4().hex}"
    experiment = api.post("/api/2.0/mlflow/experiments/create", json={"name": name}).json()["experiment_id"]
    run = api.post("/api/2.0/mlflow/runs/create", json={"experiment_id": experiment}).json()["run"]["info"]
    place = f"{run['artifact_uri'].removeprefix('mlflow-artifacts:/')}/version"
    for file in folder.iterdir():
        path = f"/api/2.0/mlflow-artifacts/artifacts/{place}/{file.name}"
        assert api.put(path, content=file.read_bytes()).status_code == 200
    return run["run_id"], f"{run['artifact_uri']}/version"


@needs_mlflow
def test_from_a_real_mlflow(pod: Pod, versions: Path) -> None:
    digest = digest_of(versions / "linear")
    run, uri = logged(versions / "linear")
    assert uri.startswith("mlflow-artifacts:/")
    api = httpx.Client(base_url=f"{MLFLOW}/api/2.0/mlflow", trust_env=False, timeout=60)
    model = f"quant.fetch-{run}"
    assert api.post("/registered-models/create", json={"name": model}).status_code == 200
    created = api.post("/model-versions/create", json={"name": model, "source": uri, "run_id": run})
    assert created.status_code == 200, created.text
    for place in (uri, f"runs:/{run}/version", f"models:/{model}/1"):
        for file in pod.version.iterdir():
            file.unlink()
        pod.fetch(digest, place, tracking=MLFLOW)
        assert artifact.verify(pod.version) == digest


@needs_mlflow
def test_what_a_real_mlflow_does_not_have(pod: Pod, versions: Path) -> None:
    run, uri = logged(versions / "linear")
    for place in (f"{uri}-gone", f"runs:/{run}/other", f"runs:/{'0' * 32}/version", "models:/quant.nothing/3"):
        refused = pod.refused("sha256:" + "0" * 64, place, tracking=MLFLOW)
        assert refused.reason == "ArtifactNotFound", (place, refused.message)
    wrong = pod.refused("sha256:" + "0" * 64, uri, tracking=MLFLOW)
    assert wrong.reason == "DigestMismatch"


class Registry:
    """What MLflow does on bad days."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mode = "good"
        self.seen: list[str | None] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.seen.append(self.headers.get("Authorization"))
                content = (registry.folder / self.path.rpartition("/")[2]).read_bytes()
                code, length, mode = 200, len(content), registry.mode
                if mode == "refusing":
                    code, content = 401, b"no"
                elif mode == "strange host":
                    code, content = 403, b"Invalid Host header - possible DNS rebinding attack detected"
                elif mode == "broken":
                    code, content = 503, b"maintenance"
                elif mode == "redirecting":
                    code = 302
                elif mode == "breaking off" and self.path.endswith("model.onnx"):
                    content = content[: length // 2]
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", str(length if mode == "breaking off" else len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def registry(versions: Path) -> Iterator[Registry]:
    registry = Registry(versions / "linear")
    thread = threading.Thread(target=registry.server.serve_forever, daemon=True)
    thread.start()
    yield registry
    registry.server.shutdown()
    registry.server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("mode", "reason", "words"),
    [
        ("refusing", "RegistryUnauthorized", "credentials"),
        ("strange host", "RegistryUnauthorized", "--allowed-hosts"),
        ("broken", "ArtifactStoreUnreachable", "503"),
        ("redirecting", "ArtifactStoreUnreachable", "302"),
        ("breaking off", "ArtifactStoreUnreachable", "broke off"),
    ],
)
def test_a_registry_on_bad_days(pod: Pod, registry: Registry, mode: str, reason: str, words: str) -> None:
    registry.mode = mode
    digest = digest_of(registry.folder)
    refused = pod.refused(digest, "mlflow-artifacts:/1/run/artifacts/version", tracking=registry.url)
    assert refused.reason == reason
    assert words in refused.message


def test_a_store_that_comes_back_is_waited_for(pod: Pod, registry: Registry) -> None:
    registry.mode = "broken"
    digest = digest_of(registry.folder)

    def heal() -> None:
        while len(registry.seen) < 2:
            time.sleep(0.01)
        registry.mode = "good"

    healer = threading.Thread(target=heal)
    healer.start()
    pod.fetch(digest, "mlflow-artifacts:/1/run/artifacts/version", tracking=registry.url, patience=60.0)
    healer.join()
    assert artifact.verify(pod.version) == digest


def test_credentials_are_sent_from_the_secret(pod: Pod, registry: Registry, secret: Callable[..., None]) -> None:
    digest, uri = digest_of(registry.folder), "mlflow-artifacts:/1/run/artifacts/version"
    secret(MLFLOW_TRACKING_USERNAME="ana", MLFLOW_TRACKING_PASSWORD="pw")
    pod.fetch(digest, uri, tracking=registry.url)
    assert set(registry.seen) == {"Basic YW5hOnB3"}
    registry.seen.clear()
    (pod.version / "manifest.json").unlink()
    secret(MLFLOW_TRACKING_TOKEN="t0k3n")
    pod.fetch(digest, uri, tracking=registry.url)
    assert set(registry.seen) == {"Bearer t0k3n"}


# --- the process ------------------------------------------------------------------------------------------------------


def test_the_process_says_how_it_ended(pod: Pod, claimed: Path) -> None:
    digest = digest_of(claimed)
    assert pod.run(document(digest, "pvc://models/spx/7")) == (0, {})
    shutil.rmtree(pod.version)
    pod.version.mkdir()
    code, message = pod.run(document("sha256:" + "0" * 64, "pvc://models/spx/7"))
    assert (code, message["reason"]) == (65, "DigestMismatch")
    code, message = pod.run(document(digest, "pvc://models/spx/none"))
    assert (code, message["reason"]) == (66, "ArtifactNotFound")
    code, message = pod.run(document("sha256:abc", "pvc://models/spx/7"))
    assert (code, message["reason"]) == (64, "BadContract")
    assert "digest is 'sha256:abc'; expected" in message["message"]


def test_the_process_gives_a_store_twenty_seconds(pod: Pod) -> None:
    [port] = free_ports(1)
    given = document("sha256:" + "0" * 64, "mlflow-artifacts:/1/run/artifacts/version")
    given["source"]["trackingUri"] = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    code, message = pod.run(given)
    assert (code, message["reason"]) == (75, "ArtifactStoreUnreachable")
    assert 10 < time.monotonic() - began < 60
    assert f"127.0.0.1:{port}" in message["message"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contractVersion": 2}, "contractVersion is 2; this server reads 1"),
        ({"digest": None}, "digest is None; expected a str"),
        ({"version": 7}, "version is 7; expected a str"),
        ({"threads": 0}, "threads is 0; expected a positive int"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"latencyEdges": [0.1, "x"]}, "latencyEdges"),
        ({"probeKey": "c2hvcnQ="}, "32 bytes"),
        ({"source": {}}, "uri is missing"),
    ],
)
def test_documents_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(contract.BadContract, match=words):
        contract.parse(json.dumps(document("sha256:" + "0" * 64) | change))
    with pytest.raises(contract.BadContract, match="no JSON"):
        contract.parse("")
