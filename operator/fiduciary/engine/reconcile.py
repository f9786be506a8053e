"""One reconcile for all kinds: observe -> ask -> decide -> apply -> report.

What goes wrong is one of four things, and each has its own answer. Stale: somebody was faster; observe again soon.
Unavailable: the API server or MLflow is away; back off. Refused: the cluster will not have this write (admission, a
webhook of a child that gives no answer, quota of objects, rights); say so in a condition, go on with what does not rest
on it, and come back slowly. A bug: log it with its traceback, say so in a condition, back off, and let every other key
go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from fiduciary.api.conditions import condition, find
from fiduciary.clients.kube import Conflict, Forbidden, Invalid, KubeError, NotFound, Unavailable, WebhookSilent
from fiduciary.clients.mlflow import RegistryError
from fiduciary.decide import reasons
from fiduciary.engine import kinds
from fiduciary.engine.apply import Applier, has_work
from fiduciary.engine.report import target_of, write_status
from fiduciary.engine.writes import ORDER, ForeignObject, Stale, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fiduciary.api.financialmodel import FinancialModel, FinancialModelStatus
    from fiduciary.decide.decision import Decision, Registration
    from fiduciary.decide.world import Questions, World
    from fiduciary.engine.metrics import Metrics
    from fiduciary.engine.observe import Observer
    from fiduciary.engine.probes import Prober
    from fiduciary.engine.registry import Mirroring
    from fiduciary.engine.stores import Key, Stores
    from fiduciary.engine.writes import Target

log = structlog.get_logger(part="reconcile")

#: What the cluster refuses today it mostly refuses in a minute too; a person has to act.
REFUSED_SECONDS = 30.0
REFUSALS = (Forbidden, Invalid, ForeignObject)


class Judge(Protocol):
    """The pure half: :mod:`fiduciary.decide.financialmodel`."""

    def questions(self, world: World, now: datetime) -> Questions: ...
    def decide(self, world: World, now: datetime) -> Decision: ...


class Registrar(Protocol):
    """What a reconcile asks MLflow, and registers there."""

    def questions(self, world: World) -> Questions: ...
    async def informed(self, key: Key, world: World) -> World: ...
    async def register(self, key: Key, wanted: Registration) -> None: ...


#: What carries keys of another kind from observation to report; what it raises is answered here.
KindReconcile = Callable[["Key"], Awaitable["Outcome"]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconcile came to. ``retry_at_least`` is set where it failed and has to be tried again.

    Where only a part of it failed, ``wake_at`` and ``again`` are those of the rest.
    """

    result: str  # success | requeue | requeue_after | gone | stale | unavailable | refused | error
    wake_at: datetime | None = None
    again: bool = False
    retry_at_least: float | None = None


GONE = Outcome("gone")


