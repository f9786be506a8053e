"""What an experiment learns of outcomes: sessions of the scorer's ledgers, and the Job that replays both procedures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fiduciary.decide.experiment.begin import replays
from fiduciary.decide.experiment.comparison import replayable
from fiduciary.decide.experiment.ledgers import wanted
from fiduciary.decide.experiment.times import at
from fiduciary.decide.experiment.world import Comparison, ComparisonJob, PostedLedger
from fiduciary.decide.world import PodView
from fiduciary.manifests import outcomes
from fiduciary.manifests.comparison import Scorer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.decide.experiment.ledgers import LedgerView, Wanted
    from fiduciary.decide.experiment.world import World
    from fiduciary.decide.world import Platform, ReferenceView
    from fiduciary.engine.experiments.kept import Split
    from fiduciary.engine.stores import Key, Stores


class Reading(Protocol):
    """What is asked of :class:`fiduciary.engine.ledgers.Ledgers`."""

    def aim(self, key: Hashable, wanted: Wanted) -> None: ...
    def results(self, key: Hashable) -> LedgerView: ...
    def drop(self, key: Hashable) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Puts outcomes into the world of an experiment. ``ledgers`` None: this operator makes no scorer."""

    stores: Stores
    ledgers: Reading | None
    look: Callable[[FinancialModel], Awaitable[tuple[ReferenceView, ...]]]

    async def references(
        self, key: Key, experiment: ModelExperiment, model: FinancialModel
    ) -> tuple[ReferenceView, ...]:
        """What a replay would mount. The cluster is only asked while a Job may be due: experiments that run look at
        each scrape."""
        if self.ledgers is None or not self._due(key, experiment, model, self.ledgers.results(key)):
            return ()
        return await self.look(model)

    def _due(self, key: Key, experiment: ModelExperiment, model: FinancialModel, view: LedgerView) -> bool:
        spec, active = experiment.spec, model.status.active_experiment
        if spec.purpose != "Improve" or spec.evidence.outcomes == "Live" or experiment.status.ruling is not None:
            return False
        if active is None or active.uid != experiment.metadata.uid:
            return False
        if view.at is None or view.prequential_length:
            return False
        jobs = self.stores.jobs.of((key.namespace, model.metadata.name))
        return not any(
            isinstance(job, ComparisonJob) and job.owner_uid == experiment.metadata.uid and not job.finished
            for job in jobs
        )

    def seen(
        self, key: Key, world: World, model: FinancialModel, split: Split, references: tuple[ReferenceView, ...]
    ) -> tuple[World, Wanted | None]:
        """The world with what was read, and what to read from now on."""
        scorer = None if self.ledgers is None else _scorer(world.platform, model)
        known = scorer is not None and replayable(world.champion, world.challenger)
        world = replace(world, procedures_known=known)
        view = None if self.ledgers is None or scorer is None else self.ledgers.results(key)
        world = replace(
            world,
            # Before the start nothing of it is kept: each evaluation would fold thousands of days again.
            sessions=view.rows if view is not None and view.complete and world.state is not None else (),
            comparison=Comparison(
                model,
                scorer,
                tuple(sorted(self._jobs(key, world, model), key=lambda job: job.attempt)),
                None if view is None or view.at is None else PostedLedger(view.prequential_length or 0),
                "" if view is None else view.message,
                references,
                tuple(sorted(self.stores.quotas.of(key.namespace), key=lambda quota: quota.name)),
            ),
        )
        return world, None if scorer is None else _wanted(world, model, split)

    def aim(self, key: Key, wanted: Wanted | None) -> None:
        if self.ledgers is None:
            return
        if wanted is None:
            self.ledgers.drop(key)
        else:
            self.ledgers.aim(key, wanted)

    def drop(self, key: Key, *, finished: bool) -> None:
        """``finished``: the experiment is over. A ledger that it began is followed until the scorer has ended it."""
        if self.ledgers is None:
            return
        view = self.ledgers.results(key)
        if not (finished and view.begun and not view.ended):
            self.ledgers.drop(key)

    def _jobs(self, key: Key, world: World, model: FinancialModel) -> Iterator[ComparisonJob]:
        """Those that this experiment owns, with their pods."""
        pods = self.stores.pods
        for job in self.stores.jobs.of((key.namespace, model.metadata.name)):
            if isinstance(job, ComparisonJob) and job.owner_uid == world.experiment.metadata.uid:
                found = map(pods.get, pods.indexed(("Job", key.namespace, job.name)))
                its = [pod for pod in found if isinstance(pod, PodView)]
                yield replace(job, pods=tuple(sorted(its, key=_started)))


def _scorer(platform: Platform, model: FinancialModel) -> Scorer | None:
    """The scorer of the model's namespace, where it has one."""
    scoring = None if platform.serving is None else platform.serving.scoring
    if scoring is None or not outcomes.scored(model.spec):
        return None
    namespace = model.metadata.namespace
    address = f"http://{outcomes.NAME}.{namespace}.svc:{outcomes.PORT}"
    return Scorer(address, outcomes.audience(namespace), outcomes.RECORDS_EGRESS)


def _wanted(world: World, model: FinancialModel, split: Split) -> Wanted | None:
    """None where a version is unknown to the log: nothing can be compared then."""
    champion, challenger, state = world.champion, world.challenger, world.state
    if champion is None or challenger is None:
        return None
    ruling, platform = world.experiment.status.ruling, world.platform
    everything = split.mirror == 100 and split.settled is not None
    asked = wanted(
        world.experiment,
        model,
        (champion, challenger),
        prequential=_prequential(world),
        mirrored_since=at(split.settled // 1000) if everything and split.settled is not None else None,
        ended_at=None if ruling is None else ruling.at,
        calendars=platform.calendars,
        notional=platform.notional,
        replay=platform.replay,
    )
    if state is None:
        return asked
    return replace(asked, folded=state.evidence.sessions.last, chain=state.evidence.sessions.chain)


def _prequential(world: World) -> bool:
    """Whether replayed days are folded; before the start, whether they would be."""
    spec, state = world.experiment.spec, world.state
    if state is not None:
        return state.terms.prequential and bool(state.terms.objectives)
    return replays(spec, known=world.procedures_known) and spec.purpose == "Improve" and bool(spec.objectives)


def _started(pod: PodView) -> tuple[str, str]:
    """Oldest first; one that has not begun is the newest."""
    return ("~" if pod.started_at is None else pod.started_at.isoformat(), pod.name)
