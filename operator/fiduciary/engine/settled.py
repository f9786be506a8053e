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
    name the same last record, a condition that says that something is on its way or in the way, and something that
    serves and is not as it was left.
    """
    body = stores.models.body(name)
    if body is None:
        return None
    metadata, status = body["metadata"], part(body, "status")
    if status.get("observedGeneration") != metadata.get("generation") or "deletionTimestamp" in metadata:
        return None
    if stores.experiments.indexed(("Open", *name)):
        return None  # an experiment may have been ruled while nobody looked
    if _asked(stores, name):
        return None  # it may have been asked in the last moment of the process before
    trains = (*stores.trainings, stores.runtimes)
    if "training" in status or stores.approvals.count(name) or any(store.count(name) for store in trains):
        return None
    if part(status, "lastDecision").get("sequence", 0) != stores.records.count(name):
        return None
    if any(_restless(condition) for condition in entries(status, "conditions")):
        return None
    if not _at_rest(stores, name, status):
        return None
    return moment(status.get("nextTraining")) or NEVER


def serves(stores: Stores, name: Name) -> bool:
    """Whether something of this model answers requests, so that it wants to be probed again soon after a restart."""
    return stores.routes.get(name) is not None or _loads(stores, name)


def _loads(stores: Stores, name: Name) -> bool:
    return any(store.count(name) for store in stores.workloads)


def _at_rest(stores: Stores, name: Name, status: Body) -> bool:
    """Whether all that serves is as it was asked for, as far as the objects themselves can tell."""
    route = stores.routes.get(name)
    if route is not None and (route.edited or route.deleting):
        return False
    workloads = (view for store in stores.workloads for view in store.of(name))
    if any(not view.rolled_out or view.edited or view.deleting for view in workloads):
        return False
    if stores.splits.count(name):
        return False
    if any(child.edited or child.deleting for store in stores.companions for child in store.of(name)):
        return False
    served = any(entry["type"] == "Served" and entry["status"] == "True" for entry in entries(status, "conditions"))
    return not served or (_loads(stores, name) and (route is not None or bool(stores.seldon_models.count(name))))


def _asked(stores: Stores, name: Name) -> bool:
    """Whether a DriftPolicy of the model asks for something."""
    bodies = (stores.policies.body(policy) for policy, _ in stores.policies.versions(name))
    return any("requestedAction" in part(body, "status") for body in bodies if body is not None)


def _restless(condition: Body) -> bool:
    return condition["type"] in ("Reconciling", "Stalled") and condition["status"] != "False"
