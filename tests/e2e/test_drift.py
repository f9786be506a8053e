"""Years of the S&P 500 replayed on a model that was trained to 2006: a quiet market, the crisis, a retrain that has to
earn its place, and a client whose units are wrong. All the while the operator is killed, and Prometheus out of reach.

The tests run in the order of this file. Two policies watch: `spx` the inputs, `broken` rows without a value.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import condition, has
from tests.e2e.drift import FILE, ROWS, Desk, judged, kill_operator, out_of_reach, policy, state
from tests.e2e.experiments import TEMPLATE, Trial, steps
from tests.e2e.inference import RATE
from tests.e2e.models import CLAIM, merged, on_claim
from tests.e2e.serving import SERVED, SERVING, TRAINED, Service

if TYPE_CHECKING:
    import httpx

    from sandbox.market import Market
    from tests.e2e.cluster import Cluster, Object
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry

TRAINED_TO, QUIET, CRISIS, RETRAINED_TO = "2006-12-29", "2007-01-03", "2008-09-15", "2009-05-15"
QUIET_WINDOWS, CRISIS_WINDOWS = 20, 5
UNSEEN = 7  # windows at the end of which Prometheus is out of the operator's reach
KILLS = 20
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
INPUTS = {"name": "inputs", "histogram": {"metric": "feature"}, "statistic": "PSI", "actions": ["Alert", "Retrain"]}
GONE = {"name": "gone", "missing": {"above": "0.02"}, "actions": ["Alert", "RollBack"]}


@pytest.fixture(scope="module")
def desk(
    cluster: Cluster,
    gateway: httpx.Client,
    market: Market,
    registry: Registry,
    node: Node,
    make_namespace: MakeNamespace,
) -> Desk:
    namespace = make_namespace("drift")
    node.claim(namespace, CLAIM)
    service = Service(cluster, gateway, namespace, "spx")
    found = Desk(Trial(service, market, {}), node, market, registry)
    found.deliver(TRAINED_TO)
    found.trial = Trial.begin(service, market, on_claim("spx", FILE, SPEC))
    # Days pass in milliseconds here: by the clock no session has passed since the training. Nothing is retrained until
    # what was found has been compared.
    actions, guards = {"retrain": {"minNewRows": 0}}, {"freeze": ["2020-01-01/2099-12-31"]}
    cluster.apply(policy("spx", "spx", INPUTS, actions=actions, guards=guards), namespace=namespace)
    cluster.apply(policy("broken", "spx", GONE), namespace=namespace)
    for name in ("spx", "broken"):
        found.until(name, "Ready", "False", "FirstWindow")
    return found


@pytest.mark.timeout(1200)  # twenty starts of the operator, on a machine that may be busy
def test_drift_is_found_where_it_is_though_the_operator_is_killed_and_cannot_see(
    desk: Desk, cluster: Cluster, node: Node
) -> None:
    quiet, crisis = desk.days(QUIET, QUIET_WINDOWS), desk.days(CRISIS, CRISIS_WINDOWS)
    sent = [*quiet, *crisis]
    seen = len(sent) - UNSEEN
    desk.send(sent[0])
    desk.until_judged("spx", 1)  # whoever begins to look later begins with a later window
    desk.send(sent[1])
    kills = KILLS - 2
    for window in sent[2:seen]:
        before = judged(cluster.read("dp", "spx", desk.service.namespace))
        kill_operator(cluster, node)
        desk.send(window)
        kills -= 1
        desk.until_judged("spx", before + 1)  # by the process that is killed next
    while kills:
        kill_operator(cluster, node)
        kills -= 1
    desk.until_judged("spx", seen)

    with out_of_reach(cluster):
        kill_operator(cluster, node)  # connections that were open would go on
        for name in ("spx", "broken"):
            blind = desk.until(name, "Ready", "False", "CountersUnreachable")
            assert has(blind, "Drifted", "Unknown"), condition(blind, "Drifted")
        for window in sent[seen:]:
            desk.send(window)
        blind = cluster.read("dp", "spx", desk.service.namespace)
        assert has(blind, "Drifted", "Unknown"), condition(blind, "Drifted")
        assert judged(blind) == seen
        assert desk.alarms() == [], "nothing is known, and nothing is done"
    kill_operator(cluster, node)
    found = desk.until_judged("spx", len(sent), within=90)
    desk.until("spx", "Drifted", "True")
    print(cluster.kubectl("get", "dp", namespace=desk.service.namespace))

    its, alone = state(desk.policy("spx")), desk.undisturbed("spx")
    (alarm,) = alone.alarms
    told = f"{QUIET_WINDOWS} quiet windows ({quiet[0][0]} to {quiet[-1][-1]}) and {len(crisis)} of a crisis: one alarm"
    print(f"{told}, at window {alarm.window}: {alarm.message}; one false alarm is promised in 200 windows")
    assert alarm.window >= QUIET_WINDOWS, "an alarm in a quiet market"
    assert its.skipped == 0
    assert its.streams == alone.streams, "as one that nobody disturbed"
    assert its.alarms == alone.alarms
    assert its.chain == alone.chain, "the same counts at the same ends of windows"
    desk.until_judged("broken", len(sent))
    assert state(desk.policy("broken")).alarms == desk.undisturbed("broken").alarms == ()
    (record,) = [one["evidence"]["summary"]["alarms"] for one in desk.alarms()]
    assert [one["digest"] for one in record] == [alarm.digest], "recorded once"
    assert condition(found, "ActionHeld").get("reason") == "InFreeze"
    (firing,) = cluster.poll(desk.alerts, bool, 30, "Alertmanager has the alarm")
    assert firing["annotations"]["evidence"] == alarm.digest
    assert "AlertsDelivered" not in {one["type"] for one in found["status"]["conditions"]}


def test_a_retrain_has_to_earn_its_place(desk: Desk, cluster: Cluster) -> None:
    service, first = desk.service, desk.trial.champion
    (alarm,) = desk.alarms()
    desk.deliver(RETRAINED_TO)
    (firing,) = desk.alerts()
    cluster.patch("dp", "spx", {"spec": {"guards": {"freeze": None}}}, service.namespace)
    cluster.poll(desk.alerts, lambda left: not left, 60, "the alarm is over in Alertmanager, since it was acted on")
    # It was told so: by itself it would have forgotten the alarm later.
    assert datetime.now(UTC) < datetime.fromisoformat(firing["endsAt"])

    def challenged(fm: Object) -> bool:
        return fm["status"].get("challenger", {}).get("digest") not in (None, first["digest"])

    second = cluster.until("fm", "spx", service.namespace, challenged, TRAINED, "the retrain is challenger")
    version = second["status"]["challenger"]
    (asked,) = [record for record in service.records() if record["action"] == "Retrain"]
    assert asked["cause"]["policy"] == "spx"
    assert asked["sequence"] > alarm["sequence"]
    # One whole window: what the experiment sends is the first that the policies judge of the new version.
    desk.trial.days = desk.market.after("2017-12-29")[:ROWS]
    with desk.trial.loaded(RATE) as client:
        client.until_answered(20)
        ended = desk.trial.until_ended(version, "Promoted")
        service.until_serves(version)
        report = client.stop()
    assert not report.failed, report.failed[:3]
    assert ended["spec"]["purpose"] == "Refresh", "a policy's retrain never goes straight to champion"
    assert len(desk.alarms()) == 1, "one alarm, said once"
    desk.trial.champion = version


def test_rows_in_another_unit_after_a_promotion_roll_back_and_an_honest_crisis_does_not(
    desk: Desk, cluster: Cluster
) -> None:
    service, second = desk.service, desk.trial.champion
    (first,) = [record["to"] for record in service.records() if record["sequence"] == 1]
    known = service.records()
    desk.until("broken", "Ready", "True", "Watching")  # whatever comes now comes after the promotion
    crisis, wrong = desk.days(CRISIS, 3)[1:]
    desk.send(crisis)
    desk.send_in_cents(wrong)
    service.until_serves(first, within=60 + SERVED)
    alarm, back = service.records()[len(known) :]
    print(cluster.kubectl("get", "md", namespace=service.namespace))
    assert alarm["action"] == "Alarm"
    assert alarm["cause"]["message"].startswith("DriftPolicy broken, gone: "), alarm["cause"]
    assert (back["action"], back["cause"]["kind"], back["cause"]["policy"]) == ("RollBack", "Drift", "broken")
    assert (back["from"]["digest"], back["to"]["digest"]) == (second["digest"], first["digest"])
    assert "gone" in back["cause"]["message"]
    spx = desk.policy("spx").status
    assert spx.requested_action is None
    desk.trial.until_rejected(second)
    # A client that was right all the while: nothing else has changed.
    said = service.model.predict(desk.market.bars(wrong[-1], 90))
    assert said.digest == first["digest"]
