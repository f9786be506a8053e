"""The whole trainer on simulated markets: how often the operator's gates accept what has no skill, and what has some.

Runs inside the trainer's image: ``python -m bench.gates.whole --seeds 200 SHELF``, which keeps every ten trainings.
Everything runs but the plots and MLflow: data digest, walk-forward, measuring, leakage, final fit, export and its
replay, the termination message, and from it the verdict.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench import kept
from fiduciary.decide import gates, measurement
from fiduciary_features import Bars
from fiduciary_features.series import GARMAN_KLASS_BODY
from fiduciary_trainer import contract as contracts
from fiduciary_trainer import pipeline
from fiduciary_trainer.data import Loaded, Locations
from fiduciary_trainer.data.digest import digest
from fiduciary_trainer.outcome import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fiduciary.decide.gates import Judgement

Floats = NDArray[np.float64]
DAYS = 2_000


@dataclass(frozen=True)
class Market:
    """A market, what is trained on it, and whether there is anything to find.

    Attributes:
        name: of the market.
        size: of what is planted; 0: nothing.
        architecture, label: of the model.
        draw: bars of one seed.
    """

    name: str
    size: float
    architecture: str
    label: str
    draw: Callable[[np.random.Generator], Bars]


def candles(rng: np.random.Generator, close_to_close: Floats, log_volatility: Floats) -> Bars:
    """Bars whose Garman-Klass volatility is exactly the given one, with these returns.

    Args:
        rng: draws gaps and volumes.
        close_to_close: log returns.
        log_volatility: log of each session's standard deviation.
    """
    days = len(close_to_close)
    close = np.log(100.0) + np.cumsum(close_to_close)
    variance = np.exp(2.0 * log_volatility)
    body = np.clip(0.8 * close_to_close, -0.9 * variance**0.5, 0.9 * variance**0.5)
    spread = np.sqrt(2.0 * (variance + GARMAN_KLASS_BODY * body * body))
    opened = close - body
    above = (spread - np.abs(body)) * rng.uniform(0.3, 0.7, days)
    high = np.maximum(opened, close) + above
    time = np.busday_offset("2008-01-02", np.arange(days), roll="forward").astype("datetime64[ns]")
    columns = {"open": opened, "high": high, "low": high - spread, "close": close}
    bars = {name: np.exp(values) for name, values in columns.items()}
    bars["volume"] = np.exp(15.0 + 0.3 * rng.normal(size=days))
    return Bars(time, np.full(days, ""), bars)


def har(rng: np.random.Generator, leverage: float = 0.0) -> Bars:
    """Log volatility that follows HAR; ``leverage`` is what a standardised fall adds to the next day's."""
    level = np.log(0.008)
    x = np.full(DAYS + 66, level)
    moves = rng.standard_t(6, size=len(x)) / np.sqrt(1.5)
    shocks = 0.35 * rng.normal(size=len(x))
    for day in range(22, len(x)):
        mean = 0.35 * x[day - 1] + 0.35 * x[day - 5 : day].mean() + 0.22 * x[day - 22 : day].mean() + 0.08 * level
        x[day] = mean + leverage * max(0.0, -moves[day - 1]) - leverage * 0.4 + shocks[day]
    return candles(rng, (np.exp(x) * moves)[66:], x[66:])


def garch(rng: np.random.Generator, momentum: float = 0.0) -> Bars:
    """GARCH returns; ``momentum`` is the coefficient of the last return."""
    returns, variance = list[float](), 1.0
    last = 0.0
    for shock in rng.standard_normal(DAYS).tolist():
        innovation = shock * variance**0.5
        last = momentum * last + innovation
        returns.append(0.01 * last)
        variance = 0.03 + 0.08 * innovation**2 + 0.89 * variance
    made = np.asarray(returns)
    sd = np.sqrt(np.convolve(np.concatenate([np.full(19, 1e-4), made**2]), np.ones(20) / 20, mode="valid"))
    return candles(rng, made, np.log(sd) + 0.35 * rng.normal(size=DAYS))


def smoothed(rng: np.random.Generator) -> Bars:
    """Log volatility whose best forecast is an EWMA with constant .15: an integrated moving average, held to a level.

    The null of a skill against the tuned EWMA. (In HAR's own market a model with HAR's terms does beat it, a little.)
    """
    level, mean = np.log(0.008), np.log(0.008)
    x = np.empty(DAYS)
    for day in range(DAYS):
        shock = 0.35 * rng.normal()
        x[day] = level + shock
        level = mean + 0.999 * (level + 0.15 * shock - mean)
    return candles(rng, np.exp(x) * rng.normal(size=DAYS), x)


def drifting(rng: np.random.Generator) -> Bars:
    """The rate of rises drifts around .54, as slowly as a business cycle."""
    rate = np.full(DAYS, 0.54)
    for day in range(1, DAYS):
        rate[day] = 0.54 + 0.995 * (rate[day - 1] - 0.54) + 0.005 * rng.normal()
    up = rng.random(DAYS) < np.clip(rate, 0.05, 0.95)
    size = np.abs(rng.normal(size=DAYS)) * 0.01
    return candles(rng, np.where(up, size, -size), np.log(0.01) + 0.35 * rng.normal(size=DAYS))


