"""Serving by Seldon Core v2: Models in Servers that are the platform's, a split by an Experiment of the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.manifests import seldon
from fiduciary.serving.protocol import Address, Capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.serving import ServingSpec
    from fiduciary.api.versions import VersionRef
    from fiduciary.manifests.plans import RoutePlan, VersionPlan

Body = dict[str, Any]

SELDON = (
    "install Seldon Core v2 (docs/seldon.md: release 2.6.0 with its scheduler and Envoy in this namespace), then the "
    "Server of deploy/seldon"
)
RCLONE = ("s3://", "gs://", "gcs://", "azureblob://", "/")
"""What a Server's rclone container reads without a question: object stores, and folders that are mounted in it."""


class StorageUnreadable(ValueError):
    """No Server can fetch what a version's URI names; the message says what would help."""


class SeldonBackend:
    """Needs the CRDs of release 2.6.0, its scheduler and Envoy in the model's namespace, and a Server of ours.

    An Experiment takes any number of candidates. Its mirror cannot be one of them, so nothing is mirrored during a
    split. Stickiness by a header of the client's is not offered (the mesh's own, :data:`seldon.PIN_HEADER`, answers 404
    from the moment that a split ends), and no status says which generation is in force: probes do.
    """

    name = "Seldon"
    workload_kind = ("mlops.seldon.io/v1alpha1", "Model")
    capabilities = Capabilities(
        arms=2,
        mirror=True,
        mirror_during_split=False,
        sticky=False,
        confirms_generation=False,
        latency_histogram=True,
        grpc=False,
        gateway_needed=False,
        autoscaling=(),
    )
    kinds: Mapping[str, str] = {"Model": SELDON, "Experiment": SELDON, "Server": SELDON, "ServerConfig": SELDON}

    def __init__(self, artifacts: str | None = None) -> None:
        """``artifacts``: where MLflow's proxied artifacts really are (a URI that :data:`RCLONE` names)."""
        self._artifacts = artifacts

    def workload(self, plan: VersionPlan) -> Body:
        serving = _serving(plan.model)
        return seldon.seldon_model(plan, serving, self.storage(plan.version))

    def companions(self, plan: VersionPlan) -> tuple[Body, ...]:
        return ()

    def shared(self, plan: VersionPlan) -> tuple[Body, ...]:
        return ()

    def storage(self, version: VersionRef) -> str:
        """Where a Server fetches the version. Raises :class:`StorageUnreadable`."""
        uri = version.uri or ""
        if uri.startswith("mlflow-artifacts:/") and self._artifacts is not None:
            uri = f"{self._artifacts.rstrip('/')}/{uri.removeprefix('mlflow-artifacts:').lstrip('/')}"
        if uri.startswith("pvc://"):
            uri = f"/mnt/claims/{uri.removeprefix('pvc://')}"
        if not uri.startswith(RCLONE):
            raise StorageUnreadable(
                f"version {version.version} is kept at {uri or 'no address'}, which a Server's rclone cannot read: it "
                "reads s3://, gs://, azureblob:// and claims that are mounted in it (pvc://). Where MLflow keeps "
                "artifacts in such a store, name it in the operator's settings (connections.<name>.artifacts)"
            )
        return uri

    def service(self, model: FinancialModel, version: VersionRef) -> str:
        """What the HTTPRoute calls every version: the mesh."""
        return seldon.MESH

    def route(self, plan: RoutePlan) -> Body:
        """The HTTPRoute to the mesh with the champion's name; ``decide`` moves the name when it is proven."""
        gateway = _serving(plan.model).gateway
        assert gateway is not None, "without a Gateway there is no HTTPRoute"
        lead = plan.lead or seldon.model_name(plan.model, plan.arms[0].version)
        return seldon.mesh_route(plan, lead, gateway)

    def address(self, model: FinancialModel, version: VersionRef) -> Address:
        name = seldon.model_name(model, version)
        url = f"http://{seldon.MESH}.{model.metadata.namespace}.svc/v2/models/{name}"
        return Address(url, served=name, headers=((seldon.MODEL_HEADER, name),))


def _serving(model: FinancialModel) -> ServingSpec:
    assert model.spec.serving is not None, "a model without spec.serving has no plans"
    return model.spec.serving
