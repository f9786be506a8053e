"""One reconcile of a ModelExperiment: observe -> decide -> apply -> report.

The order of its writes: the finalizer before anything is folded, the status with all that was folded before anybody
acts on it, events after it is true, then its Jobs, and the finalizer last, once the log has what the experiment spent.
Records and routes are the FinancialModel's: it is told where what it reads of the status has changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from fiduciary.api import meta
from fiduciary.clients.kube import Conflict, KubeError, NotFound, Unavailable
from fiduciary.decide.experiment import preflight
from fiduciary.decide.experiment.refold import exported
from fiduciary.engine import kinds
from fiduciary.engine.experiments.status import asks, over, watching, worth_writing, written
from fiduciary.engine.reconcile import GONE, Outcome
from fiduciary.engine.report import target_of, write_status
from fiduciary.engine.stores import Key
from fiduciary.engine.writes import Stale, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from fiduciary.api.modelexperiment import ModelExperiment, ModelExperimentStatus
    from fiduciary.decide.experiment.decision import Decision
    from fiduciary.decide.experiment.world import Exported, World
    from fiduciary.engine.apply import Applier
    from fiduciary.engine.experiments.gather import Gatherer
    from fiduciary.engine.experiments.observe import ExperimentObserver, Seen
    from fiduciary.engine.experiments.outcomes import Outcomes
    from fiduciary.engine.experiments.past import Pasts
    from fiduciary.engine.stores import Stores
    from fiduciary.engine.writes import Target

log = structlog.get_logger(part="experiments")

#: While the first answer of Prometheus is on its way, seconds: an answer calls before that.
FIRST = 15.0


class Exports(Protocol):
    """What is asked of :class:`fiduciary.engine.experiments.exporting.Exporter`."""

    async def put(self, key: Key, file: str, lines: Sequence[str]) -> None: ...
    def state(self, key: Key, file: str) -> Exported: ...
    def drop(self, key: Key) -> None: ...


class ExperimentJudge(Protocol):
    """The pure half: :mod:`fiduciary.decide.modelexperiment`."""

    def decide(self, world: World, now: datetime) -> Decision: ...


@dataclass(frozen=True, slots=True)
class Counted:
    """The parts that ask Prometheus."""

    gatherer: Gatherer
    pasts: Pasts

    def drop(self, key: Key) -> None:
        self.gatherer.drop(key)
        self.pasts.drop(key)


class ExperimentReconciler:
    """Carries one experiment from what is observed to what is decided. ``changed`` is told whom else it concerns."""

    def __init__(
        self,
        *,
        observer: ExperimentObserver,
        stores: Stores,
        applier: Applier,
        judge: ExperimentJudge,
        counted: Counted | None,
        outcomes: Outcomes,
        changed: Callable[[Key], None],
        now: Callable[[], datetime],
        exports: Exports | None = None,
    ) -> None:
        self._observer = observer
        self._stores = stores
        self._applier = applier
        self._judge = judge
        self._counted = counted
        self._outcomes = outcomes
        self._changed = changed
        self._now = now
        self._exports = exports

    async def __call__(self, key: Key) -> Outcome:
        """Reconcile ``key`` once. Raises what :class:`fiduciary.engine.reconcile.Reconciler` has answers for."""
        try:
            return await self._reconcile(key)
        except (Stale, Conflict, NotFound, Unavailable):
            raise
        except Exception:
            self._failed(key)
            raise

    def _failed(self, key: Key) -> None:
        """Nobody watches a challenger while this fails: its model looks at what is said of the experiment."""
        experiment = self._stores.experiments.get((key.namespace, key.name))
        if experiment is not None:
            self._changed(Key(kinds.FINANCIALMODEL.kind, key.namespace, experiment.spec.model_ref.name))

    async def _reconcile(self, key: Key) -> Outcome:
        experiment = self._stores.experiments.get((key.namespace, key.name))
        if experiment is None:
            self._drop(key)
            return GONE
        if ended(experiment):
            self._drop(key, finished=True)
            await self._release(key, experiment, releasable=True)
            return Outcome("success")
        now = self._now()
        seen = await self._observer.seen(key, now)
        if seen is None:
            return GONE
        if await self._release(key, experiment, releasable=seen.releasable):
            self._drop(key)
            return Outcome("success")
        if seen.objection is not None:
            self._drop(key)
            status = preflight.refused(experiment, seen.objection, now)
            if status != experiment.status:
                await self._report(key, target_of(kinds.MODELEXPERIMENT, experiment), experiment, status)
            if seen.objection.until is not None:
                return Outcome("requeue_after", wake_at=seen.objection.until)
            return Outcome("success")  # what it waits for is an event
        self._aim(key, seen)
        if seen.world is None:
            return Outcome("requeue_after", wake_at=now + timedelta(seconds=FIRST))
        world = seen.world
        if self._exports is not None:
            world = replace(world, exported=self._exports.state(key, exported_to(experiment)))
        return await self._carry_out(key, seen, self._judge.decide(world, now), now)

    async def _carry_out(self, key: Key, seen: Seen, decision: Decision, now: datetime) -> Outcome:
        experiment = seen.experiment
        target = target_of(kinds.MODELEXPERIMENT, experiment)
        wrote: list[str] = []
        if decision.state is not None and not _held(experiment) and experiment.metadata.deletion_timestamp is None:
            await self._applier.finalizer(target, wanted=True)
            wrote.append(Step.FINALIZER.value)
        status = written(seen, decision, now)
        if worth_writing(experiment.status, status):
            await self._export(key, seen, decision)
            await self._report(key, target, experiment, status)
            wrote.append(Step.STATUS.value)
            await self._tell(target, decision)
        if decision.children:
            # Only now: what a Job is made for is written. A Job that is made twice has one name.
            await self._applier.children(target, decision.children)
            wrote.append(Step.CHILDREN.value)
        if wrote:
            log.info("decision", key=str(key), **_told(decision, status), wrote=wrote)
        if over(seen, decision) or (status.ruling is not None and decision.state is None):
            self._drop(key, finished=True)
            return Outcome("success")
        return Outcome("requeue_after", wake_at=self._wake(seen, decision))

    async def _export(self, key: Key, seen: Seen, decision: Decision) -> None:
        """Before the status that rests on it, where the sink is quick enough."""
        if self._exports is None or seen.world is None or decision.state is None:
            return
        lines = exported(seen.world.state, decision.state, seen.world.blocks)
        if lines:
            texts = [json.dumps(line, separators=(",", ":"), sort_keys=True) for line in lines]
            await self._exports.put(key, exported_to(seen.experiment), texts)

    def _wake(self, seen: Seen, decision: Decision) -> datetime:
        """As decided, and at the end of the window in which a promotion is watched."""
        assert seen.world is not None
        recorded = seen.world.recorded
        if recorded is None or not watching(seen, decision):
            return decision.wake_at
        return min(decision.wake_at, recorded.at + timedelta(seconds=seen.world.model.rollback_window_seconds))

    async def _report(
        self, key: Key, target: Target, experiment: ModelExperiment, status: ModelExperimentStatus
    ) -> None:
        await write_status(self._applier, self._stores, target, experiment, status)
        if asks(status) != asks(experiment.status):
            # Our own write comes back from the watch as nothing new.
            self._changed(Key(kinds.FINANCIALMODEL.kind, key.namespace, experiment.spec.model_ref.name))

    async def _tell(self, target: Target, decision: Decision) -> None:
        try:
            await self._applier.events(target, decision.events, self._now())
        except KubeError as error:
            log.warning("events.lost", key=f"{target.namespace}/{target.name}", why=str(error))

    async def _release(self, key: Key, experiment: ModelExperiment, *, releasable: bool) -> bool:
        """Let a deleted experiment go, if nothing of it is owed to the log; whether it is gone with that."""
        if experiment.metadata.deletion_timestamp is None or not releasable:
            return False
        if _held(experiment):
            await self._applier.finalizer(target_of(kinds.MODELEXPERIMENT, experiment), wanted=False)
            log.info("released", key=str(key))
        return True

    def _aim(self, key: Key, seen: Seen) -> None:
        if self._counted is not None:
            self._counted.gatherer.aim(key, seen.want)
        self._outcomes.aim(key, seen.wanted)

    def _drop(self, key: Key, *, finished: bool = False) -> None:
        """``finished``: its own ledger is still to be ended."""
        self._observer.drop(key)
        if self._exports is not None:
            self._exports.drop(key)
        self._outcomes.drop(key, finished=finished)
        if self._counted is not None:
            self._counted.drop(key)


def exported_to(experiment: ModelExperiment) -> str:
    """The file of an experiment below the export's folder; another one of its name has another UID."""
    metadata = experiment.metadata
    return f"{metadata.namespace}/{metadata.name}.{metadata.uid}.jsonl"


def ended(experiment: ModelExperiment) -> bool:
    """Whether it is over for good: its verdict is carried out and nothing is counted any more, or it never began."""
    status = experiment.status
    return status.ruling is not None and (status.evidence is None or not status.evidence.counters)


def _held(experiment: ModelExperiment) -> bool:
    return meta.FINALIZER in experiment.metadata.finalizers


def _told(decision: Decision, status: ModelExperimentStatus) -> dict[str, object]:
    """What one log line says: never somebody's data."""
    state = decision.state
    told: dict[str, object] = {"phase": status.phase, "reason": status.reason, "step": status.step}
    if state is not None:
        told["blocks"] = state.evidence.last + 1
    if status.ruling is not None:
        told["ruling"] = status.ruling.verdict
    return told
