"""The training loop: best weights, the same bits on every run and after every interruption, honest progress."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from fiduciary_features import Bars
from fiduciary_trainer import contract, provenance
from fiduciary_trainer.checkpoint import Attempt
from fiduciary_trainer.data import Locations
from fiduciary_trainer.outcome import Diverged, Retryable
from fiduciary_trainer.retention import forget, forget_old
from fiduciary_trainer.steps import Steps
from fiduciary_trainer.training import Network, make_deterministic, train_member
from fiduciary_trainer.walkforward import FinalModel, WalkForward, fit_final, run_walk_forward
from tests.trainer.contracts import document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SMALL = {"epochs": 4, "patience": 4, "members": 2, "hidden": 4}


def silent(**_: Any) -> None:
    """A progress that nobody watches."""


def bars(rows: int = 700) -> Bars:
    draw = np.random.default_rng(8)
    close = 100 * np.exp(np.cumsum(draw.normal(0, 0.01, rows)))
    opened = close * np.exp(draw.normal(0, 0.005, rows))
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) * np.exp(np.abs(draw.normal(0, 0.01, rows))),
        "low": np.minimum(opened, close) * np.exp(-np.abs(draw.normal(0, 0.01, rows))),
        "close": close,
        "volume": np.exp(draw.normal(12, 1, rows)),
    }
    time = np.datetime64("2010-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "D")
    return Bars(time, np.full(rows, ""), columns)


def job(architecture: str = "LSTM", label: str = "Volatility", **changes: Any) -> contract.Contract:
    window = {"window": 6} if architecture == "LSTM" else {}
    given = {"training__hyperparameters": {**SMALL, **window}, "data__features": {"set": "har-v1"}}
    return contract.parse(document(architecture, label, **{**given, "training__validation__folds": 2, **changes}))


def weights(model: FinalModel) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.module.state_dict().values())


def same(left: WalkForward, right: WalkForward) -> bool:
    return (
        left.prediction.tobytes() == right.prediction.tobytes()
        and left.history == right.history
        and all(left.baselines[name].tobytes() == right.baselines[name].tobytes() for name in left.baselines)
    )


@pytest.mark.parametrize(("architecture", "label"), [("MLP", "Direction"), ("LSTM", "Volatility"), ("MLP", "Return")])
def test_two_runs_give_the_same_bits(architecture: str, label: str) -> None:
    made, frame = job(architecture, label), bars()
    torch.manual_seed(1)
    first, final = run_walk_forward(frame, made, silent), fit_final(frame, made, silent)
    torch.manual_seed(2)
    np.random.seed(2)
    second, again = run_walk_forward(frame, made, silent), fit_final(frame, made, silent)
    assert same(first, second)
    assert weights(final) == weights(again)


def test_another_seed_is_another_model() -> None:
    frame = bars()
    first, second = (run_walk_forward(frame, job("MLP", training__seed=seed), silent) for seed in (7, 8))
    assert not same(first, second)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_cpu_request_changes_nothing(threads: str) -> None:
    """Resources are in no training key, so they may not be in the result."""
    code = (
        "import hashlib; from tests.trainer.test_training import *; "
        "print(hashlib.sha256(weights(fit_final(bars(), job(), silent))).hexdigest())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": ":".join([*sys.path, "."])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == hashlib.sha256(weights(fit_final(bars(), job(), silent))).hexdigest()


def problem(noise: float, rows: int = 400) -> tuple[Network, Callable[[], torch.nn.Module]]:
    draw = torch.Generator().manual_seed(5)
    inputs = torch.randn(rows, 3, generator=draw)
    target = inputs[:, 0] + noise * torch.randn(rows, generator=draw)

    def module() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))

    every = torch.arange(rows)
    return Network(module(), inputs, every, target, every[:200], every[200:], False, 1.0), module


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_at_once(loss: float) -> None:
    network, _ = problem(noise=1.0)
    network.target[250] = loss  # on the inner tail: before the first epoch
    settings = {"epochs": 3, "patience": 3, "learningRate": 0.01, "weightDecay": 0.0, "batchSize": 32}
    with pytest.raises(Diverged, match=r"fit 3, member 2, epoch 0\); expected a number"):
        train_member(network, settings, (1, 2, 1), Steps(silent, 3), None)
    network, _ = problem(noise=1.0)
    network.target[50] = loss
    with pytest.raises(Diverged, match=r"epoch 1\)"):
        train_member(network, settings, (1, 2, 1), Steps(silent, 3), None)


def test_the_best_epochs_weights_are_kept_not_the_last_ones() -> None:
    """The predecessor recorded the best epoch and saved the last."""
    make_deterministic()
    network, _ = problem(noise=3.0)
    settings = {"epochs": 60, "patience": 60, "learningRate": 0.05, "weightDecay": 0.0, "batchSize": 32}
    trained = train_member(network, settings, (1, 0, 0), Steps(silent, 60), None)
    losses = [entry["inner_loss"] for entry in trained.history]
    assert len(losses) == 60
    assert trained.best_epoch == 1 + int(np.argmin(losses)) < 60, "it overfits, so the last epoch is not the best"
    assert network.watched() == pytest.approx(min(losses), rel=1e-6)
    assert [entry["epoch"] for entry in trained.history if entry["best"]][-1] == trained.best_epoch


def test_training_stops_when_it_no_longer_helps() -> None:
    make_deterministic()
    network, _ = problem(noise=3.0)
    settings = {"epochs": 500, "patience": 5, "learningRate": 0.05, "weightDecay": 0.0, "batchSize": 32}
    trained = train_member(network, settings, (1, 0, 0), Steps(silent, 500), None)
    assert len(trained.history) == trained.best_epoch + 5


def test_a_network_starts_as_its_linear_part() -> None:
    """So one that finds nothing more is no worse than linear regression, whatever its size."""
    frame = bars()
    small, large = (
        run_walk_forward(
            frame, job("MLP", training__hyperparameters={**SMALL, "hidden": hidden, "learningRate": "0.000001"}), silent
        )
        for hidden in (1, 64)
    )
    rows = small.test_rows
    assert small.prediction[rows] == pytest.approx(large.prediction[rows], abs=1e-3)
    assert small.prediction[rows].std() > 0


def test_progress_never_falls_and_ends_at_one_hundred() -> None:
    seen: list[float] = []
    made, frame = job(training__hyperparameters={**SMALL, "window": 6, "patience": 1}), bars()

    def progress(**told: Any) -> None:
        seen.append(told["percent"])
        assert told["epochs"] == (2 + 1) * 4 * 2, "folds and the final fit, times epochs, times members"
        assert told["eta_seconds"] is None or told["eta_seconds"] >= 0

    run_walk_forward(frame, made, progress)
    assert seen[-1] == pytest.approx(200 / 3)
    fit_final(frame, made, progress)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(100.0)


# --- checkpoints ---------------------------------------------------------------------------------------------------


class StopAfter:
    """A progress that behaves like a SIGTERM after some epochs."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.attempt: Attempt | None = None

    def __call__(self, **_: Any) -> None:
        self.left -= 1
        if self.left == 0 and self.attempt is not None:
            self.attempt.asked_to_stop = True


