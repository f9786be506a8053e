"""A decision log written by hand: records in order, each with the chain of the one before."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fiduciary.api.modeldecision import ModelDecision
from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.decide import identity
from fiduciary.decide.history import History, fold
from tests.unit.decide.worlds import NAME, NAMESPACE, T0, UID, merged


def digest(version: str) -> str:
    """Digest of a version of these logs."""
    return "sha256:" + version * 64


def version(number: str) -> dict[str, Any]:
    key = identity.digest(f"key {number}")
    return {"version": number, "digest": digest(number), "trainingKey": key, "runId": number * 32}


@dataclass
class Log:
    """Records of one model, a minute apart."""

    records: list[ModelDecision] = field(default_factory=list[ModelDecision])

    @property
    def history(self) -> History:
        return fold(self.records)

    def write(self, action: str, *, summary: dict[str, Any] | None = None, **spec: Any) -> ModelDecision:
        number = len(self.records) + 1
        body: dict[str, Any] = {
            "modelRef": {"name": NAME, "uid": UID},
            "sequence": number,
            "action": action,
            "cause": {"kind": "Experiment", "message": f"{action} {number}", **spec.pop("cause", {})},
            "evidence": {"summary": summary or {}},
            "decidedAt": (T0 + timedelta(minutes=number)).isoformat(),
            **spec,
        }
        if self.records:
            body["previous"] = identity.record_digest(self.records[-1].spec)
        made = ModelDecision.model_validate({"metadata": {"name": f"{NAME}-{number}"}, "spec": body})
        self.records.append(made)
        return made

    def accept(self, number: str, config: str = "a", role: str = "Challenger", trigger: Any = None) -> None:
        summary = {
            "trainingKey": version(number)["trainingKey"],
            "specKey": identity.digest(f"spec {config}"),
            "configKey": identity.digest(f"config {config}"),
            "asOf": "2026-11-20",
            "trigger": trigger or {},
            "measured": {"digest": digest(number)},
        }
        self.write("Accept", to={**version(number), "role": role}, summary=summary, cause={"kind": "Initial"})

    def serve(self, number: str) -> None:
        self.write("Shift", to=version(number), traffic={"champion": 100}, cause={"kind": "Initial"})

    def shift(self, mx: ModelExperiment, weight: int, mirror: int = 0, purpose: str = "Improve") -> None:
        number = mx.spec.challenger.version
        self.write(
            "Shift",
            to=version(number),
            traffic={"champion": 100 - weight, "challenger": weight, "mirror": mirror, "step": "canary"},
            cause={"experiment": mx.metadata.name},
            summary={"experiment": mx.metadata.name, "uid": mx.metadata.uid, "purpose": purpose},
        )

    def verdict(self, action: str, mx: ModelExperiment, left: str, takes: str, **summary: Any) -> None:
        self.write(
            action,
            **{"from": version(left)},
            to=version(takes),
            traffic={"champion": 100},
            cause={"experiment": mx.metadata.name, "reasons": [{"reason": "Because", "message": "so"}]},
            summary={"experiment": mx.metadata.name, "uid": mx.metadata.uid, **summary},
        )


def experiment(challenger: str, spec: dict[str, Any] | None = None, **parts: Any) -> ModelExperiment:
    """The experiment of a challenger, with ``status`` and parts of its metadata."""
    status = parts.pop("status", {})
    name = parts.pop("name", f"{NAME}-{challenger}")
    return ModelExperiment.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"uid of {name}",
                "creationTimestamp": T0.isoformat(),
                **parts,
            },
            "spec": merged({"modelRef": {"name": NAME}, "challenger": {"version": challenger}}, spec or {}),
            "status": status,
        }
    )


def compared(champion: str, challenger: str) -> dict[str, Any]:
    """Status of an experiment that has started on this pair."""
    return {
        "champion": {"version": champion, "digest": digest(champion)},
        "challenger": {"version": challenger, "digest": digest(challenger)},
    }


def spending(test: int = 1, purpose: str = "Improve", **parts: Any) -> dict[str, Any]:
    """The part of a summary that the model's life is charged with."""
    return {
        "purpose": purpose,
        "test": test,
        "discoveries": 0,
        "configurations": 1,
        "columns": ["what", "harm", "notWorse", "margin", "rate", "difference"],
        "guardrails": {"errors": ["ErrorRate", "-1.0", "4.0", "0.005", "0.010", "0.002"]},
        "objectives": {"loss": {"what": "PairedLoss", "logE": "5.0", "n": 700}},
        "through": 900,
        **parts,
    }
