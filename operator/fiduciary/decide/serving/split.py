"""The split of requests as the status tells it: what the log asks for, and since when the cluster is seen to do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.modelstatus import TrafficStatus
from fiduciary.decide import reasons

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.inforce import RouteState
    from fiduciary.decide.serving.routing import Routing

UNSEEN = (reasons.PROBE_FAILED, reasons.PROBE_PENDING)
"""Nobody answers, or nobody has asked yet: the shares are what they were."""


def split(case: Case, history: History, route: Routing | None, state: RouteState | None) -> TrafficStatus | None:
    """The shares of the newest record that changed them. With the kill switch engaged nobody has any."""
    asked, since = history.traffic, history.routed_at
    if asked is None or since is None or history.routed == 0:
        return None
    killed = history.kill is not None and history.kill.engaged
    return TrafficStatus(
        champion=0 if killed else asked.champion,
        challenger=0 if killed else asked.challenger,
        mirror=0 if killed else asked.mirror,
        step=None if killed or asked.challenger + asked.mirror == 0 else asked.step,
        decision=history.routed,
        since=since,
        confirmed_at=_confirmed(case, history, route, state),
    )


def _confirmed(case: Case, history: History, route: Routing | None, state: RouteState | None) -> datetime | None:
    """Since when it is in force without a break; None while it is not.

    It begins when every parent took it over and probes reach who it names. It goes on while a parent only has to look
    at a change that moves nothing, while a probe fails and while a new process has none: the shares are the same.
    """
    if route is None or state is None:
        return None
    view, told = case.world.route, case.status.traffic
    if view is None or view.edited or view.deleting:
        return None  # somebody changed it by hand: what it said until now is not known
    before = told.confirmed_at if told is not None and told.decision == history.routed else None
    if state.note is None and state.accepted:
        return before or case.now
    if state.note is None or (state.note.reason in UNSEEN and state.accepted):
        return before
    return None