def train(frame: Bars, made: contract.Contract, progress: Any, attempt: Attempt) -> None:
    """As the process does it."""
    run_walk_forward(frame, made, progress, attempt)
    fit_final(frame, made, progress, attempt)


def checkpointed(every: int = 1, **changes: Any) -> contract.Contract:
    return job(checkpoint={"uri": "pvc://ckpt/spx", "every": every}, **changes)


@pytest.mark.parametrize("after", [1, 3, 5, 9, 14])
def test_an_interrupted_training_ends_in_the_same_bits(tmp_path: Path, after: int) -> None:
    places, made, frame = Locations(checkpoints=tmp_path), checkpointed(), bars()
    whole, final = run_walk_forward(frame, made, silent), fit_final(frame, made, silent)

    stop = StopAfter(after)
    stop.attempt = Attempt.begin(made, "sha256:d", places)
    assert not stop.attempt.resumed
    with pytest.raises(Retryable) as caught:
        train(frame, made, stop, stop.attempt)
    assert caught.value.exit_code == 75
    assert "resumes" in caught.value.message

    resumed = Attempt.begin(made, "sha256:d", places)
    assert resumed.resumed
    assert same(run_walk_forward(frame, made, silent, resumed), whole)
    assert weights(fit_final(frame, made, silent, resumed)) == weights(final)
    resumed.forget()
    assert list((tmp_path / "ckpt").rglob("*.npz")) == []


def test_an_attempt_that_was_killed_resumes_at_its_last_checkpoint(tmp_path: Path) -> None:
    """SIGKILL writes nothing; what was written after whole epochs counts."""
    places, made, frame = Locations(checkpoints=tmp_path), checkpointed(every=2), bars()
    whole = run_walk_forward(frame, made, silent)

    class Killed(BaseException):
        pass

    def kill(**told: Any) -> None:
        if told["epoch"] == 4 + 3:
            raise Killed

    with pytest.raises(Killed):
        run_walk_forward(frame, made, kill, Attempt.begin(made, "sha256:d", places))
    steps: list[int] = []
    resumed = Attempt.begin(made, "sha256:d", places)
    again = run_walk_forward(frame, made, lambda **told: steps.append(told["epoch"]), resumed)
    assert same(again, whole)
    assert 4 + 2 in steps, "the first member was not trained again"
    assert steps.index(4 + 2) <= 1


