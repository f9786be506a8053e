"""Folding closed sessions of the scorer's ledger: the loss against the reference, and against the previous version."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.decide.drift.fold import scored
from fiduciary.decide.drift.scores import rounded
from fiduciary.decide.experiment.fold import chained
from fiduciary.evidence.refusal import Refusal, check_count, check_measure, check_next

if TYPE_CHECKING:
    from fiduciary.decide.drift.calibrate import Calibrated
    from fiduciary.decide.drift.state import Losses, State, Versus
    from fiduciary.decide.drift.world import SessionLoss

RECOVERED = 0.5
"""An alarm against the previous version ends when the log of its evidence falls below this share of the threshold."""


def fold_session(calibrated: Calibrated, state: State, session: SessionLoss) -> State | Refusal:
    """With the next session of the ledger. A refusal folds nothing of it."""
    problem = (
        check_next(state.losses.last, session.number, session.number)
        or check_count("entities", session.entities)
        or check_count("dropped", session.dropped)
        or check_measure("loss", session.loss)
        or check_measure("previous loss", session.previous or 0.0)
    )
    if problem is not None:
        return problem
    versus = tuple(_against(calibrated, its, session) for its in state.versus)
    losses = _counted(state.losses, session)
    state = replace(state, versus=versus, losses=losses, sessions=chained(state.sessions, session))
    if calibrated.grid.per_entity == 0 or losses.open < calibrated.grid.per_entity:
        return state
    mean = rounded(losses.total / losses.open)
    streams = tuple(
        scored(gauge, stream, losses.windows, mean, mean) if gauge.kind == "loss" else stream
        for gauge, stream in zip(calibrated.gauges, state.streams, strict=True)
    )
    return replace(
        state, streams=streams, losses=replace(losses, open=0, entities=0, total=0.0, windows=losses.windows + 1)
    )


def _counted(losses: Losses, session: SessionLoss) -> Losses:
    """Sessions that our own transport damaged, or that nobody can score, belong to no window."""
    usable = session.dropped == 0 and session.entities > 0
    return replace(
        losses,
        last=session.number,
        session=session.session,
        open=losses.open + usable,
        entities=losses.entities + (session.entities if usable else 0),
        total=losses.total + (session.loss / session.entities if usable else 0.0),
        dropped=losses.dropped + (session.dropped > 0),
        empty=losses.empty + (session.entities == 0),
    )


def _against(calibrated: Calibrated, versus: Versus, session: SessionLoss) -> Versus:
    if session.previous is None or session.dropped or not session.entities:
        return versus
    difference = (session.loss - session.previous) / session.entities
    detector = versus.detector.fold(versus.detector.last + 1, difference)
    if isinstance(detector, Refusal):
        return versus
    log_e, threshold = detector.log_e, versus_threshold(calibrated)
    if log_e is None:
        return replace(versus, detector=detector)
    if versus.alarm is None:
        return replace(versus, detector=detector, alarm=session.number if log_e >= threshold else None)
    over = log_e < RECOVERED * threshold
    return replace(versus, detector=detector, alarm=None if over else versus.alarm)


def versus_threshold(calibrated: Calibrated) -> float:
    """ln of the sessions between two false alarms: windows of ``run_time`` times the sessions in one."""
    return math.log(calibrated.run_time * max(1, calibrated.grid.per_entity))
