"""What happens to a model in most tests of its life: it is trained, it gets a champion, a person acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.manifests.versionnames import version_name
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM, SERVED, approval, merged, metric, result

if TYPE_CHECKING:
    from fiduciary.decide.world import Platform

LINEAR = {"training": {"architecture": "Linear"}}
NO_SKILL = {"metrics": {"ewma_skill": metric(-0.05, 0.01, [-0.05] * 6)}}


def measured(sim: SimulatedWorld, change: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the live Job would report."""
    return result(sim.jobs[-1].key, change=change)


def trained(sim: SimulatedWorld, change: dict[str, Any] | None = None) -> None:
    """Let the claimed training run, end with numbers, and be judged."""
    sim.settle()
    sim.advance(seconds=40)
    sim.finish(measured(sim, change))
    sim.settle()


def champion(spec: dict[str, Any] | None = None, platform: Platform = PLATFORM) -> SimulatedWorld:
    """A world whose model has a champion."""
    sim = SimulatedWorld(spec, platform)
    trained(sim)
    assert sim.status.champion is not None
    return sim


def act_now(sim: SimulatedWorld, name: str, decision: str, approver: str = "ana@desk") -> None:
    """A person acts a second later; a second after that the operator looks."""
    sim.advance(seconds=1)
    sim.approve(approval(name, decision, sim.now, approver))
    sim.advance(seconds=1)


# --- serving ---------------------------------------------------------------------------------------------------------


def served(spec: dict[str, Any] | None = None, platform: Platform = PLATFORM) -> SimulatedWorld:
    """A world whose model serves its first champion."""
    sim = champion(merged(SERVED, spec or {}), platform)
    calm(sim)
    assert sim.condition("Ready")[0] == "True", sim.status.body()
    return sim


def challenged(spec: dict[str, Any] | None = None) -> SimulatedWorld:
    """A served model whose second version waits to be promoted, loaded and known to the gateway."""
    sim = served(spec)
    sim.edit(LINEAR)
    trained(sim)
    calm(sim)
    assert sim.status.challenger is not None
    return sim


def promoted(spec: dict[str, Any] | None = None) -> SimulatedWorld:
    """Version 2 is champion, version 1 was before it."""
    sim = challenged(spec)
    approve(sim, "ok")
    calm(sim)
    assert answers(sim) == "2"
    return sim


def calm(sim: SimulatedWorld, seconds: int = 120) -> None:
    """Let time pass in small steps, as the loop would be woken, until nothing is on its way."""
    sim.settle()
    for _ in range(seconds // 5):
        sim.advance(seconds=5)
        sim.settle()


def approve(sim: SimulatedWorld, name: str, approver: str = "ana@desk", decision: str = "Approve") -> None:
    """A person answers the request that the status shows."""
    request = sim.status.approval_request
    assert request is not None, "nobody is asked"
    sim.advance(seconds=1)
    sim.approve(approval(name, decision, sim.now, approver, evidenceDigest=request.digest))
    sim.advance(seconds=1)


def deleted(sim: SimulatedWorld) -> None:
    """Deleted by a person, and the operator works until the object is gone."""
    sim.advance(seconds=5)
    sim.delete()
    for _ in range(30):
        if sim.gone:
            return
        sim.step()
        sim.advance(seconds=1)
    raise AssertionError(f"the model does not go: {sim.status.body()}")


def answers(sim: SimulatedWorld) -> str | None:
    """Number of the version that clients reach now; None: nobody answers."""
    sim.serving.turn(sim.now)
    service = next((name for name, weight in sim.serving.taken_over.items() if weight > 0), None)
    digests = {
        service_name(sim, record.to.digest): record.to.version for record in sim.records if record.to is not None
    }
    return digests.get(service) if service is not None else None


def service_name(sim: SimulatedWorld, digest: str | None) -> str:
    return version_name(sim.model.metadata.name, digest or "")


def digest_of(sim: SimulatedWorld, version: str) -> str:
    """Digest of a version that the log accepted."""
    found = [record.to.digest for record in sim.records if record.to is not None and record.to.version == version]
    assert found, f"no record names version {version}"
    return str(found[0])


def pin(sim: SimulatedWorld, version: str, digest: str | None = None) -> None:
    sim.edit(
        {"promotion": {"mode": "Pinned", "pinned": {"version": version, "digest": digest or digest_of(sim, version)}}}
    )


def replicas(sim: SimulatedWorld, version: str) -> int | None:
    """Replicas of a version; None where it is not loaded."""
    stored = sim.serving.deployment(digest_of(sim, version))
    return None if stored is None else stored.replicas
