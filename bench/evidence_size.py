"""Size and delay of the evidence processes, by the operator's own code: the numbers quoted in docs/statistics.md.

    PYTHONPATH=operator:. python -m bench.evidence_size            # about three minutes on one core, needs numpy
    PYTHONPATH=operator:. python -m bench.evidence_size harm       # the cells whose name starts so

Not a test: CI has smaller ones with fixed seeds (tests/unit/evidence). Each cell prints its progress to stderr.
"""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary.evidence.betting import Betting
from fiduciary.evidence.blocks import Block, Counts
from fiduciary.evidence.conformal import Calibration, ConformalCusum
from fiduciary.evidence.dispersion import Dispersion
from fiduciary.evidence.harm import Harm
from fiduciary.evidence.noninferiority import NonInferiority
from fiduciary.evidence.refusal import Refusal
from fiduciary.evidence.samples import SampleRatio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THRESHOLD = math.log(20.0)
Rng = np.random.Generator


def ok(value: Any) -> Any:
    if isinstance(value, Refusal):
        raise SystemExit(value.message)
    return value


def share(hits: int, runs: int) -> str:
    rate = hits / runs
    return f"{rate:.3f} ± {math.sqrt(max(rate * (1 - rate), 0.25 / runs) / runs):.3f} ({runs} runs)"


def delay(times: list[float]) -> str:
    return f"median {np.median(times):.0f}, 95 % {np.quantile(times, 0.95):.0f} ({len(times)} runs)"


def minutes(rng: Rng, n: int, champion: Any, challenger: Any, per_minute: int = 300) -> Iterator[Block]:
    """Blocks of Poisson traffic, half each; rates are numbers or arrays over minutes."""
    trials = rng.poisson(per_minute / 2, (2, n))
    bad = rng.binomial(trials, [np.broadcast_to(champion, n), np.broadcast_to(challenger, n)])
    for k in range(n):
        yield Block(k, k, Counts(int(trials[0, k]), int(bad[0, k])), Counts(int(trials[1, k]), int(bad[1, k])))


def harm_crossing(blocks: Iterator[Block], phi: float, history: Counts, planned: int = 43_200) -> int | None:
    state = ok(Harm.start(history, planned))
    for block in blocks:
        state = ok(state.fold(block, phi))
        if state.log_e >= THRESHOLD:
            return block.last
    return None


def harm_size(rng: Rng) -> str:
    n, runs = 7200, 60
    hits = sum(
        harm_crossing(minutes(rng, n, 0.005, 0.005), 1.5, Counts(200_000, 1000), n) is not None for _ in range(runs)
    )
    return share(hits, runs)


def harm_delay(rate: float, late: int, phi: float, runs: int) -> Callable[[Rng], str]:
    def cell(rng: Rng) -> str:
        times: list[float] = []
        for _ in range(runs):
            path = np.where(np.arange(late + 400) < late, 0.005, rate)
            found = harm_crossing(minutes(rng, late + 400, 0.005, path), phi, Counts(200_000, 1000))
            times.append(math.inf if found is None else found - late + 1)
        return delay(times)

    return cell


def bursts(rng: Rng, n: int, phi: float, cv: float) -> Any:
    """Rates .5 % × a lognormal AR(1), mean one."""
    sigma = math.sqrt(math.log1p(cv * cv))
    log = np.empty(n)
    log[0] = rng.normal()
    for k in range(1, n):
        log[k] = phi * log[k - 1] + math.sqrt(1 - phi * phi) * rng.normal()
    return np.minimum(0.5, 0.005 * np.exp(sigma * log - 0.5 * sigma * sigma))


def harm_bursts(ar: float, cv: float, estimated: bool) -> Callable[[Rng], str]:
    def cell(rng: Rng) -> str:
        hits, runs = 0, 150
        for _ in range(runs):
            before, phi = Dispersion.start(), 1.0
            if estimated:
                for block in minutes(rng, 1440, bursts(rng, 1440, ar, cv), 0.005):
                    before = ok(before.fold(block.first, block.last, block.champion))
                phi = ok(before.estimate(1000))
            stream = minutes(rng, 1440, bursts(rng, 1440, ar, cv), bursts(rng, 1440, ar, cv))
            hits += harm_crossing(stream, phi, Counts(200_000, 1000)) is not None
        return share(hits, runs)

    return cell


def noninferiority(challenger: float) -> Callable[[Rng], str]:
    def cell(rng: Rng) -> str:
        times: list[float] = []
        runs, n = 400, 240
        for _ in range(runs):
            state = ok(NonInferiority.start(Counts(200_000, 1000), 0.005))
            for block in minutes(rng, n, 0.005, challenger):
                state = ok(state.fold(block, 1.0))
                if state.log_e >= THRESHOLD:
                    times.append(block.last + 1)
                    break
        return f"shown {share(len(times), runs)}, {delay(times)} minutes" if times else share(0, runs)

    return cell


def sample_ratio(rng: Rng) -> str:
    hits, runs = 0, 150
    for _ in range(runs):
        state = ok(SampleRatio.start((0.75, 0.25)))
        for k, y in enumerate(rng.binomial(300, 0.25, 720)):
            state = ok(state.fold(k, k, (300 - int(y), int(y))))
            if state.log_e >= math.log(1000.0):
                hits += 1
                break
    return share(hits, runs)


