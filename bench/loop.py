"""What the loop costs: N suspended FinancialModels on a real API server, beside kopf alone on the same objects.

    make bench-loop N=1000

Both programs run in turn against the same control plane and from the same environment, which holds what
the operator's image holds (requirements/operator.txt). Objects are applied while the program runs, then it is left
idle for a minute, then started again over the settled objects. CPU is the program's own (user and system time of its
process), requests are those of its user in the API server's audit log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil

from bench import results
from bench.audit import Audit
from bench.life import one_life
from bench.results import progress
from sandbox import controlplane, gobuild
from tests.mlflow_server import environment, free_port

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from sandbox.controlplane import ControlPlane

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = "/apis/fiduciary.dev/v1alpha1/namespaces/{}/financialmodels"

#: A program is settled when it used less than this much CPU in each of three seconds in a row.
QUIET_CPU = 0.03


@dataclass
class Measured:
    """One program's figures. CPU in seconds, memory in MiB."""

    program: str
    apply_cpu: float
    apply_wall: float
    rss: float
    idle_cpu: float
    restart_cpu: float
    restart_rss: float
    writes: int
    idle_writes: int
    restart_writes: int
    by_kind: Counter[str]


class Program:
    """One program under measurement, run by a user of its own."""

    def __init__(self, name: str, plane: ControlPlane, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.user = f"bench-{name}"
        self._command = command
        kubeconfig = plane.user_kubeconfig(self.user, ["system:masters"])
        # The operator refuses settings that it does not know; make exports some of its own.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FIDUCIARY_")}
        self._environment = {**inherited, **environment, "KUBECONFIG": str(kubeconfig)}
        self._log = plane.directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.rounds = 0

    def start(self) -> psutil.Process:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log, cwd=ROOT)
        return psutil.Process(self._process.pid)

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def check(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended by itself:\n{self._log.read_text()[-3000:]}")


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def settle(program: Program, process: psutil.Process, enough: float = 0.3, limit: float = 600.0) -> float:
    """Wait until the program has nothing to do; its CPU seconds at the beginning of the quiet."""
    deadline = time.monotonic() + limit
    history = [cpu(process)]
    while time.monotonic() < deadline:
        time.sleep(1.0)
        program.check()
        history.append(cpu(process))
        if len(history) > 3 and history[-1] > enough and history[-1] - history[-4] < 3 * QUIET_CPU:
            return history[-4]
    raise RuntimeError(f"{program.name} was not settled within {limit:.0f} s")


async def each(plane: ControlPlane, namespace: str, names: list[str], method: str, body: Any) -> None:
    """Create or delete objects, eight at a time, as the administrator."""
    tls = ssl.create_default_context(cafile=str(plane.ca))
    tls.load_cert_chain(plane.admin.certificate, plane.admin.key)
    slots = asyncio.Semaphore(8)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:

        async def one(name: str) -> None:
            path = plane.url + COLLECTION.format(namespace) + ("" if method == "POST" else f"/{name}")
            async with slots, session.request(method, path, json=body(name) if body else None) as response:
                if response.status >= 300:
                    raise RuntimeError(f"{method} {name}: {response.status} {await response.text()}")

        await asyncio.gather(*(one(name) for name in names))


async def unsettled(plane: ControlPlane, namespace: str) -> int:
    """Objects whose status does not tell of their generation yet."""
    tls = ssl.create_default_context(cafile=str(plane.ca))
    tls.load_cert_chain(plane.admin.certificate, plane.admin.key)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session,
        session.get(plane.url + COLLECTION.format(namespace)) as response,
    ):
        items = (await response.json())["items"]
    return sum(item.get("status", {}).get("observedGeneration", -1) < 1 for item in items)


