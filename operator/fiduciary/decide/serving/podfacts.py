"""Why a version is not ready, from what its pods show: quoted from the cluster, with what to do."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from fiduciary.decide import reasons
from fiduciary.decide.step import Note

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.serving.observed import DeploymentView, ServingPod

PATIENCE = timedelta(minutes=2)
"""How long a pod may run without becoming ready before a person is told to look."""

PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
REFUSED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
OWN_WORDS = {
    "DigestMismatch": (reasons.DIGEST_MISMATCH, True),
    "ArtifactNotFound": (reasons.ARTIFACT_NOT_FOUND, True),
    "ArtifactStoreUnreachable": (reasons.ARTIFACT_STORE_UNREACHABLE, False),
    "RegistryUnauthorized": ("RegistryUnauthorized", True),
    "BadVersion": (reasons.BAD_VERSION, True),
    "BadContract": (reasons.BAD_CONTRACT, True),
}
"""What the runtime says of itself -> (our reason, whether a person must act)."""


def not_ready(view: DeploymentView, need: int, now: datetime) -> Note | None:
    """Why fewer than ``need`` replicas are ready; None if enough are."""
    if view.able >= need:
        return None
    what = f"version {view.version}"
    if view.failure:
        message = f"the cluster refuses pods of {what}: {view.failure}. Lower spec.serving.resources, or have it raised"
        return Note(reasons.POD_REFUSED, message, stalled=True)
    worst = _worst(view, what, now) or _unnoticed(view, what, now)
    if worst is not None:
        return worst
    return Note(reasons.STARTING, f"{what} is being loaded: {view.able} of {need} replicas are ready")


def rolling_out(view: DeploymentView, now: datetime) -> Note | None:
    """What keeps a version that answers from being as it should be everywhere: new pods that do not start."""
    what, stay = f"version {view.version}", f"{view.able} pods go on serving"
    if view.failure:
        message = f"the cluster refuses new pods of {what}: {view.failure}; {stay}"
        return Note(reasons.POD_REFUSED, message, stalled=True)
    worst = _worst(view, what, now)
    if worst is not None:
        return Note(worst.reason, f"{worst.message}; {stay}", worst.stalled or view.overdue)
    if view.observed and view.updated >= view.replicas and view.total <= view.updated:
        return None  # pods of one template that come and go with the load are nobody's news
    message = f"{what} is rolled out anew: {view.updated} of {view.replicas} pods are new; {stay}"
    return Note(reasons.STARTING, message, view.overdue)


def _unnoticed(view: DeploymentView, what: str, now: datetime) -> Note | None:
    """An InferenceService that KServe has never looked at: its kinds are there and its controller is not."""
    if not _waits_for_kserve(view) or now - view.created_at < PATIENCE:
        return None
    message = (
        f"KServe has not looked at InferenceService {view.name} of {what} since {view.created_at:%H:%M:%S} UTC: start "
        "its controller (docs/kserve.md), or read its log: kubectl -n kserve logs deployment/kserve-controller-manager"
    )
    return Note(reasons.CONTROL_PLANE_DISCONNECTED, message, stalled=True)


def _waits_for_kserve(view: DeploymentView) -> bool:
    return view.kind == "InferenceService" and not view.observed and not view.pods


def next_look(view: DeploymentView, now: datetime) -> datetime | None:
    """When a pod that runs and is not ready, or a controller that says nothing, becomes something to tell."""
    moments = [view.created_at + PATIENCE] if _waits_for_kserve(view) and view.created_at + PATIENCE > now else []
    waits = [since for pod in view.pods if not pod.ready and (since := _since(pod)) is not None]
    moments += [since + PATIENCE for since in waits if since + PATIENCE > now]
    return min(moments, default=None)


def _since(pod: ServingPod) -> datetime | None:
    """Since when it is not ready: one that served before has its own patience."""
    return pod.unready_since or pod.created_at


def _worst(view: DeploymentView, what: str, now: datetime) -> Note | None:
    """What keeps the pods that are not ready; one that needs a person says more than one that waits."""
    pods = sorted((pod for pod in view.pods if not pod.ready and not pod.deleting), key=lambda pod: pod.name)
    told = [note for pod in pods if (note := _pod(pod, what, now)) is not None]
    return max(told, key=lambda note: note.stalled, default=None)


def _pod(pod: ServingPod, what: str, now: datetime) -> Note | None:
    said = f"{pod.reason}: {pod.message}" if pod.message else pod.reason
    if pod.reason in PULLING:
        message = f"pod {pod.name} of {what} cannot pull its image ({said}); see the operator's settings, or name a "
        return Note(reasons.IMAGE_NOT_PULLED, message + "pull secret in spec.serving.podTemplate.imagePullSecrets")
    if pod.reason == "Unschedulable":
        todo = "lower spec.serving.resources, or change nodeSelector, tolerations or affinity"
        return Note(reasons.UNSCHEDULABLE, f"no node takes pod {pod.name} of {what} ({said}); {todo}")
    if pod.reason in REFUSED:
        message = f"pod {pod.name} of {what} cannot be started ({said}); check what spec.serving.podTemplate names"
        return Note(reasons.POD_REFUSED, message, stalled=True)
    if "OOMKilled" in (pod.reason, pod.last_reason):
        message = f"pod {pod.name} of {what} is killed for memory again and again; raise "
        return Note(reasons.OUT_OF_MEMORY, message + "spec.serving.resources.limits.memory", stalled=True)
    if (said_itself := _own_words(pod, what)) is not None:
        return said_itself
    if pod.reason in ("CrashLoopBackOff", "Error") or pod.restarts > 0:
        code = "" if pod.exit_code is None else f" with exit code {pod.exit_code}"
        container = pod.container or "server"
        message = (
            f"container {container} of pod {pod.name} ({what}) ends again and again{code}; read its log: "
            f"kubectl logs {pod.name} -c {container} --previous"
        )
        return Note(reasons.CRASHING, message, stalled=True)
    if pod.phase == "Running" and (since := _since(pod)) is not None and now - since >= PATIENCE:
        log = f"kubectl logs {pod.name} -c {pod.container or 'server'}"
        message = f"pod {pod.name} of {what} runs and is not ready since {since:%H:%M:%S} UTC; read its log: "
        return Note(reasons.NEVER_READY, message + log, stalled=True)
    return None


def _own_words(pod: ServingPod, what: str) -> Note | None:
    """What the runtime wrote on purpose when it ended: the init container that fetches, or the server that loads."""
    try:
        document: object = json.loads(pod.termination_message)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    words = cast("dict[str, Any]", document)
    reason, stalled = OWN_WORDS.get(str(words.get("reason")), (reasons.CRASHING, True))
    return Note(reason, f"pod {pod.name} does not load {what}: {words.get('message') or words.get('reason')}", stalled)