def sessions(draw: Callable[[Rng, int], Any], n: int = 3100, runs: int = 100) -> Callable[[Rng], str]:
    """Sessions as the rule folds them: standardised by the sd of 250 earlier ones."""

    def cell(rng: Rng) -> str:
        times: list[float] = []
        for _ in range(runs):
            values = draw(rng, n + 250)
            state = ok(Betting.start(float(np.std(values[:250], ddof=1))))
            for k, value in enumerate(values[250:].tolist()):
                state = ok(state.fold(k, value))
                if state.log_e >= THRESHOLD:
                    times.append(k + 1)
                    break
        return f"shown {share(len(times), runs)}" + (f", {delay(times)} sessions" if times else "")

    return cell


def student(rng: Rng, n: int) -> Any:
    return rng.standard_t(3, n) / math.sqrt(3.0)


def autoregressive(rng: Rng, n: int) -> Any:
    values = rng.normal(size=n)
    for k in range(1, n):
        values[k] = 0.3 * values[k - 1] + math.sqrt(1 - 0.09) * values[k]
    return values


def garch(rng: Rng, n: int) -> Any:
    values, variance = np.empty(n), 1.0
    for k in range(n):
        values[k] = math.sqrt(variance) * rng.standard_t(5) / math.sqrt(5 / 3)
        variance = 0.02 + 0.08 * values[k] ** 2 + 0.9 * variance
    return values


def regimes(size: float) -> Callable[[Rng, int], Any]:
    def draw(rng: Rng, n: int) -> Any:
        signs = np.repeat(rng.choice([-1.0, 1.0], n // 125 + 1), 125)[:n]
        return rng.normal(size=n) + size * signs

    return draw


def shifted(draw: Callable[[Rng, int], Any], mean: float) -> Callable[[Rng, int], Any]:
    return lambda rng, n: draw(rng, n) + mean


def run_time(rho: float) -> Callable[[Rng], str]:
    """Mean windows to an alarm, over the configured 200, with 100 reference blocks."""

    def cell(rng: Rng) -> str:
        total, alarms, unusable = 0, 0, 0
        for seed in range(150):
            values = rng.normal(size=1100)
            for k in range(1, 1100):
                values[k] = rho * values[k - 1] + math.sqrt(1 - rho * rho) * values[k]
            its = Calibration.of(values[:100].tolist(), 200.0, seed)
            if isinstance(its, Refusal):
                unusable += 1
                continue
            state = ConformalCusum()
            for window, score in enumerate(values[100:].tolist()):
                state = ok(state.fold(its, window, score))
                total += 1
                if state.cusum > its.height:
                    alarms += 1
                    state = state.reset()
        return f"{total / alarms / 200:.2f} of the configured run time ({alarms} alarms, {unusable} refused)"

    return cell


# name: (seed, cell)
CELLS: dict[str, tuple[int, Callable[[Rng], str]]] = {
    "harm: false alarms in 5 days, φ 1.5": (0, harm_size),
    "harm: minutes to find 5 %, at once, φ 1": (1, harm_delay(0.05, 0, 1.0, 200)),
    "harm: minutes to find 5 %, at once, φ 1.5": (2, harm_delay(0.05, 0, 1.5, 200)),
    "harm: minutes to find 5 %, after 1 day, φ 1.5": (3, harm_delay(0.05, 1440, 1.5, 60)),
    "harm: minutes to find 2 %, at once, φ 1.5": (4, harm_delay(0.02, 0, 1.5, 200)),
    "harm: minutes to find 2 %, after 1 day, φ 1.5": (5, harm_delay(0.02, 1440, 1.5, 60)),
    "harm: size in a day, bursts cv 1, AR .9, no φ": (6, harm_bursts(0.9, 1.0, False)),
    "harm: size in a day, bursts cv 1, AR .9, φ̂ of a day": (7, harm_bursts(0.9, 1.0, True)),
    "harm: size in a day, bursts cv .5, AR .9, φ̂ of a day": (8, harm_bursts(0.9, 0.5, True)),
    "harm: size in a day, bursts cv 2, AR .9, φ̂ of a day": (9, harm_bursts(0.9, 2.0, True)),
    "harm: size in a day, bursts cv 1, AR .97, φ̂ of a day": (10, harm_bursts(0.97, 1.0, True)),
    "non-inferiority .005: equal arms": (9, noninferiority(0.005)),
    "non-inferiority .005: at the margin": (10, noninferiority(0.010)),
    "sample ratio: false alarms, 720 looks": (11, sample_ratio),
    "sessions: null, t3": (12, sessions(student)),
    "sessions: null, GARCH-t": (13, sessions(garch)),
    "sessions: null, AR(1) .3": (14, sessions(autoregressive)),
    "sessions: regimes ± .1 sd": (15, sessions(regimes(0.1))),
    "sessions: regimes ± .2 sd": (16, sessions(regimes(0.2))),
    "sessions: mean .1 sd, t3": (17, sessions(shifted(student, 0.1))),
    "sessions: mean .2 sd, t3": (18, sessions(shifted(student, 0.2))),
    "drift: run time, ρ 0": (19, run_time(0.0)),
    "drift: run time, ρ .2": (20, run_time(0.2)),
}


def main() -> None:
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, (seed, cell) in CELLS.items():
        if name.startswith(prefix):
            start = time.process_time()
            answer = cell(np.random.default_rng([20261124, seed]))
            print(f"| {name} | {answer} |", flush=True)
            print(f"  {time.process_time() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
