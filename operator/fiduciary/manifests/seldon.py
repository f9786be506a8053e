"""Seldon Core v2: one Model per version, one Experiment for a split, and the HTTPRoute that leads clients to the mesh.

A Model is made once and never edited: an edit is a new version inside Seldon, and one that cannot be scheduled takes
the old one away (observed on v2.6.0). An Experiment is edited in place: the route of its default is rebuilt at each
edit. Its own route (``<name>.experiment``) is not (SeldonIO/seldon-core#5181) and is handed to nobody. Weights that
are all 0 make Envoy refuse every later route table of the mesh: no such Experiment can be made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import owned, versionnames
from fiduciary.manifests.content import sealed
from fiduciary.manifests.deployment import serving_key
from fiduciary.manifests.httproute import duration, parent
from fiduciary.manifests.resources import container_resources
from fiduciary.manifests.servingdocument import SERVING_REQUESTS, serving_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.serving import GatewayServing, ServingSpec
    from fiduciary.api.versions import VersionRef
    from fiduciary.manifests.plans import Arm, Mirrored, RoutePlan, VersionPlan

Body = dict[str, Any]

API_VERSION = "mlops.seldon.io/v1alpha1"
CAPABILITY = "fiduciary-onnx"
"""What our Server offers and our Models require: no other server can read a version."""
MESH, MESH_PORT = "seldon-mesh", 80
MODEL_HEADER = "seldon-model"
PIN_HEADER = "x-seldon-route"
"""Answers carry it; sent back it chooses a version past the weights, and gives 404 where that version is no more."""
FIRST = 1
"""Seldon counts the versions of a Model from 1; ours have one."""


def model_name(model: FinancialModel, version: VersionRef) -> str:
    """Name of the Model of a version. Seldon allows no dots, which names of models do not have."""
    return versionnames.version_name(model.metadata.name, version.digest or "")


def pin(name: str) -> str:
    """Value of :data:`PIN_HEADER` that asks for the one version of a Model."""
    return f":{name}_{FIRST}:"


def memory(serving: ServingSpec) -> str:
    """What a Model claims of its Server: what a pod of its own would request."""
    resources = container_resources(serving.resources, SERVING_REQUESTS)
    return str(resources["requests"].get("memory") or resources.get("limits", {}).get("memory", "256Mi"))


def seldon_model(plan: VersionPlan, serving: ServingSpec, storage_uri: str) -> Body:
    """One version. The Server's runtime reads the document and refuses an artifact with another digest."""
    seldon = serving.seldon
    metadata = versionnames.version_metadata(plan, model_name(plan.model, plan.version))
    metadata["annotations"][meta.ANNOTATION_SERVING_KEY] = serving_key(plan, serving)
    spec: Body = {
        "storageUri": storage_uri,
        "requirements": [CAPABILITY],
        "memory": memory(serving),
        "parameters": [{"name": "serving", "value": serving_text(plan)}],
    }
    if seldon is not None and seldon.server is not None:
        spec["server"] = seldon.server
    if seldon is not None and seldon.storage_secret_ref is not None:
        spec["secretName"] = seldon.storage_secret_ref.name
    return sealed({"apiVersion": API_VERSION, "kind": "Model", "metadata": metadata, "spec": spec})


def experiment(
    model: FinancialModel,
    decision: int,
    default: str,
    arms: Sequence[Arm],
    mirrored: Sequence[Mirrored] = (),
    *,
    owned_by: bool = True,
) -> Body:
    """The split on the route of Model ``default``.

    Args:
        arms: versions with their shares; the default is a candidate with share 0 where it is none of them.

    Raises:
        ValueError: every share is 0.
    """
    shares = {model_name(model, arm.version): arm.weight for arm in arms if arm.weight > 0}
    if not shares:
        raise ValueError(f"an Experiment of {model.metadata.name} without any share would freeze the mesh")
    candidates = [{"name": default, "weight": shares.pop(default, 0)}]  # first: it is what is fallen back on
    candidates += [{"name": name, "weight": weight} for name, weight in shares.items()]
    spec: Body = {"resourceType": "model", "default": default, "candidates": candidates}
    taken = {candidate["name"] for candidate in candidates}
    # Seldon refuses a mirror that is a candidate as well: during a split nothing is copied.
    copies = [one for one in mirrored if model_name(model, one.version) not in taken]
    if copies:
        spec["mirror"] = {"name": model_name(model, copies[0].version), "percent": copies[0].percent}
    annotations = {meta.ANNOTATION_DECISION: str(decision)}
    metadata = owned.metadata(model, default, annotations, component=meta.SERVING, owned=owned_by)
    return sealed({"apiVersion": API_VERSION, "kind": "Experiment", "metadata": metadata, "spec": spec})


def mesh_route(plan: RoutePlan, lead: str, gateway: GatewayServing) -> Body:
    """Clients' requests, with the name of Model ``lead``, to the mesh; nowhere where nobody may answer (status 500).

    REST only: a Gateway speaks HTTP/1.1 to Seldon's Service, which does not say that it takes HTTP/2. A client's own
    :data:`PIN_HEADER` is taken off, since it would choose a version past the weights.
    """
    model, blocked = plan.model, all(arm.weight == 0 for arm in plan.arms)
    path = versionnames.model_path(model)
    rule: Body = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "filters": [
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": [{"name": MODEL_HEADER, "value": lead}], "remove": [PIN_HEADER]},
            },
            {
                "type": "URLRewrite",
                "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": f"/v2/models/{lead}"}},
            },
        ],
        "backendRefs": [
            {"name": MESH, "port": MESH_PORT, "weight": 0 if blocked else 100},
            *({"name": name, "port": port or versionnames.REST_PORT, "weight": 0} for name, port in plan.also),
        ],
        "timeouts": {"request": duration(gateway.timeouts.request)},
    }
    annotations = {meta.ANNOTATION_DECISION: str(plan.decision)}
    metadata = owned.metadata(model, model.metadata.name, annotations, component=meta.SERVING, owned=plan.owned)
    spec: Body = {
        "parentRefs": [parent(ref) for ref in gateway.parent_refs],
        "hostnames": list(gateway.hostnames),
        "rules": [rule],
    }
    return sealed(
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata, "spec": spec}
    )
