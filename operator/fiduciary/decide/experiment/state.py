"""What an experiment keeps between two reconciles: immutable, serialised bit for bit by ``evidence.codec``.

Three parts with different lives: :class:`Terms` are frozen when it starts, :class:`Evidence` grows by folding and knows
no rule, :class:`Course` is moved by the rules and knows no statistics. Times are whole seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fiduciary.evidence.bernstein import Bernstein
from fiduciary.evidence.betting import Betting
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.dispersion import Dispersion
from fiduciary.evidence.harm import Harm
from fiduciary.evidence.moments import Moments
from fiduciary.evidence.noninferiority import NonInferiority
from fiduciary.evidence.quantiles import AboveEdge
from fiduciary.evidence.samples import SampleRatio

EMPTY = Counts(0, 0)


@dataclass(frozen=True, slots=True)
class GuardrailTerms:
    """Of one guardrail: what may be lost, and what earlier experiments on the same pair have shown."""

    name: str
    what: str  # metric and threshold
    margin: float  # left of it since the anchor (rule 6); not positive: it has to become better
    anchor_rate: float
    consumed: float
    carried_harm: float = 0.0  # log e
    carried_noninferiority: float = 0.0


@dataclass(frozen=True, slots=True)
class ObjectiveTerms:
    """Of one objective."""

    name: str
    what: str  # metric, margin, loss bound and whose outcomes
    metric: str  # PairedLoss | PaperPnL
    margin: float
    loss_bound: float | None
    carried: float = 0.0  # log e
    through: int = -1  # ledger rows up to this number are in it


@dataclass(frozen=True, slots=True)
class Terms:
    """What was fixed when the experiment started: a change later would be a bet that saw its outcome."""

    origin: int  # wall-clock edge at which block 0 begins
    block: int  # seconds
    planned: int  # base blocks in maxDuration
    dispersion: float  # declared
    least_blocks: int  # base blocks of a day: below it there is no estimate
    sticky: bool
    transport: bool  # lost requests are a harm test of their own
    final_weight: int
    prequential: bool
    horizon: int
    test: int  # j
    discoveries: int  # R
    configurations: int  # N
    promote: float  # α of a promotion
    rollback: float  # α of a rollback
    ratio: float  # α of a sample ratio alarm
    level: float  # α_j
    guardrails: tuple[GuardrailTerms, ...]
    objectives: tuple[ObjectiveTerms, ...]


@dataclass(frozen=True, slots=True)
class GuardrailEvidence:
    """Of one guardrail, or of the transport test, which has no non-inferiority."""

    name: str
    harm: Harm
    noninferiority: NonInferiority | None
    champion: Dispersion
    challenger: Dispersion
    seen_champion: Counts = EMPTY  # all that the harm test has folded while both arms had requests
    seen_challenger: Counts = EMPTY
    final_champion: Counts = EMPTY  # live, at the final weight: what the non-inferiority test has folded
    final_challenger: Counts = EMPTY
    final_blocks: int = 0  # in which they came
    carried_harm: float = 0.0
    carried_noninferiority: float = 0.0
    watch: AboveEdge | None = None  # after a promotion: the new champion against the old one's rate

    @property
    def harm_log_e(self) -> float:
        return self.carried_harm + self.harm.log_e

    @property
    def noninferiority_log_e(self) -> float | None:
        return None if self.noninferiority is None else self.carried_noninferiority + self.noninferiority.log_e


@dataclass(frozen=True, slots=True)
class ObjectiveEvidence:
    """Of one objective: sessions counted, and the e-process on those that were folded."""

    name: str
    burn_in: Moments = field(default_factory=Moments)  # of sessions that freeze the scale and are not folded
    entities: Moments = field(default_factory=Moments)  # of all entities in them
    entity: float | None = None  # their sd, frozen: what the silence of one entity costs is 4 of it
    betting: Betting | None = None
    bernstein: Bernstein | None = None
    folded: int = 0
    mean: Moments = field(default_factory=Moments)  # of the folded differences, in the metric's unit
    void: str | None = None  # why its evidence counts for nothing, for example a loss beyond the declared bound
    carried: float = 0.0
    through: int = -1

    @property
    def log_e(self) -> float | None:
        """ln E of this pair's life; None before the scale is known, or where the evidence is void."""
        process = self.betting if self.betting is not None else self.bernstein
        return None if process is None or self.void is not None else self.carried + process.log_e


@dataclass(frozen=True, slots=True)
class Sessions:
    """Counts over the ledger rows seen: what was left out, and why."""

    last: int = -1  # number of the last ledger row
    session: str | None = None  # its session
    dropped: int = 0  # sessions left out because our transport lost predictions
    empty: int = 0  # sessions without a pair
    overlapping: int = 0  # left out between two folded ones: the label's horizon
    apart: int = 0  # live ones in which not every request went to both arms
    entities: int = 0
    missing_champion: int = 0
    missing_challenger: int = 0
    late: int = 0
    profit_champion: float = 0.0
    profit_challenger: float = 0.0
    peak_challenger: float = 0.0
    chain: str = ""  # SHA-256 over all rows, in order: blocks and rows come in any order between each other

    @property
    def missing_share(self) -> float:
        """Share of entities with a challenger's prediction that lack the champion's."""
        with_challenger = self.entities + self.missing_champion
        return self.missing_champion / with_challenger if with_challenger else 0.0

    @property
    def drawdown(self) -> float:
        """Loss of the challenger's paper portfolio from its peak, money."""
        return self.peak_challenger - self.profit_challenger


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that blocks and sessions have said so far."""

    last: int
    guardrails: tuple[GuardrailEvidence, ...]
    objectives: tuple[ObjectiveEvidence, ...]
    ratio: SampleRatio | None = None  # None before the first split, and for sticky routes
    ratio_alarm: bool = False  # once raised it stays: the requests since the start are not what the route says
    shortfall: bool = False  # the challenger got less than its share when it was raised
    misrouted: int = 0
    requests: int = 0  # live, of both arms: what can be expected of a block
    sessions: Sessions = field(default_factory=Sessions)
    chain: str = ""  # SHA-256 over all folded blocks, in order


@dataclass(frozen=True, slots=True)
class Latch:
    """Harm that was found: weight 0 until the record exists, and no other verdict."""

    at: int
    reason: str
    test: str
    message: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One test at the evaluation that showed it."""

    name: str
    side: str  # Superiority | NonInferiority
    log_e: float
    threshold: float
    n: int  # sessions folded, or requests of the challenger
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What people are asked to sign: frozen until it is decided, or harm or void evidence ends it."""

    digest: str
    at: int
    needed: int  # signatures: the most that was asked for since
    shown: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch under equal conditions, newest first in the course."""

    since: int
    step: str | None
    reason: str
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class Course:
    """Where the experiment is."""

    step: int = -1  # index in spec.traffic.steps of the one that was asked for; -1: none yet
    blocks: int = 0  # folded at the weights of this step, without a gap
    started: int | None = None
    dark_since: int | None = None
    away_since: int | None = None  # no pod of the challenger was ready; until they suffice for the step again
    back_since: int | None = None  # and suffice since then, but may have to stay for a while
    absences: int = 0
    gaps: tuple[str, ...] = ()  # newest days on which not every request was copied, in a step that copies all
    unready_since: int | None = None  # and one of them ran, and said that it was not
    latch: Latch | None = None
    request: Request | None = None
    judged: int = 0  # time of the last judgement: it never runs backwards
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """One ModelExperiment between two reconciles."""

    terms: Terms
    evidence: Evidence
    course: Course
