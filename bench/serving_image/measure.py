"""`python -m bench.serving_image.measure VERSIONS`: every server beside every other in one run; JSON on stdout.

Servers share one processor and are idle but for the one that is asked; the client has another. Rounds alternate, so
that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub

from bench.serving_image import servers
from bench.serving_image.load import Target, closed_loop, one_by_one, open_loop, quantile

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("mlserver", "onnxruntime", "numpy", "uvicorn", "starlette", "grpcio")

ROUNDS, REQUESTS = 24, 250
"""Of each server: rounds that alternate, requests of a round."""

BUSY_CONNECTIONS, BUSY_SECONDS = 16, 3.0
RATE, OPEN_SECONDS = 200.0, 6.0
METERED_ROUNDS, METERED_REQUESTS = 40, 500

PORT = {"ours": 18080, "unmetered": 18090, "threads": 18100, "transports": 18110, "bare": 18120, "bare_grpc": 18130,
        "stock": 18140, "sink": 18150, "coarse": 18170}  # fmt: skip


def say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def main(versions: Path) -> dict[str, Any]:
    processors = sorted(os.sched_getaffinity(0))
    server_cpu, client_cpu = processors[0], processors[-1]
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        running = started(versions, scratch)
        with servers.closing(running):
            for name, server in running.items():
                server.pin(client_cpu if name == "sink" else server_cpu)
            os.sched_setaffinity(0, {client_cpu})
            return measured(versions, running)


def started(versions: Path, scratch: Path) -> dict[str, servers.Server]:
    linear, model = versions / "linear", versions / "linear" / "model.onnx"
    say("starting servers")
    running = {"sink": servers.script("sink", str(PORT["sink"]), scratch=scratch)}
    running["sink"].wait_until(PORT["sink"])
    running |= {
        "ours": servers.ours(linear, PORT["ours"], scratch, PORT["sink"]),
        "unmetered": servers.ours(linear, PORT["unmetered"], scratch, None, "unmetered"),
        "threads": servers.ours(linear, PORT["threads"], scratch, PORT["sink"], "threads"),
        "coarse": servers.ours(linear, PORT["coarse"], scratch, PORT["sink"], "coarse"),
        "transports": servers.our_model_in_stock_mlserver(linear, PORT["transports"], scratch),
        "bare": servers.script("bare", str(model), str(PORT["bare"]), scratch=scratch),
        "bare_grpc": servers.script("bare_grpc", str(model), str(PORT["bare_grpc"]), scratch=scratch),
        "stock": servers.stock_mlflow(model, PORT["stock"], scratch),
    }
    for name, server in running.items():
        server.wait_until(PORT[name])
    for name, path in (("ours", servers.NAME), ("transports", servers.NAME), ("stock", "stock")):
        _until_ready(PORT[name], path)
    return running


def _until_ready(port: int, model: str) -> None:
    import http.client

    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", f"/v2/models/{model}/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise RuntimeError(f"{model} on {port} is never ready")


def tensor(name: str, values: np.ndarray, datatype: str) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.ravel().tolist()}


def measured(versions: Path, running: dict[str, servers.Server]) -> dict[str, Any]:
    with np.load(versions / "bars.npz") as stored, np.load(versions / "linear.npz") as computed:
        columns = {name: stored[name][-66:] for name in ("open", "high", "low", "close", "volume")}
        row = computed["features"][-1:]
    rows = json.dumps({"inputs": [tensor("features", row, "FP64")]}).encode()
    stock = json.dumps({"inputs": [tensor("features", row.astype(np.float32), "FP32")]}).encode()
    bars = json.dumps({"inputs": [tensor(name, values, "FP64") for name, values in columns.items()]}).encode()
    ours = f"/v2/models/{servers.NAME}/infer"
    targets = [
        Target("bare onnxruntime (Starlette)", PORT["bare"], "/v2/models/bare/infer", rows),
        Target("fiduciary", PORT["ours"], ours, rows),
        Target("mlserver-mlflow (stock)", PORT["stock"], "/v2/models/stock/infer", stock),
        Target("fiduciary, raw bars", PORT["ours"], ours, bars),
        Target("fiduciary, MLServer's own transports", PORT["transports"], ours, rows),
        Target("fiduciary, a thread for each request", PORT["threads"], ours, rows),
        Target("fiduciary, unmetered", PORT["unmetered"], ours, rows),
    ]
    say("REST, one request at a time")
    taken: dict[str, list[float]] = {target.name: [] for target in targets}
    spent = dict.fromkeys(taken, 0.0)
    for target in targets:
        one_by_one(target, REQUESTS)
    for turn in range(ROUNDS):
        for target in _rotated(targets, turn):
            server = running[next(name for name, port in PORT.items() if port == target.port)]
            before = server.cpu_seconds()
            taken[target.name] += one_by_one(target, REQUESTS)
            spent[target.name] += server.cpu_seconds() - before
    table = [
        {**_row("REST, 1 connection", name, values), "cpu_us": 1e6 * spent[name] / len(values)}
        for name, values in taken.items()
    ]

    say("REST, as many as one processor answers")
    rates: dict[str, list[float]] = {}
    for turn in range(2):
        for target in _rotated(targets, turn):
            rate, values = closed_loop(target, BUSY_CONNECTIONS, BUSY_SECONDS)
            rates.setdefault(target.name, []).append(rate)
            if turn:
                where = f"REST, {BUSY_CONNECTIONS} connections"
                table.append(_row(where, target.name, values, max(rates[target.name])))

    say(f"REST, open loop at {RATE:.0f} requests a second")
    for target in targets[:4]:
        table.append(_row("REST, open loop", target.name, open_loop(target, RATE, OPEN_SECONDS), RATE))

    memory = {name: running[name].rss_mib() for name in ("ours", "bare", "stock", "transports")}
    table += [{"what": "memory", "server": name, "rss_mib": value} for name, value in memory.items()]

    say("REST, beside large requests")
    many = json.dumps(
        {"inputs": [tensor(name, np.tile(values.round(2), (500, 1)), "FP64") for name, values in columns.items()]}
    ).encode()
    for name, server in (("ours", "fiduciary"), ("coarse", "fiduciary, thread changes as in plain Python")):
        with busy(Target("large", PORT[name], ours, many)):
            table.append(
                _row("REST, beside large requests", server, one_by_one(Target(name, PORT[name], ours, rows), 400))
            )

    say("gRPC, one request at a time")
    table += over_grpc(row)

    say("what counters and records cost")
    overhead = {}
    for form, body in (("raw bars", bars), ("a feature row", rows)):
        costs = {name: _cost(Target(name, PORT[name], ours, body), running[name]) for name in ("ours", "unmetered")}
        found: dict[str, list[float]] = {name: [] for name in costs}
        for _ in range(METERED_ROUNDS):
            for name, cost in costs.items():
                found[name].append(cost())
        cpu = {name: float(np.median(values)) for name, values in found.items()}
        overhead[form] = cpu["ours"] / cpu["unmetered"] - 1.0
        table += [
            {"what": "processor time of a request", "server": f"fiduciary{ending}, {form}", "cpu_us": 1e6 * cpu[name]}
            for name, ending in (("ours", ""), ("unmetered", " unmetered"))
        ]

    p50 = {name: quantile(values, 0.5) for name, values in taken.items()}
    p99 = {name: quantile(values, 0.99) for name, values in taken.items()}
    baseline, own, other = (target.name for target in targets[:3])
    figures = {
        "p50_ratio_vs_bare_onnxruntime": p50[own] / p50[baseline],
        "p99_ratio_vs_bare_onnxruntime": p99[own] / p99[baseline],
        "p50_ratio_vs_mlserver_mlflow": p50[own] / p50[other],
        "rps_one_core": max(rates[own]),
        "rss_mib_per_version": memory["ours"],
        "record_overhead_fraction": overhead["raw bars"],
    }
    after = {"what": "memory", "server": "ours, after requests of 2 MB", "rss_mib": running["ours"].rss_mib()}
    table.append(after)
    table += settings(versions)
    return {"figures": figures, "rows": table, "versions": {name: metadata.version(name) for name in PACKAGES}}


@contextmanager
def busy(target: Target) -> Iterator[None]:
    """One large request after the other, from a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=one_by_one, args=(target, 10_000), daemon=True)
    process.start()
    time.sleep(3.0)
    try:
        yield
    finally:
        process.kill()
        process.join()


