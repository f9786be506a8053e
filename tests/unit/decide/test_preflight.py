"""What is in the way is named before anything is created, with what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.api.modelstatus import FinancialModelStatus
from fiduciary.decide import preflight, reasons
from fiduciary.decide.case import Case
from fiduciary.decide.financialmodel import decide
from fiduciary.decide.world import Claim, QuotaView, ReferenceView
from tests.unit.decide.worlds import PLATFORM, T0, UID, job, merged, model, pod, world

if TYPE_CHECKING:
    from fiduciary.decide.preflight import Obstacle


def obstacle(spec: dict[str, Any] | None = None, **parts: Any) -> Obstacle | None:
    return preflight.obstacle(Case(world(spec, **parts), T0))


def named(found: Obstacle | None, reason: str, *words: str) -> None:
    assert found is not None
    assert found.reason == reason
    for word in words:
        assert word in found.message, f"{word!r} is not in {found.message!r}"


def test_nothing_is_in_the_way() -> None:
    assert obstacle() is None


CLAIMS = [
    ("older", T0 - timedelta(seconds=1), "zzzz", True),
    ("same second, smaller uid", T0, "0000", True),
    ("same second, larger uid", T0, "zzzz", False),
    ("younger", T0 + timedelta(seconds=1), "0000", False),
]


@pytest.mark.parametrize(("_", "created", "uid", "owns"), CLAIMS, ids=[claim[0] for claim in CLAIMS])
def test_the_first_to_claim_a_registered_model_owns_it(_: str, created: Any, uid: str, owns: bool) -> None:
    assert "0000" < UID < "zzzz"
    found = obstacle(claims=(Claim("desk", "spx-old", uid, created),))
    if owns:
        named(found, reasons.REGISTRY_MODEL_TAKEN, "desk/spx-old", "quant.spx-volatility")
    else:
        assert found is None


def test_unknown_connection() -> None:
    named(obstacle({"registry": {"connection": "prod"}}), reasons.CONNECTION_UNKNOWN, "'prod'", "mlflow")


def test_versions_from_elsewhere_are_not_taken_yet() -> None:
    external = {"engine": "External", "external": {"alias": "proposed"}, "architecture": None}
    named(obstacle({"training": external}), reasons.ENGINE_NOT_ACTIVE, "External")


ENGINES = [
    ("JobSet", {"JobSet"}, "jobset.x-k8s.io/v1alpha2", "https://jobset.sigs.k8s.io"),
    ("TrainJob", {"TrainJob", "TrainingRuntime"}, "kind TrainJob (trainer.kubeflow.org/v1alpha1)", "kubeflow.org"),
    ("TrainJob", {"TrainingRuntime"}, "kind TrainingRuntime", "Kubeflow Trainer v2.3"),
]


@pytest.mark.parametrize(("engine", "absent", "kind", "how"), ENGINES)
def test_an_engine_that_the_cluster_does_not_have(engine: str, absent: set[str], kind: str, how: str) -> None:
    spec = {"training": {"engine": engine}}
    named(obstacle(spec, missing_kinds=frozenset(absent)), reasons.ENGINE_MISSING, engine, kind, how, "noticed")
    assert (
        obstacle(spec, missing_kinds=frozenset({"JobSet", "TrainJob", "TrainingRuntime"} - absent - {engine})) is None
    )
    assert obstacle(missing_kinds=frozenset(absent)) is None, "engine Job needs none of them"


def test_a_quota_must_have_room_for_all_workers() -> None:
    """Half of them would wait for the other half, which never comes."""
    spec = {"training": {"architecture": "LSTM", "nodes": 3, "resources": {"requests": {"memory": "1Gi"}}}}
    room = QuotaView("desk", hard={"requests.memory": "3Gi", "pods": "3"}, used={"requests.memory": "0", "pods": "0"})
    assert obstacle(spec, quotas=(room,)) is None
    short = replace(room, hard={"requests.memory": "2500Mi"})
    named(obstacle(spec, quotas=(short,)), reasons.QUOTA_EXCEEDED, "needs 3Gi")
    named(obstacle(spec, quotas=(replace(room, hard={"pods": "2"}),)), reasons.QUOTA_EXCEEDED, "needs 3")


@pytest.mark.parametrize("all_needed", [True, False])
def test_workers_wait_for_each_other_and_trials_do_not(all_needed: bool) -> None:
    waiting = pod(phase="Pending", name="j-1-x", reason="Unschedulable", message="0/1 nodes")
    found = preflight.pod_obstacle(job(model(), pods=(pod(name="j-0-x"), waiting)), all_needed=all_needed)
    assert (found is not None) is all_needed


FEAST = {
    "data": {
        "source": {
            "feast": {
                "featureService": "x",
                "entityUri": "s3://desk/spine.parquet",
                "configSecretRef": {"name": "feast"},
            },
            "dataset": None,
        }
    }
}


def test_feast_needs_an_image_that_has_it() -> None:
    released = (ReferenceView("Secret", "feast", "Found", consumable=True),)
    named(obstacle(FEAST, references=released), reasons.FEAST_IMAGE_MISSING, "FIDUCIARY_TRAINER_FEAST_IMAGE")
    own = merged(FEAST, {"training": {"image": "desk/trainer:1"}})
    assert obstacle(own, references=released) is None
    replayed = preflight.replay_obstacle(world(own, references=released), T0)
    named(replayed, reasons.FEAST_IMAGE_MISSING, "trainer-feast")
    platform = replace(PLATFORM, trainer_feast_image="fiduciary-trainer-feast:1")
    assert obstacle(FEAST, references=released, platform=platform) is None
    assert platform.trainer(model(FEAST).spec) == "fiduciary-trainer-feast:1"
    assert platform.trainer(model().spec) == PLATFORM.trainer_image


def files(uri: str) -> dict[str, Any]:
    return {"data": {"source": {"dataset": None, "files": {"uri": uri}}}}


def test_storage_outside_the_allow_list() -> None:
    assert obstacle(files("s3://desk/spx.parquet")) is None
    for uri in ("s3://desk-of-others/spx.parquet", "file:///etc/passwd", "s3://elsewhere/x"):
        named(obstacle(files(uri)), reasons.URI_NOT_ALLOWED, uri, "s3://desk/")
    checkpoint = {"training": {"checkpoint": {"uri": "s3://elsewhere/ckpt"}}}
    named(obstacle(checkpoint), reasons.URI_NOT_ALLOWED, "spec.training.checkpoint.uri")


REFERENCES = [
    (ReferenceView("Secret", "desk-s3", "Missing"), reasons.REFERENCE_MISSING, ("desk-s3", "quant")),
    (ReferenceView("Secret", "desk-s3", "Forbidden"), reasons.REFERENCE_FORBIDDEN, ("desk-s3", "deploy/kustomize")),
    (
        ReferenceView("PersistentVolumeClaim", "bars", "Found"),
        reasons.REFERENCE_NOT_CONSUMABLE,
        ("bars", 'fiduciary.dev/consumable: "true"'),
    ),
]


@pytest.mark.parametrize(("reference", "reason", "words"), REFERENCES, ids=lambda value: str(value)[:40])
def test_references(reference: ReferenceView, reason: str, words: tuple[str, ...]) -> None:
    source = {"files": {"uri": "pvc://bars/spx.parquet", "secretRef": {"name": "desk-s3"}}, "dataset": None}
    named_by = {"data": {"source": source}, "training": {"checkpoint": {"uri": "pvc://fine/ckpt"}}}
    fine = ReferenceView("PersistentVolumeClaim", "fine", "Found", consumable=True)
    found = obstacle(named_by, references=(fine, reference))
    named(found, reason, *words)
    assert found is not None
    assert found.recheck, "nobody tells us when its owner acted"


def test_what_only_serving_mounts_does_not_keep_a_training_from_its_start() -> None:
    serving = {"serving": {"storageSecretRef": {"name": "models-s3"}, "gateway": {"parentRefs": [{"name": "public"}]}}}
    assert obstacle(serving, references=(ReferenceView("Secret", "models-s3", "Missing"),)) is None


def quota(hard: dict[str, str], used: dict[str, str] | None = None) -> tuple[QuotaView, ...]:
    return (QuotaView("desk", hard, used or {}),)


FITS = [
    ({"requests.cpu": "1"}, {}, True),
    ({"requests.cpu": "999m"}, {}, False),
    ({"cpu": "2"}, {"cpu": "1001m"}, False),
    ({"requests.memory": "2Gi"}, {"requests.memory": "1Gi"}, True),
    ({"requests.memory": "2G"}, {"requests.memory": "1Gi"}, False),
    ({"pods": "3"}, {"pods": "3"}, False),
    ({"count/jobs.batch": "1"}, {"count/jobs.batch": "1"}, False),
    ({"limits.memory": "4Gi"}, {}, False),  # a quota on limits refuses pods that have none
    ({"requests.nvidia.com/gpu": "0"}, {}, True),
    ({"count/secrets": "0"}, {}, True),
]


@pytest.mark.parametrize(("hard", "used", "fits"), FITS)
def test_quotas(hard: dict[str, str], used: dict[str, str], fits: bool) -> None:
    found = obstacle(quotas=quota(hard, used))
    if fits:
        assert found is None
    else:
        named(found, reasons.QUOTA_EXCEEDED, "desk", next(iter(hard)))


def test_message_of_a_quota() -> None:
    small = {"training": {"resources": {"requests": {"cpu": "200m", "memory": "512Mi"}}}}
    found = obstacle(small, quotas=quota({"requests.cpu": "100m", "requests.memory": "4Gi"}))
    named(found, reasons.QUOTA_EXCEEDED, "ResourceQuota desk", "requests.cpu", "100m", "200m")


def test_gpus_count() -> None:
    gpu = {"training": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
    named(obstacle(gpu, quotas=quota({"requests.nvidia.com/gpu": "0"})), reasons.QUOTA_EXCEEDED, "nvidia.com/gpu")


def test_the_allow_list_may_be_empty() -> None:
    closed = replace(PLATFORM, allowed_uris=())
    named(obstacle(files("pvc://bars/x.csv"), platform=closed), reasons.URI_NOT_ALLOWED, "pvc://bars/x.csv")


PENDING = [
    ("ErrImagePull", reasons.IMAGE_NOT_PULLED, "spec.training.image"),
    ("ImagePullBackOff", reasons.IMAGE_NOT_PULLED, "imagePullSecrets"),
    ("Unschedulable", reasons.UNSCHEDULABLE, "spec.training.resources"),
    ("CreateContainerConfigError", reasons.POD_REFUSED, "Secrets"),
]


@pytest.mark.parametrize(("reason", "expected", "todo"), PENDING)
def test_pending_pods_are_explained(reason: str, expected: str, todo: str) -> None:
    waiting = job(model(), pods=(pod(phase="Pending", reason=reason, message="said the cluster"),))
    named(preflight.pod_obstacle(waiting), expected, "said the cluster", todo)


def test_what_a_cluster_says_at_length_can_be_stored() -> None:
    """The API server refuses a status with a longer text, and with it everything else that it says."""
    told = pod(phase="Pending", reason="ErrImagePull", message="tried a mirror, and it said no; " * 300)
    status = decide(world(jobs=(job(model(), pods=(told,)),)), T0).status
    assert status.training is not None
    assert status.training.message is not None
    assert "ErrImagePull" in status.training.message
    assert FinancialModelStatus.model_validate(status.body()) == status


def test_what_passes_by_itself_is_no_obstacle() -> None:
    for reason in ("ContainerCreating", "PodInitializing", ""):
        assert preflight.pod_obstacle(job(model(), pods=(pod(phase="Pending", reason=reason),))) is None
    assert preflight.pod_obstacle(job(model(), pods=(pod(),))) is None
    assert preflight.pod_obstacle(job(model(), suspended=True)) is None


def test_a_pod_of_a_search_that_waits_beside_one_that_runs_is_no_obstacle() -> None:
    """What it does not carry out, the others do."""
    waits = pod(phase="Pending", reason="Unschedulable", message="no room", name="spx-1")
    assert preflight.pod_obstacle(job(model(), pods=(pod(name="spx-0"), waits))) is None
    named(preflight.pod_obstacle(job(model(), pods=(waits,))), reasons.UNSCHEDULABLE, "no room")
