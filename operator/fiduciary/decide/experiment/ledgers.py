"""Which ledgers of the outcome scorer an experiment reads, and what it says when it begins and ends one of its own.

A prequential ledger belongs to a pair of versions and is posted complete by the comparison Job. A live ledger belongs
to one experiment: it begins with the first session in which both arms see every request. Both are one sequence of
sessions for the tests: the replayed days first, then the live ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from fiduciary.api import meta
from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.calendar import ALWAYS_OPEN, CalendarUnknown, is_session, zone_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.drift.world import SessionLoss
    from fiduciary.decide.experiment.world import LedgerRow

CONTRACT_VERSION = 1
LONGEST_CLOSURE = 31
"""Days between two sessions of any exchange, at most."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sessions that an experiment, or a DriftPolicy, wants to fold.

    Attributes:
        model: ``<namespace>.<name>``.
        prequential: name of the pair's ledger of replayed days; None: the experiment uses none.
        challenger: of a watch the version before, empty where there is none.
        live: name of the experiment's own ledger, or of the watch's; None: it has none.
        definition: of the live ledger, without its first session; a ledger that exists has to be this one.
        first: first session of the live ledger, from when it may be begun on; None: not yet, or not any more.
        last: last session of the live ledger, when the experiment has ended.
        unable: why there can be no live ledger.
        folded: number of the last row that is folded; -1: none.
        chain: hash over all rows that are folded (``Sessions.chain``).
        watch: a DriftPolicy asks: the ledger is of the version that serves.
    """

    namespace: str
    model: str
    champion: str  # digests
    challenger: str
    prequential: str | None = None
    live: str | None = None
    definition: Mapping[str, Any] | None = None
    first: str | None = None
    last: str | None = None
    unable: str = ""
    folded: int = -1
    chain: str = ""
    watch: bool = False

    def serves(self, definition: Mapping[str, Any]) -> bool:
        """Whether a ledger of this definition is of the version that serves."""
        champion: object = definition.get("champion")
        return isinstance(champion, dict) and cast("dict[str, object]", champion).get("digest") == self.champion


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What is known of the ledgers of one experiment or policy.

    Attributes:
        rows: verified rows after the last folded one, in order and without a hole.
        watched: the same of a watch, as its policy folds them.
        complete: every row that the scorer has is in ``rows`` or folded.
        begun: the live ledger exists.
        ended: it takes no further session.
        late: outcomes that came after their session was closed: counted, never folded.
        reason, message: what is in the way; empty: nothing.
        at: when the scorer last answered; None: not yet.
    """

    rows: tuple[LedgerRow, ...] = ()
    watched: tuple[SessionLoss, ...] = ()
    complete: bool = False
    prequential_length: int | None = None  # None: not posted yet
    begun: bool = False
    ended: bool = False
    late: int = 0
    reason: str = ""
    message: str = ""
    at: datetime | None = None


def prequential_name(model: str, champion: str, challenger: str) -> str:
    """Of the replay of two versions (whole digests) of one model."""
    return f"prequential-{_short(champion)}-{_short(challenger)}-{_hash(model)}"


def live_name(model: str, champion: str, challenger: str, uid: str) -> str:
    """Of one experiment."""
    return f"live-{_short(champion)}-{_short(challenger)}-{_hash(f'{model}/{uid}')}"


def wanted(
    experiment: ModelExperiment,
    model: FinancialModel,
    pair: tuple[VersionRef, VersionRef],
    *,
    prequential: bool,
    mirrored_since: datetime | None,
    ended_at: datetime | None,
    calendars: Mapping[str, Any],
    notional: str,
    replay: bool,
) -> Wanted:
    """What the poller has to do for an experiment on ``pair`` (champion, challenger).

    Args:
        prequential: the experiment's tests fold replayed days.
        mirrored_since: since when the route that copies every request to the challenger is in force; None where it is
            not now.
        ended_at: when the experiment reached its final verdict.
        notional: capital of each arm on paper.
        replay: the settings allow market replays.
    """
    metadata, (champion, challenger) = model.metadata, pair
    digests = champion.digest or "", challenger.digest or ""
    asked = Wanted(
        metadata.namespace,
        f"{metadata.namespace}.{metadata.name}",
        *digests,
        prequential=prequential_name(metadata.name, *digests) if prequential else None,
        live=live_name(metadata.name, *digests, experiment.metadata.uid),
    )
    replayed = replay_from(model, experiment) if replay else None
    exchange = model.spec.data.calendar or ALWAYS_OPEN
    definition = _definition(experiment, model, pair, exchange, notional, replayed=replayed is not None)
    try:
        first = replayed if mirrored_since is not None else None
        if mirrored_since is not None and replayed is None:
            first = session_beside(calendars, exchange, mirrored_since, 1)
        last = replayed if ended_at is not None else None
        if ended_at is not None and replayed is None:
            last = session_beside(calendars, exchange, ended_at, -1)
    except CalendarUnknown as error:
        return replace(asked, live=None, unable=str(error))
    return replace(asked, definition=definition, first=first, last=last)


def replay_from(model: FinancialModel, experiment: ModelExperiment | None = None) -> str | None:
    """First day of a market replay, in which days pass by their outcomes and not by the clock on the wall."""
    name = meta.ANNOTATION_REPLAY_FROM
    own = None if experiment is None else experiment.metadata.annotations.get(name)
    text = own or model.metadata.annotations.get(name)
    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError:
        return None


def session_beside(calendars: Mapping[str, Any], exchange: str, moment: datetime, step: Literal[1, -1]) -> str:
    """The session after (before) the exchange's day of ``moment``: on that day itself arms may have differed.

    Raises:
        CalendarUnknown: the exchange or the day is not in the table.
    """
    day = moment.astimezone(zone_of(calendars, exchange)).date()
    for _ in range(LONGEST_CLOSURE):
        day += timedelta(days=step)
        if is_session(calendars, exchange, day):
            return day.isoformat()
    raise CalendarUnknown(f"the calendar of {exchange} has no session for {LONGEST_CLOSURE} days up to {day}")


def _definition(
    experiment: ModelExperiment,
    model: FinancialModel,
    pair: tuple[VersionRef, VersionRef],
    exchange: str,
    notional: str,
    *,
    replayed: bool,
) -> dict[str, Any]:
    """As docs/outcomes.md has it, without the first session."""
    plan, label, metadata = experiment.spec.evidence, model.spec.data.label, model.metadata
    champion, challenger = ({"version": arm.version or "", "digest": arm.digest or ""} for arm in pair)
    # A volatility forecast says nothing about direction, and requests have no entity to trade.
    trades = label.kind != "Volatility" and plan.pairing == "EntityTime"
    cost = model.spec.training.validation.cost_bps
    return {
        "contractVersion": CONTRACT_VERSION,
        "kind": "Live",
        "model": f"{metadata.namespace}.{metadata.name}",
        "champion": champion,
        "challenger": challenger,
        "label": {"kind": label.kind, "horizon": label.horizon},
        "calendar": exchange,
        "pairing": plan.pairing,
        "graceSeconds": round(timedelta_of(plan.grace).total_seconds()),
        "clock": "Outcomes" if replayed else "Wall",
        "paper": {"notional": notional, "costBps": cost} if trades else None,
    }


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
