"""A judge of sixty lines that asks for every kind of write, so that the engine can be tested apart from ``decide``.

A model is trained once for each seed: claim, Job, registration, record, aliases, Job deleted. The status is a fold over
the records. It is deliberately simple; what matters is that it is pure and that each step builds on the one before.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.api.conditions import condition
from fiduciary.api.financialmodel import FinancialModelStatus
from fiduciary.api.modeldecision import Cause, DecidedModelRef, Evidence, ModelDecisionSpec
from fiduciary.api.modelstatus import TrainingStatus
from fiduciary.api.versions import StandingVersion, VersionRef
from fiduciary.decide.decision import Create, Decision, Delete, Event, Mirror, Registration
from fiduciary.decide.world import JobView, Questions, World

if TYPE_CHECKING:
    from collections.abc import Mapping


def key_of(seed: int) -> str:
    return "sha256:" + hashlib.sha256(f"seed {seed}".encode()).hexdigest()


def digest_of(key: str) -> str:
    return "sha256:" + hashlib.sha256(f"version of {key}".encode()).hexdigest()


def body(name: str = "m", *, namespace: str = "quant", seed: int = 1, suspend: bool = False) -> dict[str, Any]:
    """A FinancialModel that the real CRD accepts."""
    return {
        "apiVersion": meta.API_VERSION,
        "kind": "FinancialModel",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "suspend": suspend,
            "data": {
                "source": {"dataset": {"name": "arch/sp500"}},
                "time": "date",
                "asOf": "2017-12-29",
                "features": {"set": "ohlcv-v1"},
                "label": {"kind": "Volatility"},
            },
            "training": {"architecture": "HAR", "seed": seed},
        },
    }


def questions(world: World, now: datetime) -> Questions:
    if world.model.metadata.deletion_timestamp is not None:
        return Questions(aliases=True)
    key = key_of(world.model.spec.training.seed)
    ended = any(job.key == key and job.finished for job in world.jobs)
    judged = key in _judged(world)
    return Questions(version_by_digest=digest_of(key) if ended and not judged else None, aliases=judged)


def decide(world: World, now: datetime) -> Decision:
    if world.model.metadata.deletion_timestamp is not None:
        return _retire(world, now)
    if world.model.spec.suspend:
        return Decision(status=_status(world, now, "Suspended"))
    key = key_of(world.model.spec.training.seed)
    judged = _judged(world)
    finalizer = "Keep" if meta.FINALIZER in world.model.metadata.finalizers else "Add"
    if key in judged:
        waste = tuple(Delete("batch/v1", "Job", job.name, job.uid) for job in world.jobs if not job.deleting)
        mirror = Mirror("mlflow", _registered(world), set_aliases={"champion": judged[key]})
        return Decision(status=_status(world, now, "Registered"), children=waste, mirror=mirror)
    jobs = [job for job in world.jobs if job.key == key]
    if jobs and jobs[0].finished:
        return _judge(world, now, key, jobs[0])
    if jobs:
        return Decision(status=_status(world, now, "Training", key))
    training = world.model.status.training
    if training is None or training.key != key:
        return Decision(status=_status(world, now, "Claimed", key), claim=True, again=True)
    return Decision(
        status=_status(world, now, "Training", key),
        finalizer=finalizer,
        children=(Create(_job(world, key)),),
        events=(Event("Normal", "TrainingStarted", "started"),),
    )


def _judge(world: World, now: datetime, key: str, job: JobView) -> Decision:
    assert world.registry is not None
    status = _status(world, now, "Judging", key)
    if not world.registry.reachable:
        return Decision(status=_status(world, now, "Waiting", key), wake_at=now + timedelta(seconds=30))
    digest = digest_of(key)
    if world.registry.version is None:
        wanted = Registration("mlflow", _registered(world), "run", digest, "mlflow-artifacts:/1/run", {"owner": "me"})
        return Decision(status=status, registration=wanted, again=True)
    record = _record(world, now, "Accept", key, VersionRef(version=world.registry.version.version, digest=digest))
    return Decision(status=_status(world, now, "Registered", new=record), record=record, again=True)


def _retire(world: World, now: datetime) -> Decision:
    status = _status(world, now, "Retiring")
    assert world.registry is not None
    if world.registry.reachable and world.registry.aliases:
        mirror = Mirror("mlflow", _registered(world), delete_aliases=tuple(world.registry.aliases))
        return Decision(status=status, mirror=mirror)
    if not world.registry.reachable:
        return Decision(status=status, wake_at=now + timedelta(seconds=30))
    retired = any(r.spec.action == "Retire" and r.spec.model_ref.uid == world.model.metadata.uid for r in world.records)
    if retired or world.namespace_terminating:
        return Decision(status=status, finalizer="Remove")
    return Decision(status=status, record=_record(world, now, "Retire", "", None), finalizer="Remove")


def _judged(world: World) -> Mapping[str, str]:
    """Training key -> version number."""
    accepted = [record.spec for record in world.records if record.spec.action == "Accept"]
    return {str(spec.evidence.summary["trainingKey"]): spec.to.version or "" for spec in accepted if spec.to}


def _record(world: World, now: datetime, action: Any, key: str, to: VersionRef | None) -> ModelDecisionSpec:
    last = world.records[-1].spec if world.records else None
    chain = None if last is None else "sha256:" + hashlib.sha256(str(last.body()).encode()).hexdigest()
    return ModelDecisionSpec(
        model_ref=DecidedModelRef(name=world.model.metadata.name, uid=world.model.metadata.uid),
        sequence=1 if last is None else last.sequence + 1,
        action=action,
        to=to,
        cause=Cause(kind="Initial"),
        evidence=Evidence(summary={"trainingKey": key, "specKey": key, "configKey": key, "asOf": "2017-12-29"}),
        previous=chain,
        decided_at=now,
    )


def _status(
    world: World, now: datetime, phase: str, claimed: str | None = None, new: ModelDecisionSpec | None = None
) -> FinancialModelStatus:
    metadata, before = world.model.metadata, world.model.status.conditions
    ready = condition(before, "Ready", "False", phase, "toy", generation=metadata.generation, now=now)
    log = [record.spec for record in world.records] + ([new] if new is not None else [])
    accepted = [spec for spec in log if spec.action == "Accept" and spec.to]
    champion = None
    if accepted and accepted[-1].to is not None:
        champion = StandingVersion(version=accepted[-1].to.version, digest=accepted[-1].to.digest)
    return FinancialModelStatus(
        observed_generation=metadata.generation,
        phase=phase,
        conditions=(ready,),
        champion=champion,
        training=TrainingStatus(key=claimed) if claimed else None,
    )


def _job(world: World, key: str) -> dict[str, Any]:
    metadata = world.model.metadata
    owner = {"apiVersion": meta.API_VERSION, "kind": "FinancialModel", "name": metadata.name, "uid": metadata.uid}
    labels = {meta.LABEL_MODEL: metadata.name, meta.LABEL_MANAGED_BY: meta.MANAGED_BY}
    annotations = {
        meta.ANNOTATION_TRAINING_KEY: key,
        meta.ANNOTATION_SPEC_KEY: key,
        meta.ANNOTATION_AS_OF: "2017-12-29",
        meta.ANNOTATION_TRIGGER: "{}",
    }
    pod = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "trainer:1"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{metadata.name}-{key[7:15]}-1",
            "namespace": metadata.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner | {"controller": True}],
        },
        "spec": {"template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _registered(world: World) -> str:
    return f"{world.model.metadata.namespace}.{world.model.metadata.name}"