def stopped_after(count: int, made: contract.Contract, frame: Bars, places: Locations) -> Path:
    """The checkpoint of an attempt that was asked to stop after so many steps."""
    stop = StopAfter(count)
    stop.attempt = Attempt.begin(made, "sha256:d", places)
    with pytest.raises(Retryable):
        run_walk_forward(frame, made, stop, stop.attempt)
    (file,) = (places.checkpoints / "ckpt" / "spx").iterdir()
    return file


@pytest.mark.parametrize("other", ["data", "key", "code", "damaged"])
def test_a_checkpoint_of_something_else_is_not_used(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, made, frame = Locations(checkpoints=tmp_path), checkpointed(), bars()
    file = stopped_after(3, made, frame, places)
    if other == "damaged":
        file.write_bytes(file.read_bytes()[:-200])
    if other == "code":
        monkeypatch.setattr(provenance, "code_sha256", lambda: "f" * 64)
    key = "sha256:" + "f" * 64 if other == "key" else made.training_key
    again = Attempt.begin(checkpointed(trainingKey=key), "sha256:e" if other == "data" else "sha256:d", places)
    assert not again.resumed
    assert same(run_walk_forward(frame, made, silent, again), run_walk_forward(frame, made, silent))


def test_checkpoints_appear_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that ends while it writes leaves the checkpoint before it."""
    places, made, frame = Locations(checkpoints=tmp_path), checkpointed(), bars()
    file = stopped_after(2, made, frame, places)
    before = file.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Retryable, match=r"CheckpointNotWritten.*No space"):
        run_walk_forward(frame, made, silent, Attempt.begin(made, "sha256:d", places))
    assert file.read_bytes() == before


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """Also in a name inside the archive, or in how it says that it is compressed."""
    places, made, frame = Locations(checkpoints=tmp_path), checkpointed(), bars()
    file = stopped_after(3, made, frame, places)
    content = file.read_bytes()
    for offset in range(0, len(content), 61):
        damaged = bytearray(content)
        damaged[offset] ^= 1 << offset % 8
        file.write_bytes(damaged)
        assert not Attempt.begin(made, "sha256:d", places).resumed, offset
    file.write_bytes(content)
    assert Attempt.begin(made, "sha256:d", places).resumed


def test_what_nobody_resumes_is_removed_after_a_month(tmp_path: Path) -> None:
    folder = tmp_path / "ckpt" / "spx"
    (folder / "finished" / "old" / "version").mkdir(parents=True)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    for name, days in {
        "a.checkpoint.npz": 31, "b.checkpoint.npz": 29, "a.checkpoint.partial": 40, "notes.txt": 400,
        "finished/old/finished.json": 31, "finished/old/version/model.onnx": 90,
    }.items():  # fmt: skip
        (folder / name).write_bytes(b"x")
        at = (now - timedelta(days=days)).timestamp()
        os.utime(folder / name, (at, at))
    assert forget_old(checkpointed(), Locations(checkpoints=tmp_path), now) == 3
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["b.checkpoint.npz", "notes.txt"]
    assert forget_old(checkpointed(), Locations(checkpoints=tmp_path / "nowhere"), now) == 0
    assert forget_old(job(), Locations(checkpoints=tmp_path), now) == 0


def test_a_store_that_lets_nothing_be_removed_takes_nothing_back(tmp_path: Path) -> None:
    """The result is delivered by then: an error would mark its run as failed, and train again."""
    made, places = checkpointed(), Locations(checkpoints=tmp_path)
    attempt = Attempt.begin(made, "sha256:d", places)
    blocking = tmp_path / "ckpt" / "spx" / attempt.name
    (blocking / "held").mkdir(parents=True)
    with pytest.raises(Retryable):
        Attempt.begin(made, "sha256:d", places)
    forget(made, places)
    assert blocking.is_dir()
    (blocking / "held").rmdir()
    blocking.rmdir()
    blocking.write_bytes(b"x")
    forget(made, places)
    assert not blocking.exists()


def test_no_pickle_is_in_a_checkpoint(tmp_path: Path) -> None:
    places, made, frame = Locations(checkpoints=tmp_path), checkpointed(), bars()
    run_walk_forward(frame, made, silent, Attempt.begin(made, "sha256:d", places))
    (file,) = (tmp_path / "ckpt" / "spx").iterdir()
    with np.load(file, allow_pickle=False) as archive:
        assert "document" in archive.files
        assert all(archive[name].dtype != object for name in archive.files)


def test_sigterm_is_heard(tmp_path: Path) -> None:
    made = checkpointed()
    attempt = Attempt.begin(made, "sha256:d", Locations(checkpoints=tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    try:
        attempt.listen()
        attempt.stop_if_asked()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Retryable, match="Terminated"):
            attempt.stop_if_asked()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_checkpoint_the_message_says_what_is_lost() -> None:
    attempt = Attempt.begin(job(), "sha256:d")
    attempt.asked_to_stop = True
    with pytest.raises(Retryable, match=r"without spec.training.checkpoint"):
        run_walk_forward(bars(), job(), silent, attempt)
