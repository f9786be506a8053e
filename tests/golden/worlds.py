"""Worlds as YAML: the resources that a cluster holds, MLflow's answers and the time; and decisions as YAML."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fiduciary.api.financialmodel import FinancialModel
from fiduciary.api.modelapproval import ModelApproval
from fiduciary.api.modeldecision import ModelDecision
from fiduciary.decide import financialmodel
from fiduciary.decide.world import ReferenceView, RegistryView, RunView, VersionView, World
from fiduciary.engine import kinds
from fiduciary.engine.observe import references
from tests.unit.decide.worlds import PLATFORM

if TYPE_CHECKING:
    from fiduciary.decide.decision import Decision

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
        for body in of("Job")
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
        platform=PLATFORM,
        records=tuple(ModelDecision.model_validate(body) for body in of("ModelDecision")),
        jobs=tuple(jobs),
        approvals=tuple(ModelApproval.model_validate(body) for body in of("ModelApproval")),
        quotas=tuple(kinds.quota(body) for body in of("ResourceQuota")),
        references=tuple(named),
        registry=_registry(head.get("mlflow")),
    )
    return world, datetime.fromisoformat(head["now"])


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
    return dict(child.body) if hasattr(child, "body") else asdict(child)


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
