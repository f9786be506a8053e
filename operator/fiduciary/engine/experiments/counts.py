"""How the requests of one experiment are counted, and what an answer of Prometheus, or none, says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.counters import blocks
from fiduciary.decide.counters.exposure import exposure
from fiduciary.decide.counters.plan import Plan, planned
from fiduciary.decide.counters.templates import Workload
from fiduciary.decide.experiment.times import first_edge
from fiduciary.decide.experiment.world import Health
from fiduciary.decide.serving.seldon import fit
from fiduciary.engine.experiments.kept import met, needed
from fiduciary.manifests.servingdocument import latency_edges
from fiduciary.manifests.versionnames import version_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.clients.prometheus_answers import PrometheusError
    from fiduciary.decide.experiment.world import World
    from fiduciary.engine.experiments.asking import Sources
    from fiduciary.engine.experiments.gather import Gathered
    from fiduciary.engine.experiments.kept import Kept
    from fiduciary.engine.experiments.observe import Seen
    from fiduciary.engine.stores import Stores

MESH_PATIENCE = "60s"
"""How long Seldon's mesh waits for an answer, where no Gateway stands before it (Seldon Core v2.6.0)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model's versions answer, and are counted. ``backend``: the one in force."""

    stores: Stores
    model: FinancialModel
    backend: str

    @property
    def meshed(self) -> bool:
        return self.backend == "Seldon"

    def workload(self, digest: str) -> Workload:
        """Whose pods count the requests of a version. One that Seldon has loaded is in a Server's."""
        namespace, name = self.model.metadata.namespace, version_name(self.model.metadata.name, digest)
        if not self.meshed:
            return Workload(namespace, name)
        loaded = self.stores.seldon_models.get((namespace, name))
        if loaded is not None and loaded.server:
            return Workload(namespace, name, (loaded.server,))
        servers = fit.offering(self.stores.seldon_servers(namespace))
        return Workload(namespace, name, tuple(server.name for server in servers))

    def edges(self, digests: Collection[str]) -> frozenset[int]:
        """Latency edges (ms) that all these versions count at. Pods follow the spec; a Seldon Model keeps those that it
        was made with, since it is never edited."""
        asked = frozenset(round(1000 * edge) for edge in latency_edges(self.model.spec))
        if not self.meshed:
            return asked
        name = self.model.metadata.namespace, self.model.metadata.name
        found = [one.edges for one in self.stores.seldon_models.of(name) if one.digest in digests]
        return frozenset(edge for edge in found[0] if all(edge in one for one in found)) if found else asked


def plan_of(
    world: World, model: FinancialModel, sources: Sources, now: int, meshed: bool, edges: Collection[int]
) -> Plan | str:
    """How requests are counted. Whose counters are read is fixed with the start, whatever the settings say later.

    ``meshed``: Seldon's mesh leads requests. ``edges``: of the latency histograms of both versions, ms.
    """
    if meshed and world.state is not None and world.state.terms.transport:
        return (
            "it began with the gateway's counters, which know no version behind Seldon's mesh: delete this experiment, "
            "another one is made where the model makes them"
        )
    spec, state, gateway = world.experiment.spec, world.state, model.spec.serving and model.spec.serving.gateway
    patience = gateway.timeouts.request if gateway else MESH_PATIENCE
    return planned(
        spec,
        origin=first_edge(now // 1000, 1) if state is None else state.terms.origin,
        scrape_seconds=sources.scrape_seconds,
        timeout_seconds=sources.timeout_seconds,
        patience_ms=round(timedelta_of(patience).total_seconds() * 1000),
        gateway=sources.gateway is not None if state is None else state.terms.transport,
        meshed=meshed,
        runtime_edges=edges,
    )


def read(seen: Seen, plan: Plan, gathered: Gathered | None, now: int) -> Seen:
    """With the blocks that the newest answer closes, and whether both arms can be seen."""
    assert seen.world is not None
    world, kept = seen.world, seen.kept
    if gathered is None:
        # A process that has just begun has seen nothing yet: that is no gap in the data.
        return replace(seen, world=None) if plan.closable(now) > kept.counters.last else seen
    if gathered.error is not None:
        if gathered.error.reason == "PrometheusClockSkew":
            kept = replace(kept, skewed=True)
        health = _unseen(plan, kept, gathered.at, gathered.error)
        return replace(seen, world=replace(world, health=health), kept=kept)
    kept = kept.agreeing(now)
    reading = blocks.read(plan, kept.counters, gathered.samples, kept.confirmed, gathered.at)
    health, live = reading.health, replace(world.live, counts=reading.live)
    if gathered.at < now - plan.clock.settled - plan.block * 1000:  # it catches up: the present is not seen yet
        if not reading.blocks:
            return replace(seen, world=None, kept=kept)
        health, live = Health(message="blocks of a time in which nobody looked are read"), replace(live, counts=())
    if kept.absent(plan.edge(reading.state.last)):
        live = replace(live, counts=())  # who was sent to pods that were not there says nothing of the version
    closed = tuple(
        replace(block, absent=kept.absent(plan.edge(block.first - 1), plan.edge(block.last)))
        for block in reading.blocks
    )
    edge = plan.edge(reading.state.last)
    changes, absences = needed(kept.changes, edge), met(kept.absences, edge)
    return replace(
        seen,
        world=replace(world, blocks=closed, health=health, live=live),
        kept=replace(kept, counters=reading.state, changes=changes, absences=absences),
    )


def _unseen(plan: Plan, kept: Kept, at: int, error: PrometheusError) -> Health:
    """No answer is no data (rule 10): settled edges that closed no block, by the clock."""
    missed = max(0, plan.closable(at) - kept.counters.last)
    shown = exposure(kept.changes, plan.edge(kept.counters.last), at, plan.clock.scrape)
    return Health(missed, missed if shown.any else 0, message=f"{error.reason}: {error.message}")


def blind(seen: Seen, now: int, health: Health) -> Seen:
    """Nothing can be counted, and ``health`` says why. Of an experiment that has begun that is no data (rule 10)."""
    assert seen.world is not None
    state = seen.world.state
    if state is not None:
        missed = max(0, (now // 1000 - state.terms.origin) // state.terms.block - 1 - state.evidence.last)
        health = replace(health, champion_missed=missed, challenger_missed=missed)
    return replace(seen, world=replace(seen.world, health=health))


NOWHERE = Health(message="PrometheusNotConfigured: the operator's settings name no Prometheus any more")
"""Of an experiment that had begun with one."""
