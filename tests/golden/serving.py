"""Serving objects as YAML: what is asked of the builders, and what they make of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fiduciary.api.versions import VersionRef
from fiduciary.manifests import seldon, versionnames
from fiduciary.manifests.plans import Arm, Mirrored, RoutePlan, Sticky, VersionPlan
from fiduciary.serving.gateway import GatewayBackend
from fiduciary.serving.kserve import KServeBackend
from fiduciary.serving.seldon import SeldonBackend
from tests.golden.worlds import dump, readable
from tests.unit.decide.worlds import PLATFORM, model

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent / "serving"
Body = dict[str, Any]

URI = "mlflow-artifacts:/1/run/artifacts/version"
_BACKENDS = {"Gateway": GatewayBackend(), "KServe": KServeBackend(), "Seldon": SeldonBackend("s3://mlflow")}


def build(path: Path) -> str:
    """The objects of a file, as YAML. ``version``: one version's; ``route``: the model's route."""
    asked: Body = yaml.safe_load(path.read_text())
    given, backend = model(asked.get("spec")), _BACKENDS[asked.get("backend", "Gateway")]
    bodies: list[Body] = []
    if "version" in asked:
        assert PLATFORM.serving is not None
        plan = VersionPlan(
            model=given,
            version=VersionRef.model_validate(
                {**({"uri": URI} if backend.name == "Seldon" else {}), **asked["version"]}
            ),
            replicas=asked["replicas"],
            autoscaled=asked.get("autoscaled", False),
            tracking_uri="http://mlflow.mlflow.svc:5000",
            environment=PLATFORM.serving,
            owned=asked.get("owned", True),
        )
        bodies += [*backend.shared(plan), *backend.companions(plan), backend.workload(plan)]
    if "route" in asked:
        route = _route(given, asked["route"])
        if given.spec.serving is not None and given.spec.serving.gateway is not None:
            bodies.append(backend.route(route))
        for default in asked["route"].get("experiments", ()):
            name = versionnames.version_name(given.metadata.name, _digest(default))
            bodies.append(seldon.experiment(given, route.decision, name, route.arms, route.mirrored))
    return dump(*(readable(body) for body in bodies))


def _route(given: Any, asked: Mapping[str, Any]) -> RoutePlan:
    versions = {number: VersionRef(version=number, digest=_digest(number)) for number in asked["weights"]}
    sticky = asked.get("sticky")
    return RoutePlan(
        given,
        asked["decision"],
        tuple(Arm(versions[number], weight) for number, weight in asked["weights"].items()),
        tuple(Mirrored(versions[number], percent) for number, percent in asked.get("mirrored", {}).items()),
        Sticky(versions[sticky["version"]], tuple(sticky["buckets"])) if sticky is not None else None,
        lead=versionnames.version_name(given.metadata.name, _digest(asked["lead"])) if "lead" in asked else None,
        also=tuple((name, port) for name, port in asked.get("also", {}).items()),
    )


def _digest(number: str) -> str:
    return "sha256:" + number.zfill(8) + "0" * 56
