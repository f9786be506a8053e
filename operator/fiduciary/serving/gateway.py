"""The default backend: a Deployment for each version behind one HTTPRoute of the Gateway API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.manifests import companions, versionnames
from fiduciary.manifests.deployment import deployment
from fiduciary.manifests.httproute import http_route
from fiduciary.serving.protocol import Address, Capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.serving import GatewayServing, ServingSpec
    from fiduciary.api.versions import VersionRef
    from fiduciary.manifests.plans import RoutePlan, VersionPlan

Body = dict[str, Any]

GATEWAY_API = (
    "install the Gateway API (kubectl apply -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.1/"
    "standard-install.yaml) and a controller for it, for example Contour or Envoy Gateway"
)


class GatewayBackend:
    """Needs a conforming Gateway and nothing of one controller's own.

    A rule takes 16 backends and any number of mirrors; how many mirrors are followed is the controller's (Extended
    support ``HTTPRouteRequestMultipleMirrors``), so mirroring to both arms of a split is not promised.
    """

    name = "Gateway"
    workload_kind = ("apps/v1", "Deployment")
    capabilities = Capabilities(
        arms=2,
        mirror=True,
        mirror_during_split=False,
        sticky=False,
        confirms_generation=True,
        latency_histogram=True,
        grpc=True,
    )
    kinds: Mapping[str, str] = {"HTTPRoute": GATEWAY_API, "Gateway": GATEWAY_API}

    def workload(self, plan: VersionPlan) -> Body:
        return deployment(plan, _serving(plan.model))

    def companions(self, plan: VersionPlan) -> tuple[Body, ...]:
        serving = _serving(plan.model)
        made = [
            companions.service(plan),
            companions.mirror_service(plan),
            companions.serving_policy(plan, serving),
            companions.disruption_budget(plan),
        ]
        if plan.autoscaled and serving.autoscaling is not None:
            made.append(companions.autoscaler(plan, serving.autoscaling))
        return tuple(body for body in made if body is not None)

    def shared(self, plan: VersionPlan) -> tuple[Body, ...]:
        return (companions.serving_account(plan),)

    def route(self, plan: RoutePlan) -> Body:
        return http_route(plan, _gateway(plan.model))

    def service(self, model: FinancialModel, version: VersionRef) -> str:
        return versionnames.version_name(model.metadata.name, version.digest or "")

    def address(self, model: FinancialModel, version: VersionRef) -> Address:
        host = f"{self.service(model, version)}.{model.metadata.namespace}.svc"
        return Address(f"http://{host}:{versionnames.REST_PORT}{versionnames.model_path(model)}")


def _serving(model: FinancialModel) -> ServingSpec:
    assert model.spec.serving is not None, "a model without spec.serving has no plans"
    return model.spec.serving


def _gateway(model: FinancialModel) -> GatewayServing:
    gateway = _serving(model).gateway
    assert gateway is not None, "admission refuses backend Gateway without it"
    return gateway
