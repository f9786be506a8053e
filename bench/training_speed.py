"""How fast the trainer fits its networks, beside the loop that everybody writes. Runs inside the trainer's image.

    python -m bench.training_speed SHELF [--splits 15 --seeds 3 --epochs 3]

Real data (`arch/sp500`), combinatorial splits times seeds, batches of 64, one thread. The usual loop: windows written
out, a TensorDataset and a DataLoader for each split, torch's AdamW, one model after the other. Both take the same rows
in the same order, so the same out-of-sample loss must come out: `max_abs_metric_difference` says by how much it does
not. Times are CPU seconds of one thread, which other work on the machine moves little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bench import kept
from fiduciary_trainer import contract as contracts
from fiduciary_trainer import data, splits
from fiduciary_trainer.models.fitting import Fitter
from fiduciary_trainer.prepared import prepare
from fiduciary_trainer.steps import Steps
from fiduciary_trainer.training import GRADIENT_NORM, derived_seed, make_deterministic
from fiduciary_trainer.validation import combinatorial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_trainer.training import Network

BATCH, WINDOW, HIDDEN = 64, 20, 32
ARCHITECTURES = ("MLP", "TCN", "LSTM", "GRU")


def fitter(architecture: str, seeds: int, epochs: int) -> Fitter:
    """The trainer's own, on the S&P 500, without early stopping: both ways take the same steps."""
    windowed = {} if architecture == "MLP" else {"window": WINDOW}
    settings = {
        "hidden": HIDDEN,
        "epochs": epochs,
        "patience": epochs,
        "batchSize": BATCH,
        "members": seeds,
        **windowed,
    }
    document = {
        "contractVersion": 1, "model": {"cluster": "b", "namespace": "b", "name": "b", "uid": "0"},
        "trainingKey": "sha256:" + "0" * 64, "specKey": "sha256:1", "configKey": "sha256:2", "attempt": 1,
        "trigger": {}, "asOf": "2017-12-29",
        "data": {"source": {"dataset": {"name": "arch/sp500"}}, "time": "date", "entity": None, "calendar": None,
                 "features": {"set": "close-v1"}, "label": {"kind": "Volatility", "column": "close", "horizon": 1},
                 "checks": {}},
        "training": {"architecture": architecture, "hyperparameters": settings, "seed": 7, "search": None,
                     "validation": {"scheme": "CombinatorialPurged", "folds": 6, "testFolds": 2, "purge": 1,
                                    "embargo": 66, "costBps": "2"}},
        "checkpoint": None, "mlflow": {"trackingUri": "http://127.0.0.1:1", "experiment": "b"},
        "provenance": {"image": "b", "operatorVersion": "0"},
    }  # fmt: skip
    contract = contracts.parse(document)
    prepared = prepare(data.load(contract).bars, contract)
    validation = contract.training.validation
    calendar = splits.Calendar.of(prepared.dates, prepared.label_end, validation.purge, validation.embargo)
    return Fitter(contract, prepared, calendar, Steps(lambda **_: None, 10**9), None)


