"""MLflow: one run for one training key, whatever is lost on the way.

The tests that talk to a server need a real one (mlflow 3.17.2) at ``FIDUCIARY_TEST_MLFLOW_URI``; a proxy in front of
it plays an MLflow that is away.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from fiduciary_features import artifact
from fiduciary_trainer import finished, version
from fiduciary_trainer.outcome import Retryable
from fiduciary_trainer.tracking import TAG_PROGRESS, TAG_RESULT, Tracking, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

mlflow = pytest.importorskip("mlflow", reason="runs in the trainer image")
SERVER = os.environ.get("FIDUCIARY_TEST_MLFLOW_URI", "")
needs_server = pytest.mark.skipif(not SERVER, reason="FIDUCIARY_TEST_MLFLOW_URI names no MLflow server")


class Proxy:
    """A port that leads to the server while ``up`` is set, and refuses connections otherwise."""

    def __init__(self) -> None:
        self.target = (urlsplit(SERVER).hostname or "127.0.0.1", urlsplit(SERVER).port or 80)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.listener: socket.socket | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self.listener,), daemon=True).start()

    def down(self) -> None:
        if self.listener is not None:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(65536):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.down()


@pytest.fixture
def key() -> str:
    return f"sha256:{uuid.uuid4().hex}{uuid.uuid4().hex}"


def tracking(uri: str, key: str, **more: Any) -> Tracking:
    tags = {"fiduciary.dev/attempt": more.pop("attempt", "1"), "fiduciary.dev/owner": "sandbox/quant/spx"}
    return Tracking(uri, "quant.spx", key, "HAR 2017-12-29", tags, more.pop("stop", threading.Event()), **more)


def work(tmp_path: Path, key: str) -> finished.Finished:
    content = tmp_path / "content"
    digest = version.build(content / "version", {name: name.encode() for name in artifact.FILES})
    (content / "report").mkdir()
    (content / "report" / "model-card.md").write_text("# card")
    (content / "folds.json").write_text("[]")
    points = [finished.Point(f"fold_{fold}/inner_loss", 1.0 / (epoch + 1), epoch, 1_700_000_000_000 + epoch)
              for fold in range(6) for epoch in range(150)]  # fmt: skip
    result = {"contractVersion": 1, "outcome": "Measured", "trainingKey": key, "digest": digest,
              "metrics": {"mse": {"e": 0.161, "se": 0.006, "f": [0.1, 0.2], "n": 3100}}}  # fmt: skip
    return finished.save(tmp_path / "state", key, content, result, {"seed": "7"}, points, {"fiduciary.dev/seed": "7"})


def runs(key: str) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=SERVER)
    experiment = client.get_experiment_by_name("quant.spx")
    return list(client.search_runs([experiment.experiment_id], f"tags.`fiduciary.dev/training-key` = '{key}'"))


@needs_server
def test_everything_arrives_once(tmp_path: Path, key: str) -> None:
    run = tracking(SERVER, key)
    assert run.start(10) is None
    document = json.loads(run.deliver(work(tmp_path, key), 30))
    [found] = runs(key)
    client = mlflow.MlflowClient(tracking_uri=SERVER)
    assert document["runId"] == found.info.run_id
    assert document["experimentId"] == found.info.experiment_id
    assert document["source"] == f"{found.info.artifact_uri}/version"
    assert json.loads(found.data.tags[TAG_RESULT]) == document
    assert found.data.tags["fiduciary.dev/owner"] == "sandbox/quant/spx"
    assert found.data.params == {"seed": "7"}
    assert found.info.status == "FINISHED"
    assert len(client.get_metric_history(found.info.run_id, "fold_5/inner_loss")) == 150
    assert {item.path for item in client.list_artifacts(found.info.run_id, "version")} == {
        f"version/{name}" for name in (*artifact.FILES, artifact.SETTINGS, "manifest.json")
    }
    assert {item.path for item in client.list_artifacts(found.info.run_id)} == {"version", "report", "folds.json"}


@needs_server
def test_delivering_twice_adds_nothing(tmp_path: Path, key: str) -> None:
    """An attempt that ended after the upload but before its message: the next one delivers again."""
    done = work(tmp_path, key)
    first = tracking(SERVER, key).deliver(done, 30)
    second = tracking(SERVER, key, attempt="2").deliver(done, 30)
    assert first == second
    [found] = runs(key)
    history = mlflow.MlflowClient(tracking_uri=SERVER).get_metric_history(found.info.run_id, "fold_0/inner_loss")
    assert len(history) == 150


@needs_server
def test_a_key_whose_result_was_delivered_is_not_trained_again(tmp_path: Path, key: str) -> None:
    message = tracking(SERVER, key).deliver(work(tmp_path, key), 30)
    assert tracking(SERVER, key, attempt="2").start(10) == json.loads(message)


@needs_server
def test_a_retry_resumes_the_run_and_shows_its_attempt(key: str) -> None:
    first = tracking(SERVER, key)
    first.start(10)
    first.fail(b'{"outcome":"Failed"}')
    second = tracking(SERVER, key, attempt="2")
    assert second.start(10) is None, "a failed attempt's document is no result"
    assert second.place == first.place
    [found] = runs(key)
    assert found.info.status == "RUNNING"
    assert found.data.tags["fiduciary.dev/attempt"] == "2"


@needs_server
def test_two_runs_of_one_key_settle_on_the_oldest(key: str) -> None:
    """A lost answer to the creation leaves two; every attempt must choose the same one."""
    first = tracking(SERVER, key)
    first.start(10)
    client = mlflow.MlflowClient(tracking_uri=SERVER)
    client.create_run(first.place.experiment_id, tags={"fiduciary.dev/training-key": key})
    second = tracking(SERVER, key)
    second.start(10)
    assert second.place.run_id == first.place.run_id


@needs_server
def test_a_deleted_experiment_is_restored(key: str) -> None:
    client = mlflow.MlflowClient(tracking_uri=SERVER)
    tracking(SERVER, key).start(10)
    client.delete_experiment(client.get_experiment_by_name("quant.spx").experiment_id)
    run = tracking(SERVER, key)
    assert run.start(10) is None
    assert run.place is not None


@needs_server
def test_training_does_not_wait_for_mlflow_but_the_result_does(tmp_path: Path, proxy: Proxy, key: str) -> None:
    run = tracking(proxy.uri, key)
    assert run.start(0.5) is None
    assert run.place is None
    run.progress(1, 10, 10.0, 9.0, "inner_loss", 0.5)
    threading.Timer(1.5, proxy.up).start()
    document = json.loads(run.deliver(work(tmp_path, key), 60))
    assert document["runId"] == runs(key)[0].info.run_id


@needs_server
def test_mlflow_going_away_in_the_middle_of_the_upload(tmp_path: Path, proxy: Proxy, key: str) -> None:
    proxy.up()
    run = tracking(proxy.uri, key)
    run.start(10)
    log = run._log_points
    cut = threading.Event()

    def cut_once(run_id: str, done: finished.Finished, start: int) -> None:
        if not cut.is_set():
            cut.set()
            proxy.down()
            threading.Timer(1.0, proxy.up).start()
        log(run_id, done, start)

    run._log_points = cut_once
    run.deliver(work(tmp_path, key), 60)
    [found] = runs(key)
    assert found.info.status == "FINISHED"
    history = mlflow.MlflowClient(tracking_uri=SERVER).get_metric_history(found.info.run_id, "fold_5/inner_loss")
    assert len(history) == 150


@needs_server
def test_progress_is_a_tag_at_most_every_five_seconds(key: str) -> None:
    now = [100.0]
    run = tracking(SERVER, key, clock=lambda: now[0])
    run.start(10)
    for step in range(20):
        now[0] += 1.0
        run.progress(step, 20, 5.0 * step, 20.0 - step, "inner_loss", 0.123456789)
    shown = json.loads(runs(key)[0].data.tags[TAG_PROGRESS])
    assert shown == {"epoch": 15, "epochs": 20, "percent": 75.0, "etaSeconds": 5,
                     "lastMetric": {"name": "inner_loss", "value": 0.12346}}  # fmt: skip


def test_progress_that_cannot_be_shown_is_tried_ever_less_often(key: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    now = [0.0]
    run = tracking(f"http://127.0.0.1:{port}", key, clock=lambda: now[0])
    tries: list[float] = []
    run._find_or_create = lambda: tries.append(now[0]) or run._client.get_experiment_by_name("x")
    for _ in range(1000):
        now[0] += 1.0
        run.progress(1, 10, 10.0, None, None, None)
    assert tries == [1.0, 31.0, 91.0, 211.0, 451.0, 931.0]


def test_an_absent_mlflow_is_retryable_in_time_and_keeps_the_work(tmp_path: Path, key: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    run = tracking(f"http://127.0.0.1:{port}", key)
    done = work(tmp_path, key)
    started = time.monotonic()
    with pytest.raises(Retryable) as raised:
        run.deliver(done, 2.5)
    assert raised.value.reason == "RegistryUnreachable"
    assert time.monotonic() - started < 20
    assert finished.load(tmp_path / "state", key) == done


def test_waiting_ends_when_the_pod_must_stop(tmp_path: Path, key: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    stop = threading.Event()
    run = tracking(f"http://127.0.0.1:{port}", key, stop=stop)
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Retryable) as raised:
        run.deliver(work(tmp_path, key), 3600)
    assert raised.value.reason == "Terminated"


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("API request to endpoint /x failed with error code 403 != 200. Response body: 'Invalid Host header'", 500,
         "RegistryHostRejected"),
        ("API request to endpoint /x failed with error code 401 != 200", 500, "RegistryUnauthorized"),
        ("INVALID_PARAMETER_VALUE: bad name", 400, "RegistryRefused"),
    ],
)  # fmt: skip
def test_refusals_are_named(text: str, status: int, reason: str) -> None:
    refused = refusal("http://mlflow:5000", text, status)
    assert refused is not None
    assert refused.reason == reason


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_busy_server_is_only_away(status: int) -> None:
    assert refusal("http://mlflow:5000", "busy", status) is None
