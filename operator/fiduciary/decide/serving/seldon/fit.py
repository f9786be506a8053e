"""Whether a Server could take a version: asked before a Model is made, since Seldon tells the reason in a trail of its
filters and tries a Model that did not fit again only when a server replica connects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.step import Note
from fiduciary.manifests import seldon
from fiduciary.manifests.quantity import parse_quantity
from fiduciary.serving.seldon import SeldonBackend, StorageUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.serving.ability import Able
    from fiduciary.serving.seldonviews import ServerView

SERVER = "apply deploy/seldon to this namespace"


def obstacle(case: Case, able: Able, version: VersionRef, replicas: int) -> Note | None:
    """Why no Server takes this version, before anything is made; None where one could, and for other backends."""
    if not isinstance(able.backend, SeldonBackend):
        return None
    try:
        able.backend.storage(version)
    except StorageUnreadable as error:
        return Note(reasons.UNSUPPORTED_STORAGE, str(error), stalled=True)
    servers = candidates(case)
    if isinstance(servers, Note):
        return servers
    what = f"version {version.version}"
    able_to = offering(servers)
    if not able_to:
        return Note(reasons.CAPABILITY_MISMATCH, f"{what} cannot be placed: {mismatch(servers)}", stalled=True)
    needed = int(parse_quantity(seldon.memory(able.serving)))
    roomy = [server for server in able_to if server.memory is None or server.memory >= needed]
    if not roomy:
        told = ", ".join(f"{server.name} {server.memory}" for server in able_to)
        message = (
            f"{what} asks for {needed} bytes of memory (spec.serving.resources), and a replica of no Server has as "
            f"much ({told}): lower it, or raise requests.memory of the Server's container mlserver"
        )
        return Note(reasons.SERVER_TOO_SMALL, message, stalled=True)
    return too_many(case, replicas)


def candidates(case: Case) -> tuple[ServerView, ...] | Note:
    """Servers that the spec allows; a note where there is none."""
    servers, serving = case.world.seldon.servers, case.spec.serving
    wanted = serving.seldon.server if serving is not None and serving.seldon is not None else None
    namespace = case.world.model.metadata.namespace
    if not servers:
        message = f"namespace {namespace} has no Seldon Server that could load a model: {SERVER}"
        return Note(reasons.SERVER_NOT_READY, message, stalled=True)
    if wanted is None:
        return servers
    named = tuple(server for server in servers if server.name == wanted)
    if not named:
        found = ", ".join(server.name for server in servers)
        message = f"spec.serving.seldon.server names {wanted}, which does not exist; namespace {namespace} has {found}"
        return Note(reasons.SERVER_NOT_READY, message, stalled=True)
    return named


def offering(servers: Iterable[ServerView]) -> list[ServerView]:
    """Servers that may load a version of ours."""
    return [server for server in servers if server.capabilities is None or seldon.CAPABILITY in server.capabilities]


def too_many(case: Case, replicas: int) -> Note | None:
    """A Model with more replicas than its Server is not placed at all, and one that is raised so loses its place."""
    servers = candidates(case)
    if isinstance(servers, Note):
        return servers
    able_to = offering(servers)
    most = max((server.replicas for server in able_to), default=0)
    if able_to and most == 0:
        names = ", ".join(server.name for server in able_to)
        message = f"Server {names} has 0 replicas (Seldon shows it as Ready all the same): scale it up"
        return Note(reasons.SERVER_NOT_READY, message, stalled=True)
    if able_to and replicas > most:
        names = ", ".join(f"{server.name} {server.replicas}" for server in able_to)
        message = (
            f"a version needs {replicas} replicas, and no Server has as many ({names}): scale the Server up, or lower "
            "spec.serving.replicas"
        )
        return Note(reasons.REPLICAS_EXCEED_SERVER, message, stalled=True)
    return None


def mismatch(servers: Iterable[ServerView], wanted: Iterable[str] = (seldon.CAPABILITY,)) -> str:
    """Which strings are missing where, and what is there in their place."""
    told = [
        f"Server {server.name} lacks {', '.join(sorted(set(wanted) - (server.capabilities or frozenset())))} "
        f"(it has {', '.join(sorted(server.capabilities or ())) or 'none'})"
        for server in servers
    ]
    return f"{'; '.join(told)}. Add the string to the Server's capabilities exactly as it is written, or {SERVER}"
