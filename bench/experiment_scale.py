"""The operator's CPU and queries while many experiments run: real API server, real Prometheus, recorded series.

Each model has two versions behind a route that splits evenly. What pods and gateway show to Prometheus was recorded on
the sandbox's node under load (bench/recorded.py) and is shown again for every version by one exporter; kubelet, Gateway
controller, trainer and the models' network are those of tests/controlplane, since a control plane has no node.
"""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from bench import results
from bench.recorded import FILE
from bench.results import progress
from sandbox import controlplane, gobuild
from tests import mlflow_server
from tests.controlplane.engine import models
from tests.controlplane.engine.node import Node
from tests.controlplane.engine.process import OperatorProcess
from tests.controlplane.engine.serving import GATEWAY, SERVES, ServingNode
from tests.controlplane.server import GROUP, Api, Server, path_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.controlplane.server import Body

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fiduciary/prometheus/usr/bin/prometheus"
NAMESPACE, PROXIES, PROXY = "bench", "edge-proxies", "envoy-1"
SCRAPE, SCRAPE_TIMEOUT, BLOCK = 15, 10, 60  # seconds: the defaults
SETTLED = 2 * SCRAPE + SCRAPE_TIMEOUT  # seconds after its end at which a block closes
BLOCKS = 4  # that each experiment closes while it is measured
WORKERS = 6
FEW = 20  # measured on the way: whether an experiment costs more where there are many
#: Nobody else wants it: a busy machine must not end the operator that is measured.
LEASE = {"duration": 300.0, "renewDeadline": 240.0, "retry": 2.0}
TEMPLATE: Body = {
    "traffic": {"steps": [{"name": "half", "weight": 50, "minBlocks": 100_000}]},
    "evidence": {"block": f"{BLOCK}s"},
    "guardrails": [
        {"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.005"}},
        {"name": "latency", "metric": "LatencyAbove", "threshold": "250ms", "margin": {"absolute": "0.005"}},
    ],
    "circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}],
}
GOALS = {"queries_per_interval": "a handful"}


@dataclass(frozen=True)
class Measured:
    """Figures by the names of the issue; rows of the table."""

    figures: Mapping[str, float]
    rows: list[dict[str, object]]

    def show(self) -> None:
        results.table("many experiments on a control plane", self.rows)


def measure(count: int) -> Measured:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fiduciary-bench-")))
        server = stack.enter_context(_control_plane(folder))
        mlflow = stack.enter_context(mlflow_server.running(folder))
        exporter = stack.enter_context(_exporter())
        prometheus = stack.enter_context(_prometheus(folder, exporter))
        node = ServingNode(server.admin, NAMESPACE).start().install()
        stack.callback(node.stop)
        config = {
            "connections": {"mlflow": {"trackingUri": mlflow}},
            "gatewayNamespaces": [PROXIES],
            "prometheus": {
                "url": prometheus,
                "scrapeSeconds": SCRAPE,
                "scrapeTimeoutSeconds": SCRAPE_TIMEOUT,
                "gateway": "Contour",
            },
            "lease": LEASE,
            **node.settings(),
        }
        process = OperatorProcess(server.operator_kubeconfig(), folder / "operator", config=config)
        stack.callback(process.kill)
        process.start(network=node.network).ready()
        rows: list[dict[str, object]] = []
        figures: Mapping[str, float] = {}
        for some in sorted({min(FEW, count), count}):
            names = [f"model-{number:03d}" for number in range(some)]
            _train(server.admin, mlflow, process, names, "champion")
            _train(server.admin, mlflow, process, names, "challenger")
            exporter.show(server.admin, folder / "targets.json")
            figures, row = _measured(server.admin, process, names)
            rows.append(row)
            results.table(f"{some} experiments", [row])
        return Measured(figures, rows)


# --- the parts ---------------------------------------------------------------------------------------------------


@contextmanager
def _control_plane(folder: Path) -> Iterator[Server]:
    progress("control plane: starting")
    plane = controlplane.start("bench-experiment", directory=folder / "plane", controller_manager=True)
    try:
        admin = Api(plane.url, plane.ca, plane.admin.certificate, plane.admin.key)
        server = Server(plane, gobuild.build(gobuild.KUBE) / "kubectl", admin)
        kubectl = server.kubectl("fiduciary-system")
        operator = ROOT / "deploy" / "kustomize" / "operator"
        for file in ("namespace", "serviceaccount", "clusterrole", "role"):
            kubectl("apply", "--server-side", "-f", str(operator / f"{file}.yaml"))
        kubectl("apply", "--server-side", "-k", str(ROOT / "crds"))
        kubectl("apply", "--server-side", "-f", str(ROOT.parent / "shared" / "crds" / "gateway-api-v1.6.1"))
        kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        kubectl("create", "namespace", NAMESPACE)
        yield server
    finally:
        plane.stop()


