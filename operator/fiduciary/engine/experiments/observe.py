"""Observe: the world of one experiment, from the mirror, from its own status, and from what Prometheus answered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from fiduciary.api.quantities import timedelta_of
from fiduciary.clients.kube import NotFound
from fiduciary.decide.experiment import preflight
from fiduciary.decide.experiment.facts import facts, pair, same_configuration
from fiduciary.decide.experiment.forecast import LEAST_BLOCKS
from fiduciary.decide.experiment.recorded import recorded
from fiduciary.decide.experiment.world import Health, Live, PodFacts, Route, World
from fiduciary.decide.serving import backends
from fiduciary.engine import kinds
from fiduciary.engine.experiments.asking import Want
from fiduciary.engine.experiments.counts import NOWHERE, Place, blind, plan_of, read
from fiduciary.engine.experiments.kept import NOTHING, Pods, Split, Stored, followed, stored
from fiduciary.evidence.refusal import Refusal
from fiduciary.serving.observed import ServingPod

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.api.modelexperiment import ComparedVersion, Folded, ModelExperiment
    from fiduciary.api.versions import VersionRef
    from fiduciary.clients.kube import Cluster
    from fiduciary.decide.counters.plan import Plan
    from fiduciary.decide.counters.templates import Workload
    from fiduciary.decide.experiment.ledgers import Wanted
    from fiduciary.decide.experiment.preflight import Objection
    from fiduciary.decide.experiment.world import History, Recorded
    from fiduciary.decide.history import History as ModelLog
    from fiduciary.decide.world import Platform, ReferenceView
    from fiduciary.engine.experiments.asking import Sources
    from fiduciary.engine.experiments.gather import Gathered
    from fiduciary.engine.experiments.kept import Kept, Suffered
    from fiduciary.engine.experiments.outcomes import Outcomes
    from fiduciary.engine.stores import Key, Stores


class Counting(Protocol):
    """What is asked of :class:`fiduciary.engine.experiments.gather.Gatherer`."""

    @property
    def sources(self) -> Sources: ...
    def aim(self, key: Key, want: Want | None) -> None: ...
    def results(self, key: Key, last: int) -> Gathered | None: ...


class Remembering(Protocol):
    """What is asked of :class:`fiduciary.engine.experiments.past.Pasts`."""

    def aim(self, key: Key, plan: Plan, champion: Workload, born: int = 0) -> None: ...
    def drop(self, key: Key) -> None: ...
    def history(self, key: Key) -> tuple[History, ...]: ...
    def unread(self, key: Key) -> str: ...
    def unanswered(self, key: Key) -> str: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One experiment as it is now.

    Attributes:
        world: what is judged; None where nothing can be judged: ``objection`` says why, or the first answer of
            Prometheus to this process is on its way (neither).
        kept: what lies beside the state, with the newly closed blocks counted; ``stored``: as it was.
        pods: of champion and challenger.
        want: what to count from now on; its ``last`` is that of the state in ``world``.
        wanted: sessions to read from now on.
        recorded: the log holds this experiment's verdict.
        releasable: nothing of it is owed to the log, so that its finalizer may go.
    """

    experiment: ModelExperiment
    world: World | None = None
    objection: Objection | None = None
    kept: Kept = NOTHING
    stored: Kept = NOTHING
    pods: tuple[tuple[ServingPod, ...], tuple[ServingPod, ...]] = ((), ())
    want: Want | None = None
    wanted: Wanted | None = None
    recorded: bool = False
    releasable: bool = False


class Counted(Protocol):
    """What asks Prometheus."""

    @property
    def gatherer(self) -> Counting: ...
    @property
    def pasts(self) -> Remembering: ...


