"""Realised results after a promotion: a real process, API server, MLflow, Prometheus and outcome scorer.

The version that was promoted loses more than the one before it on the same rows; a DriftPolicy finds it in the scorer's
ledger, and the model goes back. The runtimes' records are sent by hand, since nobody serves here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from fiduciary.evidence.edetector import EDetector
from tests.controlplane.engine import models
from tests.controlplane.engine.counting import Clients
from tests.controlplane.engine.node import Node
from tests.controlplane.engine.policies import dp, state
from tests.controlplane.engine.scorer import Shown, record_of
from tests.controlplane.engine.scripted import OtherNode
from tests.controlplane.engine.test_experiments import TRIED, actions, retrain
from tests.controlplane.engine.test_serving import is_ready
from tests.controlplane.server import GROUP, until
from tests.controlplane.test_outcome_tokens import ISSUER, token
from tests.outcomes.process import Process
from tests.outcomes.worlds import at
from tests.unit.decide.drift.watch import NAMES, document, draw, reference
from tests.unit.decide.worlds import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Api, Body, Server

ROOT = Path(__file__).resolve().parents[3]
SERVED = merged(TRIED, {"data": {"calendar": "24/7"}})  # no table of exchanges is made here
SPEC: dict[str, Any] = {
    "modelRef": {"name": "spx"},
    "window": {"rows": 21, "calendar": "24/7"},
    "falseAlarms": {"ertWindows": 50},
    "outcomes": {"grace": "60d"},
    "monitors": [
        {"name": "worse", "realisedLoss": {"against": "PreviousVersion"}, "actions": ["Alert", "RollBack"]},
        {"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]},
    ],
    "actions": {"rollBack": {"onlyWithin": "90d", "maxPerDay": 1}},
}
OPERATOR = "system:serviceaccount:fiduciary-system:fiduciary-operator"
BATCH, GRACE = 40, 60
"""Sessions whose predictions, outcomes and close come together, and days until then: none is closed before its outcome
is there, though forty of them come at once."""
STRIDE = BATCH + GRACE + 10


class Scored:
    """The namespace's scorer, believing the API server's own tokens; plays both versions' runtimes and the market."""

    def __init__(self, server: Server, namespace: str, folder: Path) -> None:
        self.namespace, self.folder = namespace, folder
        folder.mkdir()
        for account in ("scorer", "market"):
            server.admin.create(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}}
            )
        own = folder / "token"
        own.write_text(token(server, namespace, "scorer", ISSUER))
        audience = f"fiduciary-outcomes.{namespace}"
        self._market = token(server, namespace, "market", audience)
        self.process = Process(
            folder,
            namespace=namespace,
            auth={
                "issuer": ISSUER,
                "audience": audience,
                "keys": {
                    "url": f"{server.plane.url}/openid/v1/jwks", "caFile": str(server.plane.ca), "tokenFile": str(own),
                },
                "subjects": {
                    "records": None,
                    "read": None,
                    "outcomes": [f"system:serviceaccount:{namespace}:market"],
                    "ledgers": [],
                    "define": [OPERATOR],
                },
            },
        )  # fmt: skip
        self.start()
        self.target = Shown(namespace, "fiduciary-outcomes-6d5f4c-x2x9k")
        self._show()
        self._sequence = 0
        self._rng = np.random.default_rng(5)

    def start(self) -> None:
        if self.process.process is not None:  # on the port that the operator knows
            self.process.settings |= {"port": self.process.port, "metricsPort": self.process.metrics_port}
        self.process.start()

    def _show(self) -> None:
        self.target.url = f"http://127.0.0.1:{self.process.metrics_port}/metrics"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.process.port}"

    def ledgers(self) -> list[Body]:
        return self.process.get("/v1/ledgers").json()["ledgers"]

    def rows(self, name: str) -> list[Body]:
        return self.process.get(f"/v1/ledgers/{name}?limit=5000").json()["rows"]

    def play(self, first: date, days: int, arms: dict[tuple[str, str], float]) -> None:
        """Sessions from ``first`` on. ``arms``: (version, digest) -> standard deviation of its error."""
        self.process.set_clock(at(first.isoformat()))
        raw = draw(self._rng, days)
        outcomes = self._rng.normal(size=days)
        for (version, digest), error in arms.items():
            predictions = outcomes + error * self._rng.normal(size=days)
            self._records(version, digest, first, raw, predictions)
        self.process.set_clock(at((first + timedelta(days=days + 1)).isoformat()))
        body = {
            "contractVersion": 1,
            "model": f"{self.namespace}.spx",
            "outcomes": [
                {"entity": "", "labelEnd": (first + timedelta(days=k + 1)).isoformat(), "value": float(value)}
                for k, value in enumerate(outcomes)
            ],
        }
        headers = {"Authorization": f"Bearer {self._market}"}
        answer = self.process.client.post("/v1/outcomes", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == days, answer.text
        self.process.set_clock(at((first + timedelta(days=days + GRACE + 2)).isoformat()))

    def _records(self, version: str, digest: str, first: date, raw: np.ndarray, predictions: np.ndarray) -> None:
        its = reference()
        body = {
            "contractVersion": 1,
            "model": f"{self.namespace}.spx",
            "version": version,
            "digest": digest,
            "reference": its.edges_digest,
            "sender": f"spx-{version}/1",
            "sequence": self._sequence,
            "features": list(NAMES),
            "edges": [len(one.edges) for one in its.features],
            "predictionEdges": len(its.prediction.edges),
            "records": [
                record_of(first + timedelta(days=k), row, float(value))
                for k, (row, value) in enumerate(zip(raw, predictions, strict=True))
            ],
        }
        self._sequence += 1
        answer = self.process.send("POST", "/v1/records", body)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def serving(server: Server, namespace: str) -> Iterator[OtherNode]:
    """A namespace whose owner applied deploy/kustomize/namespace."""
    for body in yaml.safe_load_all((ROOT / "deploy" / "kustomize" / "namespace" / "role.yaml").read_text()):
        server.admin.create({**body, "metadata": {**body["metadata"], "namespace": namespace}})
    node = OtherNode(server.admin, namespace)
    node.start().install()
    yield node
    node.stop()


@pytest.fixture
def scored(server: Server, namespace: str, tmp_path: Path) -> Iterator[Scored]:
    found = Scored(server, namespace, tmp_path / "scorer")
    yield found
    found.process.kill()


@pytest.fixture
def clients(server: Server, namespace: str, serving: OtherNode, scored: Scored, tmp_path: Path) -> Iterator[Clients]:
    found = Clients(server.admin, serving, namespace, tmp_path)
    found.also = (scored.target,)
    try:
        yield found.start()
    finally:
        found.stop()


def sessions(api: Api, namespace: str) -> int:
    found = state(api, namespace)
    return 0 if found is None else found.losses.last + 1


def trained(api: Api, namespace: str, mlflow: str) -> str:
    node = Node(api, namespace, mlflow, {"drift_reference.json": document()})
    job = until("a Job", lambda: next(iter(node.unfinished()), None), 90)
    return str(node.run(job)["digest"])


def champion(api: Api, namespace: str) -> Body:
    return models.status(api, namespace).get("champion") or {}


@pytest.mark.timeout(900)
def test_worse_results_than_the_version_before_roll_back_though_everything_dies_meanwhile(
    server: Server,
    namespace: str,
    mlflow: str,
    serving: OtherNode,
    scored: Scored,
    clients: Clients,
    operator: Callable[..., OperatorProcess],
) -> None:
    api = server.admin
    outcomes = {"url": scored.url, "issuer": ISSUER, "operator": OPERATOR, "pollSeconds": 0.5}
    process = operator(**serving.settings(), **clients.settings(), outcomes=outcomes)
    process.start(network=serving.network).ready()
    api.create(models.model(namespace, change=SERVED))
    first = trained(api, namespace, mlflow)
    until("it serves", lambda: is_ready(api, namespace), 90)
    retrain(api, namespace)
    second = trained(api, namespace, mlflow)
    until("it is promoted", lambda: actions(api, namespace)[-1] == "Promote", 300)
    until("clients get it", lambda: serving.clients(namespace) == {second}, 60)

    # a policy that compares: copies go to the version before once the experiment has ended its watch
    api.create(
        {"apiVersion": GROUP, "kind": "DriftPolicy", "metadata": {"name": "spx", "namespace": namespace}, "spec": SPEC}
    )
    until(
        "copies go to the version before", lambda: first.removeprefix("sha256:")[:8] in serving.copied(namespace), 120
    )
    (watch,) = until("a ledger is begun", lambda: [one for one in scored.ledgers() if _is_watch(one)], 60)
    assert (watch["definition"]["champion"]["digest"], watch["definition"]["challenger"]["digest"]) == (second, first)
    assert actions(api, namespace)[-1] == "Promote", "copies move nothing: there is no record of them"

    # as good as the one before: no alarm; operator and scorer die
    now, arms = champion(api, namespace), {("2", second): 0.5, ("1", first): 0.5}
    begins = date.fromisoformat(watch["definition"]["firstSession"])
    assert begins > datetime.fromisoformat(now["since"].replace("Z", "+00:00")).astimezone(UTC).date()
    scored.play(begins, BATCH, arms)
    until("the sessions are folded", lambda: sessions(api, namespace) == BATCH, 120)
    status = dp(api, namespace).status
    worse = next(one for one in status.monitors if one.name == "worse")
    assert (worse.state in ("Stable", "Drifting"), status.requested_action) == (True, None), status.monitors
    process.kill()
    scored.process.kill()
    scored.start()
    scored.play(begins + timedelta(days=STRIDE), BATCH, arms)
    process.start(network=serving.network).ready()
    until("it catches up", lambda: sessions(api, namespace) == 2 * BATCH, 120)

    # then worse, session after session
    scored.process.kill()
    until("it is blind to outcomes", lambda: _read(api, namespace) == ("False", "OutcomesUnread"), 120)
    scored.start()
    until("it sees again", lambda: _read(api, namespace) == ("True", "SessionsSeen"), 120)
    for part in range(2, 8):
        if actions(api, namespace)[-1] == "RollBack":
            break
        scored.play(begins + timedelta(days=part * STRIDE), BATCH, {("2", second): 1.6, ("1", first): 0.5})
        until(
            "the sessions are folded, or it was acted on",
            lambda part=part: (
                sessions(api, namespace) >= (part + 1) * BATCH or actions(api, namespace)[-1] == "RollBack"
            ),
            120,
        )
        known = state(api, namespace)
        if known is not None and known.versus and known.versus[0].detector.folded:
            rows = scored.rows(watch["name"])[: known.losses.last + 1]
            assert known.versus[0].detector == _alone(rows), "as one that nobody killed"
    until("it went back", lambda: "RollBack" in actions(api, namespace), 120)
    until("clients get the one before", lambda: serving.clients(namespace) == {first}, 120)
    record = next(one for one in models.records(api, namespace) if one["action"] == "RollBack")
    assert (record["cause"]["kind"], record["cause"]["policy"]) == ("Drift", "spx")
    assert (
        "worse than the previous version on the same sessions" in record["evidence"]["summary"]["alarms"][0]["message"]
    )
    assert champion(api, namespace)["digest"] == first
    until("no copies any more", lambda: not serving.copied(namespace), 120)
    until("what was asked is done", lambda: dp(api, namespace).status.requested_action is None, 60)
    over = next(one for one in scored.ledgers() if one["name"] == watch["name"])
    until("a ledger of the one that serves", lambda: len([one for one in scored.ledgers() if _is_watch(one)]) == 2, 60)
    assert over["name"] == watch["name"]
    until("the other one is ended", lambda: _ended(scored, watch["name"]), 60)
    print(server.kubectl(namespace)("get", "dp", "-o", "wide"))


def _is_watch(ledger: Body) -> bool:
    return ledger["definition"]["kind"] == "Watch"


def _ended(scored: Scored, name: str) -> bool:
    return next(one for one in scored.ledgers() if one["name"] == name)["ended"] is not None


def _read(api: Api, namespace: str) -> tuple[str, str]:
    found = [one for one in dp(api, namespace).status.conditions if one.type == "OutcomesRead"]
    return (found[0].status, found[0].reason) if found else ("", "")


def _alone(rows: list[Body]) -> EDetector:
    detector = EDetector()
    for number, row in enumerate(rows):
        folded = detector.fold(number, float(row["sum"]) / row["entities"])
        assert isinstance(folded, EDetector), folded
        detector = folded
    return detector
