"""What can be known before a training starts is said before it starts, naming the thing that is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import Cluster, Object, condition, has, names
from tests.e2e.models import model, on_claim

if TYPE_CHECKING:
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node


@pytest.fixture(scope="module")
def namespace(make_namespace: MakeNamespace) -> str:
    return make_namespace("before")


def _jobs(cluster: Cluster, namespace: str, of: str) -> list[str]:
    return [name for name in names(cluster.list("job", namespace)) if name.startswith(f"{of}-")]


def _label(cluster: Cluster, kind: str, name: str, namespace: str) -> None:
    cluster.patch(kind, name, {"metadata": {"labels": {"fiduciary.dev/consumable": "true"}}}, namespace)


def test_unlabelled_claim_is_named_and_not_used(cluster: Cluster, node: Node, namespace: str) -> None:
    node.claim(namespace, "private", consumable=False)
    cluster.apply(on_claim("takes-claim", "good.csv", claim="private"), namespace=namespace)
    found = cluster.until(
        "fm", "takes-claim", namespace, lambda fm: has(fm, "Stalled", "True"), 60, "Stalled on the claim"
    )
    message = condition(found, "Stalled")["message"]
    assert "private" in message
    assert "fiduciary.dev/consumable" in message
    assert _jobs(cluster, namespace, "takes-claim") == []
    _label(cluster, "pvc", "private", namespace)
    cluster.until_all(
        "job", namespace, lambda _: bool(_jobs(cluster, namespace, "takes-claim")), 90, "labelled: training starts"
    )


def test_unlabelled_secret_is_named_and_not_used(cluster: Cluster, node: Node, namespace: str) -> None:
    node.claim(namespace, "open")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "desk-s3"},
        "stringData": {"AWS_ACCESS_KEY_ID": "key-that-must-not-leak"},
    }
    source: Object = {"files": {"uri": "pvc://open/good.csv", "format": "CSV", "secretRef": {"name": "desk-s3"}}}
    cluster.apply(secret, model("takes-secret", source=source), namespace=namespace)
    found = cluster.until(
        "fm", "takes-secret", namespace, lambda fm: has(fm, "Stalled", "True"), 60, "Stalled on the Secret"
    )
    message = condition(found, "Stalled")["message"]
    assert "desk-s3" in message
    assert "key-that-must-not-leak" not in str(found)
    assert _jobs(cluster, namespace, "takes-secret") == []


def test_address_outside_the_allow_list_is_refused(cluster: Cluster, namespace: str) -> None:
    source: Object = {"files": {"uri": "file:///etc/passwd", "format": "CSV"}}
    cluster.apply(model("takes-file", source=source), namespace=namespace)
    found = cluster.until(
        "fm", "takes-file", namespace, lambda fm: has(fm, "Stalled", "True"), 60, "Stalled on the URI"
    )
    assert "file:///etc/passwd" in condition(found, "Stalled")["message"]
    assert _jobs(cluster, namespace, "takes-file") == []


def test_quota_that_cannot_fit_is_named_before_the_job(cluster: Cluster, make_namespace: MakeNamespace) -> None:
    namespace = make_namespace("quota")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "desk"},
        "spec": {"hard": {"requests.cpu": "100m", "requests.memory": "4Gi"}},
    }
    cluster.apply(quota, namespace=namespace)
    cluster.apply(model("too-large"), namespace=namespace)
    found = cluster.until(
        "fm", "too-large", namespace, lambda fm: condition(fm, "Ready").get("reason") == "QuotaExceeded", 60, "quota"
    )
    message = condition(found, "Ready")["message"]
    for word in ("desk", "requests.cpu", "200m", "100m"):
        assert word in message, f"the message does not say {word!r}: {message}"
    assert cluster.list("job", namespace) == []
    cluster.kubectl("delete", "resourcequota", "desk", namespace=namespace)
    cluster.until_all("job", namespace, bool, 90, "the quota is gone: training starts")


def test_image_that_cannot_be_pulled_is_explained(cluster: Cluster, namespace: str) -> None:
    image = "127.0.0.1:1/nobody/trainer:1"  # refused at once; a name that nothing resolves takes a minute
    cluster.apply(model("no-image", {"training": {"image": image}}), namespace=namespace)
    found = cluster.until(
        "fm", "no-image", namespace, lambda fm: has(fm, "Reconciling", "True", "ImageNotPulled"), 90, "ImageNotPulled"
    )
    message = condition(found, "Reconciling")["message"]
    assert image in message
    assert "imagePullSecrets" in message, "the message does not say what to do"


def test_second_claim_on_a_registered_model_is_stalled(cluster: Cluster, namespace: str) -> None:
    shared: Object = {"suspend": True, "registry": {"model": f"{namespace}.shared"}}
    cluster.apply(model("first", shared), namespace=namespace)
    first = cluster.until("fm", "first", namespace, lambda fm: has(fm, "Suspended", "True"), 60, "first holds the name")
    cluster.until_after(first["metadata"]["creationTimestamp"])
    cluster.apply(model("second", {**shared, "suspend": False}), namespace=namespace)
    found = cluster.until(
        "fm",
        "second",
        namespace,
        lambda fm: has(fm, "Stalled", "True", "RegistryModelTaken"),
        60,
        "second is Stalled",
    )
    assert f"{namespace}/first" in condition(found, "Stalled")["message"], "who holds it is not named"
    assert _jobs(cluster, namespace, "second") == []
    cluster.delete("fm", "first", namespace)
    cluster.until_all(
        "job", namespace, lambda _: bool(_jobs(cluster, namespace, "second")), 90, "free: training starts"
    )