MARKETS: tuple[Market, ...] = (
    Market("GARCH without direction", 0.0, "Logistic", "Direction", garch),
    Market("drifting base rate", 0.0, "Logistic", "Direction", drifting),
    Market("volatility that EWMA forecasts best", 0.0, "Linear", "Volatility", smoothed),
    Market("volatility generated by HAR", 0.0, "Linear", "Volatility", har),
    Market("GARCH without direction", 0.0, "Linear", "Return", garch),
    *(
        Market("momentum in returns", size, "Logistic", "Direction", lambda rng, size=size: garch(rng, size))
        for size in (0.1, 0.2, 0.3, 0.4)
    ),
    *(
        Market("leverage in volatility", size, "Linear", "Volatility", lambda rng, size=size: har(rng, size))
        for size in (0.05, 0.1, 0.2, 0.3)
    ),
)


def judged(market: Market, seed: int, folder: Path) -> tuple[Judgement, float]:
    """The verdict on one seed's market, and the skill that decides it."""
    bars = market.draw(np.random.default_rng(seed))
    contract = contracts.parse(_document(market))
    kept = pipeline.data.load, pipeline.write_report
    given = Bars(bars.time, bars.entity, {name: bars.column(name) for name in contract.data.columns})
    first, last = str(bars.time[0])[:10], str(bars.time[-1])[:10]
    try:
        pipeline.data.load = lambda *_: Loaded(given, digest(given), len(given), first, last, "simulated")
        pipeline.write_report = lambda place, _: [place.mkdir()]
        with redirect_stdout(StringIO()):
            done = pipeline.train(contract, Locations(), folder / "state", folder, lambda **_: None, threading.Event())
    finally:
        pipeline.data.load, pipeline.write_report = kept
    result = measurement.parse_result(fit(done.result).decode())
    assert result is not None
    read = measurement.read(measurement.kept(result))
    skill = read.metrics[f"{gates.TO_BEAT[market.label]}_skill"].estimate
    return gates.judge(gates.Subject(read, market.architecture, 1), ()), skill


def _document(market: Market) -> dict[str, Any]:
    return {
        "contractVersion": 1, "model": {"cluster": "bench", "namespace": "bench", "name": "null", "uid": "0"},
        "trainingKey": "sha256:" + "0" * 64, "specKey": "sha256:1", "configKey": "sha256:2", "attempt": 1,
        "trigger": {}, "asOf": "2030-12-31",
        "data": {"source": {"dataset": {"name": "arch/sp500"}}, "time": "date", "entity": None, "calendar": None,
                 "features": {"set": "ohlcv-v1"}, "label": {"kind": market.label, "column": "close", "horizon": 1},
                 "checks": {}},
        "training": {"architecture": market.architecture, "hyperparameters": {}, "seed": 7, "search": None,
                     "validation": {"scheme": "WalkForward", "folds": 6, "purge": 1, "embargo": 66, "costBps": "2"}},
        "checkpoint": None, "mlflow": {"trackingUri": "http://127.0.0.1:1", "experiment": "bench"},
        "provenance": {"image": "bench", "operatorVersion": "0"},
    }  # fmt: skip


CHUNK = 10


def play(shelf: Path, seeds: int, minutes: float, markets: Sequence[Market] = MARKETS) -> None:
    """Ten seeds of every market, then the next ten, until all are kept or the minutes are over."""
    end = time.monotonic() + 60.0 * minutes
    for first in range(0, seeds, CHUNK):
        if time.monotonic() > end:
            return
        for market in markets:
            made = kept.piece(shelf, _name(market, first), lambda market=market, first=first: _chunk(market, first))
            shown = {name: made[name] for name in ("market", "planted", "first", "accepted", "cpu_seconds")}
            print(json.dumps(shown), file=sys.stderr, flush=True)


def _chunk(market: Market, first: int) -> dict[str, Any]:
    began, accepted, reasons, skills = time.process_time(), 0, dict[str, int](), list[float]()
    for seed in range(first, first + CHUNK):
        with tempfile.TemporaryDirectory() as folder:
            verdict, skill = judged(market, seed, Path(folder))
        skills.append(skill)
        accepted += verdict.passed
        for reason in {failed.reason for failed in verdict.failures}:
            reasons[reason] = reasons.get(reason, 0) + 1
    return {
        "market": market.name, "planted": market.size, "label": market.label, "model": market.architecture,
        "first": first, "seeds": CHUNK, "accepted": accepted, "reasons": reasons, "skills": skills,
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def _name(market: Market, first: int) -> str:
    return "-".join([*market.name.split(), market.label, f"{market.size:g}", str(first)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("shelf", type=Path)
    given = parser.parse_args()
    play(given.shelf, given.seeds, given.minutes)


if __name__ == "__main__":
    main()
