"""What a DriftPolicy keeps between two reconciles: immutable, serialised bit for bit by ``evidence.codec``.

Times are whole seconds since 1970, those of readings milliseconds. Nothing of the reference is in it but its key: ranks
are among the reference's scores, which are computed again, and those of past windows, which are here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fiduciary.evidence.conformal import ConformalCusum
from fiduciary.evidence.edetector import EDetector


@dataclass(frozen=True, slots=True)
class FeatureCounts:
    """Rows of one feature: by bin of the reference's edges, and those without a value."""

    name: str
    bins: tuple[int, ...]
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """Raw values of one version's counters at one moment (ms): sums since they began, never falling."""

    at: int
    rows: int
    features: tuple[FeatureCounts, ...] = ()
    prediction: tuple[int, ...] = ()
    joint: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """One detector: of a feature, the prediction, the joint distance or the loss.

    Attributes:
        monitor, name: whose; ``name`` is the feature, else empty.
        since: number of the first window of the growing evidence, -1 while there is none.
        counts: of the windows since then, merged; empty for what is realised.
        above: windows in a row in which the sum was above its threshold and the effect large enough.
        last: number of the last window folded, -1 before.
        effect: distance of ``counts`` less what sampling shows; of a loss, how far its mean is above the reference's.
        alarm: number of the window that raised the alarm; None: there is none.
        recovery: sum of the evidence that the drift is over, while there is an alarm.
        blind: why the last window was not judged; empty: it was.
        sums: what ``counts`` is, of what is realised: windows and the sum of their mean losses, or bins of calibration.
    """

    monitor: str
    name: str
    detector: ConformalCusum = field(default_factory=ConformalCusum)
    since: int = -1
    counts: tuple[int, ...] = ()
    above: int = 0
    last: int = -1
    effect: float = 0.0
    alarm: int | None = None
    recovery: float = 0.0
    blind: str = ""
    sums: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    """A monitor with a fixed limit: a query, or the share of missing rows.

    ``run``: windows in a row beyond it; ``quiet``: windows in a row within it, while there is an alarm. ``last``: time
    (ms) of the last window that was looked at. ``names``: features beyond it, worst first; while there is an alarm,
    those of its last window beyond. ``blind``: why the last value was none.
    """

    monitor: str
    run: int = 0
    quiet: int = 0
    last: int = -1
    value: float | None = None
    names: tuple[str, ...] = ()
    alarm: int | None = None  # time (ms) of the window that raised it
    blind: str = ""


@dataclass(frozen=True, slots=True)
class Losses:
    """Sessions of the ledger that were seen, and those of the window that is open."""

    ledger: str = ""  # its name: sessions of another one are numbered anew
    last: int = -1  # number of the last session
    session: str = ""
    open: int = 0  # sessions in the open window
    entities: int = 0
    total: float = 0.0
    bins: tuple[float, ...] = ()  # calibration of the open window
    windows: int = 0  # closed
    dropped: int = 0  # sessions left out: our transport lost predictions
    empty: int = 0  # sessions in which nothing could be scored
    unanswered: int = 0  # outcomes that the previous version had predicted, and the one that serves had not


@dataclass(frozen=True, slots=True)
class Versus:
    """Losses against the previous version's on the same sessions.

    ``alarm``: number of the session that raised it. While it lasts, ``over`` gathers evidence that the difference is
    less than ``half`` of the mean that it was raised at.
    """

    monitor: str
    detector: EDetector
    alarm: int | None = None
    over: EDetector = field(default_factory=EDetector)
    half: float = 0.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong now, or was until shortly. ``until``: when it ended; None: it goes on."""

    monitor: str
    since: int
    window: int
    names: tuple[str, ...]
    message: str
    digest: str  # of the evidence that raised it
    until: int | None = None
    reason: str = ""  # why it ended


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the model, frozen until it is carried out or its alarms end."""

    kind: str  # Retrain | RollBack
    monitors: tuple[str, ...]
    digest: str
    at: int
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """A request that the model's log carried out."""

    kind: str
    monitors: tuple[str, ...]
    digest: str
    at: int
    message: str


@dataclass(frozen=True, slots=True)
class State:
    """One DriftPolicy between two reconciles.

    Attributes:
        key: of the calibration: another version, reference or question begins anew.
        edge: counters at the end of the last window, from which the next one is counted.
        window: number of the last window that ended there, -1 before.
        folded, skipped: windows that were judged, and those that could not be, since the state began.
        why: what was wrong with the last window; empty: nothing.
        ended: time (ms) of the last window that was judged.
        grown: time (ms) of the newest reading with more rows than before.
        withdrawn: the last requests that were taken back: the model may have taken one on in that moment.
        judged: time of the last judgement: it never runs backwards.
        chain: SHA-256 over all windows, in order; sessions have their own.
        estimate: mean loss of the last window of rows, as far as its forecasts alone tell; no detector sees it.
    """

    key: str
    edge: Reading | None = None
    window: int = -1
    folded: int = 0
    skipped: int = 0
    why: str = ""
    ended: int = -1
    rows: int = 0
    grown: int = -1
    streams: tuple[Stream, ...] = ()
    limits: tuple[Limit, ...] = ()
    versus: tuple[Versus, ...] = ()
    losses: Losses = Losses()
    alarms: tuple[Alarm, ...] = ()
    request: Request | None = None
    withdrawn: tuple[Request, ...] = ()
    done: tuple[Done, ...] = ()
    judged: int = 0
    chain: str = ""
    sessions: str = ""
    estimate: float | None = None
