"""How the requests of one experiment are counted, and what an answer of Prometheus, or none, says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.counters import blocks
from fiduciary.decide.counters.exposure import exposure
from fiduciary.decide.counters.plan import Plan, planned
from fiduciary.decide.experiment.times import first_edge
from fiduciary.decide.experiment.world import Health
from fiduciary.engine.experiments.kept import needed

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.clients.prometheus_answers import PrometheusError
    from fiduciary.decide.experiment.world import World
    from fiduciary.engine.experiments.asking import Sources
    from fiduciary.engine.experiments.gather import Gathered
    from fiduciary.engine.experiments.kept import Kept
    from fiduciary.engine.experiments.observe import Seen


def plan_of(world: World, model: FinancialModel, sources: Sources, now: int) -> Plan | str:
    """How requests are counted. Whose counters are read is fixed with the start, whatever the settings say later."""
    spec, state, gateway = world.experiment.spec, world.state, model.spec.serving and model.spec.serving.gateway
    patience = "10s" if not gateway else gateway.timeouts.request
    return planned(
        spec,
        origin=first_edge(now // 1000, 1) if state is None else state.terms.origin,
        scrape_seconds=sources.scrape_seconds,
        timeout_seconds=sources.timeout_seconds,
        patience_ms=round(timedelta_of(patience).total_seconds() * 1000),
        gateway=sources.gateway is not None if state is None else state.terms.transport,
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
    changes = needed(kept.changes, plan.edge(reading.state.last))
    return replace(
        seen,
        world=replace(world, blocks=reading.blocks, health=health, live=live),
        kept=replace(kept, counters=reading.state, changes=changes),
    )


def _unseen(plan: Plan, kept: Kept, at: int, error: PrometheusError) -> Health:
    """No answer is no data (rule 10): settled edges that closed no block, by the clock."""
    missed = max(0, plan.closable(at) - kept.counters.last)
    shown = exposure(kept.changes, plan.edge(kept.counters.last), at, plan.clock.scrape)
    return Health(missed, missed if shown.any else 0, message=f"{error.reason}: {error.message}")


def blind(seen: Seen, now: int) -> Seen:
    """The settings name no Prometheus any more: an experiment that had begun with one sees nothing."""
    assert seen.world is not None
    state = seen.world.state
    assert state is not None
    missed = max(0, (now // 1000 - state.terms.origin) // state.terms.block - 1 - state.evidence.last)
    message = "PrometheusNotConfigured: the operator's settings name no Prometheus any more"
    return replace(seen, world=replace(seen.world, health=Health(missed, missed, message=message)))
