"""Inside the trainer's image: seconds a step of one network takes in one process and in two that share its batches.

``python -m bench.workers_speed OUT.json [--steps 30 --blocks 20]`` starts itself as two processes that meet on the
loopback, which is the fastest network that two pods can have. Blocks of steps of one process and of two alternate, and
the fastest block of each counts: whatever else runs on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from fiduciary_trainer.meeting import Meeting, Place
from fiduciary_trainer.models import modules, sequences
from fiduciary_trainer.training import GRADIENT_NORM, make_deterministic
from fiduciary_trainer.workers import Workers

FEATURES = 14
CASES = [
    ("MLP, 16 units, batch 256", lambda: modules.Perceptron(FEATURES, 16), 1, 256),
    ("LSTM, 16 units, window 20, batch 256", lambda: sequences.Recurrent("LSTM", FEATURES, 16), 20, 256),
    ("TCN, 16 units, window 20, batch 256", lambda: sequences.TemporalConvolution(FEATURES, 16, 20), 20, 256),
    ("Transformer, 16 units, window 20, batch 256", lambda: sequences.Encoder(FEATURES, 16, 20, 2, 1), 20, 256),
    ("LSTM, 256 units, window 60, batch 512", lambda: sequences.Recurrent("LSTM", FEATURES, 256), 60, 512),
]


def seconds_of_a_step(module: torch.nn.Module, window: int, batch: int, workers: Workers, steps: int) -> float:
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(*((4 * batch, FEATURES) if window == 1 else (4 * batch, window, FEATURES)), generator=draw)
    target = torch.randn(4 * batch, generator=draw)
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(module(inputs[rows])[:, 0], target[rows])

    began = time.perf_counter()
    for step in range(steps):
        workers.gradient(parameters, loss, torch.arange(batch) + batch * (step % 4))
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
    return (time.perf_counter() - began) / steps


def measure(workers: Workers, steps: int, blocks: int) -> list[dict[str, Any]]:
    """A row a case. Both processes take the steps of two; the first alone those of one, while the other waits."""
    rows: list[dict[str, Any]] = []
    for name, made, window, batch in CASES:
        one: list[float] = []
        two: list[float] = []
        for _ in range(blocks):
            torch.manual_seed(0)
            module = made()
            workers.same(module)
            two.append(seconds_of_a_step(module, window, batch, workers, steps))
            if workers.first:
                one.append(seconds_of_a_step(module, window, batch, Workers(), steps))
        if workers.first:
            rows.append({"network": name, "one_ms": 1e3 * min(one), "two_ms": 1e3 * min(two)})
            rows[-1]["speedup"] = rows[-1]["one_ms"] / rows[-1]["two_ms"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--blocks", type=int, default=20)
    given = parser.parse_args()
    second: subprocess.Popen[bytes] | None = None
    if "MASTER_ADDR" not in os.environ:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = str(free.getsockname()[1])
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "JOB_COMPLETION_INDEX": "0"}
        command = [sys.executable, "-m", "bench.workers_speed", *sys.argv[1:]]
        second = subprocess.Popen(command, env=os.environ | {"JOB_COMPLETION_INDEX": "1"})
    make_deterministic()
    place = Place.of(2)
    assert place is not None
    meeting = Meeting(place, threading.Event())
    workers = meeting.gather()
    assert workers is not None
    rows = measure(workers, given.steps, given.blocks)
    if second is None:
        meeting.stay()
        return
    meeting.done()
    second.wait()
    given.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
