"""One ModelExperiment under judgement: its world, the time, and the evidence with everything new folded in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from fiduciary.decide import identity
from fiduciary.decide.belief import objection
from fiduciary.decide.experiment import breakers, comparison
from fiduciary.decide.experiment.begin import begin, seconds_of
from fiduciary.decide.experiment.course import promoted, together, with_block
from fiduciary.decide.experiment.fold import fold_block
from fiduciary.decide.experiment.sessions import fold_session
from fiduciary.decide.experiment.times import at
from fiduciary.decide.experiment.watch import watched
from fiduciary.decide.experiment.windows import Closure, closure
from fiduciary.evidence.codec import encode
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.modelapproval import ApprovalDecision, ModelApproval
    from fiduciary.api.modelexperiment import ModelExperimentSpec, ModelExperimentStatus
    from fiduciary.decide.experiment.comparison import Standing
    from fiduciary.decide.experiment.state import Evidence, State
    from fiduciary.decide.experiment.world import World


@dataclass(frozen=True, slots=True)
class Folded:
    """The state after all that is new, and why folding ended early, if it did."""

    state: State
    refusal: str | None = None


@dataclass(frozen=True)
class Case:
    """What the readings, the words and the status are made of. Every property is derived, none is stored."""

    world: World
    now: int  # seconds since 1970, never before the last judgement

    @classmethod
    def of(cls, world: World, now: datetime) -> Case:
        """A clock that was set back must not undo a wait."""
        last = 0 if world.state is None else world.state.course.judged
        return cls(world, max(int(now.timestamp()), last))

    @property
    def spec(self) -> ModelExperimentSpec:
        return self.world.experiment.spec

    @property
    def status(self) -> ModelExperimentStatus:
        return self.world.experiment.status

    @property
    def name(self) -> str:
        return self.world.experiment.metadata.name

    @property
    def moment(self) -> datetime:
        return at(self.now)

    @property
    def started(self) -> bool:
        return self.world.state is not None

    @cached_property
    def folded(self) -> Folded | Refusal:
        """Blocks and sessions that the state has not seen, each once and in order; a refusal says why none can be."""
        state = self.world.state or begin(self.world, self.now)
        if isinstance(state, Refusal):
            return state
        if self.world.recorded is not None and self.world.recorded.verdict == "Promote":
            course = promoted(state.course, int(self.world.recorded.at.timestamp()))
            state = replace(state, evidence=watched(state.terms, state.evidence), course=course)
        refusal = None
        for block in self.world.blocks:
            if block.last <= state.evidence.last or not self.started:
                continue  # folded before, or of a time before the start
            after = fold_block(state.terms, state.evidence, block)
            if isinstance(after, Refusal):
                refusal = f"block {block.first}..{block.last}: {after.message}"
                break  # sessions come from elsewhere
            state = replace(state, evidence=after, course=with_block(state.course, self.spec.traffic.steps, block))
        split = not together(self.spec.traffic.steps, state.course.step)
        for row in self.world.sessions:
            if row.number <= state.evidence.sessions.last:
                continue
            alone = split or row.session in state.course.gaps
            after = fold_session(state.terms, state.evidence, row, split=alone)
            if isinstance(after, Refusal):
                told = f"session {row.session}: {after.message}"
                return Folded(state, told if refusal is None else f"{refusal}; {told}")
            state = replace(state, evidence=after)
        return Folded(state, refusal)

    @cached_property
    def state(self) -> State | None:
        """None where the experiment cannot even be begun."""
        return None if isinstance(self.folded, Refusal) else self.folded.state

    @cached_property
    def refusal(self) -> str | None:
        """Why evidence is not folded: it is impossible, a guardrail cannot be counted, a breaker cannot trip."""
        cannot = self.world.health.unmeasured or breakers.refused(self)
        if cannot:
            return cannot
        return self.folded.message if isinstance(self.folded, Refusal) else self.folded.refusal

    @cached_property
    def evidence_digest(self) -> str | None:
        """What people sign: the two versions and all evidence about them."""
        if self.state is None:
            return None
        fixed, found = (self.status.champion, self.status.challenger), (self.world.champion, self.world.challenger)
        pair = tuple(None if (ref := its or one) is None else ref.digest for its, one in zip(fixed, found, strict=True))
        return _digest(pair, self.state.evidence)

    @cached_property
    def closure(self) -> Closure:
        return closure(self.spec.calendar, self.world.platform.calendars, self.moment)

    @cached_property
    def replay(self) -> Standing | None:
        """How far the replay of both procedures is; None: there is none."""
        return comparison.standing(self)

    @property
    def approvals_needed(self) -> int:
        """The larger of the model's and the experiment's; Manual needs one at least. Once people are asked, it may rise
        and not fall: nobody unasks them by lowering a number."""
        model, request = self.world.model, None if self.state is None else self.state.course.request
        asked = 0 if request is None else request.needed
        return max(self.spec.approvals, model.approvals, 1 if model.mode == "Manual" else 0, asked)

    @cached_property
    def signatures(self) -> tuple[ModelApproval, ...]:
        """One Approve a person, of the evidence that was asked for, whose author counts."""
        request = None if self.state is None else self.state.course.request
        if request is None:
            return ()
        people: dict[str, ModelApproval] = {}
        for act in self.acts("Approve"):
            if act.spec.evidence_digest == request.digest and self.objection(act) is None:
                people.setdefault(act.spec.approver, act)
        return tuple(people.values())

    def acts(self, decision: ApprovalDecision) -> tuple[ModelApproval, ...]:
        """Acts of people on this experiment, oldest first."""
        created = self.world.experiment.metadata.creation_timestamp
        return tuple(
            act
            for act in self.world.approvals
            if act.spec.decision == decision
            and act.spec.experiment == self.name
            and act.metadata.name not in self.world.model.acted
            # an act on an earlier experiment of the same name
            and (
                created is None or act.metadata.creation_timestamp is None or act.metadata.creation_timestamp >= created
            )
        )

    def objection(self, act: ModelApproval) -> tuple[str, str] | None:
        return objection(act, self.world.platform, self.world.model.editor)

    @property
    def max_duration(self) -> int:
        return seconds_of(self.spec.stopping.max_duration)

    @property
    def min_duration(self) -> int:
        return seconds_of(self.spec.stopping.min_duration)


@lru_cache(maxsize=512)  # asked for at each scrape, and another one only after a block
def _digest(pair: tuple[str | None, ...], evidence: Evidence) -> str:
    return identity.digest([list(pair), encode(evidence)])
