"""Which models may wait after a restart: those whose status says that nothing is owed to them.

A restart over ten thousand models must not parse, judge and ask MLflow about each of them at once. What changed while
nobody looked is seen in metadata alone; everything else comes with the slow resync, spread over its interval.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from fiduciary.engine.kinds import entries, moment, part

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body
    from fiduciary.engine.mirror import Name
    from fiduciary.engine.stores import Stores

NEVER = datetime.max


def settled_until(stores: Stores, name: Name) -> datetime | None:
    """When the model wants to be looked at by itself (:data:`NEVER`: it does not); None: now.

    Doubt means now: a spec that was not observed, a training, a Job, an act of a person, a log and a status that do not
    name the same last record, a condition that says that something is on its way or in the way.
    """
    body = stores.models.body(name)
    if body is None:
        return None
    metadata, status = body["metadata"], part(body, "status")
    if status.get("observedGeneration") != metadata.get("generation") or "deletionTimestamp" in metadata:
        return None
    if "training" in status or stores.jobs.count(name) or stores.approvals.count(name):
        return None
    if part(status, "lastDecision").get("sequence", 0) != stores.records.count(name):
        return None
    if any(_restless(condition) for condition in entries(status, "conditions")):
        return None
    return moment(status.get("nextTraining")) or NEVER


def _restless(condition: Body) -> bool:
    return condition["type"] in ("Reconciling", "Stalled") and condition["status"] != "False"
