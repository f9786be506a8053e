"""The whole way, on real data: apply, train, judge, register, serve; then everything that must not train again.

The three samples of ``deploy/samples`` share one namespace, and the tests run in the order of this file: the HAR model
is served and looked at from all sides; the spec is edited in ways that must train nothing; at last the same resource
is changed to ``Linear``, whose version becomes challenger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fiduciary.api.modeldecision import ModelDecision
from fiduciary.decide.identity import record_digest
from tests.e2e.cluster import Cluster, Object, condition, has, names
from tests.e2e.conftest import OPERATOR, OPERATOR_NAMESPACE, MakeNamespace, nudge, wait_for_operator
from tests.e2e.models import merged
from tests.e2e.place import ROOT
from tests.e2e.registry import Registry, tags

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME, DIRECTION = "spx-volatility", "spx-direction"
TRAINING_SECONDS = 240  # a sample trains in at most 90 s on one core; two others share the machine meanwhile


def sample(file: str, namespace: str) -> Object:
    """A sample as it stands, in the namespace of this test and registered under its name there."""
    found = next(
        doc
        for doc in yaml.safe_load_all((ROOT / "deploy" / "samples" / file).read_text())
        if doc["kind"] == "FinancialModel"
    )
    moved = merged(found, {"metadata": {"namespace": namespace}})
    return merged(moved, {"spec": {"registry": {"model": None}}}) if "registry" in moved["spec"] else moved


@dataclass(frozen=True, slots=True)
class Story:
    """The namespace of the samples, and short ways to look at it."""

    cluster: Cluster
    registry: Registry
    namespace: str

    @property
    def model(self) -> Object:
        return self.cluster.read("fm", NAME, self.namespace)

    @property
    def registered_name(self) -> str:
        return f"{self.namespace}.{NAME}"

    def records(self, of: str = NAME) -> list[dict[str, Any]]:
        """Records of a model, oldest first."""
        found = [md for md in self.cluster.list("md", self.namespace) if md["spec"]["modelRef"]["name"] == of]
        return sorted(found, key=lambda record: record["spec"]["sequence"])

    def jobs(self, of: str = NAME) -> list[str]:
        """Of trainings: a replay that was taken away before it was done is made again, and should be."""
        there = names(self.cluster.list("job", self.namespace))
        return [name for name in there if name.startswith(f"{of}-") and "-compare-" not in name]

    def until(self, kind: str, status: str, reason: str | None = None, within: float = 60) -> Object:
        return self.cluster.until(
            "fm",
            NAME,
            self.namespace,
            lambda model: has(model, kind, status, reason),
            within,
            f"{kind}={status} {reason or ''}",
        )


@pytest.fixture(scope="module")
def story(cluster: Cluster, registry: Registry, make_namespace: MakeNamespace) -> Iterator[Story]:
    """Volatility (HAR) and direction (LSTM) applied; volatility registered."""
    namespace = make_namespace("story")
    cluster.apply(sample("spx-volatility.yaml", namespace), sample("spx-direction.yaml", namespace))
    told = Story(cluster, registry, namespace)
    cluster.until(
        "fm",
        NAME,
        namespace,
        lambda model: "champion" in model.get("status", {}) and has(model, "GatesPassed", "True"),
        TRAINING_SECONDS,
        "the HAR model is champion",
    )
    return told


def test_status_says_where_it_is_served(story: Story) -> None:
    model = story.until("Ready", "True", within=120)
    assert has(model, "Trained", "True")
    assert has(model, "Served", "True")
    assert condition(model, "Reconciling").get("status", "False") == "False", "nothing is on its way"
    assert condition(model, "Stalled").get("status", "False") == "False", "nobody has to act"
    assert model["status"]["endpoint"]["url"].endswith(f"/v2/models/{story.namespace}.{NAME}")
    table = story.cluster.kubectl("get", "fm", NAME, namespace=story.namespace).splitlines()
    for column in ("PHASE", "CHAMPION", "CHALLENGER", "READY", "REASON", "AGE"):
        assert column in table[0], f"kubectl get fm has no column {column}: {table[0]}"
    assert "True" in table[1].split()


def test_champion_is_registered_in_mlflow_with_its_digest(story: Story) -> None:
    champion = story.model["status"]["champion"]
    version = story.registry.version(story.registered_name, champion["version"])
    story.registry.until_aliases(story.registered_name, {"champion": champion["version"]})
    assert version["run_id"] == champion["runId"]
    assert tags(version)["fiduciary.dev/digest"] == champion["digest"]
    assert tags(version)["fiduciary.dev/training-key"] == champion["trainingKey"]
    assert tags(version)["fiduciary.dev/owner"].endswith(f"/{story.namespace}/{NAME}")
    assert story.registry.digest(champion["runId"]) == champion["digest"], "MLflow serves other bytes than were judged"


def test_version_holds_all_that_serving_and_drift_start_from(story: Story) -> None:
    run = story.model["status"]["champion"]["runId"]
    assert {path.removeprefix("version/") for path in story.registry.artifacts(run, "version")} >= {
        "model.onnx",
        "features.json",
        "signature.json",
        "procedure.json",
        "ledger.csv",
        "drift_reference.json",
        "manifest.json",
    }
    report = story.registry.artifacts(run, "report")
    assert any(path.endswith(".png") for path in report), report
    assert any(path.endswith("model-card.md") for path in report), report
    ledger = story.registry.artifact(run, "version/ledger.csv").decode().splitlines()
    assert len(ledger) > 1000, "the ledger holds every walk-forward day"
    assert max(line.split(",")[1] for line in ledger[1:]) < "2018", "a day after asOf was read"


def test_records_form_a_chain(story: Story) -> None:
    records = story.records()
    assert [record["metadata"]["name"] for record in records] == [f"{NAME}-{n + 1}" for n in range(len(records))]
    assert records[0]["spec"]["action"] == "Accept"
    before = None
    for record in records:
        assert record["spec"].get("previous") == before, f"{record['metadata']['name']} breaks the chain"
        before = record_digest(ModelDecision.model_validate(record).spec)
        assert "ownerReferences" not in record["metadata"], "a record outlives its model"


def test_identifiers_agree_everywhere(story: Story) -> None:
    model = story.model
    champion = model["status"]["champion"]
    record = story.cluster.read("md", f"{NAME}-{champion['decision']}", story.namespace)["spec"]
    run = story.registry.run(champion["runId"])
    logged = tags(run)
    for field in ("version", "digest", "runId", "trainingKey", "dataDigest"):
        assert record["to"][field] == champion[field], f"record and status differ in {field}"
    assert logged["fiduciary.dev/training-key"] == champion["trainingKey"]
    assert logged["fiduciary.dev/data-digest"] == champion["dataDigest"]
    assert logged["fiduciary.dev/digest"] == champion["digest"]
    assert logged["fiduciary.dev/as-of"] == "2017-12-29"
    assert logged["fiduciary.dev/seed"] == str(model["spec"]["training"]["seed"])
    assert logged["fiduciary.dev/image"], "the image that trained is unknown"
    result = json.loads(logged["fiduciary.dev/result"])
    assert result["code"]["python"]
    assert result["code"]["sha256"]
    assert record["modelRef"]["uid"] == model["metadata"]["uid"]


def test_events_tell_the_story(story: Story) -> None:
    told = story.cluster.kubectl("describe", "fm", NAME, namespace=story.namespace)
    events = [
        event["reason"]
        for event in story.cluster.list("event", story.namespace)
        if event["involvedObject"]["name"] == NAME
    ]
    assert len(events) == len(set(events)), f"an event was repeated: {events}"
    for reason in ("TrainingStarted", "Accepted"):
        assert reason in events, f"no event {reason} among {events}"
        assert reason in told, "kubectl describe does not tell it"
    assert story.model["status"]["champion"]["digest"][:15] in told


def test_training_pod_is_confined(story: Story) -> None:
    job = story.cluster.read("job", story.jobs()[0], story.namespace)
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] != "default"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert spec["containers"][0]["resources"]["requests"]
    assert "ttlSecondsAfterFinished" not in job["spec"], "the operator deletes a Job, after its verdict is stored"
    labels = job["spec"]["template"]["metadata"]["labels"]
    policies = story.cluster.list("networkpolicy", story.namespace)
    ours = [policy for policy in policies if policy["metadata"]["name"] != "default-deny"]
    assert any(policy["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items() for policy in ours)


def _settled(story: Story, jobs: list[str], records: int) -> None:
    """After a nudge: no other Job, no other record, the same champion."""
    nudge(story.cluster, NAME, story.namespace)
    assert story.jobs() == jobs
    assert len(story.records()) == records


def test_replace_trains_nothing(story: Story) -> None:
    jobs, records = story.jobs(), len(story.records())
    before = story.model["status"]["champion"]
    story.cluster.replace(sample("spx-volatility.yaml", story.namespace), story.namespace)
    _settled(story, jobs, records)
    assert story.model["status"]["champion"] == before


def test_lost_status_is_rebuilt_from_the_records(story: Story) -> None:
    jobs, records = story.jobs(), len(story.records())
    before = story.model["status"]
    story.cluster.patch("fm", NAME, {"status": None}, story.namespace, subresource="status")
    rebuilt = story.cluster.until(
        "fm", NAME, story.namespace, lambda model: "champion" in model.get("status", {}), 60, "champion is back"
    )
    assert rebuilt["status"]["champion"] == before["champion"]
    assert rebuilt["status"].get("runs") == before.get("runs")
    _settled(story, jobs, records)


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"resources": {"requests": {"cpu": "150m"}}}},
        {"training": {"retry": {"limit": 3}}},
        {"training": {"queueName": "other"}},
        {"training": {"activeDeadline": "3h"}},
        {"governance": {"owner": "another-desk", "reviewBy": "2028-01-31"}},
        {"data": {"checks": {"minRows": 900}}},
    ],
    ids=["resources", "retry", "queue", "deadline", "governance", "checks"],
)
def test_edit_beside_the_training_trains_nothing(story: Story, change: Object) -> None:
    jobs, records = story.jobs(), len(story.records())
    story.cluster.patch("fm", NAME, {"spec": change}, story.namespace)
    _settled(story, jobs, records)


def test_changed_gate_judges_again_without_a_job(story: Story) -> None:
    jobs, gates = story.jobs(), story.model["spec"].get("gates", [])
    champion = story.model["status"]["champion"]["version"]
    story.cluster.patch(
        "fm", NAME, {"spec": {"gates": [*gates, {"metric": "har_skill", "above": "0.5"}]}}, story.namespace
    )
    failing = story.until("GatesPassed", "False")
    assert "har_skill" in condition(failing, "GatesPassed")["message"]
    assert "0.5" in condition(failing, "GatesPassed")["message"]
    assert failing["status"]["champion"]["version"] == champion, "an edited gate unserves nothing"
    story.cluster.patch("fm", NAME, {"spec": {"gates": gates}}, story.namespace)
    story.until("GatesPassed", "True")
    assert story.jobs() == jobs


def test_operator_restart_trains_nothing(story: Story) -> None:
    jobs, records = story.jobs(), len(story.records())
    story.cluster.kubectl("rollout", "restart", f"deployment/{OPERATOR}", namespace=OPERATOR_NAMESPACE)
    wait_for_operator(story.cluster)
    _settled(story, jobs, records)


def test_direction_is_refused_with_its_reason(story: Story) -> None:
    refused = story.cluster.until(
        "fm",
        DIRECTION,
        story.namespace,
        lambda model: has(model, "GatesPassed", "False"),
        TRAINING_SECONDS,
        "direction is judged",
    )
    assert has(refused, "Ready", "False", "GatesRefused")
    assert has(refused, "CandidateRejected", "True")
    assert "base_rate" in condition(refused, "GatesPassed")["message"], (
        "it has no skill over the base rate, and says so"
    )
    assert "champion" not in refused["status"]
    assert refused["status"]["rejectedVersions"], "a refused version is listed with its reason"
    assert [record["spec"]["action"] for record in story.records(DIRECTION)] == ["Reject"]
    assert story.registry.versions(f"{story.namespace}.{DIRECTION}") == [], "a refused version is not registered"
    assert len(story.jobs(DIRECTION)) == 1, "a refused training is not repeated"


def test_linear_becomes_challenger(story: Story) -> None:
    champion = story.model["status"]["champion"]
    story.cluster.kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        "-",
        stdin=yaml.safe_dump(sample("spx-volatility-linear.yaml", story.namespace)),
    )
    model = story.cluster.until(
        "fm",
        NAME,
        story.namespace,
        lambda model: "challenger" in model.get("status", {}),
        TRAINING_SECONDS,
        "the Linear version is challenger",
    )
    challenger = model["status"]["challenger"]
    assert model["status"]["champion"] == champion
    assert challenger["trainingKey"] != champion["trainingKey"]
    assert challenger["dataDigest"] == champion["dataDigest"], "it was the same data"
    assert story.registry.digest(challenger["runId"]) == challenger["digest"]
    expected = {"champion": champion["version"], "challenger": challenger["version"]}
    story.registry.until_aliases(story.registered_name, expected)


def test_removed_job_is_not_made_again(story: Story) -> None:
    records = len(story.records())
    for job in story.jobs():
        story.cluster.delete("job", job, story.namespace)
        story.cluster.until_gone("job", job, story.namespace, 60)
    _settled(story, [], records)


def test_path_of_samples_is_complete() -> None:
    """Every sample is applied by some test; a new one must be added to this file."""
    # tests/trainer/test_samples.py trains them
    trained = {"spx-volatility-search.yaml", "spx-volatility-intervals.yaml"}
    applied = {"spx-volatility.yaml", "spx-volatility-linear.yaml", "spx-direction.yaml"}
    elsewhere = {"spx-volatility-kserve.yaml", "spx-volatility-seldon.yaml"}  # BACKEND=: a cluster that has them
    accepted = {"spx-volatility-drift.yaml", "outcomes-cronjob.yaml"}  # tests/controlplane/test_api_samples.py alone
    watched = {"spx-drift.yaml"}  # tests/e2e/test_drift.py has the same model and policy on a file that grows
    found = {path.name for path in Path(ROOT / "deploy" / "samples").glob("*.yaml")}
    assert found - {"kustomization.yaml"} == applied | elsewhere | trained | accepted | watched
