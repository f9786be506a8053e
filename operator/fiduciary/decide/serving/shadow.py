"""Copies of requests to the version before, so that both can be compared on what clients really asked (facts G8).

A DriftPolicy that holds the champion's realised loss against the previous version's needs forecasts of that version on
the same rows. Only what was served with the same features, at the same time, is a fair witness; what is computed later
from other data is none. So the previous version is kept loaded, and gets a copy of each request, for as long as such a
policy could still roll back to it. Copies move no client's request: no record is written of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.serving.backends import in_force
from fiduciary.decide.serving.following import watcher, window_end
from fiduciary.decide.serving.waysback import ways_back
from fiduciary.manifests.plans import Mirrored

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.routing import Routing


def compared(case: Case, history: History) -> VersionRef | None:
    """The version before, while a policy compares the champion with it: it stays loaded."""
    end = compared_until(case, history)
    return None if end is None or case.now >= end else next(iter(ways_back(history)), None)


def compared_until(case: Case, history: History) -> datetime | None:
    """The end of the longest comparison; None where there is none: a version that was gone back to has nothing before
    it that anybody would go back to."""
    champion = history.champion
    if champion is None or champion.since is None or history.returned:
        return None
    since = champion.since
    ends = [
        since + timedelta_of(policy.spec.actions.roll_back.only_within)
        for policy in case.world.policies
        if policy.metadata.deletion_timestamp is None and any(its.beside_previous for its in policy.spec.monitors)
    ]
    return max((*ends, window_end(case, history))) if ends else None


def shadowed(case: Case, history: History, route: Routing | None, version: VersionRef | None) -> Routing | None:
    """The route with copies to ``version``, which is :func:`compared` and ready; None: there is nobody to copy to.

    An experiment's copies go first: gateways promise one mirror. While one watches over its promotion there are none
    either, as it may count on the previous version's pods seeing no requests. A mesh gets none.
    """
    if route is None or version is None or route.blocked or route.mirrored or len(route.arms) > 1:
        return route
    if history.trial is not None or watcher(case, history) is not None or in_force(case) == "Seldon":
        return route
    return replace(route, mirrored=(Mirrored(version, 100),))
