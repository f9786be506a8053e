"""How a training Job ended: the trainer's own words where it left some, Kubernetes' otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fiduciary.decide import reasons
from fiduciary.decide.measurement import as_result, parse_result
from fiduciary.manifests.job import FATAL_EXIT_CODES, PEER_LOST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.decide.world import JobView, PodView, RegistryView

_SHA256 = r"sha256:[0-9a-f]{64}"
IDENTIFIERS = {
    "runId": r"[\w.-]{1,128}",
    "source": r"\S{1,512}",
    "digest": _SHA256,
    "dataDigest": _SHA256,
    "labelKind": r"Volatility|Direction|Return",
}
"""Texts by which a version is registered and found again, with the form that each must have."""

SAID_ENOUGH = ("DataRefused", "Diverged", "OutOfMemory", "BadContract")
"""Ends of the trainer contract whose message needs no word about pod and Job."""
SIGKILL = 137
HELPERS = ("Searched", "Helped")
"""What pods say that carried out trials, or their share of each batch, for the one that trains."""
FINAL = ("PodFailurePolicy", "FailJobSetFailurePolicyAction")
"""Reasons of a Job, JobSet or TrainJob that one pod's exit code has ended for good."""
FAILED_INDEXES = "FailedIndexes"
"""Of a search in several pods: each has ended, and one at least has used up its retries."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The training ended with numbers."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The training failed for good."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """It succeeded, and its numbers must be asked of MLflow: ``message`` says why they are not here yet."""

    message: str


Outcome = Measured | Failed | Unknown


def needs_registry(job: JobView) -> bool:
    """Whether only the MLflow run can still say what came of this Job."""
    return _trained(job) and not _complete(_own_result(job))


def logged_result(registry: RegistryView | None, key: str) -> Mapping[str, Any] | None:
    """The result that the MLflow run of this training key holds, if it ended with numbers."""
    run = registry.run if registry is not None else None
    result = None if run is None else as_result(run.result)
    if result is None or result.get("trainingKey") != key or result.get("outcome") != "Measured":
        return None
    return result if flaw(result) is None else None


def flaw(result: Mapping[str, Any]) -> str | None:
    """What keeps a result from naming one artifact; None if nothing does. Any image may write one."""
    for name, pattern in IDENTIFIERS.items():
        value = result.get(name)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            return f"{name} is {str(value)[:80]!r}"
    return None


def outcome(job: JobView, registry: RegistryView | None) -> Outcome:
    """How a finished Job ended.

    A termination message that is gone (the pod was removed with its node) is no lost training: the trainer left the
    same document as a tag of its MLflow run.
    """
    if _trained(job):
        result = _own_result(job)
        if not _complete(result):
            if registry is None or not registry.reachable:
                why = registry.message if registry is not None else "MLflow was not asked yet"
                left = "no result" if result is None else "a shortened result"
                return Unknown(f"Job {job.name} succeeded and its pod left {left}; asking its MLflow run: {why}")
            result = logged_result(registry, job.key) or result
        if result is None or result.get("outcome") != "Measured":
            return Failed(
                reasons.RESULT_LOST,
                f"Job {job.name} succeeded, but neither its pod's termination message nor a run in MLflow with tag "
                f"fiduciary.dev/training-key={job.key} holds a result; does the image keep the trainer contract?",
            )
        wrong = flaw(result)
        if wrong is not None:
            return Failed(
                reasons.BAD_RESULT,
                f"Job {job.name} succeeded, but its result cannot be used: {wrong}; expected what the trainer contract "
                "says. Correct the image of spec.training.image",
            )
        return Measured(result)
    return failure(job)


class Ended(Protocol):
    """A Job of ours that failed."""

    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def pods(self) -> tuple[PodView, ...]: ...


def failure(job: Ended) -> Failed:
    """Why it failed: in the words of its last pod, else of Kubernetes."""
    pod = _last_pod(job)
    said = None if pod is None else parse_result(pod.termination_message)
    if job.reason == "DeadlineExceeded":
        doing = f"; it last said: {said.get('message', '')}" if said is not None else ""
        message = f"Job {job.name} ran longer than spec.training.activeDeadline{doing}; raise it or train less"
        return Failed(reasons.DEADLINE_EXCEEDED, message)
    if said is not None:
        message = f"{said.get('message', '')}"
        if said.get("outcome") in SAID_ENOUGH:
            return Failed(_camel(said.get("reason")), message)
        return Failed(_camel(said.get("reason")), f"{message} (pod {pod.name if pod else '?'}, {job.reason})")
    if pod is not None and pod.reason == "OOMKilled":
        return Failed(
            reasons.OUT_OF_MEMORY,
            f"pod {pod.name} was killed for memory (OOMKilled, exit code {pod.exit_code}) and could not say at what; "
            "raise spec.training.resources.limits.memory, or use fewer columns, rows, members or folds",
        )
    if pod is not None and pod.exit_code == SIGKILL:
        return Failed(
            reasons.POD_KILLED,
            f"pod {pod.name} was killed (exit code {SIGKILL}: SIGKILL) and left no word; mostly its node ran out of "
            "memory: raise spec.training.resources.requests.memory to what the training needs, and look at the node",
        )
    if pod is not None and pod.reason:
        code = "" if pod.exit_code is None else f", exit code {pod.exit_code}"
        return Failed(_camel(pod.reason), f"pod {pod.name} ended: {pod.reason}{code} {pod.message}".strip())
    code = "" if pod is None or pod.exit_code is None else f"; the last pod ended with exit code {pod.exit_code}"
    message = f"Job {job.name} failed: {job.reason} {job.message}{code}".strip()
    return Failed(_camel(job.reason) or reasons.BACKOFF_LIMIT_EXCEEDED, message)


def _trained(job: JobView) -> bool:
    """Whether the pod that trains has ended well.

    The Job controller counts failed indexes before it asks successPolicy: once all have ended, a search of which a pod
    that only carried out trials could not be kept alive has Failed, with its result delivered.
    """
    return job.succeeded or (job.reason == FAILED_INDEXES and _own_result(job) is not None)


def _own_result(job: JobView) -> Mapping[str, Any] | None:
    """What the pod that trained has left, not those that helped it."""
    for pod in job.pods:
        if pod.exit_code == 0:
            result = parse_result(pod.termination_message)
            if result is not None and result.get("trainingKey") == job.key and result.get("outcome") not in HELPERS:
                return result
    return None


def _complete(result: Mapping[str, Any] | None) -> bool:
    """Whether all numbers are there: with many folds a termination message has no room for them, and says so."""
    return result is not None and not result.get("truncated")


def _last_pod(job: Ended) -> PodView | None:
    ended = [pod for pod in job.pods if pod.finished_at is not None and pod.exit_code != 0]
    # One pod's end was final: the others were stopped for it, and have ended later.
    final = [pod for pod in ended if job.reason in FINAL and pod.exit_code in FATAL_EXIT_CODES]
    # Those that a worker left alone have nothing to say of why it went.
    ended = final or [pod for pod in ended if pod.exit_code != PEER_LOST] or ended
    return max(ended, key=lambda pod: (pod.finished_at, pod.name), default=None)


def _camel(reason: Any) -> str:
    """A word of the trainer's as a condition's reason; anything that is none becomes TrainingFailed."""
    text = str(reason or "")
    return (
        text
        if text.isascii() and text.isalnum() and text[:1].isalpha() and len(text) <= 128
        else reasons.TRAINING_FAILED
    )
