"""Worlds as YAML: the resources that a cluster holds, MLflow's answers and the time; and decisions as YAML."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fiduciary.api import meta
from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.api.financialmodel import FinancialModel
from fiduciary.api.modelapproval import ModelApproval
from fiduciary.api.modeldecision import ModelDecision
from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.decide import financialmodel
from fiduciary.decide.decision import Apply
from fiduciary.decide.history import fold
from fiduciary.decide.world import ReferenceView, RegistryView, RunView, VersionView, World
from fiduciary.engine import kinds, served
from fiduciary.engine.observe import references
from fiduciary.serving.observed import ProbeTarget, ProbeView
from tests.unit.decide.worlds import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.decide.decision import Decision
    from fiduciary.serving.observed import DeploymentView

COMPANIONS = ("Service", "NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler", "ServiceAccount")
FOLDER = Path(__file__).parent / "worlds"
Body = dict[str, Any]


class _Block(yaml.SafeDumper):
    """YAML that is read like what people write: long texts in blocks, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def load(path: Path) -> tuple[World, datetime]:
    """The world and the time of a file. Its first document is ``{now, mlflow}``, the others are resources."""
    documents: list[Body] = list(yaml.safe_load_all(path.read_text()))
    head, resources = documents[0], documents[1:]

    def of(kind: str) -> list[Body]:
        return [body for body in resources if body["kind"] == kind]

    model = FinancialModel.model_validate(of("FinancialModel")[0])
    pods = of("Pod")
    jobs = [
        replace(job, pods=tuple(kinds.pod(pod) for pod in pods if kinds.job_of_pod(pod) == job.name))
        for body in [*of("Job"), *of("JobSet"), *of("TrainJob")]
        if (job := kinds.job(body)) is not None
    ]
    present = {(body["kind"], body["metadata"]["name"]): kinds.labels_of(body) for body in resources}
    named = [
        ReferenceView(kind, name, "Found", present[kind, name].get("fiduciary.dev/consumable") == "true")
        if (kind, name) in present
        else ReferenceView(kind, name, "Missing")
        for kind, name in references(model)
    ]
    world = World(
        model=model,
        platform=replace(PLATFORM, experiments=head.get("experiments", False)),
        records=tuple(ModelDecision.model_validate(body) for body in of("ModelDecision")),
        jobs=tuple(jobs),
        runtimes=tuple(kinds.runtime(body) for body in of("TrainingRuntime")),
        approvals=tuple(ModelApproval.model_validate(body) for body in of("ModelApproval")),
        experiments=tuple(ModelExperiment.model_validate(body) for body in of("ModelExperiment")),
        policies=tuple(DriftPolicy.model_validate(body) for body in of("DriftPolicy")),
        quotas=tuple(kinds.quota(body) for body in of("ResourceQuota")),
        references=tuple(named),
        registry=_registry(head.get("mlflow")),
        gateways=tuple(served.gateway(body, {}) for body in of("Gateway")),
        missing_kinds=frozenset(head.get("missingKinds", ())),
        probes=tuple(_probe(answer) for answer in head.get("probes", ())),
    )
    now = datetime.fromisoformat(head["now"])
    return _with_serving(world, now, of, pods), now


def decide(path: Path) -> str:
    """What is decided on the world of a file, as YAML."""
    world, now = load(path)
    return told(financialmodel.decide(world, now))


def told(decision: Decision) -> str:
    """A decision as YAML: what would be written, in the order of the writes. What is not written is left out."""
    parts: Body = {
        "finalizer": None if decision.finalizer == "Keep" else decision.finalizer,
        "registration": None if decision.registration is None else asdict(decision.registration),
        "record": None if decision.record is None else decision.record.body(),
        "children": [{type(child).__name__: _child(child)} for child in decision.children],
        "status": decision.status.body(),
        "events": [asdict(event) for event in decision.events],
        "mirror": None if decision.mirror is None else asdict(decision.mirror),
        "wakeAt": None if decision.wake_at is None else decision.wake_at.isoformat(),
        "probes": [_target(target) for target in decision.probes],
        "claim": decision.claim,
        "again": decision.again,
    }
    return dump({name: value for name, value in parts.items() if value})


def dump(*documents: Any) -> str:
    """Documents as YAML."""
    return yaml.dump_all(
        documents, Dumper=_Block, sort_keys=False, width=120, allow_unicode=True, explicit_start=len(documents) > 1
    )


def _child(child: Any) -> Body:
    return readable(child.body) if hasattr(child, "body") else _unusual(asdict(child))


