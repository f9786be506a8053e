"""Outcomes of live predictions decide alone: two versions trained to 2014 predict the four years that followed.

The years pass in minutes. Both versions see each day's requests (the mirror), the market answers a day later, and the
scorer closes a session into its ledger: the first 250 set the scale of the bets, and only what comes after them counts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sandbox import replay, running
from tests.e2e.experiments import Trial, judged, sound
from tests.e2e.inference import RATE
from tests.e2e.place import Sandbox
from tests.e2e.serving import Service

if TYPE_CHECKING:
    import httpx

    from sandbox.market import Market
    from tests.e2e.cluster import Cluster
    from tests.e2e.conftest import MakeNamespace

AS_OF = "2014-12-31"
DWELL = 0.1  # seconds of a day: at RATE some twenty requests
SCALED = 250  # sessions that set the scale


@pytest.fixture(scope="module")
def trial(cluster: Cluster, gateway: httpx.Client, market: Market, make_namespace: MakeNamespace) -> Trial:
    namespace = make_namespace("live")
    cluster.kubectl("create", "serviceaccount", replay.WRITER, namespace=namespace)
    # No replay of procedures: their walk-forward days would decide at once.
    body = judged("spx", {"evidence": {"outcomes": "Live"}}, {"data": {"asOf": AS_OF}})
    first = market.after(AS_OF)[0]
    body["metadata"]["annotations"] = {"fiduciary.dev/replay-from": first}
    return Trial.begin(Service(cluster, gateway, namespace, "spx"), market, body)


def test_outcomes_of_live_predictions_promote_what_predicts_better(trial: Trial, market: Market) -> None:
    service, first = trial.service, trial.champion
    second = trial.train(sound(architecture="Linear"))
    trial.until_step(second, "shadow")
    place = running.Running.of(Sandbox.running().name)
    days = market.after(AS_OF)
    outcomes = replay.Outcomes(place.kubectl, service.namespace, service.name)
    target = replay.target_of(service.found, place.gateway, market, days)
    with replay.play(target, market, days, rate=RATE, dwell=DWELL, chores=[outcomes]) as played:
        began = time.monotonic()
        ended = trial.until_ended(second, "Promoted", within=len(days) * DWELL + 120)
        took = time.monotonic() - began
        service.until_serves(second)
        report = played.client.stop()
    print(f"{played.told} days told in {took:.0f} s; {report.summary()}")
    assert not report.failed, report.failed[:3]

    shown = next(test for test in ended["status"]["tests"] if test["side"] == "Superiority")
    assert float(shown["logE"]) >= float(shown["threshold"])
    assert SCALED < shown["n"] <= played.told, f"sessions that were closed, of {played.told} whose outcomes were told"
    record = trial.verdict(second)
    assert record["action"] == "Promote"
    assert (record["from"]["digest"], record["to"]["digest"]) == (first["digest"], second["digest"])
    assert {reason["reason"] for reason in record["cause"]["reasons"]} == {"LiveEvidence", "NotWorse"}
    jobs = [job["metadata"]["name"] for job in service.cluster.list("job", service.namespace)]
    assert not [name for name in jobs if "-compare-" in name], "nothing was replayed"
