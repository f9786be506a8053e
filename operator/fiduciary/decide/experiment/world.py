"""What one reconcile of a ModelExperiment may look at: plain, frozen data that the engine gathered.

Nothing here knows where it came from. Blocks and sessions are those that the stored state has not folded yet; what was
folded is never asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from fiduciary.decide.calendar import ALWAYS_OPEN
from fiduciary.evidence.blocks import Counts

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.data import LabelKind
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.experiment.state import State
    from fiduciary.decide.world import Platform, PodView, QuotaView, ReferenceView
    from fiduciary.evidence.dispersion import Dispersion
    from fiduciary.manifests.comparison import Scorer

NONE = Counts(0, 0)


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Requests of both arms of one guardrail (or of the transport test) in one closed block: raw counter differences.

    Live requests and mirrored copies are counted by different Services and stay apart.
    """

    name: str  # of the guardrail, or TRANSPORT
    champion: Counts
    challenger: Counts
    champion_mirror: Counts = NONE
    challenger_mirror: Counts = NONE


TRANSPORT = "transport"
"""Harm test of its own: trials = sent by the gateway, bad = not received by the pod (statistics.md rule 1)."""


@dataclass(frozen=True, slots=True)
class Around:
    """What the samples leave open about the requests of (champion, challenger); nothing where one scrape shows both.

    Attributes:
        opened: between the samples around the first edge: they may lie on either side of it.
        closed: the same around the last edge.
        lost: requests that nobody counted: of a pod that ended, was found late, or is beyond the bound.
    """

    opened: tuple[int, ...] = ()
    closed: tuple[int, ...] = ()
    lost: bool = False


@dataclass(frozen=True, slots=True)
class ClosedBlock:
    """Base blocks ``first`` … ``last`` after the start, settled. They differ only where a gap was merged.

    ``weight`` and ``mirror`` were in force from edge to edge, unless it is ``mixed`` or merged.
    """

    first: int
    last: int
    weight: int
    mirror: int
    requests: tuple[int, int]  # live requests of (champion, challenger): what the router drew
    tests: tuple[ArmCounts, ...]
    misrouted: int = 0  # sticky routes only: requests whose arm is not their bucket's
    mixed: bool = False  # the weights changed inside, or not a scrape interval before its first edge
    absent: bool = False  # the cluster had taken the challenger's pods, for a part of it at least
    around: Around = Around()

    @property
    def merged(self) -> bool:
        """For harm only: not one stretch of equal weights (rule 10)."""
        return self.first != self.last or self.mixed


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One closed session of the scorer's ledger. Differences are oriented: positive is better for the challenger."""

    number: int  # in the ledger, from 0, without holes
    session: str  # YYYY-MM-DD, the session of the decisions
    source: Literal["Prequential", "Live"]
    entities: int  # with a prediction of both arms and an outcome
    total: float  # sum over them of the champion's loss less the challenger's (rank IC: the other way round)
    squares: float
    missing_champion: int = 0  # entities with the challenger's prediction only
    missing_challenger: int = 0  # entities with the champion's only
    dropped: int = 0  # predictions that our own transport lost
    late: int = 0  # outcomes that came after the session was closed
    profit: tuple[float, float] | None = None  # paper PnL of (champion, challenger), money
    digest: str = ""


@dataclass(frozen=True, slots=True)
class LiveCounts:
    """Unsettled counts since the last block edge, for one circuit breaker."""

    breaker: int  # index in spec.circuitBreakers
    champion: Counts
    challenger: Counts


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What happened to the pods of one arm since the experiment began.

    Attributes:
        restarts: runs of its containers that ended by themselves.
        unready: pods that run and say that they are not ready.
        told: in words, what became of those that are not ready.
    """

    ready: int = 0
    restarts: int = 0
    out_of_memory: int = 0
    unready: int = 0
    told: str = ""

    @property
    def taken(self) -> bool:
        """No pod is ready, and none of them says that it failed: the cluster took them (a drain, an eviction, a node
        that is lost, a Server that starts again)."""
        return not self.ready and not self.unready


@dataclass(frozen=True, slots=True)
class Live:
    """What is known now and not settled: for breakers only."""

    counts: tuple[LiveCounts, ...] = ()
    champion: PodFacts = PodFacts()
    challenger: PodFacts = PodFacts()


@dataclass(frozen=True, slots=True)
class Route:
    """The weights that the gateway has in force, as probes through it confirmed, and who is ready to take them."""

    weight: int = 0
    mirror: int = 0
    confirmed: bool = False  # every parent accepted this generation and probes reach the version that it names
    champion_ready: int = 0  # pods
    challenger_ready: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """Consecutive block closings at which an arm's series were absent or stale; zero increments are data."""

    champion_missed: int = 0
    challenger_missed: int = 0
    excess_series: int = 0  # series per arm beyond the bound
    message: str = ""  # which series, and what to do
    unanswered: str = ""  # why Prometheus does not tell the champion's past
    unmeasured: str = ""  # why a guardrail cannot be counted here, e.g. no bucket edge at its threshold


@dataclass(frozen=True, slots=True)
class History:
    """The champion before the experiment, per guardrail: seven days of blocks, 24 h at least; the last one is block -1.

    With one day only, slow bursts are not seen: size .12 instead of .06 (docs/statistics.md).
    """

    name: str
    counts: Counts
    dispersion: Dispersion


@dataclass(frozen=True, slots=True)
class Anchor:
    """Of one guardrail: the rate of the last version promoted on superiority, and what was lost since."""

    name: str
    rate: float
    differences: float = 0.0


