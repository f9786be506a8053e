"""What one reconcile of a DriftPolicy may look at: plain, frozen data that the engine gathered.

Readings, values and sessions are those that the stored state has not folded yet; older ones do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.data import LabelKind
    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.api.versions import StandingVersion, VersionRef
    from fiduciary.decide.drift.calibrate import Calibrated
    from fiduciary.decide.drift.state import Reading, State
    from fiduciary.decide.world import Platform
    from fiduciary.evidence.refusal import Refusal

Asked = Literal["Retrain", "RollBack"]


@dataclass(frozen=True, slots=True)
class QueryValue:
    """Answer to one query monitor at the end of a window. ``value`` None: no series, several, NaN, or an error."""

    monitor: str
    at: int  # ms, the time of the window's last reading
    value: float | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class SessionLoss:
    """One closed session of the scorer's ledger: what the version that serves lost by itself, and beside the previous.

    Attributes:
        number: in the ledger, from 0, without holes.
        session: YYYY-MM-DD.
        entities, loss: what it predicted in time, and the sum of its losses.
        paired, worse: what both predicted, and the sum of the differences of their losses, positive is worse now.
        dropped, dropped_previous: predictions that our own transport lost.
        unanswered: outcomes that the previous version alone had predicted.
        calibration: of ten bins of probability: forecasts, sum of the probabilities, events; empty: none are made.
    """

    number: int
    session: str
    entities: int
    loss: float
    paired: int = 0
    worse: float = 0.0
    dropped: int = 0
    dropped_previous: int = 0
    unanswered: int = 0
    calibration: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Acted:
    """A record of the model's log that carried out what a policy asked for."""

    kind: Asked
    policy: str
    digest: str  # of the request
    at: datetime
    sequence: int


@dataclass(frozen=True, slots=True)
class RecordedAlarm:
    """An alarm that the model's log has."""

    policy: str
    digest: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LogHead:
    """The end of the model's decision log, which the record of an alarm follows. ``digest`` None: it is empty."""

    model: str
    uid: str
    generation: int
    sequence: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the FinancialModel's spec, status and log say that this policy depends on."""

    label: LabelKind
    champion: StandingVersion | None
    horizon: int = 1  # sessions to the label's end
    previous: VersionRef | None = None  # the last approved version that was not rejected since
    returned: bool = False  # the champion was gone back to, not promoted
    calendar: str = "24/7"  # exchange of the model's data
    rolling: bool = True  # asOf moves, so that a retrain reads new rows
    trained_to: str = ""  # newest date of data of a training that was judged, whatever came of it
    mode: Literal["Auto", "Manual", "Pinned"] = "Auto"
    suspended: bool = False
    killed: bool = False
    busy: str = ""  # training or experiment that is under way, in words
    acted: tuple[Acted, ...] = ()  # of all policies of the model, at least eight days back
    log: LogHead | None = None  # None: nothing can be recorded (any more)
    recorded: tuple[RecordedAlarm, ...] = ()  # that the log has


@dataclass(frozen=True, slots=True)
class Health:
    """Whether counters could be read."""

    message: str = ""  # why not, and what to do; empty: they could
    person: bool = False  # somebody has to act; else it passes by itself
    catching_up: bool = False  # they can, and older windows are read first


@dataclass(frozen=True, slots=True)
class World:
    """Everything that ``decide`` may look at for one DriftPolicy."""

    policy: DriftPolicy  # metadata, spec and status as stored
    model: ModelFacts | None  # None: there is no such FinancialModel
    platform: Platform
    calibrated: Calibrated | Refusal | None = None
    """Of the serving version, this spec and :func:`fiduciary.decide.drift.calibrate.calibrated`; None: not read yet."""
    state: State | None = None  # folded so far
    readings: tuple[Reading, ...] = ()  # of the serving version, in the order of their times
    queries: tuple[QueryValue, ...] = ()
    sessions: tuple[SessionLoss, ...] = ()
    reference: str | None = None  # hash of the edges that the counters are over, as the scorer says
    health: Health = field(default_factory=Health)
    ledger: str = ""  # name of the one whose sessions are read; empty: not known
    outcomes: str = ""  # why what was realised is not read; empty: it is
    undelivered: str = ""  # why alerts do not reach their receivers
    unread: str = ""  # why the drift reference is not read yet
    unreadable: str = ""  # why what was folded cannot be read
