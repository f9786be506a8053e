"""Objects of Seldon and KServe, as their real controllers leave them, and what is kept of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fiduciary.api.versions import VersionRef
from fiduciary.engine import othersviews, served
from fiduciary.manifests import seldon
from fiduciary.manifests.inferenceservice import inference_service
from fiduciary.manifests.plans import Arm, VersionPlan
from fiduciary.serving.seldonviews import Said
from tests.unit.decide.worlds import PLATFORM, model

DIGEST = "sha256:8ab8c9b5" + "0" * 56
VERSION = VersionRef(version="7", digest=DIGEST, run_id="run7", uri="s3://mlflow/1")
THEN = "2026-11-24T12:00:00Z"
MOMENT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def plan(serving: dict[str, Any]) -> VersionPlan:
    assert PLATFORM.serving is not None
    return VersionPlan(model({"serving": serving}), VERSION, 2, False, "http://mlflow", PLATFORM.serving)


def stored(body: dict[str, Any], status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    own = {"uid": "u1", "resourceVersion": "5", "generation": 1, "creationTimestamp": THEN, **metadata}
    return {**body, "metadata": {**body["metadata"], **own}, **({"status": status} if status else {})}


def said(kind: str, status: str, reason: str = "", message: str = "", at: str = THEN) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def a_model(status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    given = plan({"backend": "Seldon"})
    assert given.model.spec.serving is not None
    body = seldon.seldon_model(given, given.model.spec.serving, "s3://mlflow/1")
    return stored({**body, "spec": {**body["spec"], **(spec or {})}}, status)


def test_a_model_that_was_just_made() -> None:
    view = othersviews.model(a_model())
    assert (view.kind, view.api_version, view.digest, view.version) == ("Model", seldon.API_VERSION, DIGEST, "7")
    assert view.said is None
    assert view.able == 0
    assert not view.edited
    assert (view.requirements, view.memory) == (("fiduciary-onnx",), 256 << 20)


def test_what_seldon_says_of_a_model() -> None:
    conditions = [said("ModelReady", "True", "", "ModelAvailable"), said("Ready", "True")]
    view = othersviews.model(a_model({"replicas": 3, "conditions": conditions}, {"replicas": 2}))
    assert view.said == Said(True, "", "ModelAvailable", MOMENT)
    assert view.able == 2, "status.replicas is what was asked for"
    assert not view.edited, "the number of replicas is changed by itself"
    stale = othersviews.model(a_model({"replicas": 2, "conditions": conditions}, {"replicas": 0}))
    assert stale.able == 0, "a Model that was scaled to 0 stays Ready"
    assert othersviews.model(a_model(spec={"storageUri": "s3://other"})).edited


def an_experiment(default: str, weights: dict[str, int], status: Any = None, **metadata: Any) -> dict[str, Any]:
    arms = [Arm(VersionRef(version=number, digest="sha256:" + number * 64), share) for number, share in weights.items()]
    return stored(seldon.experiment(model(), 4, default, arms), status, **metadata)


def test_an_experiment_through_its_edits() -> None:
    lead = "spx-volatility-777777777777"
    first = othersviews.experiment(an_experiment(lead, {"7": 95, "8": 5}), None)
    assert first.default == lead
    assert first.candidates == ((lead, 95), ("spx-volatility-888888888888", 5))
    assert (first.decision, first.changed_at, first.flips) == (4, MOMENT, 0)
    ready = {"conditions": [said("ExperimentReady", "True", "experiment active"), said("Ready", "True")]}
    unready = {"conditions": [said("ExperimentReady", "False")]}
    view = first
    for status in (unready, ready, unready, ready):
        view = othersviews.experiment(an_experiment(lead, {"7": 95, "8": 5}, status), view)
    assert view.flips == 3, "the first status is no change"
    fields = [{"manager": "fiduciary", "time": "2026-11-24T12:30:00Z"}]
    edited = an_experiment(lead, {"7": 50, "8": 50}, ready, generation=2, managedFields=fields)
    view = othersviews.experiment(edited, view)
    assert (view.flips, view.changed_at) == (0, datetime(2026, 11, 24, 12, 30, tzinfo=UTC))
    assert othersviews.experiment(edited, None).changed_at is None, "a new process does not know when it was edited"


def test_weights_that_are_all_0_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="freeze the mesh"):
        an_experiment("spx-volatility-777777777777", {"7": 0})


def a_server(**spec: Any) -> dict[str, Any]:
    body = {"apiVersion": seldon.API_VERSION, "kind": "Server", "metadata": {"name": "s", "namespace": "quant"}}
    return stored({**body, "spec": {"serverConfig": "mlserver", **spec}}, {"conditions": [said("Ready", "True")]})


CONFIG = othersviews.server_config(
    stored(
        {
            "metadata": {"name": "mlserver", "namespace": "seldon-system"},
            "spec": {
                "podSpec": {
                    "containers": [
                        {
                            "name": "agent",
                            "env": [{"name": "SELDON_SERVER_CAPABILITIES", "value": "mlserver, sklearn"}],
                        },
                        {"name": "mlserver", "resources": {"requests": {"memory": "1G"}}},
                    ]
                }
            },
        }
    )
)


def test_a_server_with_what_its_configuration_gives() -> None:
    plain = othersviews.server_view(othersviews.server(a_server()), [CONFIG])
    assert plain.capabilities == {"mlserver", "sklearn"}
    assert (plain.memory, plain.replicas, plain.ready) == (10**9, 1, True)
    more = othersviews.server_view(othersviews.server(a_server(extraCapabilities=["fiduciary-onnx"])), [CONFIG])
    assert more.capabilities == {"mlserver", "sklearn", "fiduciary-onnx"}
    own = a_server(
        capabilities=["fiduciary-onnx"],
        replicas=2,
        podSpec={"containers": [{"name": "mlserver", "resources": {"requests": {"memory": "2Gi"}}}]},
    )
    other = othersviews.server_view(othersviews.server(own), [CONFIG])
    assert (other.capabilities, other.memory, other.replicas) == ({"fiduciary-onnx"}, 2 << 30, 2)
    nobody = othersviews.server_view(othersviews.server(a_server()), [])
    assert nobody.capabilities is None


def an_inference_service(
    status: dict[str, Any] | None = None, *, image: str = "fiduciary-server:0.1.0", replicas: int = 2
) -> dict[str, Any]:
    given = plan({"backend": "KServe", "gateway": {"parentRefs": [{"name": "contour"}]}})
    given = replace(given, environment=replace(given.environment, image=image), replicas=replicas)
    assert given.model.spec.serving is not None
    return stored(inference_service(given, given.model.spec.serving), status)


def test_an_inference_service() -> None:
    view = othersviews.inference_service(an_inference_service())
    assert (view.kind, view.replicas, view.ready, view.observed) == ("InferenceService", 2, 0, False)
    assert view.image == "fiduciary-server:0.1.0"
    assert not view.edited
    ready = {"observedGeneration": 1, "conditions": [said("PredictorReady", "True"), said("Ready", "True")]}
    view = othersviews.inference_service(an_inference_service(ready))
    assert (view.ready, view.rolled_out) == (2, True)
    refused = said("PredictorReady", "False", "ReconcileFailed", "Deployment is invalid: must be less than cpu limit")
    view = othersviews.inference_service(an_inference_service({"conditions": [refused]}))
    assert "must be less than cpu limit" in view.failure


@pytest.mark.parametrize("reason", ["MinimumReplicasUnavailable", "ProgressDeadlineExceeded"])
def test_what_a_deployment_says_of_itself_is_no_refusal_by_kserve(reason: str) -> None:
    waits = said("PredictorReady", "False", reason, "Deployment does not have minimum availability.")
    assert othersviews.inference_service(an_inference_service({"conditions": [waits]})).failure == ""


def kserves_deployment(service: dict[str, Any], status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """As v0.20 makes it: labels and annotations are copied, the predictor's own are added."""
    metadata, predictor = service["metadata"], service["spec"]["predictor"]
    copied = {
        "labels": {**metadata["labels"], **predictor["labels"], "app": f"isvc.{metadata['name']}-predictor"},
        "annotations": {**metadata["annotations"], **predictor["annotations"]},
    }
    owners = [{"kind": "InferenceService", "name": metadata["name"], "uid": metadata["uid"], "controller": True}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{metadata['name']}-predictor", "namespace": metadata["namespace"], "uid": "d1",
            "resourceVersion": "9", "generation": 1, "creationTimestamp": THEN, "ownerReferences": owners, **copied,
        },
        "spec": {"replicas": 2, "template": {"spec": {"containers": predictor["containers"]}}, **spec},
        "status": status,
    }  # fmt: skip


