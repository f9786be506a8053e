"""Why a Model does not answer: Seldon's states and texts (observed on v2.6.0), as one of our reasons with its remedy.

A condition's ``message`` holds the scheduler's state and its ``reason`` the cause; errors of the operator's own calls
stand in either. So both are looked at, together, and quoted.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.serving.podfacts import OWN_WORDS
from fiduciary.decide.serving.seldon.fit import candidates, mismatch, too_many
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from fiduciary.decide.case import Case
    from fiduciary.serving.seldonviews import ModelView, Said

SILENCE = timedelta(seconds=30)
"""Seldon writes the first status within 0.2 s; after this nobody is at work."""
LOADING = timedelta(seconds=60)
"""A load that fails is reported after 55 s: the agent tries it five times."""
FLASH = timedelta(seconds=5)
"""A Model that finds no place first shows ``FailedPrecondition`` for a moment."""
GOING = timedelta(seconds=60)

PROGRESS = ("", "ModelProgressing", "ModelStateUnknown", "ModelTerminating", "ModelTerminated")


def not_ready(case: Case, view: ModelView, need: int) -> Note | None:
    """Why fewer than ``need`` replicas answer; None if enough do."""
    what = f"version {view.version}"
    blocked = deletion_blocked(case, view)
    if blocked is not None:
        return blocked
    if view.able >= need:
        return None
    short = too_many(case, max(need, view.replicas))
    if view.able > 0 or view.said is None or view.said.status:
        if view.said is None and case.now - view.created_at >= SILENCE:
            return _silent(view)
        if short is not None:
            return short
        return Note(reasons.STARTING, f"{what} is being loaded: {view.able} of {need} replicas are there")
    return _failed(case, view, view.said)


def next_look(view: ModelView, now: datetime) -> datetime | None:
    """When time alone makes a state something to tell."""
    said = view.said
    moments = [view.created_at + SILENCE] if said is None else []
    if said is not None and not said.status and said.at is not None:
        moments += [said.at + FLASH, said.at + LOADING]
    if view.deleting_at is not None:
        moments.append(view.deleting_at + GOING)
    return min((moment for moment in moments if moment > now), default=None)


def deletion_blocked(case: Case, view: ModelView) -> Note | None:
    """A Model that is deleted and does not go: its finalizer waits for a scheduler."""
    since = view.deleting_at
    if since is None or case.now - since < GOING:
        return None
    message = (
        f"Model {view.name} is being deleted since {since:%H:%M:%S} UTC and keeps its finalizer "
        "seldon.model.finalizer: its scheduler has to confirm that it is unloaded. Bring seldon-scheduler back; only "
        "where it is gone for good, take the finalizer off"
    )
    return Note(reasons.DELETION_BLOCKED, message, stalled=True)


def explained(text: str) -> Note | None:
    """What the words of Seldon's own parts mean wherever they appear; None for words that are about one Model."""
    for pattern, make in _ANYWHERE:
        if re.search(pattern, text, re.IGNORECASE):
            return make(text)
    return None


def _failed(case: Case, view: ModelView, said: Said) -> Note:
    what, text = f"version {view.version}", _quoted(said)
    known = explained(text)
    if known is not None:
        return known
    since = said.at or view.created_at
    if said.message in PROGRESS and not said.reason:
        return _progress(case, view, since)
    if said.message == "ScheduleFailed" or "failed to schedule" in said.reason or "Failed to schedule" in said.reason:
        return _unscheduled(case, view, said)
    if "FailedPrecondition" in text:
        if case.now - since < FLASH:
            return Note(reasons.STARTING, f"{what} is being placed")
        return Note(reasons.LOAD_REFUSED, f"Seldon refuses {what}: {text}", stalled=True)
    if "draining" in text:
        return Note(reasons.STARTING, f"{what} moves to another server replica: {text}")
    for pattern, make in _OF_A_MODEL:
        if re.search(pattern, text, re.IGNORECASE):
            return make(what, text)
    own = _own_words(what, text)
    if own is not None:
        return own
    if said.message in PROGRESS:
        return Note(reasons.STARTING, f"{what} is being loaded ({text})")
    return Note(reasons.LOAD_FAILED, f"the Server does not load {what}: {text}", stalled=True)


def _progress(case: Case, view: ModelView, since: datetime) -> Note:
    if case.now - since < LOADING:
        return Note(reasons.STARTING, f"version {view.version} is being loaded (a failure shows after 55 s)")
    message = (
        f"version {view.version} is being loaded since {since:%H:%M:%S} UTC and is not there; read the log of its "
        "Server's container mlserver"
    )
    return Note(reasons.NEVER_READY, message, stalled=True)


