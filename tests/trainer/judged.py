"""The whole trainer on simulated markets, judged by the operator's own gates."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer import contract as contracts
from fiduciary_trainer import pipeline
from fiduciary_trainer.data import Locations
from fiduciary_trainer.outcome import encode, fit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fiduciary.decide.gates import Judgement
    from fiduciary_trainer.finished import Finished

Floats = NDArray[np.float64]
Columns = dict[str, Floats | NDArray[np.str_]]
AS_OF = "2016-12-30"


def bars(returns: Floats, sd: Floats, rng: np.random.Generator) -> Columns:
    """Open, high, low, close and volume of sessions with these log returns and daily standard deviations."""
    days = len(returns)
    close = 100.0 * np.exp(np.cumsum(returns))
    opened = np.concatenate([[100.0], close[:-1]]) * np.exp(0.2 * sd * rng.normal(size=days))
    spread = sd * (0.2 + np.abs(rng.normal(size=days)))
    return {
        "open": opened,
        "high": np.maximum(opened, close) * np.exp(spread),
        "low": np.minimum(opened, close) * np.exp(-spread),
        "close": close,
        "volume": np.round(np.exp(15.0 + 0.3 * rng.normal(size=days))),
    }


def market(seed: int = 5, days: int = 1500) -> Columns:
    """An honest market: volatility persists, direction is a coin."""
    rng = np.random.default_rng(seed)
    level = np.zeros(days)
    for day in range(1, days):
        level[day] = 0.95 * level[day - 1] + 0.2 * rng.normal()
    sd = 0.01 * np.exp(level)
    return bars(sd * rng.normal(size=days), sd, rng)


def dates(days: int) -> NDArray[np.str_]:
    return np.busday_offset("2011-01-03", np.arange(days), roll="forward").astype(str)


def write(path: Path, columns: Mapping[str, Any], times: NDArray[np.str_] | None = None) -> None:
    """A CSV with a column of dates and the columns in their order; an empty cell where a value is missing."""
    names = list(columns)
    length = len(columns[names[0]])
    stamps = dates(length) if times is None else times
    lines = [",".join(["date", *names])]
    for row in range(length):
        lines.append(",".join([str(stamps[row]), *(_cell(columns[name][row]) for name in names)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    return f"{value:.10g}" if np.isfinite(value) else ""


def document(path: Path, architecture: str, label: str, **changes: Any) -> dict[str, Any]:
    """A job on the CSV; networks are small. ``changes`` replace fields of ``data`` and ``training``."""
    networks = {"epochs": 4, "members": 1, "hidden": 4} if architecture in ("MLP", "LSTM") else {}
    training: dict[str, Any] = {
        "architecture": architecture, "hyperparameters": networks, "seed": 7, "search": None,
        "validation": {"scheme": "WalkForward", "folds": 4, "purge": 1, "embargo": 90, "costBps": "2"},
    }  # fmt: skip
    data: dict[str, Any] = {
        "source": {"files": {"uri": f"file://{path}", "format": "CSV"}}, "time": "date", "entity": None,
        "calendar": None, "features": {"set": "ohlcv-v1"}, "label": {"kind": label, "column": "close", "horizon": 1},
        "checks": {"minRows": 1000, "maxMissing": "0.02"},
    }  # fmt: skip
    return {
        "contractVersion": 1,
        "model": {"cluster": "test", "namespace": "quant", "name": "trap", "uid": "0"},
        "trainingKey": f"sha256:{uuid.uuid4().hex}{uuid.uuid4().hex}", "specKey": "sha256:51", "configKey": "sha256:c0",
        "attempt": 1, "trigger": {}, "asOf": AS_OF,
        "data": data | {name: value for name, value in changes.items() if name in data},
        "training": training | {name: value for name, value in changes.items() if name in training},
        "checkpoint": None, "mlflow": {"trackingUri": "http://127.0.0.1:1", "experiment": "quant.trap"},
        "provenance": {"image": "test", "operatorVersion": "0"},
    }  # fmt: skip


def train(folder: Path, job: Mapping[str, Any]) -> Finished:
    """Carry out a job up to finished work under ``folder``."""
    work = folder / uuid.uuid4().hex[:8]
    work.mkdir(parents=True)
    return pipeline.train(contracts.parse(job), Locations(), work / "state", work, lambda **_: None, threading.Event())


def judge(done: Finished, architecture: str, trials: int = 1) -> Judgement:
    """The operator's verdict on what it would read: the termination message, cut to what a record keeps."""
    from fiduciary.decide import gates, measurement

    place = {"runId": "r", "experimentId": "1", "source": "mlflow-artifacts:/1/r/artifacts/version"}
    message = fit({**done.result, **place}).decode()
    result = measurement.parse_result(message)
    assert result is not None, encode(done.result)
    return gates.judge(gates.Subject(measurement.read(measurement.kept(result)), architecture, trials), ())


def refusals(done: Finished, architecture: str, trials: int = 1) -> dict[str, str]:
    """Messages of the failed gates by their reason."""
    return {failed.reason: failed.message for failed in judge(done, architecture, trials).failures}