class Reconciler:
    """Carries any key from what is observed to what is decided.

    ``reconciles``: those of other kinds. ``changed`` is told of a model whose status or log we wrote: the watch brings
    our own writes back as nothing new, and others look at them.
    """

    def __init__(
        self,
        *,
        observer: Observer,
        stores: Stores,
        applier: Applier,
        registrar: Registrar,
        mirroring: Mirroring,
        prober: Prober,
        judge: Judge,
        metrics: Metrics,
        now: Callable[[], datetime],
        order: tuple[Step, ...] = ORDER,
        reconciles: Mapping[str, KindReconcile] | None = None,
        changed: Callable[[Key], None] = lambda key: None,
    ) -> None:
        self._observer = observer
        self._stores = stores
        self._applier = applier
        self._registrar = registrar
        self._mirroring = mirroring
        self._prober = prober
        self._judge = judge
        self._metrics = metrics
        self._now = now
        self._order = order
        self._reconciles = reconciles or {}
        self._changed = changed

    async def __call__(self, key: Key) -> Outcome:
        """Reconcile ``key`` once. Never raises but for cancellation: one bad object must not stop the others."""
        try:
            if key.kind in self._reconciles:
                return await self._reconciles[key.kind](key)
            return await self._reconcile(key)
        except (Stale, Conflict) as error:
            log.debug("reconcile.stale", key=str(key), why=str(error))
            return Outcome("stale", retry_at_least=0.0)
        except NotFound as error:
            # The object, or its namespace, vanished under our hands; the watch will say so.
            log.debug("reconcile.gone", key=str(key), why=str(error))
            return Outcome("stale", retry_at_least=0.0)
        except Unavailable as error:
            log.warning("reconcile.unavailable", key=str(key), why=str(error))
            return Outcome("unavailable", retry_at_least=error.retry_after)
        except RegistryError as error:
            log.warning("reconcile.registry", key=str(key), reason=error.reason, why=error.message)
            return Outcome("unavailable", retry_at_least=0.0)
        except REFUSALS as error:
            self._refused(key, error)
            message = f"The cluster refused a write: {error}. Nothing more is done here until it is accepted."
            await self._complain(key, reasons.WRITE_REFUSED, message)
            return Outcome("refused", retry_at_least=REFUSED_SECONDS)
        except Exception as error:
            log.exception("reconcile.bug", key=str(key))
            self._metrics.errors.labels(controller=key.kind).inc()
            message = (
                f"The operator failed on this object: {type(error).__name__}. This is a bug of the operator; its log "
                "has the details. It tries again with growing pauses."
            )
            await self._complain(key, reasons.INTERNAL_ERROR, message)
            return Outcome("error", retry_at_least=1.0)

    async def _reconcile(self, key: Key) -> Outcome:
        world = await self._observe(key)
        if world is None:
            self._mirroring.drop(key)
            self._prober.drop(key)
            return GONE
        decision = self._judge.decide(world, self._now())
        if decision.claim and decision.status != world.model.status:
            # Whoever claims on an old picture trains twice: look past the mirror before the claim is written.
            await self._observer.refresh(key)
            world = await self._observe(key, told=world)
            if world is None:
                return GONE
            decision = self._judge.decide(world, self._now())
        # Before the writes: they may be refused, and what is served meanwhile is still to be looked at.
        self._prober.aim(key, decision.probes)
        wrote, refused = await self._apply(key, world, decision)
        if wrote:
            self._changed(key)
            generation = world.model.metadata.generation
            log.info("decision", key=str(key), generation=generation, **_told(decision), wrote=wrote)
        if refused is not None:
            self._refused(key, refused)
            # A record is written once, so what follows one follows soon; all else waits for the slow retry.
            again = decision.again and decision.record is not None
            return Outcome("refused", wake_at=decision.wake_at, again=again, retry_at_least=REFUSED_SECONDS)
        result = "requeue" if decision.again else "requeue_after" if decision.wake_at else "success"
        return Outcome(result, wake_at=decision.wake_at, again=decision.again)

    async def _observe(self, key: Key, told: World | None = None) -> World | None:
        """``told``: the world a moment ago, with MLflow's answers. They are not asked for again where the questions are
        the same: each may be late, and who always asked twice would never go on.
        """
        world = await self._observer.world(key)
        if world is None:
            return None
        if told is not None and world.model.spec.registry == told.model.spec.registry:
            known = replace(world, registry=told.registry)
            if self._registrar.questions(known) == self._registrar.questions(told):
                return known
        return await self._registrar.informed(key, world)

    async def _apply(self, key: Key, world: World, decision: Decision) -> tuple[list[str], Exception | None]:
        """Carry the decision out; the names of the steps that wrote something, and which child was refused.

        That a Service cannot be written is no reason to hide a kill or a training: the status says both. The finalizer
        alone does not go before the children are as they should be.
        """
        target = target_of(kinds.FINANCIALMODEL, world.model)
        wrote: list[str] = []
        refused: Exception | None = None
        for step in self._order:
            if not has_work(decision, step):
                continue
            try:
                if await self._step(step, key, target, world, decision):
                    wrote.append(step.value)
            except (*REFUSALS, WebhookSilent) as error:
                if step is not Step.CHILDREN or decision.finalizer == "Remove":
                    raise
                refused = error
                decision = replace(decision, status=_refusing(world.model, decision.status, error, self._now()))
        return wrote, refused

    def _refused(self, key: Key, error: Exception) -> None:
        log.error("reconcile.refused", key=str(key), why=str(error))
        self._metrics.terminal.labels(controller=key.kind).inc()

    async def _step(self, step: Step, key: Key, target: Target, world: World, decision: Decision) -> bool:
        """One kind of write; whether it wrote."""
        match step:
            case Step.FINALIZER:
                await self._applier.finalizer(target, wanted=True)
            case Step.REGISTRATION:
                assert decision.registration is not None
                await self._registrar.register(key, decision.registration)
            case Step.RECORD:
                assert decision.record is not None
                if await self._applier.record(target, decision.record):
                    self._metrics.decisions.labels(action=decision.record.action).inc()
            case Step.CHILDREN:
                await self._applier.children(target, decision.children)
            case Step.STATUS:
                if decision.status == world.model.status:
                    return False
                await write_status(self._applier, self._stores, target, world.model, decision.status)
            case Step.EVENTS:
                await self._tell(target, decision)
            case Step.MIRROR:
                assert decision.mirror is not None
                self._mirroring.put(key, decision.mirror)
                return False  # it is written later, and says so itself
            case Step.RELEASE:
                await self._applier.finalizer(target, wanted=False)
        return True

    async def _tell(self, target: Target, decision: Decision) -> None:
        """Kubernetes events are for people who look now; losing one is no reason to do anything again."""
        try:
            await self._applier.events(target, decision.events, self._now())
        except KubeError as error:
            log.warning("events.lost", key=f"{target.namespace}/{target.name}", why=str(error))

    async def _complain(self, key: Key, reason: str, message: str) -> None:
        """Show a failure where the user looks. If that fails too, the log has it."""
        store = self._stores.by_kind[key.kind]
        try:
            resource = store.get((key.namespace, key.name))
            if resource is None:
                return
            before = resource.status.conditions
            stalled = find(before, "Stalled")
            if stalled is not None and (stalled.reason, stalled.message) == (reason, message):
                return
            generation = resource.metadata.generation
            complaint = condition(before, "Stalled", "True", reason, message, generation=generation, now=self._now())
            others = tuple(other for other in before if other.type != "Stalled")
            status = resource.status.model_copy(update={"conditions": (*others, complaint)})
            await write_status(self._applier, self._stores, target_of(store.resource, resource), resource, status)
        except KubeError as error:
            log.warning("complaint.lost", key=str(key), why=str(error))
        except Exception:
            log.exception("complaint.lost", key=str(key))