class ExperimentObserver:
    """Builds what is :class:`Seen` of a ModelExperiment."""

    def __init__(
        self,
        cluster: Cluster,
        stores: Stores,
        platform: Callable[[], Platform],
        counted: Counted | None,
        outcomes: Outcomes,
    ) -> None:
        self._outcomes = outcomes
        self._cluster = cluster
        self._stores = stores
        self._platform = platform
        self._counting = None if counted is None else counted.gatherer
        self._remembering = None if counted is None else counted.pasts
        self._logs = stores.logs
        self._stored: dict[Key, tuple[Folded, Stored]] = {}  # the same text is read once, not at each scrape

    async def seen(self, key: Key, now: datetime) -> Seen | None:
        """What is seen at ``now``; None where the experiment does not exist."""
        experiment = self._stores.experiments.get((key.namespace, key.name))
        if experiment is None:
            return None
        model = self._stores.models.get((key.namespace, experiment.spec.model_ref.name))
        if model is None or model.metadata.deletion_timestamp is not None:
            # Nobody is left who would write its record.
            return Seen(experiment, objection=preflight.no_model(experiment), releasable=True)
        seen = self._seen(key, experiment, model, await self._outcomes.references(key, experiment, model), now)
        if experiment.metadata.deletion_timestamp is not None and not seen.releasable:
            return replace(seen, releasable=await self._terminating(key.namespace))
        return seen

    def _seen(
        self,
        key: Key,
        experiment: ModelExperiment,
        model: FinancialModel,
        references: tuple[ReferenceView, ...],
        now: datetime,
    ) -> Seen:
        log = self._logs.of((key.namespace, model.metadata.name))
        before = self._before(key, experiment.status.evidence)
        if isinstance(before, Refusal):
            return Seen(experiment, objection=preflight.unreadable(before.message), releasable=True)
        verdict = recorded(log.records, experiment)
        champion, challenger = pair(log.history, experiment)
        releasable = before is None or verdict is not None
        if before is None and verdict is None and _tried(log.history, experiment):
            return Seen(experiment, objection=preflight.lost(experiment), releasable=True)
        watched = None if verdict is None else _watched_until(verdict, model)
        if before is None and watched is not None and now < watched:
            return Seen(experiment, objection=preflight.unwatched(experiment, watched), releasable=True)
        if before is None and verdict is None:
            against = preflight.objection(experiment, model, log.history, champion, seen=self._counting is not None)
            if against is not None:
                return Seen(experiment, objection=against, releasable=releasable)
        milliseconds = int(now.timestamp() * 1000)
        status = experiment.status
        arms = (_digest(status.champion, champion), _digest(status.challenger, challenger))
        split = _split(model, log.history, arms[1])
        kept = NOTHING if before is None else before.kept
        kept = replace(kept, changes=followed(kept.changes, split, milliseconds))
        one, other = self._arm(key, model, arms[0], kept.champion), self._arm(key, model, arms[1], kept.challenger)
        world = World(
            experiment=experiment,
            model=facts(experiment, model, log.history, self._open(key.namespace, model.metadata.name)),
            platform=self._platform(),
            champion=champion,
            challenger=challenger,
            state=None if before is None else before.state,
            spending=log.spent.spending(*arms, log.tried),
            route=Route(split.weight, split.mirror, split.settled is not None, one.ready, other.ready),
            approvals=self._approvals(key.namespace, model.metadata.name),
            recorded=verdict,
            same_configuration=same_configuration(log.history, champion, challenger),
            live=Live(champion=one.facts, challenger=other.facts),
        )
        kept = kept.attended(one.facts.ready > 0 and other.facts.taken, milliseconds)
        world, wanted = self._outcomes.seen(key, world, model, split, references)
        seen = Seen(
            experiment,
            world,
            wanted=wanted,
            kept=kept,
            stored=NOTHING if before is None else before.kept,
            pods=(one.pods, other.pods),
            recorded=verdict is not None,
            releasable=releasable,
        )
        if self._counting is None:
            return blind(seen, milliseconds, NOWHERE)
        return self._counted(key, seen, model, log.history, arms, milliseconds)

    def drop(self, key: Key) -> None:
        """The experiment is over, or cannot be judged: nobody looks at it for a while."""
        self._stored.pop(key, None)

    def _before(self, key: Key, evidence: Folded | None) -> Stored | Refusal | None:
        """What was folded so far."""
        if evidence is None:
            return None
        known = self._stored.get(key)
        if known is not None and known[0] == evidence:
            return known[1]
        found = stored(evidence)
        if isinstance(found, Stored):
            self._stored[key] = evidence, found
        return found

    def _counted(
        self, key: Key, seen: Seen, model: FinancialModel, log: ModelLog, arms: tuple[str, str], now: int
    ) -> Seen:
        """With what Prometheus says: the past before the start, blocks after it."""
        assert seen.world is not None
        assert self._counting is not None
        world, sources = seen.world, self._counting.sources
        world = replace(world, scrape_seconds=sources.scrape_seconds)
        place = Place(self._stores, model, backends.named(model.spec.serving, log))
        plan = plan_of(world, model, sources, now, place.meshed, place.edges(arms))
        if isinstance(plan, str):
            return blind(replace(seen, world=world), now, Health(message=plan, unmeasured=plan))
        world = replace(world, transport=plan.source == "Gateway")
        champion, challenger = map(place.workload, arms)
        # Once it has begun nothing more of its past is read, and this is looked at at each scrape.
        born = _born(log, arms[0]) if world.state is None else 0
        world = self._with_past(key, world, plan, champion, born)
        if world.state is None:
            return replace(seen, world=world)
        exposed = world.route.weight > 0 or world.route.mirror > 0
        last = seen.kept.counters.last
        want = Want(plan, champion, challenger, last, each_scrape=exposed and bool(plan.breakers))
        return read(replace(seen, world=world, want=want), plan, self._counting.results(key, last), now)

    def _with_past(self, key: Key, world: World, plan: Plan, champion: Workload, born: int) -> World:
        """The champion's last seven days: read before the start, and of use to forecasts for a while after it."""
        if self._remembering is None:
            return world
        metadata, unread = world.experiment.metadata, ""
        if world.state is None:
            if world.model.active != (metadata.name, metadata.uid) or metadata.deletion_timestamp is not None:
                self._remembering.drop(key)
                return world
            self._remembering.aim(key, plan, champion, born)
            unread = self._remembering.unread(key)
            world = replace(world, health=replace(world.health, unanswered=self._remembering.unanswered(key)))
        elif world.state.evidence.last >= LEAST_BLOCKS:
            self._remembering.drop(key)
        return replace(world, history=self._remembering.history(key), unread=unread)

    def _open(self, namespace: str, model: str) -> list[ModelExperiment]:
        """Experiments of the model that are not over."""
        store = self._stores.experiments
        found = (store.get(name) for name in store.indexed(("Open", namespace, model)))
        return [one for one in found if one is not None]

    def _approvals(self, namespace: str, model: str) -> tuple[ModelApproval, ...]:
        return tuple(sorted(self._stores.approvals.of((namespace, model)), key=_age))

    def _arm(self, key: Key, model: FinancialModel, digest: str, before: tuple[Suffered, ...]) -> Arm:
        """The pods of one version."""
        stores, name = self._stores, (key.namespace, model.metadata.name)
        arms = [Arm(one.able, (), before) for one in stores.seldon_models.of(name) if one.digest == digest]
        for one in stores.deployments.of(name):
            if one.digest == digest:
                found = map(stores.pods.get, stores.pods.indexed(("Deployment", key.namespace, one.name)))
                pods = tuple(pod for pod in found if isinstance(pod, ServingPod))
                ready = min(one.ready, sum(pod.ready and not pod.deleting for pod in pods))
                arms.append(Arm(ready, pods, before))
        # Two of them only while the backend changes: the one that could take requests.
        return max(arms, key=lambda arm: arm.ready, default=Arm(0, (), before))

    async def _terminating(self, namespace: str) -> bool:
        """Asked only for an experiment that is being deleted: no record can be written then."""
        try:
            found = await self._cluster.get(kinds.NAMESPACE, None, namespace, metadata_only=True)
        except NotFound:
            return True
        return "deletionTimestamp" in found["metadata"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One version: pods that can take requests, all of them, and what they had suffered before."""

    ready: int
    pods: tuple[ServingPod, ...]
    before: tuple[Suffered, ...]

    @property
    def facts(self) -> PodFacts:
        pods = Pods(self.pods, self.before)
        return PodFacts(self.ready, pods.restarts, pods.out_of_memory, pods.unready, pods.told)


def _split(model: FinancialModel, log: ModelLog, challenger: str) -> Split:
    """What the log gives to this version, and since when the model's status sees it in force. Times are whole seconds.

    The shares are the log's: a route is written after its record and before the status, which may be of before both.
    """
    asked, decided = log.traffic, log.routed_at
    if asked is None or decided is None or not challenger:
        return Split()
    told = model.status.traffic
    confirmed = told.confirmed_at if told is not None and told.decision == log.routed else None
    settled = None if confirmed is None else (int(confirmed.timestamp()) + 1) * 1000
    weight = mirror = 0
    if log.kill is not None and log.kill.engaged:
        pass  # nobody answers, or a version that is none of the two
    elif log.champion is not None and log.champion.digest == challenger:
        weight = asked.champion
    elif log.challenger is not None and log.challenger.digest == challenger:
        weight, mirror = asked.challenger, asked.mirror
    return Split(weight, mirror, int(decided.timestamp()) * 1000, settled)


def _watched_until(verdict: Recorded, model: FinancialModel) -> datetime | None:
    """The end of the window in which this promotion is watched; None where there is none, or no longer."""
    return verdict.at + timedelta_of(model.spec.promotion.rollback_window) if verdict.stands else None


def _born(log: ModelLog, digest: str) -> int:
    """When the training began that made a version, ms: nothing can have asked it before. 0: the log does not say."""
    found = (verdict for verdict in log.verdicts.values() if verdict.version and verdict.version.digest == digest)
    times = [datetime.fromisoformat(verdict.started_at) for verdict in found if verdict.started_at]
    return round(min(times).timestamp() * 1000) if times else 0


def _tried(log: ModelLog, experiment: ModelExperiment) -> bool:
    """Whether the log says that this experiment gave its challenger requests."""
    return log.trial is not None and log.trial.uid == experiment.metadata.uid


def _digest(fixed: ComparedVersion | None, found: VersionRef | None) -> str:
    if fixed is not None:
        return fixed.digest
    return "" if found is None else found.digest or ""


def _age(approval: ModelApproval) -> tuple[float, str]:
    """Oldest first; the API server's clock has whole seconds, so the name decides the rest."""
    created = approval.metadata.creation_timestamp
    return (0.0 if created is None else created.timestamp(), approval.metadata.name)
