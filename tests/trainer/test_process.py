"""The whole process, as the Job runs it: a document in, a version in MLflow and a termination message out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="runs in the trainer image")
pytest.importorskip("mlflow", reason="runs in the trainer image")
from fiduciary_features import artifact
from fiduciary_trainer import contract as contracts
from fiduciary_trainer import finished, pipeline
from fiduciary_trainer.data import Locations
from fiduciary_trainer.outcome import Diverged, Retryable

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER = os.environ.get("FIDUCIARY_TEST_MLFLOW_URI", "")
needs_server = pytest.mark.skipif(not SERVER, reason="FIDUCIARY_TEST_MLFLOW_URI names no MLflow server")
PACKAGES = Path(__file__).parents[2] / "trainer_image"


def nowhere() -> str:
    """An address where nothing listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def market(folder: Path, days: int = 1500) -> None:
    """A CSV of daily bars whose volatility persists and whose direction is a coin."""
    rng = np.random.default_rng(5)
    level = np.empty(days)
    level[0] = 0.0
    for day in range(1, days):
        level[day] = 0.95 * level[day - 1] + 0.2 * rng.normal()
    sd = 0.01 * np.exp(level)
    close = 100.0 * np.exp(np.cumsum(sd * rng.normal(size=days)))
    opened = np.roll(close, 1) * np.exp(0.2 * sd * rng.normal(size=days))
    opened[0] = 100.0
    spread = sd * (0.2 + np.abs(rng.normal(size=days)))
    high, low = np.maximum(opened, close) * np.exp(spread), np.minimum(opened, close) * np.exp(-spread)
    dates = np.busday_offset("2011-01-03", np.arange(days), roll="forward")
    volume = np.exp(15 + 0.3 * rng.normal(size=days))
    lines = ["date,open,high,low,close,volume"]
    lines += [
        f"{dates[i]},{opened[i]:.6f},{high[i]:.6f},{low[i]:.6f},{close[i]:.6f},{volume[i]:.0f}" for i in range(days)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bars.csv").write_text("\n".join(lines) + "\n")


def job(folder: Path, uri: str, **more: Any) -> dict[str, Any]:
    label = more.pop("label", "Volatility")
    document: dict[str, Any] = {
        "contractVersion": 1,
        "model": {"cluster": "sandbox", "namespace": "quant", "name": "coin", "uid": "u"},
        "trainingKey": f"sha256:{uuid.uuid4().hex}{uuid.uuid4().hex}", "specKey": "sha256:51", "configKey": "sha256:c0",
        "attempt": 1, "trigger": {}, "asOf": "2016-12-30",
        "data": {"source": {"files": {"uri": f"file://{folder}/bars.csv", "format": "CSV"}}, "time": "date",
                 "entity": None, "calendar": None, "features": {"set": "ohlcv-v1"},
                 "label": {"kind": label, "column": "close", "horizon": 1}, "checks": {"minRows": 1000}},
        "training": {"architecture": more.pop("architecture", "Linear"),
                     "hyperparameters": more.pop("hyperparameters", {}), "seed": 7, "search": None,
                     "validation": {"scheme": "WalkForward", "folds": 4, "purge": 1, "embargo": 85, "costBps": "2"}},
        "checkpoint": more.pop("checkpoint", None),
        "mlflow": {"trackingUri": uri, "experiment": "quant.coin"},
        "provenance": {"image": "fiduciary-trainer:test", "operatorVersion": "0.1.0"},
    }  # fmt: skip
    return document | more


class Pod:
    """Folders as the Job mounts them, and one run of the process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        market(root / "data")
        (root / "work").mkdir()

    def start(self, document: dict[str, Any], *python: str, **environment: str) -> subprocess.Popen[bytes]:
        program = python or ("-m", "fiduciary_trainer")
        path = self.root / "job.json"
        path.write_text(json.dumps(document))
        command = [sys.executable, *program, str(path), "--work", str(self.root / "work"),
                   "--termination-log", str(self.root / "message"), "--checkpoints", str(self.root / "checkpoint"),
                   "--secrets", str(self.root / "secret")]  # fmt: skip
        own = os.environ | {"PYTHONPATH": str(PACKAGES), "HOME": str(self.root / "work")} | environment
        return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        process = self.start(document)
        process.communicate(timeout=240)
        return process.returncode, self.message()

    def message(self) -> dict[str, Any]:
        content = (self.root / "message").read_bytes()
        assert len(content) <= 4096
        return json.loads(content)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def trained(pod: Pod, document: dict[str, Any], name: str) -> finished.Finished:
    contract = contracts.parse(document)
    work = pod.root / name
    work.mkdir()
    return pipeline.train(contract, Locations(), work / "state", work, lambda **_: None, threading.Event())


def test_the_same_document_gives_the_same_version(pod: Pod) -> None:
    document = job(pod.root / "data", nowhere(), architecture="LSTM", label="Direction",
                   hyperparameters={"epochs": 2, "members": 2, "hidden": 4})  # fmt: skip
    one, two = trained(pod, document, "one"), trained(pod, document | {"attempt": 2}, "two")
    assert one.result["digest"] == two.result["digest"]
    assert artifact.verify(one.folder / "version") == one.result["digest"]
    for name in artifact.FILES:
        assert (one.folder / "version" / name).read_bytes() == (two.folder / "version" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("label", "architecture"),
    [("Volatility", "HAR"), ("Volatility", "EWMA"), ("Volatility", "Linear"), ("Direction", "BaseRate"),
     ("Direction", "Logistic"), ("Return", "Linear"), ("Volatility", "MLP"), ("Direction", "LSTM")],
)  # fmt: skip
def test_every_architecture_ends_in_a_version_with_passing_checks(pod: Pod, label: str, architecture: str) -> None:
    small = {"epochs": 2, "members": 1, "hidden": 4} if architecture in ("MLP", "LSTM") else {}
    document = job(pod.root / "data", nowhere(), label=label, architecture=architecture, hyperparameters=small)
    done = trained(pod, document, "made")
    checks = done.result["checks"]
    assert checks["onnx_max_diff"] <= 1e-5
    assert checks["future_cut_max_diff"] == 0.0
    assert checks["train_test_overlap"] == 0
    assert checks["duplicate_rows"] == 0
    assert checks["leakage_max_score"] < 0.4
    ledger = (done.folder / "version" / "ledger.csv").read_text().splitlines()
    assert len(ledger) - 1 == done.result["metrics"]["effective_rows"]["n"]
    assert ledger[-1].endswith(",sha256:c0")
    assert ledger[-1].split(",")[2] <= "2016-12-30", "no label may end after asOf"
    reference = json.loads((done.folder / "version" / "drift_reference.json").read_bytes())
    assert sum(map(sum, reference["prediction"]["counts"])) > 1000


def test_a_column_of_the_future_return_is_scored_as_a_leak(pod: Pod) -> None:
    """Trap 3 of the requirements, through the whole trainer."""
    path = pod.root / "data" / "bars.csv"
    lines = path.read_text().splitlines()
    close = [float(line.split(",")[4]) for line in lines[1:]]
    tips = [close[i + 1] / close[i] - 1 if i + 1 < len(close) else 0.0 for i in range(len(close))]
    path.write_text("\n".join([lines[0] + ",tip", *(f"{a},{b:.8f}" for a, b in zip(lines[1:], tips, strict=True))]))
    for label, architecture in (("Direction", "Logistic"), ("Volatility", "Linear")):
        document = job(pod.root / "data", nowhere(), label=label, architecture=architecture)
        document["data"]["features"] = {"columns": ["close", "tip"]}
        checks = trained(pod, document, label).result["checks"]
        assert checks["leakage_feature"] == "tip"
        assert checks["leakage_max_score"] > 0.9


def test_predictions_that_are_no_numbers_end_the_training(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pipeline.run_walk_forward

    def diverging(*given: Any, **more: Any) -> Any:
        walk = whole(*given, **more)
        walk.prediction[walk.folds[1].test_rows[3]] = np.inf
        return walk

    monkeypatch.setattr(pipeline, "run_walk_forward", diverging)
    with pytest.raises(Diverged, match=r"1 of 9\d\d out-of-sample predictions"):
        trained(pod, job(pod.root / "data", nowhere()), "made")


def test_exit_43_a_loss_that_is_no_number(pod: Pod) -> None:
    """Each step multiplies the weights by one minus rate times decay: by minus nine."""
    wild = {"learningRate": "1", "weightDecay": "10", "epochs": 60, "patience": 60, "members": 1, "batchSize": 64}
    code, message = pod.run(job(pod.root / "data", nowhere(), architecture="MLP", hyperparameters=wild))
    assert (code, message["outcome"], message["reason"]) == (43, "Diverged", "Diverged")
    assert re.match(r"the loss is (nan|inf) \(fit \d, member 1, epoch \d+\)", message["message"]), message
    assert "learningRate (now 1)" in message["message"]


def test_exit_44_memory_that_runs_out(pod: Pod) -> None:
    """The windows of an LSTM need more than the limit: the process says so and ends by itself."""
    market(pod.root / "data", days=12_000)
    document = job(pod.root / "data", nowhere(), architecture="LSTM", hyperparameters={"window": 512})
    document["asOf"] = "2070-01-01"
    document["training"]["validation"]["embargo"] = 600
    script = (
        "import sys; from fiduciary_trainer import __main__, limits; limits.SPARE = 16 << 20; "
        "limits.of_pod = lambda: limits.Limits(1, 1 << 20); sys.exit(__main__.main())"
    )
    process = pod.start(document, "-c", script)
    said, _ = process.communicate(timeout=240)
    message = pod.message()
    assert (process.returncode, message["outcome"], message["reason"]) == (44, "OutOfMemory", "OutOfMemory"), said
    assert "and the limit is 1 Mi" in message["message"]
    assert "spec.training.resources.limits.memory" in message["message"]


def test_a_stop_before_training_begins_is_heeded(pod: Pod) -> None:
    stop = threading.Event()
    stop.set()
    contract = contracts.parse(job(pod.root / "data", nowhere()))
    with pytest.raises(Retryable) as raised:
        pipeline.train(contract, Locations(), pod.root / "state", pod.root / "work", lambda **_: None, stop)
    assert raised.value.reason == "Terminated"


def test_folds_can_be_checked_for_overlap_from_the_table(pod: Pod) -> None:
    done = trained(pod, job(pod.root / "data", nowhere()), "made")
    folds = json.loads((done.folder / "folds.json").read_bytes())["folds"]
    assert len(folds) == 4
    for fold in folds:
        assert fold["trainFrom"] < fold["trainThrough"] < fold["trainLabelsKnownBy"] < fold["testFrom"]
        assert fold["testFrom"] < fold["testThrough"] < fold["testLabelsKnownBy"] <= "2016-12-30"
        assert set(fold["metrics"]) >= {"ewma_skill", "mse", "qlike"}


@needs_server
def test_exit_0_a_version_in_mlflow_and_its_numbers_in_the_message(pod: Pod) -> None:
    code, message = pod.run(document := job(pod.root / "data", SERVER))
    assert code == 0
    assert message["outcome"] == "Measured"
    assert message["trainingKey"] == document["trainingKey"]
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=SERVER)
    local = Path(client.download_artifacts(message["runId"], "version", str(pod.root)))
    assert artifact.verify(local) == message["digest"]
    manifest = (local / "manifest.json").read_bytes()
    assert message["digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    tags = client.get_run(message["runId"]).data.tags
    assert tags["fiduciary.dev/owner"] == "sandbox/quant/coin"
    for name in (
        "training-key",
        "spec-key",
        "config-key",
        "attempt",
        "as-of",
        "data-digest",
        "digest",
        "image",
        "seed",
    ):
        assert tags[f"fiduciary.dev/{name}"]
    assert list((pod.root / "work" / "finished").iterdir()) == [], "what MLflow has is not kept twice"

    began = time.monotonic()
    assert pod.run(document | {"attempt": 2}) == (0, message), "the same key is answered from its run"
    assert time.monotonic() - began < 30


@needs_server
def test_mlflow_away_then_back_the_next_attempt_only_uploads(pod: Pod) -> None:
    """The pod is stopped while it waits for MLflow; the work is on the checkpoint volume."""
    checkpoint = {"uri": f"file://{pod.root}/checkpoint/coin", "every": 1}
    document = job(pod.root / "data", nowhere(), checkpoint=checkpoint)
    process = pod.start(document)
    kept = pod.root / "checkpoint" / "coin" / "finished" / document["trainingKey"][7:39] / "finished.json"
    deadline = time.monotonic() + 120
    while not kept.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert pod.message()["reason"] == "Terminated"

    (pod.root / "data" / "bars.csv").unlink()  # an attempt that trained again would be refused
    document["mlflow"]["trackingUri"] = SERVER
    code, message = pod.run(document | {"attempt": 2})
    assert (code, message["outcome"]) == (0, "Measured")
    assert not kept.exists()


def test_sigterm_while_training_is_retryable_and_the_next_attempt_resumes(pod: Pod) -> None:
    checkpoint = {"uri": f"file://{pod.root}/checkpoint/coin", "every": 1}
    document = job(pod.root / "data", nowhere(), architecture="LSTM", label="Direction", checkpoint=checkpoint,
                   hyperparameters={"epochs": 10_000, "patience": 10_000, "members": 1})  # fmt: skip
    process = pod.start(document)
    folder = pod.root / "checkpoint" / "coin"
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.checkpoint.npz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert pod.message()["outcome"] == "Retryable"
    assert pod.message()["reason"] == "Terminated"

    again = pod.start(document | {"attempt": 2})
    assert again.stdout is not None
    said = ""
    while "resumed" not in said:
        line = again.stdout.readline().decode()
        assert line, said
        said += line
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    assert again.returncode == 75


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() in (None, 0)
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs_server
def test_a_search_in_two_pods_survives_sigkill_of_each(tmp_path: Path) -> None:
    """As an Indexed Job runs them: the first pod trains, the second carries out trials."""
    pods = [Pod(tmp_path / name) for name in ("first", "second")]
    document = job(pods[0].root / "data", SERVER, architecture="MLP", hyperparameters={"epochs": 4, "members": 1},
                   checkpoint={"uri": f"file://{tmp_path}/shared", "every": 1})  # fmt: skip
    document["training"]["search"] = {
        "trials": 8,
        "parallelism": 2,
        "space": {"hidden": {"int": [2, 12]}, "learningRate": {"decimal": ["0.001", "0.03"], "log": True}},
    }

    def start(index: int) -> subprocess.Popen[bytes]:
        return pods[index].start(document, JOB_COMPLETION_INDEX=str(index))

    def kept() -> int:
        return len(list((tmp_path / "shared").glob("*.trials/*.npz")))

    first, second = start(0), start(1)
    _until(lambda: kept() >= 2, first)
    second.kill()
    second.communicate()
    second = start(1)
    said = b""
    while b'"trial"' not in said:
        assert second.stdout is not None
        said = second.stdout.readline()
        assert said, "the second pod ended before it said anything of a trial"
    first.kill()
    first.communicate()
    first = start(0)
    first.communicate(timeout=240)
    second.communicate(timeout=240)
    assert (first.returncode, second.returncode) == (0, 0)
    message = pods[0].message()
    assert message["outcome"] == "Measured"
    assert message["checks"]["onnx_max_diff"] <= 1e-5
    assert 0.0 <= message["metrics"]["pbo"]["e"] <= 1.0
    assert pods[1].message() == {
        "contractVersion": 1, "outcome": "Searched", "trainingKey": document["trainingKey"], "trials": 8
    }  # fmt: skip
    assert list((tmp_path / "shared").iterdir()) == [tmp_path / "shared" / "finished"], "nothing is left behind"

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=SERVER)
    run = client.get_run(message["runId"])
    query = f"tags.`mlflow.parentRunId` = '{message['runId']}'"
    children = client.search_runs([run.info.experiment_id], query)
    assert sorted(int(child.data.tags["fiduciary.dev/trial"]) for child in children) == list(range(8))
    for child in children:
        ended = {"Complete": "FINISHED", "Pruned": "KILLED"}[child.data.tags["fiduciary.dev/trial-state"]]
        assert child.info.status == ended
        assert set(child.data.params) == {"hyperparameters.hidden", "hyperparameters.learningRate"}
        assert ("inner_loss" in child.data.metrics) is (ended == "FINISHED")
    local = Path(client.download_artifacts(message["runId"], "validation/results.json", str(tmp_path)))
    search = json.loads(local.read_bytes())["search"]
    assert search["trials"] == len(search["table"]) == 8
    final = next(each for each in search["selected"] if each["for"] == "final")
    best = min((each["loss"], each["trial"]) for each in search["table"] if each["loss"] is not None)
    assert (final["loss"], final["trial"]) == best
    procedure = Path(client.download_artifacts(message["runId"], "version/procedure.json", str(tmp_path)))
    assert json.loads(procedure.read_bytes())["training"]["search"] == document["training"]["search"]


@pytest.mark.parametrize(
    ("change", "code", "outcome", "reason"),
    [
        ({"training": {"architecture": "Oracle"}}, 64, "BadContract", "UnknownArchitecture"),
        ({"mlflow": {}}, 64, "BadContract", "InvalidValue"),
        ({"asOf": "2011-06-30"}, 42, "DataRefused", "TooFewRows"),
    ],
)
def test_refusals_have_their_exit_code_and_say_whose_they_are(
    pod: Pod, change: dict[str, Any], code: int, outcome: str, reason: str
) -> None:
    document = job(pod.root / "data", nowhere(), **change)
    found, message = pod.run(document)
    assert (found, message["outcome"], message["reason"]) == (code, outcome, reason)
    assert message["trainingKey"] == document["trainingKey"]
    assert message["message"]


def test_a_document_that_is_no_json(pod: Pod) -> None:
    (pod.root / "job.json").write_text("{")
    process = subprocess.run(
        [sys.executable, "-m", "fiduciary_trainer", str(pod.root / "job.json"), "--termination-log",
         str(pod.root / "message")],
        env=os.environ | {"PYTHONPATH": str(PACKAGES)}, check=False, timeout=120,
    )  # fmt: skip
    assert process.returncode == 64
    assert pod.message()["reason"] == "InvalidJson"