@dataclass(frozen=True, slots=True)
class Shown:
    """A recorded series. ``began``: when its first value was shown, in seconds since the epoch."""

    key: str
    values: list[float]
    began: float


class Exporter:
    """The recorded series, shown again for each pod and for the proxy: values go on where the recording ends."""

    def __init__(self) -> None:
        self.tape: dict[str, Any] = json.loads(gzip.decompress(FILE.read_bytes()))
        self.pages: dict[str, list[Shown]] = {}
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = exporter.pages.get(self.path)
                self.send_response(404 if page is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                if page is not None:
                    self.wfile.write(exporter.text(page).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def text(self, page: list[Shown]) -> str:
        now, began = time.time(), min(shown.began for shown in page)
        lines = [f"process_start_time_seconds {began:.2f}", f"envoy_server_uptime {int(now - began)}"]
        for shown in page:
            values = shown.values
            rounds, at = divmod(int((now - shown.began) / self.tape["scrapeSeconds"]), len(values))
            lines.append(f"{shown.key} {values[at] + rounds * (values[-1] - values[0]):g}")
        return "\n".join(lines) + "\n"

    def show(self, api: Api, targets: Path) -> None:
        """A target for each pod that serves, and one for the proxy before them. What is shown already goes on."""
        pods = api.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods", params=SERVES)["items"]
        groups: list[dict[str, object]] = []
        now = time.time()
        proxy = f"/{PROXIES}/{PROXY}"
        clusters = self.pages.setdefault(proxy, [])
        recorded = f"{self.tape['namespace']}_{self.tape['service']}_"
        counted = [(key, values) for key, values in self.tape["pod"].items() if COUNTER.search(key)]
        for pod in pods:
            labels, name = pod["metadata"]["labels"], pod["metadata"]["name"]
            service = name.rsplit("-", 2)[0]
            own = f'model="{NAMESPACE}.{labels["fiduciary.dev/model"]}"'
            path = f"/{NAMESPACE}/{name}"
            groups.append(self._target(NAMESPACE, name, path))
            if path in self.pages:
                continue
            self.pages[path] = [
                Shown(key.replace(f'model="{self.tape["model"]}"', own), values, now) for key, values in counted
            ]
            clusters += [
                Shown(key.replace(recorded, f"{NAMESPACE}_{service}_"), values, now)
                for key, values in self.tape["gateway"].items()
                if COUNTER.search(key)
            ]
        groups.append(self._target(PROXIES, PROXY, proxy))
        part = targets.with_suffix(".part")
        part.write_text(json.dumps(groups))
        part.rename(targets)
        progress(f"{len(groups)} scrape targets, {sum(map(len, self.pages.values()))} series")

    def _target(self, namespace: str, pod: str, path: str) -> dict[str, object]:
        return {"targets": [self.address], "labels": {"namespace": namespace, "pod": pod, "path": path}}


COUNTER = re.compile(r"(_total|_count|_bucket|_sum|_rq_xx|_rq_timeout|_rq|_eject|_overflow|_healthy)\{")


@contextmanager
def _exporter() -> Iterator[Exporter]:
    exporter = Exporter()
    try:
        yield exporter
    finally:
        exporter.close()


@contextmanager
def _prometheus(folder: Path, exporter: Exporter) -> Iterator[str]:
    """Address of a Prometheus that scrapes what `targets.json` names, every SCRAPE seconds."""
    (folder / "targets.json").write_text("[]")
    config = {
        "global": {"scrape_interval": f"{SCRAPE}s", "scrape_timeout": f"{SCRAPE_TIMEOUT}s"},
        "scrape_configs": [
            {
                "job_name": "recorded",
                "honor_labels": False,
                "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}],
                "relabel_configs": [{"source_labels": ["path"], "target_label": "__metrics_path__"}],
                "metric_relabel_configs": [{"regex": "path", "action": "labeldrop"}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = mlflow_server.free_port()
    words = [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


# --- the models --------------------------------------------------------------------------------------------------


def _train(api: Api, mlflow: str, process: OperatorProcess, names: list[str], role: str) -> None:
    """Apply every model, or have it trained again, let its Job run, and wait until each has a version in this role.

    A retrain: it is a Refresh, which is judged on requests alone, from the first step on.
    """
    progress(f"{len(names)} {role}s: trained, judged, served")
    spec: Body = {
        "data": {"asOf": "Rolling"},
        "serving": {"gateway": {"parentRefs": [{"name": GATEWAY}]}},
        "promotion": {"mode": "Auto", "experiment": TEMPLATE},
    }
    for name in names:
        wanted = models.model(NAMESPACE, name, spec) if role == "champion" else _again(name)
        if not api.exists(path_of(wanted["kind"], NAMESPACE, name)):
            api.create(wanted)
    done = 0
    node = Node(api, NAMESPACE, mlflow)
    with ThreadPoolExecutor(WORKERS) as pool:
        while done < len(names):
            assert process.alive, f"the operator ended:\n{process.log.read_text()[-3000:]}"
            list(pool.map(node.run, node.unfinished()))
            listed = api.get(f"/apis/{GROUP}/namespaces/{NAMESPACE}/financialmodels")["items"]
            statuses = [item.get("status", {}) for item in listed]
            served = sum(status.get("phase") in ("Serving", "Shifting") for status in statuses)
            done = min(served, sum(role in status for status in statuses))
            progress(f"{done} of {len(names)} {role}s")
            time.sleep(1.0)


def _again(name: str) -> Body:
    asked = {"modelRef": {"name": name}, "decision": "Retrain", "approver": "ana", "reason": "a benchmark"}
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": GROUP, "kind": "ModelApproval", "metadata": metadata, "spec": asked}


# --- what is measured --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """cpu: seconds of the operator so far. through: end of each experiment's last block."""

    at: float
    cpu: float
    queries: float
    errors: float
    through: Mapping[str, float] = field(default_factory=dict[str, float])


def _look(api: Api, process: OperatorProcess) -> Moment:
    """Raises RuntimeError where an experiment has ended: none of these may."""
    from tests.e2e.experiments import moment

    assert process.process is not None
    times = psutil.Process(process.process.pid).cpu_times()
    metrics = process.get("/metrics")[1]
    listed = api.get(f"/apis/{GROUP}/namespaces/{NAMESPACE}/modelexperiments")["items"]
    for item in listed:
        if ruling := item.get("status", {}).get("ruling"):
            raise RuntimeError(f"{item['metadata']['name']} has ended: {ruling['reason']}: {ruling['message']}")
    through = {
        item["metadata"]["name"]: moment(item["status"]["evidence"]["through"])
        for item in listed
        if "evidence" in item.get("status", {}) and item["status"].get("weight") == 50
    }
    asked, failed = (_counter(metrics, f"fiduciary_prometheus_{name}_total") for name in ("queries", "errors"))
    return Moment(time.time(), times.user + times.system, asked, failed, through)


def _counter(metrics: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name + "{"))


def _measured(api: Api, process: OperatorProcess, names: list[str]) -> tuple[Mapping[str, float], dict[str, object]]:
    progress("every experiment is in its step and closes blocks")
    before = until("all experiments run", lambda: _all_run(api, process, len(names)), 1800)
    progress(f"measuring for {BLOCKS} blocks of {BLOCK} s")
    began = time.monotonic()
    rss: list[float] = []
    while time.monotonic() - began < BLOCKS * BLOCK:
        time.sleep(SCRAPE)
        assert process.process is not None
        rss.append(psutil.Process(process.process.pid).memory_info().rss / 2**20)
    after = _look(api, process)
    seconds = after.at - before.at
    folded = sum((after.through[name] - through) / BLOCK for name, through in before.through.items())
    cpu = after.cpu - before.cpu
    figures = {
        "queries_per_interval": (after.queries - before.queries) / (seconds / SCRAPE),
        "cpu_ms_per_experiment_block": 1000.0 * cpu / folded,
    }
    row: dict[str, object] = {
        "experiments": len(before.through),
        "blocks closed": folded,
        "CPU ms an experiment and block": figures["cpu_ms_per_experiment_block"],
        "CPU, % of a core": 100.0 * cpu / seconds,
        "queries a scrape interval": figures["queries_per_interval"],
        "without an answer": after.errors - before.errors,
        "RSS MiB": max(rss),
        "last block behind the clock, s (median)": statistics.median(
            after.at - through for through in after.through.values()
        ),
    }
    return figures, row


def _all_run(api: Api, process: OperatorProcess, count: int) -> Moment | None:
    seen = _look(api, process)
    running = sum(through <= seen.at - SETTLED for through in seen.through.values())  # its first block is under way
    progress(f"{running} of {count} experiments run")
    if running < count:
        time.sleep(5.0)
        return None
    return seen