def usual(network: Network, settings: dict[str, Any], key: tuple[int, int, int]) -> nn.Module:
    """The loop of a hundred notebooks: windows of the split written out, a DataLoader, one model."""
    windows = network.inputs[network.windows[network.fit_rows]]
    dataset = TensorDataset(windows, network.target[network.fit_rows])
    watched = DataLoader(
        TensorDataset(network.inputs[network.windows[network.watch_rows]], network.target[network.watch_rows]), BATCH
    )
    module = network.module
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings["learningRate"], weight_decay=settings["weightDecay"])
    best_loss, best = float("inf"), {}
    for epoch in range(int(settings["epochs"]) + 1):
        if epoch:
            torch.manual_seed(derived_seed(*key, epoch))
            order = torch.randperm(len(dataset)).tolist()
            module.train()
            for x, y in DataLoader(dataset, BATCH, sampler=order):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(module(x)[:, 0], y)
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
                optimizer.step()
        module.eval()
        with torch.inference_mode():
            total = sum(float(nn.functional.mse_loss(module(x)[:, 0], y)) * len(y) for x, y in watched)
        if total < best_loss:
            best_loss, best = total, {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(best)
    return module.eval()


def run(way: str, architecture: str, made: Fitter, chosen: Sequence[combinatorial.Split]) -> dict[str, float]:
    """Fit every split by one way; CPU seconds, peak memory, and the mean squared error over all test rows."""
    make_deterministic()
    trains = [(number, split.train) for number, split in enumerate(chosen)]
    settings: dict[str, Any] = dict(made.contract.training.settings)
    began, wall = time.process_time(), time.monotonic()
    if way == "ours":
        fitted = made.fit_all(trains)
    else:
        fitted = []
        for number, train in trains:
            plan = made._plan(number, train)
            for network, key in zip(plan.networks, plan.keys, strict=True):
                usual(network, settings, key)
            fitted.append(made._assembled(plan, [_as_trained(network) for network in plan.networks]))
    seconds, elapsed = time.process_time() - began, time.monotonic() - wall
    errors = [
        made.prepared.y[split.test] - made.predict(fit, split.test) for split, fit in zip(chosen, fitted, strict=True)
    ]
    loss = float(np.mean(np.concatenate(errors) ** 2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_seconds": seconds, "seconds": elapsed, "loss": loss, "peak_rss_mib": peak}


def _as_trained(network: Network) -> Any:
    from fiduciary_trainer.training import Trained

    return Trained(network.module, 0, [], 0.0)


def limit() -> float:
    """Floating-point operations a second of one thread in a large matrix product."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    torch.mm(a, b)
    began = time.process_time()
    for _ in range(10):
        torch.mm(a, b)
    return 10 * 2 * 1024**3 / (time.process_time() - began)


def operations(architecture: str, width: int, rows: float) -> float:
    """Multiplications and additions of training on ``rows`` rows once: forward, and twice as many backward."""
    h, w = HIDDEN, WINDOW
    depth = int(np.ceil(np.log2((w - 1) / 2 + 1)))
    forward = {
        "MLP": 2 * (width * h + h),
        "LSTM": 2 * 4 * (width * h + h * h) * w,
        "GRU": 2 * 3 * (width * h + h * h) * w,
        "TCN": 2 * (width * h + depth * 3 * h * h) * w,
    }[architecture]
    return 3.0 * forward * rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shelf", type=Path)
    parser.add_argument("--splits", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--one", nargs=2, metavar=("WAY", "ARCHITECTURE"))
    given = parser.parse_args()
    if given.one:
        way, architecture = given.one
        made = fitter(architecture, given.seeds, given.epochs)
        chosen = combinatorial.splits(made.calendar, 6, 2)[: given.splits]
        found = run(way, architecture, made, chosen)
        fitted_rows = sum(len(splits.inner_tail(made.calendar, split.train)[0]) for split in chosen)
        width = made.prepared.features.shape[1]
        work = operations(architecture, width, fitted_rows * given.seeds * given.epochs)
        print(json.dumps({"way": way, "architecture": architecture, "models": len(chosen) * given.seeds, **found,
                          "flops": work / found["cpu_seconds"], "limit": limit()}))  # fmt: skip
        return
    for name in given.architectures:
        for way in ("usual", "ours"):
            size = f"{given.splits}-{given.seeds}-{given.epochs}"
            kept.piece(given.shelf, f"{name}-{way}-{size}", lambda way=way, name=name: _alone(way, name, given))


def _alone(way: str, architecture: str, given: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own, so that its peak of memory is its own."""
    command: list[str] = [sys.executable, "-m", "bench.training_speed", str(given.shelf), "--one", way, architecture]
    command += ["--splits", str(given.splits), "--seeds", str(given.seeds), "--epochs", str(given.epochs)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(said.strip(), file=sys.stderr, flush=True)
    return json.loads(said)


if __name__ == "__main__":
    main()
