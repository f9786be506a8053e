"""Serving on the sandbox's real node: from `kubectl apply` to the first answer, and promotions under an open-loop load.

The parts are those of a user: real training, MLflow, Contour and Envoy, MLServer pods. See serving.py for the whole.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from bench import sandboxed
from bench.results import progress
from bench.sandboxed import Measured
from sandbox import inference, load
from tests.e2e.cluster import Cluster
from tests.e2e.serving import SERVED, SERVING_PODS, TRAINED, Service, TwoVersions, served

if TYPE_CHECKING:
    from sandbox.market import Market

RATE = 220.0  # requests per second while promotions happen
PROMOTIONS = 6
STEADY_SECONDS = 15.0
SETTLED_SECONDS = 5.0  # between promotions: a route that has just been written is given seconds to reach the proxies
WORKERS = 8  # connections of the closed loop that looks for the most requests per second


GOALS = {"failed_requests_promotion": 0, "load_rps": "≥ 200"}


def measure() -> Measured:
    """On the sandbox that FIDUCIARY_SANDBOX names. Raises LookupError where it is not up."""
    with sandboxed.served() as (service, market):
        return _measure(service, market)


def _measure(service: Service, market: Market) -> Measured:
    progress("apply, train, judge, serve")
    trained, answered = _first_prediction(service, market)
    two = TwoVersions.train(service, market)
    service.until_pods(two.second, 1)  # its start would disturb what is measured
    steady, most = _through_the_gateway(two)
    moves = _promotions(two)
    memory = _memory(service)
    sent = [one for move in moves for one in move.report.sent]
    figures = {
        "apply_to_first_prediction_s": answered,
        "promotion_to_all_traffic_s": statistics.median(move.seconds for move in moves),
        "failed_requests_promotion": float(sum(one.failed for one in sent)),
        "load_rps": min(move.report.rate for move in moves),
    }
    rows: list[dict[str, object]] = [
        {"what": "apply -> judged and registered", "value": trained, "unit": "s"},
        {"what": "apply -> first answer through the Gateway", "value": answered, "unit": "s"},
        {
            "what": f"REST through the Gateway, open loop {steady.rate:.0f}/s: p50",
            "value": ms(steady, 0.5),
            "unit": "ms",
        },
        {
            "what": f"REST through the Gateway, open loop {steady.rate:.0f}/s: p99",
            "value": ms(steady, 0.99),
            "unit": "ms",
        },
        {"what": f"REST through the Gateway, {WORKERS} connections: most", "value": most, "unit": "requests/s"},
        *(
            {"what": f"pin of version {move.version} -> last answer of the other", "value": move.seconds, "unit": "s"}
            for move in moves
        ),
        {"what": f"requests during {len(moves)} promotions", "value": len(sent), "unit": ""},
        {"what": "of them failed", "value": sum(one.failed for one in sent), "unit": ""},
        {"what": "p99 during promotions", "value": ms(load.Report(tuple(sent)), 0.99), "unit": "ms"},
        {
            "what": "memory of a serving pod (the kubelet's rss: anonymous pages)",
            "value": statistics.median(memory),
            "unit": "MiB",
        },
    ]
    return Measured("on the node, through the Gateway", figures, rows)


def ms(report: load.Report, share: float) -> float:
    return report.latency(share) * 1e3


def _first_prediction(service: Service, market: Market) -> tuple[float, float]:
    """Seconds from `kubectl apply` until the version is registered, and until a client's request is answered."""
    body = inference.body(market.bars("2018-02-05", 90))
    path = f"/v2/models/{service.namespace}.{service.name}/infer"
    began = time.monotonic()
    service.cluster.apply(served(service.name), namespace=service.namespace)
    service.cluster.until(
        "fm",
        service.name,
        service.namespace,
        lambda found: "champion" in found.get("status", {}),
        TRAINED,
        "there is a champion",
    )
    registered = time.monotonic() - began
    Cluster.poll(
        lambda: service.http.post(path, content=body, headers=inference.HEADERS).status_code,
        lambda status: status == httpx.codes.OK,
        SERVED,
        "a request is answered",
        every=0.1,
    )
    return registered, time.monotonic() - began


def _through_the_gateway(two: TwoVersions) -> tuple[load.Report, float]:
    """A steady open loop, and the requests per second of a closed one."""
    target = two.service.model.target(*two.requests)
    progress(f"{RATE:.0f} requests per second through the Gateway")
    with load.running(target, rate=RATE) as client:
        client.until_answered(100)
        began = time.time()
        time.sleep(STEADY_SECONDS)
        steady = client.stop().since(began)
    progress("as many as it takes")
    with load.running(target, workers=WORKERS) as client:
        client.until_answered(100)
        began = time.time()
        time.sleep(STEADY_SECONDS / 2)
        most = client.stop().since(began)
    return steady, most.rate


@dataclass(frozen=True)
class Move:
    """One promotion under load. seconds: from the pin to the last request that the other version answered."""

    version: str
    seconds: float
    report: load.Report


def _promotions(two: TwoVersions) -> list[Move]:
    service, moves = two.service, list[Move]()
    for number in range(PROMOTIONS):
        version, other = (two.second, two.first) if number % 2 == 0 else (two.first, two.second)
        progress(f"promotion {number + 1} of {PROMOTIONS} under load")
        service.until_pods(version, 1)
        with load.running(service.model.target(*two.requests), rate=RATE) as client:
            client.until_answered(int(RATE * SETTLED_SECONDS), other["version"])
            began = service.pin(version)
            service.until_serves(version)
            client.until_answered(200, version["version"])
            report = client.stop()
        moves.append(Move(version["version"], report.last_from(other["version"]) - began, report))
    return moves


def _memory(service: Service) -> list[float]:
    """MiB of the server container of each serving pod, as the kubelet counts it: without the code that is mapped."""
    cluster = service.cluster
    pods = {pod["metadata"]["name"] for pod in cluster.list("pod", service.namespace, SERVING_PODS)}
    node = cluster.list("node")[0]["metadata"]["name"]
    stats = cluster.http.get(f"/api/v1/nodes/{node}/proxy/stats/summary").raise_for_status().json()
    return [
        container["memory"]["rssBytes"] / 2**20
        for pod in stats["pods"]
        if pod["podRef"]["namespace"] == service.namespace and pod["podRef"]["name"] in pods
        for container in pod["containers"]
        if container["name"] == "server"
    ]
