"""Challengers that break in every way, and specs that cannot be meant: never promoted, and the champion is untouched.

The champion answers an open-loop load all the time; challengers get copies of it first, so that no client sees them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import Refused, condition
from tests.e2e.conftest import ANA, allow_approvals
from tests.e2e.experiments import Trial, broken, judged, sound, steps
from tests.e2e.models import API_VERSION, merged
from tests.e2e.serving import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from sandbox.market import Market
    from tests.e2e.cluster import Cluster, Object
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node

SOME = 60.0  # requests per second: enough to be judged by, and the node has more to do
SHADOW = {"traffic": {"steps": steps(shadow=0)}}
SLOW = {
    "traffic": {"steps": steps(canary=2)},
    "guardrails": [
        {"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.005"}},
        {"name": "latency", "metric": "LatencyAbove", "threshold": "100ms", "margin": {"absolute": "0.01"}},
    ],
}


@pytest.fixture(scope="module")
def trial(cluster: Cluster, gateway: httpx.Client, market: Market, make_namespace: MakeNamespace) -> Trial:
    namespace = make_namespace("faults")
    allow_approvals(cluster, namespace, ANA)
    limited = {"serving": {"resources": {"limits": {"memory": "384Mi"}}}}
    return Trial.begin(Service(cluster, gateway, namespace, "frail"), market, judged("frail", SHADOW, limited))


@contextmanager
def unharmed(trial: Trial, *, stays: bool = False) -> Iterator[None]:
    """The champion answers every request, before and after. In the end it alone is left, unless the challenger stays:
    one that was never asked anything waits for a person."""
    with trial.loaded(SOME) as client:
        client.until_answered(20)
        yield
        if not stays:
            trial.until_only(trial.champion)
        client.until_answered(50, trial.champion["version"])
        report = client.stop()
    print(report.summary())
    assert not report.failed, report.failed[:3]


def rolled_back(trial: Trial, version: Mapping[str, str], *whys: str) -> Object:
    ended = trial.until_ended(version, "RolledBack")
    record = trial.verdict(version)
    assert record["action"] == "RollBack"
    why = record["cause"]["reasons"][0]
    print(f"{why['reason']}: {why['message']}")
    assert why["reason"] in whys, why
    assert ended["status"]["harm"]["test"]
    trial.until_rejected(version)
    return ended


@pytest.mark.parametrize(("fault", "why"), [("oom", "PodsFailed"), ("grows", "PodsFailed")])
def test_challenger_that_eats_its_memory(trial: Trial, fault: str, why: str) -> None:
    trial.template(SHADOW)
    with unharmed(trial):
        rolled_back(trial, trial.train(broken(fault)), why)


def test_challenger_that_answers_slowly(trial: Trial) -> None:
    """Its answers are right: only the latency guardrail can know. One request a second: more of them than its pod can
    compute would make it unready, which is another verdict."""
    trial.template(SLOW)
    with unharmed(trial):
        ended = rolled_back(trial, trial.train(broken("slow")), "HarmShown")
    assert ended["status"]["harm"]["test"] == "latency"


def test_challenger_that_dies_in_traffic(trial: Trial, node: Node) -> None:
    """Connections are refused while it starts again."""
    trial.template(SHADOW)
    with unharmed(trial):
        version = trial.train(sound(seed=11))
        trial.until_step(version, "shadow")
        (pod,) = trial.service.pods(version)
        assert node.signal("SIGKILL", "fiduciary_server", pod["metadata"]["uid"]) > 0
        rolled_back(trial, version, "PodsFailed")


def test_challenger_that_hangs_in_traffic(trial: Trial, node: Node) -> None:
    """It takes connections and answers nothing."""
    trial.template(SHADOW)
    with unharmed(trial):
        version = trial.train(sound(seed=12))
        trial.until_step(version, "shadow")
        (pod,) = trial.service.pods(version)
        assert node.signal("SIGSTOP", "fiduciary_server", pod["metadata"]["uid"]) > 0
        rolled_back(trial, version, "HarmShown", "PodsFailed", "ChallengerDark")


def test_challenger_that_cannot_start(trial: Trial) -> None:
    """Its network asks for a feature more than it has, so that every server refuses to load it. It is asked nothing."""
    trial.template(merged(SHADOW, {"stopping": {"maxDuration": "45s"}}))
    with unharmed(trial, stays=True):
        version = trial.train(broken("shape"))
        before = trial.service.until("PromotionPending", "True", "BadVersion")
        ended = trial.until_ended(version, "Kept")
        assert ended["status"]["reason"] == "NeverStarted"
        told = condition(before, "PromotionPending")
        assert told["reason"] == "BadVersion"
        assert "model.onnx" in told["message"]
        assert trial.records(version) == [], "it changed no traffic"


def test_challenger_that_never_becomes_ready(trial: Trial, cluster: Cluster, node: Node) -> None:
    trial.template(merged(SHADOW, {"stopping": {"maxDuration": "45s"}}))
    service = trial.service
    with unharmed(trial, stays=True):
        version = trial.train(sound(seed=13))
        selector = f"{service.selector},fiduciary.dev/version={version['version']}"
        (pod,) = cluster.until_all("pod", service.namespace, bool, 60, "its pod", selector=selector)
        assert node.signal("SIGSTOP", "fiduciary_server", "serve", pod["metadata"]["uid"], within=60) > 0
        ended = trial.until_ended(version, "Kept")
        assert ended["status"]["reason"] == "NeverStarted"


# --- specs that cannot be meant ----------------------------------------------------------------------------------


def by_hand(name: str, spec: Object) -> Object:
    base: Object = {"modelRef": {"name": "frail"}, "challenger": {"version": "2"}}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelExperiment",
        "metadata": {"name": name},
        "spec": merged(base, spec),
    }


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"champion": {"version": "2"}}, "different versions"),
        ({"traffic": {"steps": [{"name": "all", "weight": 101}]}}, "100"),
        ({"traffic": {"steps": [{"name": "none"}]}}, "weight or a mirror"),
        ({"traffic": {"steps": [{"name": "a", "weight": 50}, {"name": "b", "weight": 5}]}}, "must not fall"),
        ({"guardrails": []}, "guardrails"),
        ({"guardrails": [{"name": "x", "metric": "Sharpe", "margin": {"absolute": "0.1"}}]}, "Sharpe"),
        ({"guardrails": [{"name": "x", "metric": "LatencyAbove", "margin": {"absolute": "0.1"}}]}, "threshold"),
        (
            {
                "guardrails": [
                    {"name": "x", "metric": "LatencyAbove", "threshold": "250", "margin": {"absolute": "0.1"}}
                ]
            },
            "threshold",
        ),
        (
            {"guardrails": [{"name": "x", "metric": "ErrorRate", "margin": {"absolute": "0.1"}}] * 2},
            "uplicate",
        ),
        ({"circuitBreakers": [{"metric": "ErrorRate", "above": "0.1", "normal": "0.2"}]}, "smaller than above"),
        ({"stopping": {"minDuration": "2h", "maxDuration": "1h"}}, "minDuration"),
        ({"objectives": [], "purpose": "Improve"}, "objective"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused_at_admission(
    cluster: Cluster, trial: Trial, spec: Object, said: str
) -> None:
    with pytest.raises(Refused, match=said):
        cluster.create(by_hand("by-hand", spec), trial.service.namespace)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"challenger": {"version": "77"}}, "77"),
        ({"champion": {"version": "77"}}, "77"),
    ],
    ids=["unknown challenger", "unknown champion"],
)
def test_a_spec_that_does_not_fit_here_says_so(cluster: Cluster, trial: Trial, spec: Object, said: str) -> None:
    """Admission cannot know: the status says what is wrong, and nothing is sent to anybody."""
    namespace = trial.service.namespace
    before = len(trial.service.records())
    cluster.create(by_hand("by-hand", spec), namespace)
    try:

        def told(found: Object) -> bool:
            return any(said in one["message"] for one in found.get("status", {}).get("conditions", ()))

        found = cluster.until("mx", "by-hand", namespace, told, 30, f"a condition says {said}")
        assert found["status"].get("weight", 0) == 0
        assert found["status"].get("verdict") != "Promote"
        assert len(trial.service.records()) == before
    finally:
        cluster.kubectl("delete", "mx", "by-hand", "--timeout=60s", namespace=namespace)


def test_blocks_shorter_than_a_scrape_are_told_and_nothing_is_sent(trial: Trial) -> None:
    """The template of the model asks for what this Prometheus cannot tell."""
    trial.template(merged(SHADOW, {"evidence": {"block": "1s"}}))
    version = trial.train(sound(seed=14))

    def told(status: Object) -> bool:
        return any("scrapes of Prometheus" in one["message"] for one in status.get("conditions", ()))

    trial.until(version, told, "a condition says that blocks are too short", within=30)
    assert trial.records(version) == []
    trial.service.decide("Abort", ANA, "the template was wrong", experiment=trial.name(version))
    trial.until_ended(version, "Kept")