def model(namespace: str) -> Any:
    def body(name: str) -> dict[str, Any]:
        return {
            "apiVersion": "fiduciary.dev/v1alpha1",
            "kind": "FinancialModel",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "suspend": True,
                "governance": {"owner": "vol-desk", "purpose": "next-day volatility", "tier": "High"},
                "data": {
                    "source": {"dataset": {"name": "arch/sp500"}},
                    "time": "date",
                    "asOf": "2017-12-29",
                    "calendar": "XNYS",
                    "features": {"set": "ohlcv-v1"},
                    "label": {"kind": "Volatility", "column": "close", "horizon": 1},
                },
                "training": {"architecture": "Linear", "seed": 7, "hyperparameters": {"window": 20, "l2": "0.1"}},
                "gates": [{"metric": "har_skill", "above": "-0.02"}],
            },
        }

    return body


def measure(program: Program, plane: ControlPlane, kubectl: Path, n: int, idle_seconds: float) -> Measured:
    """One round of one program: apply, idle, restart. The objects are removed afterwards."""
    program.rounds += 1
    namespace = f"bench-{program.name}-{program.rounds}"
    create = [kubectl, "create", "namespace", namespace, f"--kubeconfig={plane.kubeconfig}"]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
    names = [f"model-{number:05d}" for number in range(n)]
    audit = Audit(plane.audit_log, program.user)
    progress(f"{program.name}: starting over an empty cluster")
    process = program.start()
    before = settle(program, process)
    audit.since_last()
    progress(f"{program.name}: applying {n} suspended FinancialModels")
    began = time.monotonic()
    asyncio.run(each(plane, namespace, names, "POST", model(namespace)))
    while (left := asyncio.run(unsettled(plane, namespace))) > 0:
        program.check()
        progress(f"{program.name}: {left} of {n} without a status")
        time.sleep(0.5)
    wall = time.monotonic() - began
    after = settle(program, process)
    by_kind = audit.since_last()
    rss = process.memory_info().rss / 2**20
    progress(f"{program.name}: idle for {idle_seconds:.0f} s")
    idle_from = cpu(process)
    time.sleep(idle_seconds)
    program.check()
    idle = cpu(process) - idle_from
    idle_writes = audit.since_last()
    rss = max(rss, process.memory_info().rss / 2**20)
    program.stop()
    audit.since_last()
    progress(f"{program.name}: starting again over {n} settled objects")
    process = program.start()
    restart = settle(program, process)
    restart_writes = audit.since_last()
    restart_rss = process.memory_info().rss / 2**20
    program.stop()
    progress(f"{program.name}: removing the objects")
    asyncio.run(each(plane, namespace, names, "DELETE", None))
    return Measured(
        program=program.name,
        apply_cpu=after - before,
        apply_wall=wall,
        rss=rss,
        idle_cpu=idle,
        restart_cpu=restart,
        restart_rss=restart_rss,
        writes=by_kind.total(),
        idle_writes=idle_writes.total(),
        restart_writes=restart_writes.total(),
        by_kind=by_kind,
    )


def best(rounds: list[Measured]) -> Measured:
    """The least disturbed of several rounds for what a busy machine makes larger; the most for what must not happen."""
    first = rounds[0]
    return Measured(
        program=first.program,
        apply_cpu=min(one.apply_cpu for one in rounds),
        apply_wall=min(one.apply_wall for one in rounds),
        rss=max(one.rss for one in rounds),
        idle_cpu=min(one.idle_cpu for one in rounds),
        restart_cpu=min(one.restart_cpu for one in rounds),
        restart_rss=max(one.restart_rss for one in rounds),
        writes=max(one.writes for one in rounds),
        idle_writes=max(one.idle_writes for one in rounds),
        restart_writes=max(one.restart_writes for one in rounds),
        by_kind=first.by_kind,
    )