ALL_READY = {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def joined(service: dict[str, Any], deployment: dict[str, Any]) -> Any:
    return othersviews.served_by(othersviews.inference_service(service), served.deployment(deployment))


def test_an_inference_service_has_the_numbers_of_its_deployment() -> None:
    """One of two pods is ready: KServe says that the predictor is not, which does not make it none."""
    waits = said(
        "PredictorReady", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    )
    service = an_inference_service({"observedGeneration": 1, "conditions": [waits]})
    view = joined(service, kserves_deployment(service, {**ALL_READY, "readyReplicas": 1}))
    assert (view.ready, view.updated, view.total, view.observed) == (1, 2, 2, True)
    assert not view.rolled_out
    assert joined(service, kserves_deployment(service, ALL_READY)).rolled_out
    alone = othersviews.served_by(othersviews.inference_service(service), None)
    assert (alone.ready, alone.observed) == (0, False)


def test_an_autoscaler_that_writes_to_the_deployment_leaves_an_inference_service_rolled_out() -> None:
    """KServe's observedGeneration is the Deployment's, which an autoscaler's every step increases."""
    said_by_kserve = {"observedGeneration": 7, "conditions": [said("PredictorReady", "True")]}
    service = an_inference_service(said_by_kserve)
    scaled = {key: 3 if key != "observedGeneration" else 7 for key in ALL_READY}
    deployment = kserves_deployment(service, scaled, replicas=3)
    deployment["metadata"]["generation"] = 7
    view = joined(service, deployment)
    assert (view.replicas, view.rolled_out) == (3, True)


def test_pods_of_what_an_inference_service_asked_for_before_are_not_new() -> None:
    """Until KServe has taken an edit over its conditions and its Deployment are those of the state before."""
    service = an_inference_service({"observedGeneration": 1, "conditions": [said("PredictorReady", "True")]})
    deployment = kserves_deployment(service, ALL_READY)
    edited = an_inference_service(service["status"], image="fiduciary-server:0.2.0")
    view = joined(edited, deployment)
    assert (view.ready, view.updated, view.rolled_out) == (2, 0, False)


def test_pods_are_not_made_anew_for_another_number_of_them() -> None:
    """KServe copies annotations of an InferenceService to the pods' template, what we asked for among them."""
    one, other = (an_inference_service(replicas=number) for number in (1, 2))
    assert one["spec"]["predictor"]["minReplicas"] != other["spec"]["predictor"]["minReplicas"]
    assert one["metadata"]["annotations"] == other["metadata"]["annotations"]


def test_kserves_children_are_not_taken_for_ours() -> None:
    """It copies the labels of an InferenceService to all that it makes; the Deployment is watched, as KServe's."""
    from fiduciary.engine import kinds

    service = an_inference_service()
    copied = kserves_deployment(service, ALL_READY)
    assert kinds.watched(kinds.INFERENCESERVICE, copied)
    assert not kinds.watched(kinds.SERVICE, copied)
    assert kinds.watched(kinds.POD, copied), "pods are KServe's, and explain why a version is not ready"
    assert kinds.watched(kinds.DEPLOYMENT, copied)
    view = served.deployment(copied)
    assert (view.lent_by, view.edited) == (service["metadata"]["name"], False)
    copied["metadata"]["ownerReferences"] = []
    assert served.deployment(copied).lent_by == ""


def test_a_model_of_a_mesh_is_looked_at_when_kinds_come_although_it_names_no_gateway() -> None:
    from fiduciary.engine.stores import Stores

    stores = Stores()
    bodies = {"plain": {}, "mesh": {"serving": {"backend": "Seldon"}}}
    for name, spec in bodies.items():
        given = model(spec, name=name).body()
        given["metadata"] |= {"resourceVersion": "1", "uid": name}
        stores.models.put({"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel", **given})
    assert stores.names_optional(("quant", "mesh"))
    assert not stores.names_optional(("quant", "plain"))
