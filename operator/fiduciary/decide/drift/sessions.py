"""Which ledger of the outcome scorer a policy reads: of the version that serves, beside the one before it if that is
compared.

It is a function of the log and of the spec alone, so that policies of one model share it and whoever looks late finds
the same sessions: the scorer keeps predictions and outcomes, and closes what was over when the ledger was begun.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.calendar import ALWAYS_OPEN, CalendarUnknown
from fiduciary.decide.experiment.ledgers import CONTRACT_VERSION, Wanted, replay_from, session_beside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.decide.drift.state import State
    from fiduciary.decide.drift.world import ModelFacts


def wanted(
    policy: DriftPolicy,
    model: FinancialModel,
    facts: ModelFacts,
    state: State | None,
    calendars: Mapping[str, Any],
    *,
    notional: str,
    replay: bool,
) -> Wanted | None:
    """What the poller has to do for a policy; None where nothing is judged from outcomes, or nothing serves.

    Args:
        state: what was folded of this version so far; None: nothing.
        notional: capital on paper.
        replay: the settings allow market replays.
    """
    champion = facts.champion
    if champion is None or champion.digest is None or not any(its.realised for its in policy.spec.monitors):
        return None
    compared = any(its.beside_previous for its in policy.spec.monitors) and not facts.returned
    previous = facts.previous if compared else None
    exchange, metadata = model.spec.data.calendar or ALWAYS_OPEN, model.metadata
    name = f"{metadata.namespace}.{metadata.name}"
    plan, label = policy.spec.outcomes, model.spec.data.label
    replayed = replay_from(model) if replay else None
    trades = label.kind != "Volatility" and plan.pairing == "EntityTime"
    definition: dict[str, Any] = {
        "contractVersion": CONTRACT_VERSION,
        "kind": "Watch",
        "model": name,
        "champion": {"version": champion.version or "", "digest": champion.digest},
        "challenger": None
        if previous is None
        else {"version": previous.version or "", "digest": previous.digest or ""},
        "label": {"kind": label.kind, "horizon": label.horizon},
        "calendar": exchange,
        "pairing": plan.pairing,
        "graceSeconds": round(timedelta_of(plan.grace).total_seconds()),
        "clock": "Wall" if replayed is None else "Outcomes",
        "paper": {"notional": notional, "costBps": model.spec.training.validation.cost_bps} if trades else None,
    }
    own, other = champion.digest, "" if previous is None else previous.digest or ""
    first, unable = replayed, ""
    try:
        if first is None and champion.since is not None:
            first = session_beside(calendars, exchange, champion.since, 1)
    except CalendarUnknown as error:
        unable = str(error)
    asked = f"{name}/{champion.since}/{definition}"
    ledger = f"watch-{_short(own)}-{_short(other) or 'alone'}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    same = state is not None and state.losses.ledger == ledger
    return Wanted(
        metadata.namespace,
        name,
        own,
        other,
        live=ledger,
        definition=definition,
        first=first,
        unable=unable,
        folded=state.losses.last if state is not None and same else -1,
        chain=state.sessions if state is not None and same else "",
        watch=True,
    )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
