"""Observe: the world of one policy, from the mirror, its own status, and what MLflow and Prometheus answered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fiduciary.decide.drift import sessions
from fiduciary.decide.drift.calibrate import key as calibration_key
from fiduciary.decide.drift.facts import facts
from fiduciary.decide.drift.queries import queries
from fiduciary.decide.drift.series import Watched
from fiduciary.decide.drift.windows import Edge, windows
from fiduciary.decide.drift.world import Health, ModelFacts, World
from fiduciary.decide.promql import Refused
from fiduciary.engine.drift.counted import Want
from fiduciary.engine.drift.references import Asked
from fiduciary.engine.drift.states import States
from fiduciary.evidence.refusal import Refusal
from fiduciary.manifests.outcomes import scored

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.decide.drift.calibrate import Calibrated, Grid
    from fiduciary.decide.drift.state import Reading
    from fiduciary.decide.experiment.ledgers import LedgerView, Wanted
    from fiduciary.decide.world import Platform
    from fiduciary.engine.decisionlog import Logs
    from fiduciary.engine.drift.counted import Counted, Scrapes
    from fiduciary.engine.stores import Key, Stores

UNCONFIGURED = "PrometheusNotConfigured: the operator's settings name no Prometheus (prometheus.url)"
NO_SCORER = "OutcomesNotConfigured: the operator's settings make no outcome scorer (outcomes.issuer)"
UNSERVED = "the model has no spec.serving: nothing answers requests, and no outcome scorer counts rows"
UNSCORED = (
    "spec.promotion.mode of the model is Manual without an experiment: no outcome scorer counts its rows; write "
    "spec.promotion.experiment"
)
CATCHING_UP = Health("windows of a time in which nobody looked are read, one after the other", catching_up=True)


class Counting(Protocol):
    """What is asked of :class:`fiduciary.engine.drift.counters.Counters`."""

    @property
    def scrapes(self) -> Scrapes: ...
    def results(self, key: Key) -> Counted | None: ...


class Scoring(Protocol):
    """What is asked of :class:`fiduciary.engine.ledgers.Ledgers`."""

    def results(self, key: Key) -> LedgerView: ...


class Calibrating(Protocol):
    """What is asked of :class:`fiduciary.engine.drift.references.References`."""

    def of(self, key: Key, calibration: str) -> Calibrated | Refusal | None: ...
    def problem(self, key: Key) -> str: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One policy as it is now.

    Attributes:
        world: what is judged; None while the first answer of Prometheus to this process is on its way.
        want, asked, wanted: what to count, which reference to read, and which sessions, from now on.
        more: further windows are read already: judge again, at once.
    """

    policy: DriftPolicy
    world: World | None
    want: Want | None = None
    asked: Asked | None = None
    wanted: Wanted | None = None
    more: bool = False


