"""Outcomes of live predictions are the evidence: two versions trained to 2014 predict the days that followed.

Years pass in minutes. Both versions see each day's requests (the mirror), the market answers a day later, and the
scorer closes a session into its ledger: the first 250 set the scale of the bets, and only what comes after them counts.
"""

from __future__ import annotations

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
    from tests.e2e.cluster import Cluster, Object
    from tests.e2e.conftest import MakeNamespace

AS_OF = "2014-12-31"
DWELL = 0.1  # seconds of a day: at RATE some twenty requests
SCALED = 250  # sessions that set the scale
DAYS, LEAST = 1000, 100  # days until the scorer has begun the ledger are in no session of it


@pytest.fixture(scope="module")
def trial(cluster: Cluster, gateway: httpx.Client, market: Market, make_namespace: MakeNamespace) -> Trial:
    namespace = make_namespace("live")
    cluster.kubectl("create", "serviceaccount", replay.WRITER, namespace=namespace)
    # No replay of procedures: their walk-forward days would decide at once.
    body = judged("spx", {"evidence": {"outcomes": "Live"}}, {"data": {"asOf": AS_OF}})
    first = market.after(AS_OF)[0]
    body["metadata"]["annotations"] = {"fiduciary.dev/replay-from": first}
    return Trial.begin(Service(cluster, gateway, namespace, "spx"), market, body)


def test_outcomes_of_live_predictions_are_the_evidence(trial: Trial, market: Market) -> None:
    """Whether one of them is better is the market's to say: what is shown is that every session counts, and once."""
    service = trial.service
    second = trial.train(sound(architecture="Linear"))
    trial.until_step(second, "shadow")
    place = running.Running.of(Sandbox.running().name)
    days = market.after(AS_OF)[:DAYS]
    outcomes = replay.Outcomes(place.kubectl, service.namespace, service.name)
    target = replay.target_of(service.found, place.gateway, market, days)
    with replay.play(target, market, days, rate=RATE, dwell=DWELL, chores=[outcomes]) as played:
        found = trial.until(second, lambda status: sessions(status) >= LEAST, "sessions are folded", DAYS * DWELL + 60)
        report = played.client.stop()
    assert not report.failed, report.failed[:3]
    assert set(report.versions) >= {trial.champion["version"]}

    status = found["status"]
    shown = superiority(status)
    assert sessions(status) <= played.told - SCALED, "the first sessions set the scale and are no evidence"
    assert -20 < float(shown["logE"]) < float(shown["threshold"]) or status.get("verdict") == "Promote"
    assert status["dataHealth"]["state"] == "Good", status["dataHealth"]
    jobs = [job["metadata"]["name"] for job in service.cluster.list("job", service.namespace)]
    assert not [name for name in jobs if "-compare-" in name], "nothing was replayed by the trainer"


def superiority(status: Object) -> Object:
    found = [test for test in status.get("tests", ()) if test["side"] == "Superiority"]
    return found[0] if found else {}


def sessions(status: Object) -> int:
    return int(superiority(status).get("n", 0))
