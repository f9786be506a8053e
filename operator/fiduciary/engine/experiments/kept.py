"""What is kept in the status between two reconciles, beside the state that the judgement folds.

It is written in the same write as the state, so that a restart at any moment goes on from both to the same bits: raw
values of each series at the last edge, the changes of the route that later blocks may still meet, and what the pods had
suffered before the challenger was exposed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fiduciary.api.modelexperiment import Folded
from fiduciary.decide import identity
from fiduciary.decide.counters.blocks import START
from fiduciary.decide.counters.exposure import Change
from fiduciary.decide.counters.state import Counters  # noqa: TC001 - decoding reads the hints of the fields
from fiduciary.decide.experiment.state import State
from fiduciary.decide.experiment.times import at
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.refusal import Refusal, Why

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from fiduciary.serving.observed import ServingPod

OUT_OF_MEMORY = "OOMKilled"
SILENCE = 60_000
"""Milliseconds for which a node may be lost before the cluster says so (50 s), or a pod gone before we look again."""
LEARNING = 5_000
"""Milliseconds within which gateways know of a pod that is ready again."""
MOST_ABSENCES = 32
TOLD = 300
"""Characters that a message has for pods: there may be hundreds."""


@dataclass(frozen=True, slots=True)
class Suffered:
    """What a pod had suffered when the challenger was first exposed: only what comes after it counts."""

    pod: str
    restarts: int
    out_of_memory: bool

    @classmethod
    def of(cls, pod: ServingPod) -> Suffered:
        return cls(pod.name, ends(pod), OUT_OF_MEMORY in (pod.reason, pod.last_reason))


def ends(pod: ServingPod) -> int:
    """Runs of its containers that have ended."""
    return pod.restarts + pod.failed


def _fate(pod: ServingPod) -> str:
    if pod.deleting:
        return "it is being deleted"
    said = f"{pod.reason} {pod.message}".strip() or pod.phase
    return f"{said}, its server runs and is not ready" if pod.unready else said


def suffered(pods: Sequence[ServingPod]) -> tuple[Suffered, ...]:
    """Of the pods that had suffered anything; there may be hundreds."""
    return tuple(one for one in map(Suffered.of, pods) if one.restarts or one.out_of_memory)


@dataclass(frozen=True, slots=True)
class Absence:
    """From when to when no pod of the challenger could answer because the cluster had taken them, ms. ``ended`` None:
    they still cannot."""

    begun: int
    ended: int | None = None


def present(absences: tuple[Absence, ...], taken: bool, now: int) -> tuple[Absence, ...]:
    """The absences with what is known ``now`` (ms): those that meet are one, and so are the oldest of too many.

    It begins :data:`SILENCE` before it is noticed, and ends :data:`LEARNING` after it is over.
    """
    newest = absences[-1] if absences else None
    if newest is not None and newest.ended is None:
        return absences if taken else (*absences[:-1], replace(newest, ended=max(now, newest.begun) + LEARNING))
    if not taken:
        return absences
    begun = now - SILENCE
    if newest is not None and newest.ended is not None and newest.ended >= begun:
        return (*absences[:-1], replace(newest, begun=min(newest.begun, begun), ended=None))
    if len(absences) < MOST_ABSENCES:
        return (*absences, Absence(begun))
    return (replace(absences[1], begun=absences[0].begun), *absences[2:], Absence(begun))


@dataclass(frozen=True, slots=True)
class Kept:
    """Attributes:
    counters: raw values at the edge of the last folded block.
    changes: of the route, oldest first: the newest one before that edge, and all after it.
    champion, challenger: what their pods had suffered before.
    absences: when the cluster had taken the challenger's pods, oldest first: those that blocks after the edge may meet.
    skewed: our clock is not Prometheus': when the route changes is not known by the clock of its samples.
    agreed: since when it is so again, ms; 0: it always was.
    """

    counters: Counters = START
    changes: tuple[Change, ...] = ()
    champion: tuple[Suffered, ...] = ()
    challenger: tuple[Suffered, ...] = ()
    absences: tuple[Absence, ...] = ()
    skewed: bool = False
    agreed: int = 0

    def attended(self, taken: bool, now: int) -> Kept:
        """With what is known ``now`` (ms) of the challenger's pods. ``taken``: the cluster took them, not the
        champion's."""
        return replace(self, absences=present(self.absences, taken, now))

    def absent(self, since: int, until: int | None = None) -> bool:
        """Whether the cluster had taken the challenger's pods at some moment between these (ms); None: up to now."""
        return any(
            (until is None or one.begun < until) and (one.ended is None or one.ended > since) for one in self.absences
        )

    def agreeing(self, now: int) -> Kept:
        """The clocks agree again (``now``: ms). A change of later was told by a clock that was ahead."""
        if not self.skewed:
            return self
        changes = tuple(replace(change, begun=min(change.begun, now)) for change in self.changes)
        return replace(self, changes=changes, skewed=False, agreed=now)

    @property
    def confirmed(self) -> tuple[Change, ...]:
        """The changes; whatever was in force before the clocks agreed counts as in force since then."""
        return tuple(
            change if change.settled is None else replace(change, settled=max(change.settled, self.agreed))
            for change in self.changes
        )