def _unscheduled(case: Case, view: ModelView, said: Said) -> Note:
    """No Server took it. The trail of filters names the last one only, so our own look at the Servers comes first."""
    what, text = f"version {view.version}", said.reason
    servers = candidates(case)
    if isinstance(servers, Note):
        return servers
    if "RequirementsReplicaFilter" in text:
        lacking = [one for one in servers if one.capabilities is not None]
        told = mismatch(lacking, view.requirements) if lacking else f"Seldon says: {text}"
        return Note(reasons.CAPABILITY_MISMATCH, f"{what} cannot be placed: {told}", stalled=True)
    if "AvailableMemoryReplicaFilter" in text:
        message = (
            f"no Server has {view.memory} bytes left for {what} ({text}): lower spec.serving.resources or "
            "keepVersions, or raise requests.memory of the Server's container mlserver"
        )
        return Note(reasons.SERVER_TOO_SMALL, message, stalled=True)
    if "SharingServerFilter" in text:
        message = f"{what} asks for Server {view.server}, which Seldon does not have ({text}): create it, or correct "
        return Note(reasons.SERVER_NOT_READY, message + "spec.serving.seldon.server", stalled=True)
    short = too_many(case, view.replicas)
    if short is not None:
        return short
    if "ReplicaDrainingFilter" in text:
        message = (
            f"{what} needs {view.replicas} replicas, and one that would hold it goes ({text}): until it is back Seldon "
            "answers 404 for all of them. A Server with one replica more than versions need moves it without that"
        )
        return Note(reasons.SERVER_NOT_READY, message)
    waiting = [server for server in servers if not server.ready]
    if waiting:
        told = "; ".join(f"{server.name}: {server.message or 'not Ready'}" for server in waiting)
        quota = explained(told)
        return quota or Note(reasons.SERVER_NOT_READY, f"{what} waits for its Server ({told}); Seldon said: {text}")
    names = " ".join(server.name for server in servers)
    if said.reason.rstrip().endswith("[]"):  # not one replica was looked at
        message = (
            f"{what} waits for a replica of Server {names}: Seldon's scheduler knows of none ({text}), although the "
            "Server says Ready, as it does while none of its pods exists. Look whether they do (kubectl get pods -l "
            "app=seldon-server); if not, kubectl describe statefulset says why (Pod Security, a quota, no room)"
        )
        return Note(reasons.SERVER_NOT_READY, message)
    message = (
        f"{what} found no place ({text}), and a Server that fits is Ready now: Seldon tries again only when a server "
        f"replica connects. Restart one: kubectl rollout restart statefulset {names}"
    )
    return Note(reasons.STALE_SCHEDULE, message, stalled=True)


def _own_words(what: str, text: str) -> Note | None:
    """What our runtime said when it refused to load (``DigestMismatch: ...``)."""
    for word, (reason, stalled) in OWN_WORDS.items():
        if word in text:
            return Note(reason, f"the Server does not load {what}: {text}", stalled)
    return None


def _silent(view: ModelView) -> Note:
    message = (
        f"nothing is said of Model {view.name} since it was created at {view.created_at:%H:%M:%S} UTC: Seldon's "
        "operator or the scheduler of this namespace is away. Look at seldon-controller-manager and at "
        "seldon-scheduler"
    )
    return Note(reasons.CONTROL_PLANE_DISCONNECTED, message, stalled=True)


def _quoted(said: Said) -> str:
    return ": ".join(text for text in (said.message, said.reason) if text) or "no reason"


def _noted(reason: str, todo: str, *, stalled: bool = True) -> Callable[[str], Note]:
    return lambda text: Note(reason, f"{todo}; Seldon says: {text}", stalled)


_ANYWHERE: tuple[tuple[str, Callable[[str], Note]], ...] = (
    (
        r"operation not permitted",
        _noted(
            reasons.POLICY_DENIED,
            "a network policy keeps Seldon's parts apart: allow its operator and its servers to reach seldon-scheduler "
            "(9002, 9004, 9005, and 9044, 9055 with TLS)",
        ),
    ),
    (
        r"(:90(04|44|05|55)\b.*(i/o timeout|connection refused|no route to host))|(i/o timeout.*:90(04|44|05|55)\b)",
        _noted(
            reasons.SCHEDULER_UNREACHABLE,
            "seldon-scheduler does not answer on its port: see that its pod runs in this namespace and that nothing on "
            "the way drops its connections",
            stalled=False,
        ),
    ),
    (
        r"client connection is closing|scheduler not ready|name resolver error|produced zero addresses",
        _noted(
            reasons.CONTROL_PLANE_DISCONNECTED,
            "Seldon's operator has no scheduler in this namespace: create a SeldonRuntime here, or restart the "
            "operator (seldon-controller-manager), which keeps a broken connection",
        ),
    ),
    (
        r"must specify (limits|requests)\.|exceeded quota",
        _noted(
            reasons.QUOTA_EXCEEDED,
            "a ResourceQuota refuses the Server's pods: give every container of its podSpec the limits and requests "
            "that it counts, or have it raised",
        ),
    ),
)

_OF_A_MODEL: tuple[tuple[str, Callable[[str, str], Note]], ...] = (
    (
        r"does not have 1 key|secret .*not found|failed to (load|get|parse).*secret|invalid character .*looking for|"
        r"unexpected end of JSON input|config/create|"
        r"rclone.*(InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|403)",
        lambda what, text: Note(
            reasons.STORAGE_SECRET_INVALID,
            f"the storage Secret of {what} cannot be used: it must have exactly one key, whose value is rclone's JSON "
            f'({{"type", "name", "parameters"}}), and the store must accept it; Seldon says: {text}',
            True,
        ),
    ),
    (
        r"Can't create model-settings|model-settings\.json|MLmodel.*not found|settings file model",
        lambda what, text: Note(
            reasons.ARTIFACT_NOT_FOUND,
            f"the folder of {what} holds no model-settings.json: the URI leads elsewhere, or the version was made by a "
            f"trainer that did not write one yet (train again); Seldon says: {text}",
            True,
        ),
    ),
    (
        r"sync/copy|rclone",
        lambda what, text: Note(
            reasons.ARTIFACT_NOT_FOUND,
            f"the Server cannot fetch {what}: look whether its folder exists in the store, and whether the Server's "
            f"rclone may read it; Seldon says: {text}",
            True,
        ),
    ),
    (
        r"min replicas|memory quantity|valid name",
        lambda what, text: Note(reasons.LOAD_REFUSED, f"Seldon refuses {what}: {text}", True),
    ),
    (
        r"in process of deletion",
        lambda what, text: Note(
            reasons.DELETION_BLOCKED, f"{what} was deleted and is not gone in Seldon: {text}", stalled=True
        ),
    ),
)
