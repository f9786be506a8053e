"""``python -m bench.drift [--paths N] [--parts run,delay,market,cost]``: tables, figures and the picture."""

from __future__ import annotations

import argparse
import asyncio
import time

import numpy as np

from bench.drift import honest, picture, versus
from bench.drift.cost import cost
from bench.drift.market import alarms, days
from bench.drift.missing import missing_alarms
from bench.drift.played import Played, RunTimes, delays, detected, played, run_times
from bench.drift.rivals import NAMES, TITLES
from bench.drift.streams import DRIFTS, STREAMS, correlated_scores
from bench.drift.watched import watched
from bench.results import progress, table, versions, write

RUN_TIME, BLOCKS, HORIZON = 200.0, 200, 1600
ROWS = {"iid": (21,), "ar90": (126,), "garch": (63, 252)}
"""Rows of a window. The memory of AR(.9) is 19 rows, GARCH's variance remembers 50: windows of 63 are too short for it,
and shown for that."""
DRIFT_ROWS, DRIFT_WINDOWS = 63, 60
SEED = 20261126


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", type=int, default=1000, help="references a cell")
    parser.add_argument("--parts", default="run,delay,market,cost")
    parser.add_argument("--streams", default=",".join(ROWS), help="of the part run; scores are always there")
    asked = parser.parse_args()
    parts = set(asked.parts.split(","))
    figures: dict[str, float] = {}
    rows: list[dict[str, object]] = []
    if "run" in parts:
        rows += _run_times(asked.paths, asked.streams.split(","), figures)
    if "delay" in parts:
        rows += _delays(asked.paths, figures)
    if "market" in parts:
        rows += _market()
    if "cost" in parts:
        figures |= cost() | asyncio.run(watched())
        table(
            "Cost",
            [{"figure": name, "value": value} for name, value in figures.items() if "ms" in name or "bytes" in name],
        )
    path = write("drift", figures, rows, versions("numpy", "scipy"))
    table("Figures", [{"figure": name, "value": value} for name, value in figures.items()])
    print(path)
    return 0