def _refusing(
    model: FinancialModel, status: FinancialModelStatus, error: Exception, now: datetime
) -> FinancialModelStatus:
    """The decided status, with what the cluster refused in its condition Stalled, beside what stands there already."""
    message = f"The cluster refused a write: {error}. All else goes on; this write is tried again and again."
    decided = find(status.conditions, reasons.STALLED)
    if decided is not None and decided.status == "True":
        message = f"{message} Besides: {decided.message}"
    generation, before = model.metadata.generation, model.status.conditions
    told = condition(before, reasons.STALLED, "True", reasons.WRITE_REFUSED, message, generation=generation, now=now)
    conditions = tuple(told if other is decided else other for other in status.conditions)
    return status.model_copy(update={"conditions": conditions if decided is not None else (*conditions, told)})


def _told(decision: Decision) -> dict[str, Any]:
    """What one log line says of a decision: never a spec, a tag or a message that could hold somebody's data."""
    told: dict[str, Any] = {"phase": decision.status.phase}
    if decision.record is not None:
        told |= {"record": decision.record.sequence, "action": decision.record.action}
    if decision.registration is not None:
        told |= {"registers": decision.registration.model, "digest": decision.registration.digest}
    if decision.children:
        told["children"] = [type(child).__name__ for child in decision.children]
    if decision.claim:
        told["claims"] = True
    if decision.wake_at is not None:
        told["wake_at"] = decision.wake_at.isoformat()
    ready = find(decision.status.conditions, "Ready")
    if ready is not None:
        told["ready"] = ready.reason
    return told
