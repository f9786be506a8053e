"""One DriftPolicy under judgement: its world, the time, and the state with everything new folded in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fiduciary.decide import reasons
from fiduciary.decide.calendar import CalendarUnknown, open_between
from fiduciary.decide.drift.alarms import ended, updated
from fiduciary.decide.drift.calibrate import REALISED, key
from fiduciary.decide.drift.estimate import estimated
from fiduciary.decide.drift.fold import fold_missing, fold_window, limited
from fiduciary.decide.drift.losses import Versed, day_of, fold_session
from fiduciary.decide.drift.state import Done, Limit, Losses, State, Stream, Versus
from fiduciary.decide.drift.windows import Edge, windows
from fiduciary.decide.experiment.fold import chained
from fiduciary.decide.experiment.times import at
from fiduciary.evidence.edetector import EDetector
from fiduciary.evidence.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fiduciary.api.driftpolicy import DriftPolicySpec, DriftPolicyStatus
    from fiduciary.decide.drift.calibrate import Calibrated
    from fiduciary.decide.drift.windows import Window
    from fiduciary.decide.drift.world import Acted, ModelFacts, QueryValue, World

MOST_DONE = 20
RESTARTED = {"Retrain": reasons.RETRAIN_ASKED, "RollBack": reasons.ROLLED_BACK}


@dataclass(frozen=True)
class Case:
    """What rules, words and status are made of. Every property is derived, none is stored."""

    world: World
    now: int  # seconds since 1970, never before the last judgement

    @classmethod
    def of(cls, world: World, now: datetime) -> Case:
        """A clock that was set back must not undo a wait."""
        return cls(world, max(int(now.timestamp()), 0 if world.state is None else world.state.judged))

    @property
    def spec(self) -> DriftPolicySpec:
        return self.world.policy.spec

    @property
    def status(self) -> DriftPolicyStatus:
        return self.world.policy.status

    @property
    def name(self) -> str:
        return self.world.policy.metadata.name

    @property
    def model(self) -> ModelFacts | None:
        return self.world.model

    @property
    def moment(self) -> datetime:
        return at(self.now)

    @property
    def calendars(self) -> Mapping[str, Any]:
        return self.world.platform.calendars

    @property
    def exchange(self) -> str:
        """Whose sessions are the rows and whose days are frozen."""
        calendar = self.spec.window.calendar
        return calendar if calendar is not None else "24/7" if self.model is None else self.model.calendar

    @property
    def version(self) -> str | None:
        """Digest of the version that serves."""
        champion = None if self.model is None else self.model.champion
        return None if champion is None else champion.digest

    @cached_property
    def calibrated(self) -> Calibrated | None:
        """Of the version that serves and this spec; None while that is not known, or cannot be used."""
        found = self.world.calibrated
        if found is None or isinstance(found, Refusal) or self.version is None:
            return None
        return found if found.key == key(self.spec, self.world.policy.metadata.uid, self.version) else None

    @property
    def spec_refused(self) -> str:
        """Why this spec cannot be judged on this version."""
        return self.world.calibrated.message if isinstance(self.world.calibrated, Refusal) else ""

    @property
    def counts_refused(self) -> str:
        """Why the scorer's counts are not those of the reference: unequal ones are never compared."""
        calibrated = self.calibrated
        if calibrated is None or not calibrated.edges_digest or self.world.reference == calibrated.edges_digest:
            return ""
        if self.world.reference is None:
            return "the scorer has not said over which edges it counts this version: it does with the first record"
        return (
            f"the scorer counts over edges {self.world.reference[:12]}, the version's reference has "
            f"{calibrated.edges_digest[:12]}: serve the version with the runtime of this release"
        )

    @cached_property
    def state(self) -> State | None:
        """The state with everything new; None before there is anything to fold."""
        calibrated, stored = self.calibrated, self.world.state
        if calibrated is None or self.world.unreadable:
            # What was carried out is known though nothing can be judged: else the request would be taken back as held,
            # and its record be nobody's.
            return None if stored is None else self._thanked(stored)
        state = stored if stored is not None and stored.key == calibrated.key else self._begun(calibrated)
        state = self._thanked(state)
        if not self.counts_refused:
            state = self._counted(calibrated, state)
        for value in self.world.queries:
            state = self._answered(calibrated, state, value)
        return replace(self._paired(calibrated, state), judged=self.now)

    def _thanked(self, state: State) -> State:
        """With everything that the log says was carried out."""
        for one in () if self.model is None else self.model.acted:
            state = _acknowledged(state, one, self.name)
        return state

    @cached_property
    def sessions_refused(self) -> str:
        """Why a session of the ledger could not be folded; the state before it stands."""
        calibrated, state = self.calibrated, self.state
        if calibrated is None or state is None or not self._pairs:
            return ""
        following = next((one for one in self.world.sessions if one.number > state.losses.last), None)
        found = None if following is None else fold_session(calibrated, state, following, self._versed)
        return f"session {following.session}: {found.message}" if following and isinstance(found, Refusal) else ""

    @property
    def _pairs(self) -> bool:
        return any(its.realised for its in self.spec.monitors)

    @property
    def _versed(self) -> Versed:
        least = {its.name: float(its.min_effect or 0) for its in self.spec.monitors if its.beside_previous}
        return Versed(1 if self.model is None else self.model.horizon, least)

    def _begun(self, calibrated: Calibrated) -> State:
        """Nothing is folded. Alarms of the version before are over, what was done for it stays on the list."""
        monitors = self.spec.monitors
        fresh = State(
            key=calibrated.key,
            streams=tuple(Stream(gauge.monitor, gauge.name) for gauge in calibrated.gauges),
            limits=tuple(Limit(its.name) for its in monitors if its.query is not None or its.missing is not None),
            versus=tuple(Versus(its.name, EDetector()) for its in monitors if its.beside_previous),
        )
        before = self.world.state
        if before is None:
            return fresh
        firing = [alarm.monitor for alarm in before.alarms if alarm.until is None]
        over = self._thanked(ended(before, firing, self.now, reasons.BEGUN_ANEW))
        known = {its.name for its in monitors}
        kept = tuple(alarm for alarm in over.alarms if alarm.monitor in known)
        return replace(fresh, alarms=kept, done=over.done, judged=before.judged)

    def _counted(self, calibrated: Calibrated, state: State) -> State:
        for reading in self.world.readings:
            if reading.at > state.grown and reading.rows != state.rows:
                state = replace(state, grown=reading.at, rows=reading.rows)
        for step in windows(calibrated.grid, Edge(state.edge, state.window), self.world.readings):
            if isinstance(step, Edge):
                state = replace(state, edge=step.reading, window=step.window)
            else:
                state = self._closed(calibrated, state, step)
        return state

    def _closed(self, calibrated: Calibrated, state: State, window: Window) -> State:
        state = replace(state, edge=window.end, window=window.last, chain=chained(state.chain, window.end))
        if window.why:
            if self._shut(calibrated, window):
                return state
            return replace(state, skipped=state.skipped + 1, why=window.why)
        rates, run_time = dict(calibrated.missing), calibrated.run_time
        missing = {its.name: its for its in self.spec.monitors if its.missing is not None}
        limits = tuple(
            fold_missing(limit, window, float(its.missing.above), rates, run_time, its.for_windows)
            if (its := missing.get(limit.monitor)) is not None and its.missing is not None
            else limit
            for limit in state.limits
        )
        state = replace(
            state,
            folded=state.folded + 1,
            why="",
            ended=window.end.at,
            streams=fold_window(calibrated, state.streams, window),
            limits=limits,
            estimate=estimated(calibrated.expected, window.prediction),
        )
        return updated(self.spec.monitors, calibrated, state, window.end.at // 1000)

    def _shut(self, calibrated: Calibrated, window: Window) -> bool:
        """Nobody asks for predictions at night: a window without rows in which the exchange was closed is none that was
        missed, and what was said of the one before it still is."""
        length = calibrated.grid.length
        if not length or window.rows:
            return False
        try:
            began, ended_ = at(window.first * length // 1000), at(window.end.at // 1000)
            return not open_between(self.calendars, self.exchange, began, ended_)
        except CalendarUnknown:
            return False

    def _answered(self, calibrated: Calibrated, state: State, value: QueryValue) -> State:
        its = next((one for one in self.spec.monitors if one.name == value.monitor and one.query is not None), None)
        limit = next((one for one in state.limits if one.monitor == value.monitor), None)
        if its is None or limit is None or value.at <= limit.last:
            return state
        number = value.value
        if number is None or number != number:  # no number is neither beyond the limit nor within it
            after = replace(limit, last=value.at, blind=value.message or "the query has no value")
        else:
            beyond = number > float(its.above) if its.above is not None else number < float(its.below or 0)
            after = limited(limit, value.at, min(max(number, -1e300), 1e300), (), beyond, its.for_windows)
        state = replace(state, limits=tuple(after if one is limit else one for one in state.limits))
        return updated(self.spec.monitors, calibrated, state, value.at // 1000)

    def _of_ledger(self, calibrated: Calibrated, state: State) -> State:
        """Sessions of another ledger are of another comparison: what was folded of the one before says nothing."""
        if not self.world.ledger or state.losses.ledger == self.world.ledger:
            return state
        streams = tuple(
            Stream(stream.monitor, stream.name) if gauge.kind in REALISED else stream
            for gauge, stream in zip(calibrated.gauges, state.streams, strict=True)
        )
        versus = tuple(Versus(its.monitor, EDetector()) for its in state.versus)
        return replace(state, streams=streams, versus=versus, losses=Losses(self.world.ledger), sessions="")

    def _paired(self, calibrated: Calibrated, state: State) -> State:
        state = self._of_ledger(calibrated, state)
        for session in self.world.sessions if self._pairs else ():
            if session.number <= state.losses.last:
                continue  # folded before
            after = fold_session(calibrated, state, session, self._versed)
            if isinstance(after, Refusal):
                break
            state = updated(self.spec.monitors, calibrated, after, day_of(session.session))
        return state


def _acknowledged(state: State, one: Acted, policy: str) -> State:
    """What was asked for was carried out: its detectors begin anew. Also where it was taken back in the moment in which
    the model took it on; alarms that began after that are of what came of it."""
    asked = state.withdrawn if state.request is None else (state.request, *state.withdrawn)
    request = next((its for its in asked if its.digest == one.digest), None)
    if request is None or one.policy != policy:
        return state
    moment = int(one.at.timestamp())
    done = Done(request.kind, request.monitors, request.digest, moment, f"record {one.sequence}: {request.message}")
    later = {alarm.monitor for alarm in state.alarms if alarm.until is None and alarm.since > moment}
    state = ended(state, tuple(its for its in request.monitors if its not in later), moment, RESTARTED[one.kind])
    return replace(
        state,
        request=None if state.request is not None and state.request.digest == one.digest else state.request,
        withdrawn=tuple(its for its in state.withdrawn if its.digest != one.digest),
        done=(done, *state.done)[:MOST_DONE],
    )