NOTHING = Kept()


@dataclass(frozen=True, slots=True)
class Split:
    """What the model's log gives to this challenger now. Times are milliseconds.

    ``begun``: when it was decided, before the route was written. ``settled``: when it was found in force; None: not
    yet, or no longer.
    """

    weight: int = 0
    mirror: int = 0
    begun: int = 0
    settled: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A status's evidence, read."""

    state: State
    kept: Kept


def stored(evidence: Folded) -> Stored | Refusal:
    """What :func:`folded` wrote; a refusal where the status was changed by somebody else, or is of another release."""
    if identity.digest([evidence.state, evidence.counters]) != evidence.digest:
        return Refusal(Why.MALFORMED, "status.evidence does not match its digest: somebody changed it")
    state = decode(State, json.loads(evidence.state))
    if isinstance(state, Refusal):
        return state
    if not evidence.counters:  # nothing is counted any more
        return Stored(state, Kept(replace(START, last=state.evidence.last)))
    kept = decode(Kept, json.loads(evidence.counters))
    return kept if isinstance(kept, Refusal) else Stored(state, kept)


def folded(state: State, kept: Kept | None) -> Folded:
    """State and what is kept beside it, for the status. ``kept`` None: nothing is counted any more."""
    text, counters = _text(state), "" if kept is None else _text(kept)
    terms = state.terms
    return Folded(
        through=at(terms.origin + (state.evidence.last + 1) * terms.block),
        digest=identity.digest([text, counters]),
        state=text,
        counters=counters,
    )


def _text(value: Any) -> str:
    return json.dumps(encode(value), separators=(",", ":"), sort_keys=True)


def followed(changes: tuple[Change, ...], split: Split, now: int) -> tuple[Change, ...]:
    """The changes with what the model says now (``now``: ms). What was decided later was so by a clock that was ahead.

    Where a split is no longer in force, nobody knows since when: it counts as unsettled from now on. Where it was so in
    between and nobody looked, from the last moment at which it was known to be in force.
    """
    split = replace(split, begun=min(split.begun, now))
    found = Change(split.begun, split.settled, split.weight, split.mirror)
    if not changes:
        return (found,)
    newest = changes[-1]
    if (newest.weight, newest.mirror) != (split.weight, split.mirror) or split.begun > newest.begun:
        return (*changes, replace(found, begun=max(split.begun, newest.begun + 1)))
    if split.settled == newest.settled:
        return changes
    if newest.settled is None:
        return (*changes[:-1], replace(newest, settled=split.settled))
    return (*changes, replace(found, begun=now if split.settled is None else newest.settled))


def met(absences: Sequence[Absence], edge: int) -> tuple[Absence, ...]:
    """Those that a block after ``edge`` (ms) can meet."""
    return tuple(one for one in absences if one.ended is None or one.ended > edge)


def needed(changes: Sequence[Change], edge: int) -> tuple[Change, ...]:
    """Those that a block after ``edge`` (ms) can meet."""
    before = [change for change in changes if change.begun < edge]
    return (*before[-1:], *(change for change in changes if change.begun >= edge))


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of one arm, now and before."""

    now: tuple[ServingPod, ...] = ()
    before: tuple[Suffered, ...] = field(default=())

    @property
    def restarts(self) -> int:
        """Runs of containers that ended by themselves since the challenger was first exposed. What the cluster ended,
        with the pod or with its node, is not one of them."""
        known = {one.pod: one.restarts for one in self.before}
        return sum(max(0, ends(pod) - pod.lost - known.get(pod.name, 0)) for pod in self.now if not pod.taken)

    @property
    def unready(self) -> int:
        """Pods that run and say that they are not ready. Of a node that is lost the kubelet says nothing any more."""
        return sum(pod.unready and not pod.taken for pod in self.now)

    @property
    def told(self) -> str:
        """What became of those that are not ready, in words."""
        return "; ".join(f"{pod.name}: {_fate(pod)}" for pod in self.now if not pod.ready or pod.deleting)[:TOLD]

    @property
    def out_of_memory(self) -> int:
        """Pods that were killed for memory since then."""
        known = {one.pod: one for one in self.before}
        killed = [one for one in (Suffered.of(pod) for pod in self.now if not pod.taken) if one.out_of_memory]
        return sum(
            (old := known.get(one.pod)) is None or one.restarts > old.restarts or not old.out_of_memory
            for one in killed
        )
