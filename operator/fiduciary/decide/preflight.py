"""What can be known to be in the way before a training is started, or while its pod waits.

A chain of small checks; the first violation wins. Each says what was seen, what was expected and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from fiduciary.decide import reasons
from fiduciary.decide.case import Case
from fiduciary.manifests import engines, mounts, workers
from fiduciary.manifests import job as manifest
from fiduciary.manifests.quantity import parse_quantity, times

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from fiduciary.decide.world import Claim, PodView, QuotaView, World


INSTALL = {
    "JobSet": "install JobSet v0.12 or newer (https://jobset.sigs.k8s.io/docs/installation)",
    "TrainJob": "install Kubeflow Trainer v2.3 or newer (https://www.kubeflow.org/docs/components/trainer)",
}
"""How a kind comes into a cluster."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing is started. A person must act; ``recheck`` says that nobody tells us when they did."""

    reason: str
    message: str
    recheck: bool = False


def obstacle(case: Case) -> Obstacle | None:
    """The first thing that keeps a training from being started; None if nothing does."""
    return next((found for check in CHECKS if (found := check(case)) is not None), None)


def registry_taken(case: Case) -> Obstacle | None:
    """The first FinancialModel to claim a registered model owns it."""
    metadata = case.world.model.metadata
    created = metadata.creation_timestamp or case.now
    earlier = [claim for claim in case.world.claims if _order(claim) < (created, metadata.uid)]
    if not earlier:
        return None
    owner = min(earlier, key=_order)
    return Obstacle(
        reasons.REGISTRY_MODEL_TAKEN,
        f"registered model {case.registered_model!r} belongs to FinancialModel {owner.namespace}/{owner.name}, which "
        "named it first; set another spec.registry.model, or delete that one",
    )


def connection_unknown(case: Case) -> Obstacle | None:
    wanted, known = case.spec.registry.connection, case.world.platform.connections
    if wanted in known:
        return None
    return Obstacle(
        reasons.CONNECTION_UNKNOWN,
        f"spec.registry.connection is {wanted!r}; the operator's settings know {', '.join(sorted(known)) or 'none'}. "
        "Name one of those, or have it added to the settings",
    )


def engine_not_active(case: Case) -> Obstacle | None:
    if case.spec.training.engine != "External":
        return None
    return Obstacle(
        reasons.ENGINE_NOT_ACTIVE,
        "spec.training.engine is External; this release takes no versions that were trained elsewhere. Nothing is done "
        "until it says Job, JobSet or TrainJob, or the operator is updated",
    )


def engine_missing(case: Case) -> Obstacle | None:
    """JobSets and TrainJobs are of projects that a cluster need not have."""
    engine = case.spec.training.engine
    for kind in (engine, engines.RUNTIME) if engine == "TrainJob" else (engine,):
        if kind in case.world.missing_kinds:
            return Obstacle(
                reasons.ENGINE_MISSING,
                f"spec.training.engine is {engine}, and the cluster does not know the kind {kind} "
                f"({engines.API_VERSIONS[kind]}): {INSTALL[engine]}, or set spec.training.engine to Job. It is "
                "noticed when it is there",
            )
    return None


def feast_image_missing(case: Case) -> Obstacle | None:
    """Feast is in an image of its own, which other trainings need not pull."""
    return None if case.spec.training.image else replay_image_missing(case)


def replay_image_missing(case: Case) -> Obstacle | None:
    """A replay runs in the platform's image, whatever the training ran in."""
    if case.world.platform.trainer(case.spec):
        return None
    return Obstacle(
        reasons.FEAST_IMAGE_MISSING,
        "spec.data.source.feast needs a trainer with Feast, and the operator's settings name none "
        "(FIDUCIARY_TRAINER_FEAST_IMAGE: the stage trainer-feast of trainer_image/Dockerfile). Have it set, or name an "
        "image in spec.training.image",
    )


def uri_not_allowed(case: Case) -> Obstacle | None:
    """What a user names is read with the desk's credentials, but which stores exist is for the platform to say."""
    allowed = case.world.platform.allowed_uris
    for field, uri in _uris(case):
        if not uri.startswith(allowed):
            return Obstacle(
                reasons.URI_NOT_ALLOWED,
                f"{field} is {uri}; the operator's settings allow addresses that begin with "
                f"{', '.join(allowed) or 'nothing'}. Use one of those, or have its prefix added to allowedUris",
            )
    return None


def reference_unusable(case: Case) -> Obstacle | None:
    """Secrets and claims belong to somebody, who must have said that models may use them."""
    namespace, served = case.world.model.metadata.namespace, mounts.storage_secret(case.spec)
    for reference in case.world.references:
        named = (reference.kind, reference.name)
        if named == served and named not in mounts.references(case.spec):
            continue  # what serving alone mounts does not keep a training from its start
        what = f"{reference.kind} {reference.name}"
        if reference.state == "Missing":
            return Obstacle(
                reasons.REFERENCE_MISSING,
                f"{what} does not exist in namespace {namespace}; create it, or correct the name in the spec",
                recheck=True,
            )
        if reference.state == "Forbidden":
            return Obstacle(
                reasons.REFERENCE_FORBIDDEN,
                f"the operator may not look at {what}: the Role fiduciary-references is missing in namespace "
                f"{namespace}. Apply deploy/kustomize/namespace there",
                recheck=True,
            )
        if not reference.consumable:
            return Obstacle(
                reasons.REFERENCE_NOT_CONSUMABLE,
                f'{what} lacks the label fiduciary.dev/consumable: "true", with which its owner allows models to use '
                "it; ask the owner to set it",
                recheck=True,
            )
    return None