class DriftObserver:
    """Builds what is :class:`Seen` of a DriftPolicy.

    ``counting`` None: the settings name no Prometheus; ``scoring`` None: they make no outcome scorer.
    """

    def __init__(
        self,
        stores: Stores,
        platform: Callable[[], Platform],
        logs: Logs,
        counting: Counting | None,
        references: Calibrating,
        scoring: Scoring | None,
    ) -> None:
        self._stores = stores
        self._platform = platform
        self._logs = logs
        self._counting = counting
        self._references = references
        self._scoring = scoring
        self.states = States()

    def seen(self, key: Key, now: datetime) -> Seen | None:
        """What is seen at ``now``; None where the policy does not exist."""
        policy = self._stores.policies.get((key.namespace, key.name))
        if policy is None:
            return None
        world = World(policy, None, self._platform())
        before = self.states.of(key, policy.status.evidence)
        if isinstance(before, Refusal):
            return Seen(policy, replace(world, unreadable=before.message))
        world = replace(world, state=before)
        name = (key.namespace, policy.spec.model_ref.name)
        model = self._stores.models.get(name)
        if model is None or model.metadata.deletion_timestamp is not None:
            return Seen(policy, world)
        log = self._logs.of(name)
        its = facts(model, log.records, log.history)
        world = replace(world, model=its)
        asked = _asked(policy, model, its)
        if asked is None:
            return Seen(policy, world)
        found = self._references.of(key, asked.key)
        world = replace(world, calibrated=found, unread=self._references.problem(key))
        if found is None or isinstance(found, Refusal):
            return Seen(policy, world, asked=asked)
        world, wanted = self._scored(key, world, model, asked)
        if self._counting is None:
            return Seen(policy, replace(world, health=Health(UNCONFIGURED, person=True)), asked=asked, wanted=wanted)
        if not scored(model.spec):
            health = Health(UNSERVED if model.spec.serving is None else UNSCORED, person=True)
            return Seen(policy, replace(world, health=health), asked=asked)
        want = _want(policy, world, found, self._counting.scrapes.namespace)
        return _counted(Seen(policy, world, want, asked, wanted), found.grid, want, self._counting.results(key))

    def _scored(self, key: Key, world: World, model: FinancialModel, asked: Asked) -> tuple[World, Wanted | None]:
        """With the sessions that the scorer has closed of the version that serves."""
        assert world.model is not None
        platform, before = world.platform, world.state
        # Another question of the same version is answered from its first session on.
        state = before if before is not None and before.key == asked.key else None
        found = sessions.wanted(
            world.policy,
            model,
            world.model,
            state,
            platform.calendars,
            notional=platform.notional,
            replay=platform.replay,
        )
        if found is None:
            return world, None
        if self._scoring is None:
            return replace(world, outcomes=NO_SCORER), None
        view = self._scoring.results(key)
        problem = f"LedgerImpossible: {found.unable}" if found.unable else ""
        if view.reason:
            problem = f"{view.reason}: {view.message}"
        read = view.watched if view.complete else ()
        return replace(world, ledger=found.live or "", sessions=read, outcomes=problem), found


def _asked(policy: DriftPolicy, model: FinancialModel, its: ModelFacts) -> Asked | None:
    champion = its.champion
    if champion is None or champion.digest is None:
        return None
    return Asked(
        calibration_key(policy.spec, policy.metadata.uid, champion.digest),
        model.spec.registry.connection,
        champion.run_id,
        champion.digest,
        policy.spec,
        policy.metadata.uid,
        its.label,
    )


def _want(policy: DriftPolicy, world: World, calibrated: Calibrated, label: str) -> Want:
    metadata, model = policy.metadata, world.model
    assert model is not None
    assert model.champion is not None
    champion = model.champion
    watched = Watched(
        metadata.namespace,
        f"{metadata.namespace}.{policy.spec.model_ref.name}",
        champion.version or "",
        champion.digest or "",
    )
    confined = queries(policy, label)
    sent = tuple((name, text) for name, text in confined.items() if not isinstance(text, Refused))
    state = world.state
    if state is None or state.key != calibrated.key:  # another version serves, or another question: anew
        return Want(watched, calibrated.grid, Edge(None, -1), 0, sent)
    ends = [limit.last for limit in state.limits]
    since = max(0, state.grown, -1 if state.edge is None else state.edge.at, *ends)
    return Want(watched, calibrated.grid, Edge(state.edge, state.window), since, sent)


def _counted(seen: Seen, grid: Grid, want: Want, counted: Counted | None) -> Seen:
    """With one window, the oldest that is not folded, so that no alarm is passed over; or how many rows there are."""
    assert seen.world is not None
    if counted is None:
        # A process that has just begun has seen nothing yet: that is no gap in the data.
        return replace(seen, world=None)
    world = replace(seen.world, reference=counted.reference)
    if counted.error is not None:
        return replace(seen, world=replace(world, health=Health(f"{counted.error.reason}: {counted.error.message}")))
    closings = tuple(its for its in counted.closings if its.at > want.since)
    if not closings:
        latest = counted.latest
        if counted.behind:
            return replace(seen, world=replace(world, health=CATCHING_UP))
        if latest is None or grid.length or _closes(grid, want.edge, latest):
            return replace(seen, world=world)
        return replace(seen, world=replace(world, readings=(latest,)))
    first, more = closings[0], len(closings) > 1 or counted.behind
    readings = () if first.reading is None else (first.reading,)
    health = CATCHING_UP if more else Health()
    return replace(seen, world=replace(world, readings=readings, queries=first.values, health=health), more=more)


def _closes(grid: Grid, edge: Edge, reading: Reading) -> bool:
    return any(True for _ in windows(grid, edge, (reading,)))
