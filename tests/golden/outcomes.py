"""The outcome scorer of a namespace as YAML: what the settings say, and the objects that it is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fiduciary.manifests import outcomes
from fiduciary.manifests.plans import Postgresql, Scoring
from tests.golden.worlds import dump, readable

FOLDER = Path(__file__).parent / "outcomes"
USUAL: dict[str, Any] = {
    "image": "fiduciary-outcomes:0.1.0",
    "issuer": "https://kubernetes.default.svc.cluster.local",
    "operator": "system:serviceaccount:fiduciary-system:fiduciary-operator",
    "operator_namespace": "fiduciary-system",
    "monitoring_namespaces": ("monitoring",),
}


def scoring(**changes: Any) -> Scoring:
    """As the sandbox's settings have it."""
    database = changes.pop("postgresql", None)
    return Scoring(**{**USUAL, **changes}, postgresql=Postgresql(**database) if database else None)


def build(path: Path) -> str:
    """The objects of a file, the claim first, as YAML; the process's settings are spread out."""
    asked: dict[str, Any] = yaml.safe_load(path.read_text())
    given, namespace = scoring(**asked.get("scoring", {})), asked["namespace"]
    claim = outcomes.claim(namespace, given)
    bodies = [*([] if claim is None else [claim]), *outcomes.objects(namespace, given)]
    return dump(*(_spread(readable(body)) for body in bodies))


def _spread(body: dict[str, Any]) -> dict[str, Any]:
    if body["kind"] == "Deployment":
        (variable,) = body["spec"]["template"]["spec"]["containers"][0]["env"]
        variable["value"] = json.loads(variable["value"])
    return body