@contextmanager
def plane() -> Iterator[tuple[ControlPlane, Path]]:
    with tempfile.TemporaryDirectory(prefix="fiduciary-bench-") as folder:
        progress("control plane: starting")
        started = controlplane.start("bench-loop", directory=Path(folder) / "plane", audit=True)
        kubectl = gobuild.build(gobuild.KUBE) / "kubectl"
        try:
            config = f"--kubeconfig={started.kubeconfig}"
            quiet = {"check": True, "stdout": subprocess.DEVNULL}
            subprocess.run([kubectl, config, "apply", "--server-side", "-k", ROOT / "crds"], **quiet)
            waiting = [kubectl, config, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]
            subprocess.run(waiting, **quiet)
            subprocess.run([kubectl, config, "create", "namespace", "fiduciary-system"], **quiet)
            yield started, kubectl
        finally:
            started.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1000, help="number of FinancialModels")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idleness")
    parser.add_argument("--rounds", type=int, choices=(1, 2), default=2, help="rounds of each; CPU is the better one's")
    options = parser.parse_args()
    path = {"PYTHONPATH": str(ROOT / "operator")}
    python = str(environment("operator", ROOT / "requirements" / "operator.txt"))
    with plane() as (cluster, kubectl):
        config = cluster.directory / "config.yaml"
        config.write_text(json.dumps({"connections": {"mlflow": {"trackingUri": "http://127.0.0.1:1"}}}))
        bare = Program("bare", cluster, [python, "-m", "bench.bare_kopf"], path)
        settings = {"FIDUCIARY_CONFIG": str(config), "FIDUCIARY_LISTEN": f"127.0.0.1:{free_port()}"}
        ours = Program("fiduciary", cluster, [python, "-m", "fiduciary"], path | settings)
        found: dict[str, list[Measured]] = {"bare": [], "fiduciary": []}
        # Turn about and back again: a machine that slowly gets busier then disturbs both alike.
        for number, program in enumerate((bare, ours, ours, bare)[: 2 * options.rounds]):
            idle = options.idle if number < 2 else 1.0
            found[program.name].append(measure(program, cluster, kubectl, options.models, idle))
    report(options.models, best(found["bare"]), best(found["fiduciary"]), one_life(python, progress))


def report(n: int, bare: Measured, ours: Measured, life: Counter[str]) -> None:
    figures = {
        "n": n,
        "writes_per_object": ours.writes / n,
        "idle_writes_60s": ours.idle_writes,
        "cpu_ratio_vs_bare_kopf": ours.apply_cpu / bare.apply_cpu,
        "rss_ratio_vs_bare_kopf": ours.rss / bare.rss,
        "restart_writes": ours.restart_writes,
        "restart_cpu_ratio_vs_bare_kopf": ours.restart_cpu / bare.restart_cpu,
        "writes_one_life": life.total(),
    }
    rows: list[dict[str, object]] = [
        {
            "program": one.program,
            "apply CPU ms/object": 1000 * one.apply_cpu / n,
            "apply wall s": one.apply_wall,
            "RSS MiB": one.rss,
            "idle CPU s": one.idle_cpu,
            "restart CPU s": one.restart_cpu,
            "restart RSS MiB": one.restart_rss,
            "writes": one.writes,
            "idle writes": one.idle_writes,
            "restart writes": one.restart_writes,
        }
        for one in (bare, ours)
    ]
    results.table(f"The loop over {n} suspended FinancialModels", rows)
    kinds: list[dict[str, object]] = [{"request": request, "count": count} for request, count in ours.by_kind.items()]
    results.table("Writes of the operator, apply to settled", kinds)
    lives: list[dict[str, object]] = [{"write in one life": request, "count": count} for request, count in life.items()]
    results.table(
        "Writes of one model, apply to registered", [*lives, {"write in one life": "all", "count": life.total()}]
    )
    results.table("Figures", [{"figure": name, "value": value} for name, value in figures.items()])
    used = results.versions("kopf", "aiohttp", "pydantic")
    print(f"\nwritten to {results.write('loop', figures, [*rows, *kinds, *lives], used).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