@dataclass(frozen=True, slots=True)
class Carried:
    """Final evidence of an earlier experiment on the same pair of versions: resuming the same question multiplies it.

    ``what`` is the question: metric with threshold, and of an objective its margin, loss bound and whose outcomes.
    """

    name: str
    side: Literal["Superiority", "NonInferiority", "Harm"]
    what: str
    log_e: float
    margin: float = 0.0  # of a non-inferiority: what is shown at one margin holds at each larger one
    through: int = -1  # number of the last ledger row that is in it


@dataclass(frozen=True, slots=True)
class Resumed:
    """The superiority test of an earlier experiment on the same pair."""

    test: int  # j
    discoveries: int  # R
    configurations: int  # N that its evidence was chosen from


@dataclass(frozen=True, slots=True)
class Spending:
    """What the model's life has used up when this experiment begins."""

    test: int = 1  # j of a new superiority test
    discoveries: int = 0  # R
    configurations: int = 1  # N: distinct ones whose outer results were seen since the last discovery
    anchors: tuple[Anchor, ...] = ()
    carried: tuple[Carried, ...] = ()
    resumed: Resumed | None = None  # goes on where all its objectives are asked for again, unchanged


@dataclass(frozen=True, slots=True)
class GoneBack:
    """The record that went back on a promotion: this experiment's own watch, a person, a drift policy or a pin."""

    sequence: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """The record of this experiment's verdict. It is carried out, never judged again."""

    verdict: Literal["Promote", "RollBack", "KeepChampion"]
    reason: str
    message: str
    sequence: int
    at: datetime
    rolled_back: GoneBack | None = None  # on a promotion
    left: int | None = None  # sequence of the record after it that made another version champion

    @property
    def stands(self) -> bool:
        """Whether the promoted version is champion by this very promotion."""
        return self.verdict == "Promote" and self.rolled_back is None and self.left is None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the FinancialModel's log and spec say that this experiment depends on."""

    label: LabelKind
    panel: bool  # more than one entity
    horizon: int  # of the label, sessions
    champion: VersionRef | None  # that serves now
    active: tuple[str, str] | None  # (name, uid) of the experiment that the model follows
    ahead: tuple[str, ...] = ()  # experiments that wait before this one
    mode: Literal["Auto", "Manual", "Pinned"] = "Auto"
    approvals: int = 0
    rollback_window_seconds: int = 86_400
    calendar: str = ALWAYS_OPEN  # exchange whose days the sessions are
    moving: str = ""  # where its requests are to be answered from now on, as long as they are not yet
    killed: bool = False
    suspended: bool = False
    editor: str | None = None  # who last changed the model's spec
    acted: frozenset[str] = frozenset()  # names of the ModelApprovals that a record acted on


@dataclass(frozen=True, slots=True)
class ComparisonJob:
    """A Job that replays both procedures, with the pods that it made."""

    name: str
    uid: str
    attempt: int
    ledger: str  # that it was made to post
    owner_uid: str  # of the ModelExperiment
    created_at: datetime
    suspended: bool = False  # by Kueue
    succeeded: bool = False
    failed: bool = False
    reason: str = ""  # of the Failed condition
    message: str = ""
    finished_at: datetime | None = None
    deleting: bool = False
    pods: tuple[PodView, ...] = ()

    @property
    def finished(self) -> bool:
        return self.succeeded or self.failed


@dataclass(frozen=True, slots=True)
class PostedLedger:
    """What the scorer says of the prequential ledger of this pair. It comes complete or not at all."""

    rows: int  # 0: there is none


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the replay of both procedures depends on (statistics.md rule 15)."""

    model: FinancialModel  # the data, Secrets, claims and pods that its training uses are the replay's, too
    scorer: Scorer | None  # None: the operator's settings have none
    jobs: tuple[ComparisonJob, ...] = ()  # with this experiment as owner, oldest first
    ledger: PostedLedger | None = None  # None: the scorer was not asked yet, or does not answer
    unreachable: str = ""  # why it does not
    references: tuple[ReferenceView, ...] = ()  # Secrets and claims that the Job would mount
    quotas: tuple[QuotaView, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """How the export of folded blocks is. ``why``: the sink takes nothing at present; empty: it does."""

    file: str
    waiting: int = 0  # lines that are not written yet
    lost: int = 0  # that never will be, since this process began
    why: str = ""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that ``decide`` may look at for one ModelExperiment."""

    experiment: ModelExperiment  # metadata, spec and status as stored
    model: ModelFacts
    platform: Platform
    champion: VersionRef | None  # the two versions that are compared; None: unknown to the log
    challenger: VersionRef | None
    state: State | None = None  # folded so far; None: not started
    blocks: tuple[ClosedBlock, ...] = ()
    sessions: tuple[LedgerRow, ...] = ()  # of a replay all at once; it counts when it is whole
    history: tuple[History, ...] = ()
    spending: Spending = field(default_factory=Spending)
    live: Live = field(default_factory=Live)
    route: Route = field(default_factory=Route)
    health: Health = field(default_factory=Health)
    approvals: tuple[ModelApproval, ...] = ()  # of the model, oldest first
    recorded: Recorded | None = None
    unread: str = ""  # what of the champion's past has still to be read before it can start; empty: nothing
    transport: bool = False  # the gateway's and the pods' counts are both known
    same_configuration: bool = True  # equal configKeys of both versions (protocols §2): else a Refresh is none
    procedures_known: bool = False  # of both versions, so that the trainer can replay them: Auto means Prequential
    comparison: Comparison | None = None  # None: the FinancialModel is gone, nothing can be replayed
    exported: Exported | None = None  # None: the settings name no sink
    scrape_seconds: int = 15
