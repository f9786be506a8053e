"""One reconcile of a DriftPolicy: observe -> decide -> apply -> report.

The order of its writes: the status with all that was folded before anybody acts on it, events after it is true, then
alerts, and a record of each alarm that the log does not have. What it asks of the model is in the status, and the model
is told to look: a DriftPolicy changes nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from fiduciary.clients.kube import KubeError
from fiduciary.decide.drift.report import moved
from fiduciary.engine import kinds
from fiduciary.engine.drift.status import worth_writing
from fiduciary.engine.reconcile import GONE, Outcome
from fiduciary.engine.report import target_of, write_status
from fiduciary.engine.stores import Key
from fiduciary.engine.writes import Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from fiduciary.api.driftpolicy import DriftPolicy, DriftPolicyStatus
    from fiduciary.decide.drift.decision import Alert, Decision
    from fiduciary.decide.drift.world import World
    from fiduciary.engine.apply import Applier
    from fiduciary.engine.drift.counters import Counters
    from fiduciary.engine.drift.observe import DriftObserver, Seen
    from fiduciary.engine.drift.references import References
    from fiduciary.engine.ledgers import Ledgers
    from fiduciary.engine.metrics import Metrics
    from fiduciary.engine.stores import Stores

log = structlog.get_logger(part="drift")

#: While the first answer of Prometheus is on its way, seconds: an answer calls before that.
FIRST = 15.0


class DriftJudge(Protocol):
    """The pure half: :mod:`fiduciary.decide.driftpolicy`."""

    def decide(self, world: World, now: datetime) -> Decision: ...


class Alerting(Protocol):
    """Who tells others of alarms. It is told again and again what is true, and repeats nothing that was told."""

    def put(self, key: Key, channel: str, alerts: tuple[Alert, ...], *, sink: str | None = None) -> None: ...
    def drop(self, key: Key) -> None: ...
    def problem(self, key: Key) -> str: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What is read beside the reconciles.

    ``counters`` None: the settings name no Prometheus; ``ledgers`` None: they make no outcome scorer.
    """

    references: References
    counters: Counters | None
    ledgers: Ledgers | None

    def aim(self, key: Key, seen: Seen) -> None:
        self.references.aim(key, seen.asked)
        if self.counters is not None:
            self.counters.aim(key, seen.want)
        if self.ledgers is not None and seen.wanted is not None:
            self.ledgers.aim(key, seen.wanted)
        elif self.ledgers is not None:
            self.ledgers.drop(key)

    def drop(self, key: Key) -> None:
        self.references.drop(key)
        if self.counters is not None:
            self.counters.drop(key)
        if self.ledgers is not None:
            self.ledgers.drop(key)


class DriftReconciler:
    """Carries one policy from what is observed to what is decided. ``changed`` is told whom else it concerns."""

    def __init__(
        self,
        *,
        observer: DriftObserver,
        stores: Stores,
        applier: Applier,
        judge: DriftJudge,
        sources: Sources,
        alerting: Alerting,
        metrics: Metrics,
        changed: Callable[[Key], None],
        now: Callable[[], datetime],
    ) -> None:
        self._observer = observer
        self._stores = stores
        self._applier = applier
        self._judge = judge
        self._sources = sources
        self._alerting = alerting
        self._metrics = metrics
        self._changed = changed
        self._now = now

    async def __call__(self, key: Key) -> Outcome:
        """Reconcile ``key`` once. Raises what :class:`fiduciary.engine.reconcile.Reconciler` has answers for."""
        now = self._now()
        seen = self._observer.seen(key, now)
        if seen is None:
            self._sources.drop(key)
            self._alerting.drop(key)
            self._observer.states.drop(key)
            return GONE
        self._sources.aim(key, seen)
        if seen.world is None:
            return Outcome("requeue_after", wake_at=now + timedelta(seconds=FIRST))
        world = replace(seen.world, undelivered=self._alerting.problem(key))
        return await self._carry_out(key, seen, world, self._judge.decide(world, now))

    async def _carry_out(self, key: Key, seen: Seen, world: World, decision: Decision) -> Outcome:
        policy = seen.policy
        target = target_of(kinds.DRIFTPOLICY, policy)
        wrote: list[str] = []
        status = decision.status
        if worth_writing(policy.status, status):
            await write_status(self._applier, self._stores, target, policy, status)
            wrote.append(Step.STATUS.value)
            if status.evidence is not None and status.evidence != policy.status.evidence:
                assert decision.state is not None  # of which it was made
                self._observer.states.keep(key, status.evidence, decision.state)
            self._ask(key, policy, status)
            try:
                await self._applier.events(target, decision.events, self._now())
            except KubeError as error:
                log.warning("events.lost", key=str(key), why=str(error))
        # Before the record: a log that takes none (a quota, say) keeps nobody from hearing of an alarm.
        channel = policy.spec.actions.alert
        self._alerting.put(key, channel.alertmanager, decision.alerts, sink=channel.sink)
        if await self._record(key, policy, decision):
            wrote.append(Step.RECORD.value)
        if wrote:
            log.info("decision", key=str(key), **_told(decision, status), wrote=wrote)
        again = seen.more and moved(world.state, decision.state)
        return Outcome("requeue" if again else "requeue_after", wake_at=decision.wake_at, again=again)

    def _ask(self, key: Key, policy: DriftPolicy, status: DriftPolicyStatus) -> None:
        if status.requested_action != policy.status.requested_action:
            # Our own write comes back from the watch as nothing new.
            self._changed(Key(kinds.FINANCIALMODEL.kind, key.namespace, policy.spec.model_ref.name))

    async def _record(self, key: Key, policy: DriftPolicy, decision: Decision) -> bool:
        """Alarms into the model's log, which is a compare-and-swap: who was slower observes again."""
        name = policy.spec.model_ref.name
        model = self._stores.models.get((key.namespace, name))
        if model is None:
            return False
        for record in decision.records:
            if await self._applier.record(target_of(kinds.FINANCIALMODEL, model), record):
                self._metrics.decisions.labels(action=record.action).inc()
        if decision.records:
            self._changed(Key(kinds.FINANCIALMODEL.kind, key.namespace, name))
        return bool(decision.records)


def _told(decision: Decision, status: DriftPolicyStatus) -> dict[str, object]:
    """What one log line says: never somebody's data."""
    told: dict[str, object] = {"phase": status.phase, "worst": status.worst, "score": status.score}
    state = decision.state
    if state is not None:
        told["windows"] = state.folded
        told["alarms"] = [alarm.monitor for alarm in state.alarms if alarm.until is None]
    if status.requested_action is not None:
        told["asks"] = status.requested_action.kind
    return told
