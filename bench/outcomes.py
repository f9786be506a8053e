"""`python -m bench.outcomes`: records a second that the outcome scorer stores, over HTTP, on one core.

Beside it, in the same run and on the same core, the least that could be called a sink: an aiohttp handler that inserts
each batch into SQLite in one transaction with the same durability. It checks nothing, dedups by primary key only and
counts nothing. Senders run on the other cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
from aiohttp import web

from bench import results

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
FEATURES = 20
BATCH = 200
SENDERS = 4
DIGEST = {"7": "sha256:" + "7" * 64, "8": "sha256:" + "8" * 64}


def records(sender: int, number: int, fresh: float) -> list[dict[str, Any]]:
    """One batch; ``1 - fresh`` of its records repeat the first record of their sender's day."""
    found: list[dict[str, Any]] = []
    for place in range(BATCH):
        new = place < fresh * BATCH
        entity = f"{sender}-{number}-{place}" if new else f"{sender}-{number // 50}-0"
        found.append(
            {
                "predictionId": f"{sender:04x}{number:08x}{place:04x}", "requestId": None, "entity": entity,
                "time": "2018-01-02", "prediction": -4.5 + place / 1000, "predictionBin": place % 10,
                "bins": [(place + feature) % 10 for feature in range(FEATURES)], "missing": [],
            }
        )  # fmt: skip
    return found


def bodies(sender: int, batches: int, fresh: float) -> Iterator[bytes]:
    version = "78"[sender % 2]
    head = {
        "contractVersion": 1, "model": "quant.spx", "version": version, "digest": DIGEST[version],
        "reference": "ab" * 32, "sender": f"s{sender}-{fresh}", "features": [f"f{i}" for i in range(FEATURES)],
        "edges": [9] * FEATURES, "predictionEdges": 9, "dropped": [],
    }  # fmt: skip
    for number in range(batches):
        yield json.dumps({**head, "sequence": number + 1, "records": records(sender, number, fresh)}).encode()


async def flood(port: int, batches: int, fresh: float) -> float:
    """Send everything, one batch of a sender at a time as runtimes do; seconds from first to last answer."""
    prepared = [list(bodies(sender, batches, fresh)) for sender in range(SENDERS)]

    async def send(session: aiohttp.ClientSession, own: list[bytes]) -> None:
        for body in own:
            headers = {"Content-Type": "application/json"}
            status = 503
            while status == 503:  # as a runtime does; the store is opened after the port
                async with session.post(f"http://127.0.0.1:{port}/v1/records", data=body, headers=headers) as answer:
                    status = answer.status
                    assert status in (200, 503), await answer.text()

    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        await asyncio.gather(*(send(session, own) for own in prepared))
        return time.perf_counter() - began


def bare(path: str, port: int) -> None:
    """The baseline."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE p (version, time, entity, id, value, bins, PRIMARY KEY (version, time, entity))")

    async def take(request: web.Request) -> web.Response:
        batch = json.loads(await request.read())
        rows = [
            (batch["version"], r["time"], r["entity"], r["predictionId"], r["prediction"], json.dumps(r["bins"]))
            for r in batch["records"]
        ]
        database.execute("BEGIN")
        database.executemany("INSERT OR IGNORE INTO p VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")
        return web.json_response({"sequence": batch["sequence"]})

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/records", take)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


def scorer_settings(folder: str, port: int, metrics_port: int) -> str:
    subjects = {"records": None, "read": None, "outcomes": [], "ledgers": [], "define": []}
    auth = {"issuer": "i", "audience": "a", "keys": {"file": "none"}, "subjects": subjects}
    return json.dumps(
        {
            "contractVersion": 1, "namespace": "quant", "store": {"sqlite": f"{folder}/outcomes.db"}, "auth": auth,
            "host": "127.0.0.1", "port": port, "metricsPort": metrics_port,
        }
    )  # fmt: skip


def measure(what: str, batches: int, fresh: float) -> dict[str, float]:
    """Start a sink on core 0 and flood it from the others."""
    with tempfile.TemporaryDirectory() as folder:
        port, metrics_port = free_port(), free_port()
        command = {
            "scorer": [sys.executable, "-m", "fiduciary_outcomes"],
            "bare": [sys.executable, "-m", "bench.outcomes", "--bare", f"{folder}/bare.db", str(port)],
        }[what]
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'trainer_image'}:{ROOT}"}
        env["FIDUCIARY_OUTCOMES"] = scorer_settings(folder, port, metrics_port)
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(command, env=env, cwd=ROOT, stderr=log)
        try:
            watched = psutil.Process(process.pid)
            watched.cpu_affinity([0])
            wait_for(port)
            asyncio.run(flood(port, 5, fresh / 2))  # warm, under another sender's name
            before = watched.cpu_times()
            seconds = asyncio.run(flood(port, batches, fresh))
            after = watched.cpu_times()
            sent = batches * SENDERS * BATCH
            cpu = after.user + after.system - before.user - before.system
            return {"per_s": sent / seconds, "cpu_us": 1e6 * cpu / sent, "rss_mib": watched.memory_info().rss / 2**20}
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=100, help="of 200 records, for each of four senders")
    parser.add_argument("--bare", nargs=2, metavar=("DATABASE", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options.bare[0], int(options.bare[1]))
        return
    os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)) or {0})
    rows: list[dict[str, object]] = []
    figures: dict[str, float] = {}
    for name, fresh in (("all first", 1.0), ("5 % first", 0.05)):
        found = {}
        for what in ("bare", "scorer"):
            print(f"{name}: {what}", file=sys.stderr, flush=True)
            found[what] = measure(what, options.batches, fresh)
            rows.append(
                {
                    "records": name, "sink": what, "records/s": round(found[what]["per_s"]),
                    "CPU µs/record": round(found[what]["cpu_us"], 1), "RSS MiB": round(found[what]["rss_mib"]),
                }
            )  # fmt: skip
        key = "first" if fresh == 1.0 else "mostly_duplicates"
        figures[f"records_per_s_{key}"] = found["scorer"]["per_s"]
        figures[f"cpu_ratio_vs_bare_{key}"] = found["scorer"]["cpu_us"] / found["bare"]["cpu_us"]
    results.table(f"Outcome scorer on one core, {FEATURES} features, batches of {BATCH}", rows)
    print(results.write("outcomes", figures, rows, results.versions("aiohttp")))


if __name__ == "__main__":
    main()
