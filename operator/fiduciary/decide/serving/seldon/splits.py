"""What an Experiment's conditions are worth, and why it is not in force.

They carry no generation. After an edit Seldon sets them False and True again, so a readiness that changed before the
edit says nothing of it; a rejected edit leaves them all True and writes ``ModelReady``, which a later good edit does
not take away.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving.seldon import models
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.serving.seldonviews import ExperimentView, Said

SILENCE = timedelta(seconds=30)
SKEW = timedelta(seconds=2)
"""Two clocks, both in whole seconds: what changed so shortly before the write may have come after it."""
FLIPS = 6
"""One edit is two changes of readiness; a candidate that goes and comes back, four."""
GOING = timedelta(seconds=60)


def not_in_force(case: Case, view: ExperimentView) -> tuple[Note | None, datetime | None]:
    """(why the Experiment does not do what it says, when time alone may change that)."""
    name, since = f"Experiment {view.name}", view.changed_at
    if view.deleting_at is not None and case.now - view.deleting_at >= GOING:
        return deletion_blocked(view, view.deleting_at), None
    if view.flips >= FLIPS:
        message = (
            f"{name} became ready and unready {view.flips} times without an edit: two schedulers undo each other's "
            "routes. Let one seldon-scheduler run in this namespace (kubectl get pods -l "
            "app.kubernetes.io/name=seldon-scheduler)"
        )
        return Note(reasons.SCHEDULER_SPLIT_BRAIN, message, stalled=True), None
    ready, rejected = view.said("ExperimentReady"), view.said("ModelReady")
    if rejected is not None and not rejected.status and _is_news(rejected, ready, since):
        return _rejected(name, rejected), None
    if since is not None and (ready is None or ready.at is None or ready.at < since - SKEW):
        if case.now < since + SILENCE:
            return Note(reasons.ROUTE_PENDING, f"{name} is taken over by Seldon's scheduler"), since + SILENCE
        if rejected is not None and not rejected.status:
            return _rejected(name, rejected), None
        message = (
            f"{name} was written at {since:%H:%M:%S} UTC, and nothing is said of it since: Seldon's operator or the "
            "scheduler of this namespace is away. Look at seldon-controller-manager and at seldon-scheduler"
        )
        return Note(reasons.CONTROL_PLANE_DISCONNECTED, message, stalled=True), None
    for kind in ("CandidatesReady", "ExperimentReady", "MirrorReady"):
        said = view.said(kind)
        if said is not None and not said.status:
            return _unready(case, name, kind, said), None
    return None, None


def going(case: Case) -> tuple[Note | None, datetime | None]:
    """(which deleted Experiment does not go, when one that is going becomes something to tell)."""
    since = {view.deleting_at: view for view in case.world.seldon.experiments if view.deleting_at is not None}
    if not since:
        return None, None
    oldest = min(since)
    end = oldest + GOING
    return (deletion_blocked(since[oldest], oldest), None) if case.now >= end else (None, end)


def deletion_blocked(view: ExperimentView, since: datetime) -> Note:
    """An Experiment that is deleted and does not go."""
    message = (
        f"Experiment {view.name} is being deleted since {since:%H:%M:%S} UTC and keeps its finalizer "
        "seldon.experiment.finalizer: its scheduler has to take its routes away. Bring seldon-scheduler back; only "
        "where it is gone for good, take the finalizer off"
    )
    return Note(reasons.DELETION_BLOCKED, message, stalled=True)


def _is_news(rejected: Said, ready: Said | None, since: datetime | None) -> bool:
    """Whether a rejection is of the present spec: written after it, and not followed by a readiness."""
    if rejected.at is None or (since is not None and rejected.at < since - SKEW):
        return ready is None  # an Experiment that was never taken says nothing else
    return ready is None or ready.at is None or ready.at <= rejected.at


def _rejected(name: str, said: Said) -> Note:
    text = said.reason or said.message
    message = (
        f"Seldon rejects {name}: {text}. Its other conditions stay as they were, which is no sign that it works. "
        "Remove the cause, then delete it (kubectl delete experiment.mlops.seldon.io): it is made again"
    )
    return Note(reasons.EXPERIMENT_REJECTED, message, stalled=True)


def _unready(case: Case, name: str, kind: str, said: Said) -> Note:
    """Seldon's text where it gives one; a candidate's own trouble says more."""
    text = said.reason or said.message
    known = models.explained(text)
    if known is not None:
        return known
    if text.startswith("Server ["):
        return Note(reasons.SERVER_NOT_READY, f"{name} has no Server ({text}): scale it up", stalled=True)
    names = {view.name: view for view in case.world.deployments if view.kind == "Model"}
    split = next((view for view in case.world.seldon.experiments if name.endswith(view.name)), None)
    for candidate in sorted(split.names) if split is not None else ():
        found = names.get(candidate)
        if found is not None and found.able == 0:
            from fiduciary.decide.serving import readiness

            note = readiness.not_ready(case, found, 1)
            if note is not None:
                return note
    told = f" ({text})" if text else ""
    message = f"{name} is not in force: {kind} is False{told}; until it is, the default answers alone"
    return Note(reasons.ROUTE_PENDING, message)
