"""The crisis of 2008 on a model that was trained to 2006: a quiet start, drift that is said once, and a retrain on what
has come since, which has to earn its place like any version."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.market import COLUMNS
from tests.e2e.cluster import condition, has
from tests.e2e.experiments import TEMPLATE, Trial, steps
from tests.e2e.inference import RATE
from tests.e2e.models import API_VERSION, CLAIM, merged, on_claim
from tests.e2e.serving import SERVING, TRAINED, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from sandbox.market import Market
    from tests.e2e.cluster import Cluster, Object
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node

ROWS = 21  # of a window: a month of sessions
TRAINED_TO, QUIET, CRISIS = "2006-12-29", "2007-01-03", "2008-09-15"
MOST = 8  # windows of the crisis until it has to be said
SPEC: Object = {
    "training": {"architecture": "EWMA", "resources": {"requests": {"cpu": "50m"}}},  # others fail gates on those years
    "data": {"asOf": "Rolling", "checks": {"maxStaleness": "9999d"}},
    "serving": merged(SERVING, {"resources": {"requests": {"cpu": "250m"}}}),
    "promotion": {
        "mode": "Auto",
        "rollbackWindow": "10s",
        "experiment": merged(TEMPLATE, {"traffic": {"steps": steps(half=50)}}),
    },
}


def policy(name: str) -> Object:
    inputs = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert", "Retrain"]}
    spec: Object = {
        "modelRef": {"name": name},
        "window": {"rows": ROWS, "calendar": "XNYS"},
        "falseAlarms": {"ertWindows": 200},  # seventeen years
        "monitors": [inputs],
        # Days pass in milliseconds here: by the clock no session has passed since the training.
        "actions": {"retrain": {"minNewRows": 0}},
    }
    return {"apiVersion": API_VERSION, "kind": "DriftPolicy", "metadata": {"name": name}, "spec": spec}


@dataclass
class Desk:
    """A served model with a policy, and the file that it is trained on."""

    trial: Trial
    node: Node
    market: Market

    @property
    def service(self) -> Service:
        return self.trial.service

    def until(self, kind: str, status: str, within: float = 60) -> Object:
        return self.service.cluster.until(
            "dp",
            "spx",
            self.service.namespace,
            lambda dp: has(dp, kind, status),
            within,
            f"the policy: {kind}={status}",
        )

    def window(self, days: Sequence[str]) -> Object:
        """Send a window of days, and wait until the policy has judged it."""
        seen = self.service.cluster.read("dp", "spx", self.service.namespace)["status"].get("lastWindow")
        model = self.service.model
        for day in days:
            model.predict(self.market.bars(day, 90))
        return self.service.cluster.until(
            "dp",
            "spx",
            self.service.namespace,
            lambda dp: dp["status"].get("lastWindow") != seen,
            60,
            f"the window up to {days[-1]} is judged",
        )

    def deliver(self, through: str) -> None:
        """The file that is trained on, with all rows up to that day."""
        out = io.StringIO()
        rows = csv.writer(out)
        rows.writerow(("date", *COLUMNS))
        for at in range(self.market.time.index(through) + 1):
            rows.writerow((self.market.time[at], *(self.market.columns[name][at] for name in COLUMNS)))
        path = f"/disk/{self.service.namespace}/{CLAIM}/sp500.csv"
        self.node.run("sh", "-c", f"cat > {path}.new && mv {path}.new {path}", stdin=out.getvalue())

    def alarms(self) -> list[dict[str, Any]]:
        return [record for record in self.service.records() if record["action"] == "Alarm"]


@pytest.fixture(scope="module")
def desk(cluster: Cluster, gateway: httpx.Client, market: Market, node: Node, make_namespace: MakeNamespace) -> Desk:
    namespace = make_namespace("drift")
    node.claim(namespace, CLAIM)
    service = Service(cluster, gateway, namespace, "spx")
    found = Desk(Trial(service, market, {}), node, market)
    found.deliver(TRAINED_TO)
    found.trial = Trial.begin(service, market, on_claim("spx", "sp500.csv", SPEC))
    cluster.apply(policy("spx"), namespace=namespace)
    found.until("Ready", "False")
    found.service.cluster.until(
        "dp",
        "spx",
        namespace,
        lambda dp: condition(dp, "Ready").get("reason") == "FirstWindow",
        60,
        "it waits for rows",
    )
    return found


def test_a_quiet_market_is_no_alarm(desk: Desk) -> None:
    days = [day for day in desk.market.time if day >= QUIET]
    found: Object = {}
    for number in range(3):
        found = desk.window(days[number * ROWS : (number + 1) * ROWS])
    desk.until("Ready", "True")
    assert condition(found, "Drifted")["status"] == "False", condition(found, "Drifted")
    assert not desk.alarms()


def test_a_crisis_is_drift_and_a_retrain_has_to_earn_its_place(desk: Desk) -> None:
    service, first = desk.service, desk.trial.champion
    days = [day for day in desk.market.time if day >= CRISIS]
    desk.deliver(days[MOST * ROWS])
    found: Object = {}
    for number in range(MOST):
        found = desk.window(days[number * ROWS : (number + 1) * ROWS])
        if has(found, "Drifted", "True"):
            break
    assert has(found, "Drifted", "True"), condition(found, "Drifted")
    print(service.cluster.kubectl("get", "dp", namespace=service.namespace))
    (alarm,) = desk.alarms()
    print(alarm["cause"])

    def challenged(fm: Object) -> bool:
        return fm["status"].get("challenger", {}).get("digest") not in (None, first["digest"])

    second = service.cluster.until("fm", "spx", service.namespace, challenged, TRAINED, "the retrain is challenger")
    version = second["status"]["challenger"]
    (asked,) = [record for record in service.records() if record["action"] == "Retrain"]
    assert asked["cause"]["policy"] == "spx"
    assert asked["sequence"] > alarm["sequence"]
    with desk.trial.loaded(RATE) as client:
        client.until_answered(20)
        ended = desk.trial.until_ended(version, "Promoted")
        service.until_serves(version)
        report = client.stop()
    assert not report.failed, report.failed[:3]
    assert ended["spec"]["purpose"] == "Refresh", "a policy's retrain never goes straight to champion"
    assert len(desk.alarms()) == 1, "one alarm, said once"
