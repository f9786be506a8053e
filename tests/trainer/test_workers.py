"""Several workers that train one network: the same bits as one process, and what happens when one of them is gone."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="runs in the trainer image")
pytest.importorskip("mlflow", reason="runs in the trainer image")
import torch
import torch.distributed as dist

from fiduciary_trainer import contract as contracts
from fiduciary_trainer.meeting import Meeting, Place
from fiduciary_trainer.outcome import BadContract, Retryable
from fiduciary_trainer.workers import Workers
from tests.trainer.contracts import document
from tests.trainer.test_process import SERVER, Pod, job, needs_server, nowhere, trained

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

SMALL = {"epochs": 3, "members": 1, "hidden": 4, "window": 6}


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return free.getsockname()[1]


# --- arithmetic ------------------------------------------------------------------------------------------------------


def least_squares(rows: int) -> tuple[torch.nn.Linear, Any]:
    torch.manual_seed(3)
    module = torch.nn.Linear(5, 1)
    x, y = torch.randn(rows, 5), torch.randn(rows)
    return module, lambda chosen: torch.nn.functional.mse_loss(module(x[chosen])[:, 0], y[chosen])


@pytest.mark.parametrize("rows", [64, 7, 2, 1])
@pytest.mark.parametrize("shares", [2, 3, 5])
def test_shares_add_up_to_the_gradient_of_the_whole_batch(rows: int, shares: int) -> None:
    """Uneven and empty shares too: each row counts once."""
    module, loss = least_squares(rows)
    parameters = list(module.parameters())
    whole = Workers().gradient(parameters, loss, torch.arange(rows))
    expected = [parameter.grad.clone() for parameter in parameters]
    shared = Workers(shares).gradient(parameters, loss, torch.arange(rows))
    assert shared == pytest.approx(whole, rel=1e-6)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def test_one_share_is_the_plain_gradient_to_the_bit() -> None:
    module, loss = least_squares(64)
    value = loss(torch.arange(64))
    value.backward()
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    assert Workers(1).gradient(list(module.parameters()), loss, torch.arange(64)) == float(value)
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), expected, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "HAR", "training__nodes": 2}, "HAR is solved in one go"),
        (
            {
                "architecture": "MLP",
                "training__nodes": 2,
                "training__search": {"trials": 2, "space": {"hidden": {"int": [2, 4]}}},
            },
            "search.parallelism",
        ),
        ({"architecture": "MLP", "training__nodes": 65}, "nodes is 65"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadContract, match=said):
        contracts.parse(document(**changes))


# --- meeting ---------------------------------------------------------------------------------------------------------


def test_a_process_outside_of_an_indexed_job_trains_alone() -> None:
    assert Place.of(2, {}) is None
    assert Place.of(2, {"JOB_COMPLETION_INDEX": "1"}) is None
    assert Place.of(1, {"JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "there"}) is None
    assert Place.of(2, {"JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "there"}) == Place(1, 2, "there", 29500)


@pytest.mark.parametrize(("rank", "said"), [(0, "workers 1 did not come"), (1, "the first worker did not answer")])
def test_who_does_not_come_is_named(rank: int, said: str) -> None:
    place = Place(rank, 2, "127.0.0.1", free_port())
    with pytest.raises(Retryable, match=said):
        Meeting(place, threading.Event(), patience=1.0).gather()


def test_a_wait_for_others_ends_with_the_pod() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Retryable, match="SIGTERM"):
        Meeting(Place(0, 2, "127.0.0.1", free_port()), stop).gather()


def test_who_comes_when_all_is_done_is_sent_home() -> None:
    port, stop = free_port(), threading.Event()
    first = Meeting(Place(0, 2, "127.0.0.1", port), stop)
    ending = threading.Thread(target=first.done)
    ending.start()
    assert Meeting(Place(1, 2, "127.0.0.1", port), stop).gather() is None
    ending.join(timeout=10)
    assert not ending.is_alive(), "the first heard the goodbye"


def test_who_comes_just_before_all_is_done_is_sent_home_too() -> None:
    """He had looked before the first said so, and waited half an hour for others who had no reason to come."""
    port, stop = free_port(), threading.Event()
    first = dist.TCPStore("127.0.0.1", port, None, True, timedelta(seconds=30), wait_for_workers=False, use_libuv=False)
    with ThreadPoolExecutor(1) as pool:
        came = pool.submit(Meeting(Place(1, 2, "127.0.0.1", port), stop).gather)
        try:
            while not first.check(["here/1"]):
                time.sleep(0.01)
            first.set("done", "1")
            assert came.result(timeout=30) is None
            assert first.add("bye", 0) == 1
        finally:
            stop.set()


# --- whole processes -------------------------------------------------------------------------------------------------


class Team:
    """Two pods of one training, each with a file system of its own and the same claim for checkpoints."""

    def __init__(self, root: Path, **training: Any) -> None:
        self.pods = [Pod(root / name) for name in ("first", "second")]
        self.shared = root / "shared"
        self.document = job(self.pods[0].root / "data", SERVER or nowhere(), architecture="LSTM", hyperparameters=SMALL,
                            checkpoint={"uri": f"file://{self.shared}", "every": 1})  # fmt: skip
        self.document["training"] |= {"nodes": 2, **training}
        self.port = free_port()

    def start(self, rank: int, document: dict[str, Any] | None = None) -> subprocess.Popen[bytes]:
        environment = {"JOB_COMPLETION_INDEX": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port)}
        return self.pods[rank].start(document or self.document, **environment)

    def checkpoints(self) -> list[Path]:
        return list(self.shared.glob("*.checkpoint.npz"))


def ends(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=240)
    return process.returncode


def until_said(process: subprocess.Popen[bytes], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line.decode():
            return
    raise AssertionError(f"the process ended before it said {word}")


@needs_server
def test_two_workers_make_the_version_of_one_process(tmp_path: Path) -> None:
    """Gradients are summed in a fixed order, so the digest is the same; without shares it differs by rounding only."""
    team = Team(tmp_path)
    first, second = team.start(0), team.start(1)
    assert (ends(first), ends(second)) == (0, 0)
    shared = team.pods[0].message()
    assert shared["outcome"] == "Measured"
    assert team.pods[1].message() == {
        "contractVersion": 1, "outcome": "Helped", "trainingKey": team.document["trainingKey"]
    }  # fmt: skip
    assert list(team.shared.iterdir()) == [team.shared / "finished"], "nothing is left behind"

    alone = trained(team.pods[0], team.document | {"checkpoint": None}, "alone")
    assert alone.result["digest"] == shared["digest"]

    whole = {**team.document, "checkpoint": None, "training": {**team.document["training"], "nodes": 1}}
    plain = trained(team.pods[0], whole, "plain")
    for name, metric in plain.result["metrics"].items():
        assert shared["metrics"][name]["e"] == pytest.approx(metric["e"], rel=1e-3, abs=1e-4), name


@needs_server
def test_a_worker_that_is_killed_ends_all_and_all_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    team = Team(tmp_path)
    expected = trained(team.pods[0], team.document | {"checkpoint": None}, "expected").result["digest"]

    first, second = team.start(0), team.start(1)
    until(lambda: bool(team.checkpoints()), first)
    second.kill()
    second.communicate()
    replaced = team.start(1)  # its number is taken: it waits for the meeting of the next attempt
    assert ends(first) == 76
    assert team.pods[0].message()["outcome"] == "WorkerLost"

    first = team.start(0)
    until_said(first, '"resumed": true')
    first.kill()
    first.communicate()
    assert ends(replaced) == 76

    first, second = team.start(0), team.start(1)
    assert (ends(first), ends(second)) == (0, 0)
    assert team.pods[0].message()["digest"] == expected


@needs_server
def test_workers_that_read_other_data_do_not_train(tmp_path: Path) -> None:
    team = Team(tmp_path)
    other = json.loads(json.dumps(team.document))
    path = team.pods[1].root / "data" / "bars.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    other["data"]["source"]["files"]["uri"] = f"file://{path}"
    first, second = team.start(0), team.start(1, other)
    assert (ends(first), ends(second)) == (76, 75)
    assert team.pods[1].message()["reason"] == "DataDiffer"


def until(condition: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_replay_in_one_process_keeps_the_arithmetic_of_the_workers(tmp_path: Path) -> None:
    """A document with nodes is carried out alone with the shares it names: not what one share would give."""
    pod = Pod(tmp_path)
    given = job(pod.root / "data", nowhere(), architecture="LSTM", hyperparameters=SMALL)
    versions = []
    for nodes in (1, 2):
        given["training"]["nodes"] = nodes
        folder = trained(pod, given, f"nodes-{nodes}").folder / "version"
        versions.append((folder / "model.onnx").read_bytes())
    assert versions[0] != versions[1]
    assert np.mean([len(each) for each in versions]) == len(versions[0])
