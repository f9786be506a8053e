"""Which backend serves a model: what the log says while requests go somewhere, what the spec asks for otherwise.

A change of ``spec.serving.backend`` on a live model is a decision like any other: the new backend loads what answers,
proves it, and takes over by a record (see ``succession``). Until then everything else goes on with the old one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api import meta
from fiduciary.manifests import seldon, versionnames
from fiduciary.serving.gateway import GatewayBackend
from fiduciary.serving.kserve import KServeBackend
from fiduciary.serving.seldon import SeldonBackend

if TYPE_CHECKING:
    from fiduciary.api.serving import ServingSpec
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.serving.protocol import Backend

WORKLOAD = {"Gateway": "Deployment", "Seldon": "Model", "KServe": "InferenceService"}


def in_force(case: Case, history: History | None = None) -> str:
    """Name of the backend that serves."""
    if case.assumed is not None:
        return case.assumed
    return named(case.spec.serving, history or case.history)


def named(serving: ServingSpec | None, history: History) -> str:
    """What the log says while requests go somewhere, what the spec asks for otherwise."""
    routed = history.traffic is not None and history.traffic.champion > 0
    return serving.backend if serving is not None and not routed else history.backend


def coming(case: Case) -> str | None:
    """Name of the backend that the spec asks for while another one serves; None where nothing is to be changed."""
    serving = case.spec.serving
    if serving is None or case.assumed is not None or serving.backend == in_force(case):
        return None
    return serving.backend


def backend_of(case: Case) -> Backend:
    """The backend that serves."""
    name = in_force(case)
    if name == "Seldon":
        connection = case.world.platform.connections.get(case.spec.registry.connection)
        return SeldonBackend(connection.artifacts if connection is not None else None)
    return KServeBackend() if name == "KServe" else GatewayBackend()


def workload(case: Case) -> str:
    """Kind of what loads a version."""
    return WORKLOAD[in_force(case)]


def service_of(case: Case, version: VersionRef) -> str:
    """What the HTTPRoute names for a version."""
    name, digest = in_force(case), version.digest or ""
    if name == "Seldon":
        return seldon.MESH
    return versionnames.service_name(case.name, digest, meta.KSERVE if name == "KServe" else meta.SERVING)