def _run_times(paths: int, streams: list[str], figures: dict[str, float]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in streams:
        lengths = ROWS[name]
        for length in lengths:
            begun = time.monotonic()
            found = played(
                STREAMS[name], STREAMS[name], seed=SEED, paths=paths, blocks=BLOCKS, windows=HORIZON, rows=length,
                run_time=RUN_TIME, adwin_paths=min(paths, 10),
            )  # fmt: skip
            progress(f"{name}, windows of {length}: {time.monotonic() - begun:.0f} s")
            its = run_times(found.alarms["fiduciary"], RUN_TIME)
            if length == lengths[-1]:
                figures[f"ert_ratio_{name}"] = its.first
            rows.append(_row(f"{name}, {length} rows", found.judged, found.correlation, its, found))
    for blocks in (50, 100, BLOCKS):
        for rho in (0.0, 0.1, 0.2, 0.3):
            rng = np.random.default_rng([SEED, blocks, round(100 * rho)])
            scores = correlated_scores(rng, 2 * paths, blocks + HORIZON, rho)
            its, own = detected(scores[:, :blocks], scores[:, blocks:], RUN_TIME, SEED)
            ratio = run_times(own, RUN_TIME)
            if (blocks, rho) == (BLOCKS, 0.3):
                figures["ert_ratio_scores_rho30"] = ratio.first
            rows.append(
                _row(
                    f"scores ρ {rho:g}, {blocks} blocks", float(its.judged.mean()), float(its.correlation.mean()), ratio
                )
            )
    table(f"Windows to a false alarm over the configured {RUN_TIME:g} (references: {paths})", rows)
    table("Windows between false alarms of the usual rules", [_rivals(row) for row in rows if "psi_10" in row])
    return rows


def _row(cell: str, judged: float, rho: float, its: RunTimes, found: Played | None = None) -> dict[str, object]:
    low, middle, high = its.spread
    row: dict[str, object] = {
        "cell": cell,
        "judged": judged,
        "rho": rho,
        "to the first": its.first,
        "between": its.between,
        "10 %": low,
        "50 %": middle,
        "90 %": high,
    }
    if found is not None:
        row |= {name: run_times(found.alarms[name], 1.0).between for name in NAMES if name in found.alarms}
    return row


def _rivals(row: dict[str, object]) -> dict[str, object]:
    between = row["between"]
    assert isinstance(between, float)
    return {"cell": row["cell"], "Fiduciary": between * RUN_TIME} | {
        TITLES[name]: row.get(name, "not installed") for name in NAMES
    }


def _delays(paths: int, figures: dict[str, float]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, (before, after) in DRIFTS.items():
        found = played(
            before, after, seed=SEED, paths=paths, blocks=BLOCKS, windows=DRIFT_WINDOWS, rows=DRIFT_ROWS,
            run_time=RUN_TIME, adwin_paths=min(paths, 50), mean="loss" in name,
        )  # fmt: skip
        progress(f"delay, {name}")
        row: dict[str, object] = {"drift": name}
        for rule in ("fiduciary", *NAMES):
            row[TITLES[rule]] = _delay(found, rule)
        rows.append(row)
        if name.startswith("mean"):
            figures["delay_windows_mean_shift_half_sigma"] = delays(found.alarms["fiduciary"])[0]
    gone = missing_alarms(
        0.05, usual=0.005, rows=DRIFT_ROWS, windows=DRIFT_WINDOWS, paths=paths, run_time=RUN_TIME, seed=SEED
    )
    median, never = delays(gone)
    quiet = missing_alarms(
        0.005, usual=0.005, rows=DRIFT_ROWS, windows=HORIZON, paths=paths, run_time=RUN_TIME, seed=SEED
    )
    rows.append({"drift": "missing .5 % → 5 %", TITLES["fiduciary"]: f"{median:g} ({100 * never:.0f} % never)"})
    figures["missing_false_alarms_per_10000_windows"] = float(10_000 * quiet.mean())
    table(
        f"Median windows of {DRIFT_ROWS} rows to the alarm, drift from the first one on (share that never alarms)", rows
    )
    worse = versus.delays(min(paths, 100), RUN_TIME * 21, SEED)
    table(f"Worse than the previous version, {RUN_TIME:g} windows of 21 sessions between false alarms", worse)
    figures["versus_ert_ratio"] = versus.false_alarms(min(paths, 40), 100.0, SEED)
    dishonest = honest.table_of(paths, BLOCKS, HORIZON, RUN_TIME, SEED)
    table("Probabilities that say more than what happens: windows to the alarm", dishonest)
    ratio = dishonest[0]["to the first"]
    assert isinstance(ratio, float)
    figures["ert_ratio_calibration"] = ratio
    return [*rows, *worse, *dishonest]


def _delay(found: Played, rule: str) -> str:
    if rule not in found.alarms:
        return "not installed"
    median, never = delays(found.alarms[rule])
    return f"{median:g}" + (f" ({100 * never:.0f} % never)" if never else "")


def _market() -> list[dict[str, object]]:
    quarters, found = alarms(days())
    rows: list[dict[str, object]] = []
    for one in found:
        row: dict[str, object] = {"feature": one.feature, "blocks": one.blocks, "rho": one.correlation}
        row |= {rule: f"{len(labels)}/{len(quarters)}" for rule, labels in one.quarters.items()}
        row["our alarms"] = ", ".join(f"{day:%Y-%m-%d}" for day in one.ours[:4]) + (" …" if len(one.ours) > 4 else "")
        rows.append(row)
    table("S&P 500, trained to 2006: quarters of 2007–2018 with an alarm", rows)
    print(picture.draw(quarters, found))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
