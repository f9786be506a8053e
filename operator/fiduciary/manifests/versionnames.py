"""Names, labels and metadata of the objects that serve one version: named after the digest, which never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import owned

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.versions import VersionRef
    from fiduciary.manifests.plans import VersionPlan

REST_PORT, GRPC_PORT, METRICS_PORT = 8080, 8081, 8082

DIGITS = 12

LABEL_ARTIFACT = f"{meta.GROUP}/artifact"
"""Twelve digits of the digest: what selects the pods of a version. The number may change with a restored registry."""


def short(digest: str) -> str:
    """The digits of a digest that names are made of: no two artifacts of a model share twelve by chance."""
    return digest.removeprefix("sha256:")[:DIGITS]


def version_name(model: str, digest: str) -> str:
    """Name of the object that loads a version, and of its Service."""
    return f"{model}-{short(digest)}"


def service_name(model: str, digest: str, pods: str = meta.SERVING) -> str:
    """Name of the Service of a version. Pods of another kind have Services of their own, or a change of the backend
    would mix them with those that it has to prove itself against."""
    return version_name(model, digest) + ("" if pods == meta.SERVING else "-ks")


def mirror_name(model: str, digest: str, pods: str = meta.SERVING) -> str:
    """Name of the Service that takes copies of requests: the same pods, counted apart by the gateway."""
    return f"{service_name(model, digest, pods)}-mirror"


def service_account_name(model: str) -> str:
    """Never ``default``, to which somebody may have bound rights."""
    return f"{model}-serving"


def served_name(model: FinancialModel) -> str:
    """Name of the model in the Open Inference Protocol: one for all versions, so that a route can move between them."""
    return f"{model.metadata.namespace}.{model.metadata.name}"


def model_path(model: FinancialModel) -> str:
    """Path under which clients reach the model."""
    return f"/v2/models/{served_name(model)}"


def selector(model: FinancialModel, version: VersionRef, pods: str = meta.SERVING) -> dict[str, str]:
    """What selects the pods of one version."""
    return {**owned.labels(model, pods), LABEL_ARTIFACT: short(version.digest or "")}


def version_metadata(plan: VersionPlan, name: str) -> dict[str, Any]:
    """Metadata of an object that belongs to one version."""
    version = plan.version
    annotations = {meta.ANNOTATION_DIGEST: version.digest or ""}
    made = owned.metadata(plan.model, name, annotations, component=meta.SERVING, owned=plan.owned)
    made["labels"] |= {LABEL_ARTIFACT: short(version.digest or ""), meta.LABEL_VERSION: version.version or ""}
    return made
