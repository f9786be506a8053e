"""Serving by KServe in mode Standard: an InferenceService per version behind the model's own HTTPRoute."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import companions, versionnames
from fiduciary.manifests.httproute import http_route
from fiduciary.manifests.inferenceservice import inference_service
from fiduciary.serving.gateway import GATEWAY_API
from fiduciary.serving.protocol import Address, Capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.serving import ServingSpec
    from fiduciary.api.versions import VersionRef
    from fiduciary.manifests.plans import RoutePlan, VersionPlan

Body = dict[str, Any]

KSERVE = (
    "install KServe v0.20 in mode Standard (docs/kserve.md: helm install kserve oci://ghcr.io/kserve/charts/kserve "
    "--version v0.20.0 --set kserve.controller.deploymentMode=Standard)"
)


class KServeBackend:
    """Pods are KServe's, Services and the split are ours.

    KServe v0.20's own canary (``spec.canary``) makes pods and no split (kserve/kserve#5912 came after it), so one
    InferenceService has one version. Its one Service has a name and, where a platform wants that
    (``serviceClusterIPNone``), a headlessness that are not ours to choose, so each version gets Services of ours, a
    second one for copies of requests among them: what KServe itself does not offer.
    """

    name = "KServe"
    workload_kind = ("serving.kserve.io/v1beta1", "InferenceService")
    capabilities = Capabilities(
        arms=2,
        mirror=True,
        mirror_during_split=False,
        sticky=False,
        confirms_generation=True,
        latency_histogram=True,
        grpc=True,
        autoscaling=("cpuUtilization",),
    )
    kinds: Mapping[str, str] = {"InferenceService": KSERVE, "HTTPRoute": GATEWAY_API, "Gateway": GATEWAY_API}

    def workload(self, plan: VersionPlan) -> Body:
        return inference_service(_here(plan), _serving(plan.model))

    def companions(self, plan: VersionPlan) -> tuple[Body, ...]:
        plan, serving = _here(plan), _serving(plan.model)
        made = (
            companions.service(plan),
            companions.mirror_service(plan),
            companions.serving_policy(plan, serving),
            companions.disruption_budget(plan),
        )
        return tuple(body for body in made if body is not None)

    def shared(self, plan: VersionPlan) -> tuple[Body, ...]:
        return (companions.serving_account(plan),)

    def route(self, plan: RoutePlan) -> Body:
        gateway = _serving(plan.model).gateway
        assert gateway is not None, "admission refuses backend KServe without it"
        return http_route(replace(plan, pods=meta.KSERVE), gateway)

    def service(self, model: FinancialModel, version: VersionRef) -> str:
        return versionnames.service_name(model.metadata.name, version.digest or "", meta.KSERVE)

    def address(self, model: FinancialModel, version: VersionRef) -> Address:
        host = f"{self.service(model, version)}.{model.metadata.namespace}.svc"
        return Address(f"http://{host}:{versionnames.REST_PORT}{versionnames.model_path(model)}")


def _here(plan: VersionPlan) -> VersionPlan:
    return replace(plan, pods=meta.KSERVE)


def _serving(model: FinancialModel) -> ServingSpec:
    assert model.spec.serving is not None, "a model without spec.serving has no plans"
    return model.spec.serving