def readable(body: Body) -> Body:
    """Without the annotation that repeats the object itself."""
    metadata = body["metadata"]
    annotations = {key: text for key, text in metadata.get("annotations", {}).items() if key != meta.ANNOTATION_APPLIED}
    kept = {key: value for key, value in metadata.items() if key != "annotations"}
    return {**body, "metadata": {**kept, **({"annotations": annotations} if annotations else {})}}


def _target(target: ProbeTarget) -> Body:
    return _unusual({name: value for name, value in asdict(target).items() if value is not None})


def _unusual(fields: Body) -> Body:
    """Without what is as it is on backend Gateway, whose worlds these mostly are."""
    usual = {"headers": (), "draws": 1, "api_version": "apps/v1", "kind": "Deployment"}
    return {name: value for name, value in fields.items() if name not in usual or usual[name] != value}


def _probe(answer: Body) -> ProbeView:
    """``target``: as a decision writes it; the rest as the prober found it."""
    target = ProbeTarget(**answer["target"])
    times = {name: datetime.fromisoformat(answer[name]) for name in ("at", "since") if name in answer}
    rest = {name: value for name, value in answer.items() if name not in ("target", *times)}
    return ProbeView(target, **times, **rest)


def _with_serving(world: World, now: datetime, of: Callable[[str], list[Body]], pods: list[Body]) -> World:
    """The world with what serves.

    A file names these objects and their status; what they hold is what the operator asks for in this very world. A
    route is completed last: it lists the versions that are ready. ``weights`` are what somebody wrote into it by hand.
    """
    wanted = _wanted(world, now)
    deployments = [_complete(body, wanted) for body in of("Deployment")]
    world = replace(
        world,
        deployments=tuple(_deployment(body, pods) for body in deployments),
        children=tuple(served.child(_complete(body, wanted)) for kind in COMPANIONS for body in of(kind)),
    )
    confirmed = now - timedelta(minutes=1)
    routes = [_by_hand(_complete(body, _wanted(world, now)), body.get("weights")) for body in of("HTTPRoute")]
    return replace(world, route=next((served.route(body, None, confirmed) for body in routes), None))


def _wanted(world: World, now: datetime) -> dict[tuple[str, str], Body]:
    """What the operator asked for until now: before its experiments wished or ruled anything new."""
    traffic = fold(world.records).traffic
    before = {"ruling": None, "harm": None, "desired_traffic": traffic}
    experiments = tuple(
        one.model_copy(update={"status": one.status.model_copy(update=before)}) for one in world.experiments
    )
    world = replace(world, experiments=experiments)
    applied = (child.body for child in financialmodel.decide(world, now).children if isinstance(child, Apply))
    return {(body["kind"], body["metadata"]["name"]): dict(body) for body in applied}


def _complete(body: Body, wanted: dict[tuple[str, str], Body]) -> Body:
    """The object as the API server would have stored it."""
    place = (body["kind"], body["metadata"]["name"])
    assert place in wanted, f"nobody would make {place} in this world"
    asked, status = wanted[place], body.get("status", {})
    generation = status.get("observedGeneration", 1)
    stored = {
        "uid": f"{body['kind'].lower()}-uid",
        "resourceVersion": "1",
        "generation": generation,
        "creationTimestamp": "2026-11-24T12:00:41Z",
    }
    replicas = {"replicas": status["replicas"]} if "replicas" in status else {}
    metadata = {**asked["metadata"], **stored}
    return {**asked, "metadata": metadata, "spec": {**asked.get("spec", {}), **replicas}, "status": status}


def _by_hand(route: Body, weights: list[int] | None) -> Body:
    if weights is None:
        return route
    rules = [
        {**rule, "backendRefs": [{**ref, "weight": n} for ref, n in zip(rule["backendRefs"], weights, strict=True)]}
        for rule in route["spec"]["rules"]
    ]
    return {**route, "spec": {**route["spec"], "rules": rules}}


def _deployment(body: Body, pods: list[Body]) -> DeploymentView:
    name = body["metadata"]["name"]
    mine = tuple(served.pod(pod) for pod in pods if served.deployment_of_pod(pod) == name)
    return replace(served.deployment(body), pods=mine)


def _registry(answers: Body | None) -> RegistryView | None:
    if answers is None:
        return None
    run, version = answers.get("run"), answers.get("version")
    return RegistryView(
        reachable=answers.get("reachable", True),
        reason=answers.get("reason", ""),
        message=answers.get("message", ""),
        run=None if run is None else RunView(**run),
        version=None if version is None else VersionView(**version),
        manifest_digest=answers.get("manifestDigest"),
        aliases=answers.get("aliases", {}),
    )
