"""Real traffic decides: a better challenger is promoted, an equal one only as a retrain, a worse one rolled back.

All of it under an open-loop load of more than 200 requests a second, of which none fails but those that a broken
challenger answers itself until its weight is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import ANA, allow_approvals
from tests.e2e.experiments import SCRAPE, Trial, broken, judged, moment, sound, steps
from tests.e2e.inference import RATE
from tests.e2e.serving import Service

if TYPE_CHECKING:
    import httpx

    from sandbox.market import Market
    from tests.e2e.cluster import Cluster, Object
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.registry import Registry


@pytest.fixture(scope="module")
def trial(cluster: Cluster, gateway: httpx.Client, market: Market, make_namespace: MakeNamespace) -> Trial:
    namespace = make_namespace("trial")
    allow_approvals(cluster, namespace, ANA)
    template = {"traffic": {"steps": steps(shadow=0, canary=10, half=50)}}
    return Trial.begin(Service(cluster, gateway, namespace, "spx"), market, judged("spx", template))


def test_a_better_challenger_is_promoted(trial: Trial, registry: Registry) -> None:
    """On outcomes of all walk-forward days, and because live requests show that it does no harm."""
    service, first = trial.service, trial.champion
    with trial.loaded(RATE) as client:
        client.until_answered(20)
        second = trial.train(sound(architecture="Linear"))
        trial.until_step(second, "half")
        ended = trial.until_ended(second, "Promoted")
        service.until_serves(second)
        client.until_answered(200, second["version"])
        report = client.stop()
    print(report.summary())
    assert not report.failed, report.failed[:3]
    assert report.rate > 200

    records = trial.records(second)
    assert [record["action"] for record in records] == ["Shift", "Shift", "Shift", "Promote"]
    assert [record["traffic"].get("step") for record in records[:3]] == ["shadow", "canary", "half"]
    canary = moment(records[1]["decidedAt"])
    assert second["version"] not in report.since(0, canary - 1).versions, "a mirror's answers reach nobody"
    split = report.since(moment(records[2]["decidedAt"]) + 2, moment(records[3]["decidedAt"]))
    share = split.versions[second["version"]] / len(split.sent)
    assert 0.45 < share < 0.55, f"half of the requests were to be the challenger's: {split.summary()}"
    promoted = records[-1]
    assert (promoted["from"]["digest"], promoted["to"]["digest"]) == (first["digest"], second["digest"])
    assert {reason["reason"] for reason in promoted["cause"]["reasons"]} == {"PrequentialEvidence", "NotWorse"}
    assert promoted["evidence"]["summary"]["uid"] == ended["metadata"]["uid"]

    shown = {(test["name"], test["side"]): test for test in ended["status"]["tests"]}
    for key in (("loss", "Superiority"), ("errors", "NonInferiority")):
        assert float(shown[key]["logE"]) >= float(shown[key]["threshold"]), key
    assert shown["loss", "Superiority"]["n"] > 1000, "all walk-forward days are folded"
    table = service.cluster.kubectl("get", "mx", trial.name(second), namespace=service.namespace)
    print(table)
    for column in ("MODEL", "PHASE", "STEP", "WEIGHT", "VERDICT", "LOGE", "N", "DATA", "AGE"):
        assert column in table.splitlines()[0].split()
    registry.until_aliases(f"{service.namespace}.{service.name}", {"champion": second["version"]})
    trial.champion = second


def test_a_worse_challenger_is_rolled_back_before_a_client_sees_it(trial: Trial) -> None:
    """It passed gates and probes, and fails on every copy of a live request: the mirror is as far as it comes."""
    with trial.loaded(RATE) as client:
        client.until_answered(20)
        bad = trial.train(broken("nan"))
        ended = trial.until_ended(bad, "RolledBack")
        trial.until_only(trial.champion)
        client.until_answered(200, trial.champion["version"])
        report = client.stop()
    print(report.summary())
    assert not report.failed, report.failed[:3]
    assert report.rate > 200
    assert set(report.versions) == {trial.champion["version"]}
    assert ended["status"]["harm"]["test"], "which test found it is not said"
    assert [record["action"] for record in trial.records(bad)] == ["Shift", "RollBack"]
    trial.until_rejected(bad)


def test_a_worse_challenger_with_live_traffic_is_rolled_back_in_seconds(trial: Trial) -> None:
    """Without a mirror before it, clients see its errors: until the route is written, and none after that."""
    trial.template(
        {
            "traffic": {"steps": steps(half=50)},
            "circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}],
        }
    )
    with trial.loaded(RATE) as client:
        client.until_answered(20)
        bad = trial.train(broken("error", seed=8))
        trial.until_ended(bad, "RolledBack")
        written = trial.route_written()
        trial.until_only(trial.champion)
        client.until_answered(400, trial.champion["version"])
        report = client.stop()
    first = report.failed[0].at
    late = report.since(written + 1).failed  # the API server's times have no fractions
    print(f"{len(report.failed)} bad answers, {report.failed[-1].at - first:.1f} s; {report.summary()}")
    others = [(round(one.at - written, 3), one) for one in report.failed if one.version != bad["version"]]
    assert not others, f"these were not the challenger's answers; seconds after the write: {others}"
    assert not late, f"{len(late)} requests failed after the route was written: {late[:3]}"
    assert report.failed[-1].at - first < 3 * SCRAPE, "total failure is seen within two scrapes, and acted on"
    assert trial.verdict(bad)["action"] == "RollBack"


@pytest.fixture(scope="module")
def equals(cluster: Cluster, gateway: httpx.Client, market: Market, make_namespace: MakeNamespace) -> Trial:
    """A model of which every version gives the same numbers."""
    namespace = make_namespace("equals")
    allow_approvals(cluster, namespace, ANA)
    # Rolling: a retrain with a fixed asOf would have nothing new to learn from.
    rolling = {"data": {"asOf": "Rolling", "checks": {"maxStaleness": "9999d"}}}
    template = {"traffic": {"steps": steps(half=50)}}
    return Trial.begin(Service(cluster, gateway, namespace, "same"), market, judged("same", template, rolling))


def test_an_equal_challenger_is_not_promoted(equals: Trial) -> None:
    """The same numbers from another seed: no harm, and nothing better. It would be promoted if errors alone counted."""
    with equals.loaded(RATE) as client:
        client.until_answered(20)
        equal = equals.train(sound(seed=9))
        found = equals.until(equal, harmless, "that it does no harm is shown")
        assert found["status"].get("verdict") != "Promote"
        equals.service.decide("Abort", ANA, "it is the same model", experiment=equals.name(equal))
        equals.until_ended(equal, "Kept")
        equals.until_only(equals.champion)
        report = client.stop()
    assert not report.failed, report.summary()
    assert equals.verdict(equal)["action"] == "Reject"


def harmless(status: Object) -> bool:
    """Whether the non-inferiority of errors is shown."""
    shown: Object = {}
    for test in status.get("tests", ()):
        if (test["name"], test["side"]) == ("errors", "NonInferiority"):
            shown = test
    return float(shown.get("logE", "-9")) >= float(shown.get("threshold", "9"))


def test_an_equal_retrain_is_promoted_as_a_refresh(equals: Trial) -> None:
    """A procedure cannot beat itself: a retrain has to be no worse, and claims nothing else."""
    service, first = equals.service, equals.champion
    service.patch({"training": sound(seed=7)})
    with equals.loaded(RATE) as client:
        client.until_answered(20)
        known = {record["to"]["digest"] for record in service.records() if record["action"] == "Accept"}
        service.decide("Retrain", ANA, "the month is over")

        def challenged(found: Object) -> bool:
            return found["status"].get("challenger", {}).get("digest") not in (None, *known)

        where = ("fm", service.name, service.namespace)
        second = service.cluster.until(*where, challenged, 120, "the retrain is challenger")["status"]["challenger"]
        ended = equals.until_ended(second, "Promoted")
        service.until_serves(second)
        client.until_answered(200, second["version"])
        report = client.stop()
    assert not report.failed, report.summary()
    assert report.rate > 200
    assert ended["spec"]["purpose"] == "Refresh"
    sides = {test["side"] for test in ended["status"]["tests"]}
    assert sides - {"Watch"} == {"NonInferiority", "Harm"}
    promoted = equals.verdict(second)
    assert promoted["action"] == "Promote"
    assert [reason["reason"] for reason in promoted["cause"]["reasons"]] == ["NotWorse"]
    assert promoted["from"]["digest"] == first["digest"]