def quota_exceeded(case: Case) -> Obstacle | None:
    """A Job whose pod a quota refuses would wait without a word; say it before it exists."""
    needed = _needed(case)
    for quota in case.world.quotas:
        for resource, hard in quota.hard.items():
            shortage = _shortage(quota, resource, hard, needed)
            if shortage is not None:
                return Obstacle(reasons.QUOTA_EXCEEDED, shortage)
    return None


CHECKS: tuple[Callable[[Case], Obstacle | None], ...] = (
    registry_taken,  # two models that write one registered model would undo each other's aliases
    connection_unknown,  # a result that cannot be registered is work for nothing
    engine_not_active,
    engine_missing,
    feast_image_missing,
    uri_not_allowed,  # before any reference is looked at: an address that is refused needs no credentials
    reference_unusable,
    quota_exceeded,  # last: it changes most often
)


REPLAY_CHECKS = (connection_unknown, replay_image_missing, uri_not_allowed, reference_unusable, quota_exceeded)


def replay_obstacle(world: World, now: datetime) -> Obstacle | None:
    """What keeps a comparison Job from being made: it reads and mounts what the spec of the model names now, which need
    not be what a training was allowed once."""
    case = Case(world, now)
    return next((found for check in REPLAY_CHECKS if (found := check(case)) is not None), None)


class Started(Protocol):
    """A Job of ours that should be running."""

    @property
    def name(self) -> str: ...
    @property
    def finished(self) -> bool: ...
    @property
    def suspended(self) -> bool: ...
    @property
    def message(self) -> str: ...
    @property
    def pods(self) -> tuple[PodView, ...]: ...


def pod_obstacle(job: Started, *, all_needed: bool = False) -> Obstacle | None:
    """Why a Job that was started does not run: quoted from the cluster, with what to do.

    ``all_needed``: its pods train together, and none does before all run. Those of a search carry out the trials of
    those that do not.
    """
    if job.finished or job.suspended:
        return None
    if not job.pods:
        if job.message:
            return Obstacle(reasons.POD_REFUSED, f"Job {job.name} has no pod: {job.message}")
        return None
    if not all_needed and any(pod.phase == "Running" for pod in job.pods):
        return None
    pod = max(job.pods, key=lambda pod: pod.name if pod.started_at is None else pod.started_at.isoformat())
    waiting = next((candidate for candidate in job.pods if candidate.phase == "Pending"), pod)
    return _pending(waiting) if waiting.phase == "Pending" and waiting.reason else None


def _pending(pod: PodView) -> Obstacle | None:
    said = f"{pod.reason}: {pod.message}" if pod.message else pod.reason
    match pod.reason:
        case "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull":
            todo = "correct spec.training.image, or name a pull secret in spec.training.podTemplate.imagePullSecrets"
            return Obstacle(reasons.IMAGE_NOT_PULLED, f"pod {pod.name} cannot pull its image ({said}); {todo}")
        case "Unschedulable":
            todo = "lower spec.training.resources, or change nodeSelector, tolerations or affinity"
            return Obstacle(reasons.UNSCHEDULABLE, f"no node takes pod {pod.name} ({said}); {todo}")
        case "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError":
            todo = "check the Secrets, claims and runtime class that the spec names"
            return Obstacle(reasons.POD_REFUSED, f"pod {pod.name} cannot be started ({said}); {todo}")
        case _:
            return None  # ContainerCreating, PodInitializing and the like pass by themselves


def _order(claim: Claim) -> tuple[object, str]:
    return (claim.created_at, claim.uid)


def _uris(case: Case) -> list[tuple[str, str]]:
    source, checkpoint = case.spec.data.source, case.spec.training.checkpoint
    found: list[tuple[str, str]] = []
    if source.files is not None:
        found.append(("spec.data.source.files.uri", source.files.uri))
    if source.feast is not None:
        found.append(("spec.data.source.feast.entityUri", source.feast.entity_uri))
    if checkpoint is not None:
        found.append(("spec.training.checkpoint.uri", checkpoint.uri))
    return found


def _needed(case: Case) -> dict[str, str]:
    """Of all pods without which nothing is trained; a search does with one."""
    model = case.world.model
    pods = model.spec.training.nodes if workers.several(model) else 1
    needed = {"pods": str(pods), "count/pods": str(pods), "count/jobs.batch": "1"}
    for name, value in manifest.requests(model).items():
        needed[f"requests.{name}"] = times(value, pods)
        if name in ("cpu", "memory"):
            needed[name] = times(value, pods)
    needed |= {f"limits.{name}": times(value, pods) for name, value in manifest.limits(model).items()}
    return needed


def _shortage(quota: QuotaView, resource: str, hard: str, needed: dict[str, str]) -> str | None:
    used = quota.used.get(resource, "0")
    want = needed.get(resource)
    where = f"ResourceQuota {quota.name}"
    if want is None:
        if resource in ("limits.cpu", "limits.memory"):  # a quota on limits refuses pods that have none
            field = resource.removeprefix("limits.")
            return (
                f"{where} demands {resource} of every pod, and spec.training.resources.limits.{field} is not set; "
                f"set it to at most {_free(hard, used)}"
            )
        return None
    if parse_quantity(used) + parse_quantity(want) <= parse_quantity(hard):
        return None
    return (
        f"{where} allows {resource} {hard} and {used} is in use; the training needs {want}. Lower "
        "spec.training.resources, wait until others end, or have the quota raised"
    )


def _free(hard: str, used: str) -> str:
    free = max(Decimal(0), parse_quantity(hard) - parse_quantity(used))
    return f"{free.normalize():f}"