def _rotated(targets: list[Target], turn: int) -> list[Target]:
    at = turn % len(targets)
    return targets[at:] + targets[:at]


def _row(what: str, server: str, values: list[float], rate: float | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"what": what, "server": server, "requests": len(values)}
    row |= {f"p{int(100 * share)}_ms": 1e3 * quantile(values, share) for share in (0.5, 0.9, 0.99)}
    return row if rate is None else {**row, "rps": rate}


def _cost(target: Target, server: servers.Server) -> Any:
    """Processor seconds of a request, over so many."""

    def once() -> float:
        before = server.cpu_seconds()
        one_by_one(target, METERED_REQUESTS)
        return (server.cpu_seconds() - before) / METERED_REQUESTS

    return once


def over_grpc(row: np.ndarray) -> list[dict[str, Any]]:
    """The same through gRPC's own client; raw contents everywhere."""

    def request(model: str, kind: str) -> pb.ModelInferRequest:
        message = pb.ModelInferRequest(model_name=model)
        message.inputs.add(name="features", datatype="FP64" if kind == "<f8" else "FP32", shape=row.shape)
        message.raw_input_contents.append(row.astype(kind).tobytes())
        return message

    calls = {
        "bare onnxruntime (grpc.aio)": (PORT["bare_grpc"], request("bare", "<f8")),
        "fiduciary": (PORT["ours"] + 1, request(servers.NAME, "<f8")),
        "mlserver-mlflow (stock)": (PORT["stock"] + 1, request("stock", "<f4")),
    }
    channels = {name: grpc.insecure_channel(f"127.0.0.1:{port}") for name, (port, _) in calls.items()}
    stubs = {name: GRPCInferenceServiceStub(channel) for name, channel in channels.items()}
    metadata = (("fiduciary-model", servers.NAME),)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS // 2 + 1):
        for name, (_, message) in calls.items():
            for _ in range(REQUESTS // 2):
                began = time.perf_counter()
                stubs[name].ModelInfer(message, metadata=metadata)
                if turn:
                    taken[name].append(time.perf_counter() - began)
    return [_row("gRPC, 1 connection", name, values) for name, values in taken.items()]


def settings(versions: Path) -> list[dict[str, Any]]:
    """ONNX Runtime's threads and batches by themselves: microseconds of one call."""
    import onnxruntime

    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    found: list[dict[str, Any]] = []
    for name, shape in (("linear", (14,)), ("lstm", (20, 14))):
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.enable_cpu_mem_arena = False
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = onnxruntime.InferenceSession(str(versions / name / "model.onnx"), options)
            for batch in (1, 64, 1024):
                inputs = np.zeros((batch, *shape), np.float32)
                seconds = [_timed(lambda s=session, i=inputs: s.run(None, {"features": i})) for _ in range(60)]
                found.append(
                    {"what": f"session, {threads} threads", "server": f"{name}, batch {batch}", "requests": 60,
                     "p50_ms": 1e3 * quantile(seconds, 0.5), "p99_ms": 1e3 * quantile(seconds, 0.99)}
                )  # fmt: skip
    return found


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1])), sys.stdout)
