"""A drift policy watched by the real process: real API server, MLflow, outcome scorer and Prometheus."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.controlplane.engine import models
from tests.controlplane.engine.lives import Lives
from tests.controlplane.engine.node import Node
from tests.controlplane.engine.policies import dp, state
from tests.controlplane.engine.scorer import WEIGHTS, Counted
from tests.controlplane.server import GROUP, path_of, until
from tests.prometheus.alertmanager import Person
from tests.prometheus.alertmanager import Server as Alertmanager
from tests.prometheus.server import SCRAPE, TIMEOUT
from tests.unit.decide.drift.watch import document
from tests.unit.decide.drift.watched import folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Api, Body, Server

#: Nobody serves it: the log makes it champion, and its rows are counted by whoever gets them.
SERVED: dict[str, Any] = {
    "data": {"asOf": "Rolling"},
    "serving": {"replicas": 1, "gateway": {"parentRefs": [{"name": "edge"}]}},
    "promotion": {"mode": "Auto"},
}
SPEC: dict[str, Any] = {
    "modelRef": {"name": "spx"},
    "window": {"rows": 21, "calendar": "24/7"},  # no table of exchanges is made here
    "falseAlarms": {"ertWindows": 200},
    "monitors": [
        {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert", "Retrain"]},
        {"name": "series", "query": "count(fiduciary_histogram_rows_total)", "above": "1.5", "actions": ["Alert"]},
    ],
    "actions": {"retrain": {"minNewRows": 250}},  # which there are not: it was trained today
}


def windows(api: Api, namespace: str) -> int:
    found = state(api, namespace)
    return 0 if found is None else found.folded


def condition(api: Api, namespace: str, kind: str) -> tuple[str, str]:
    return next(((c.status, c.reason) for c in dp(api, namespace).status.conditions if c.type == kind), ("", ""))


def alarms(api: Api, namespace: str) -> list[Body]:
    return [record for record in models.records(api, namespace) if record["action"] == "Alarm"]


@pytest.fixture
def digest(server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]) -> str:
    """A version that was trained, registered and accepted, with its drift reference in MLflow."""
    process = operator("trainer").start().ready()
    api = server.admin
    api.create(models.model(namespace, change=SERVED))
    node = Node(api, namespace, mlflow, {"drift_reference.json": document()})
    job = until("a Job", lambda: next(iter(node.unfinished()), None), 60)
    found = str(node.run(job)["digest"])
    until("it is champion", lambda: models.status(api, namespace).get("champion", {}).get("version") == "1", 60)
    process.stop()
    return found


@pytest.fixture
def counted(namespace: str, digest: str, tmp_path: Path) -> Iterator[Counted]:
    found = Counted(namespace, "spx", "1", digest, tmp_path)
    yield found
    found.stop()


@pytest.fixture
def person() -> Iterator[Person]:
    found = Person()
    yield found
    found.close()


@pytest.fixture
def alertmanager(tmp_path: Path, person: Person) -> Iterator[Alertmanager]:
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    found = Alertmanager(folder, person)
    yield found
    found.close()


@pytest.mark.timeout(600)
def test_drift_is_found_once_though_the_operator_is_killed_and_prometheus_goes_away(
    server: Server,
    namespace: str,
    mlflow: str,
    digest: str,
    counted: Counted,
    person: Person,
    alertmanager: Alertmanager,
    operator: Callable[..., OperatorProcess],
) -> None:
    api = server.admin
    prometheus = {"url": counted.prometheus.url, "scrapeSeconds": SCRAPE, "scrapeTimeoutSeconds": TIMEOUT}
    managers = {"alertmanager": {"urls": [alertmanager.url]}}
    process = operator(prometheus={**prometheus, "timeoutSeconds": 5}, alertmanagers=managers).start().ready()
    api.create(
        {"apiVersion": GROUP, "kind": "DriftPolicy", "metadata": {"name": "spx", "namespace": namespace}, "spec": SPEC}
    )
    until("it waits for rows", lambda: condition(api, namespace, "Ready") == ("False", "FirstWindow"), 60)

    # a quiet market
    for number in range(4):
        counted.send(21)
        until(f"window {number}", lambda number=number: windows(api, namespace) == number + 1, 60)
    status = dp(api, namespace).status
    assert (status.phase, status.requested_action) == ("Stable", None), status.monitors
    assert condition(api, namespace, "Drifted") == ("False", "NoDrift")
    assert alarms(api, namespace) == []

    def shown() -> bool:
        events = api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        return "DriftShown" in {event["reason"] for event in events}

    def told() -> str:
        return process.log.read_text()

    # the operator is killed again and again while the inputs drift
    for sent in (7, 10, 13):
        process.kill()
        for _ in range(3):
            counted.send(21, 1.0)
            until("they are scraped", counted.scraped, 60)
        seen = windows(api, namespace)
        process.start().ready()
        until("it goes on", lambda seen=seen: windows(api, namespace) > seen, 60)
        # An event follows its status: nobody tells it whose process dies in between, so that may not be this alarm's.
        until("the alarm is told, or yet to come", lambda sent=sent: shown() or f'"windows": {sent},' in told(), 60)
    until("every window is folded", lambda: windows(api, namespace) == 13, 120)
    until("the alarm is recorded", lambda: len(alarms(api, namespace)) == 1, 60)
    alone = folded(dp(api, namespace), digest, counted.rows, WEIGHTS)
    found = state(api, namespace)
    assert found is not None
    assert found.skipped == 0
    assert [(a.monitor, a.window, a.names) for a in found.alarms] == [
        (a.monitor, a.window, a.names) for a in alone.alarms
    ], "as one that nobody killed"
    assert [stream.detector for stream in found.streams] == [stream.detector for stream in alone.streams]
    record = alarms(api, namespace)[0]
    assert record["evidence"]["summary"]["alarms"][0]["digest"] == found.alarms[0].digest
    assert record["to"]["digest"] == digest
    until("a person hears of it", lambda: person.heard("firing", "inputs"), 60)
    assert dp(api, namespace).status.next_action == "Retrain held: TooFewNewRows"
    assert shown()
    table = server.kubectl(namespace)("get", "dp")
    print(table)
    assert "Drifted" in table
    metrics = process.get("/metrics")[1]
    assert 'fiduciary_prometheus_queries_total{template="DriftRows"}' in metrics
    assert "fiduciary_drift_policies_counted 1.0" in metrics

    # without Prometheus nothing is known, and nothing is asked for
    counted.prometheus.kill()
    until("it is blind", lambda: condition(api, namespace, "Ready") == ("False", "CountersUnreachable"), 60)
    assert dp(api, namespace).status.requested_action is None
    counted.prometheus.start()
    until("it sees again", lambda: condition(api, namespace, "DataHealthy")[0] == "True", 60)
    folds = windows(api, namespace)
    counted.send(21, 1.0)
    until("it goes on", lambda: windows(api, namespace) == folds + 1, 60)
    assert len(alarms(api, namespace)) == 1
    assert np.sum([len(rows) for rows in counted.rows]) == 21 * 14

    # a retrain may be asked for: the model takes it on, by processes each of which dies at a write that none died at
    process.stop()
    api.merge(path_of("DriftPolicy", namespace, "spx"), {"spec": {"actions": {"retrain": {"minNewRows": 0}}}})
    node = Node(api, namespace, mlflow)
    lives = Lives(process, lambda: _untrue(api, namespace, node))
    lives.until("a Job", lambda: node.unfinished(), 120)
    assert not lives.broken
    assert {"1-record", "2-children", "3-status"} <= {death.split(".")[0] for death in lives.deaths}, lives.deaths
    (retrain,) = _retrains(api, namespace)
    assert (retrain["cause"]["kind"], retrain["cause"]["policy"]) == ("Drift", "spx")
    assert retrain["evidence"]["summary"]["asked"]["digest"] == retrain["cause"]["request"]
    (job,) = node.unfinished()
    trigger = json.loads(job["metadata"]["annotations"]["fiduciary.dev/trigger"])
    assert trigger == {"requestId": retrain["cause"]["request"]}
    process.start().ready()
    until("the policy knows", lambda: [one.kind for one in dp(api, namespace).status.actions] == ["Retrain"], 60)
    assert dp(api, namespace).status.requested_action is None
    until("a person hears of the end", lambda: person.heard("resolved", "inputs"), 60)
    assert len(_retrains(api, namespace)) == len(node.unfinished()) == 1


def _retrains(api: Api, namespace: str) -> list[Body]:
    return [record for record in models.records(api, namespace) if record["action"] == "Retrain"]


def _untrue(api: Api, namespace: str, node: Node) -> Iterator[str]:
    """Which truth does not hold now."""
    if len(_retrains(api, namespace)) < len(node.unfinished()):
        yield "a Job runs that no record asked for"
    if len(_retrains(api, namespace)) > 1:
        yield "one request has two records"
    if models.status(api, namespace)["lastDecision"]["sequence"] > len(models.records(api, namespace)):
        yield "the status names a record that does not exist"
