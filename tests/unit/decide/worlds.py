"""Small worlds to judge: the model, the platform, and what a trainer that passes every gate reports."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.api.financialmodel import FinancialModel
from fiduciary.api.modelapproval import ModelApproval
from fiduciary.decide import identity
from fiduciary.decide.world import Connection, JobView, Platform, PodView, World
from fiduciary.manifests.plans import Environment

T0 = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
NAMESPACE, NAME = "quant", "spx-volatility"

SPEC: dict[str, Any] = {
    "data": {
        "source": {"dataset": {"name": "arch/sp500"}},
        "time": "date",
        "asOf": "2017-12-29",
        "calendar": "XNYS",
        "features": {"set": "ohlcv-v1"},
        "label": {"kind": "Volatility", "column": "close", "horizon": 1},
    },
    "training": {"architecture": "HAR", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}},
}

MLFLOW_EGRESS: tuple[dict[str, Any], ...] = (
    {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mlflow"}}}],
        "ports": [{"protocol": "TCP", "port": 5000}],
    },
)

PLATFORM = Platform(
    cluster="sandbox",
    trainer_image="fiduciary-trainer:0.1.0",
    operator_version="0.1.0",
    connections={"mlflow": Connection("mlflow", "http://mlflow.mlflow.svc:5000", "http://mlflow.mlflow.svc:5000")},
    allowed_uris=("pvc://", "s3://desk/"),
    mlflow_egress=MLFLOW_EGRESS,
    approval_policies_active=True,
    approval_policies_since=T0 - timedelta(days=30),
    serving=Environment(
        cluster="sandbox",
        image="fiduciary-server:0.1.0",
        operator_namespace="fiduciary-system",
        gateway_namespaces=("projectcontour",),
        monitoring_namespaces=("monitoring",),
        mlflow_egress=MLFLOW_EGRESS,
        probe_key="cHVibGljIGtleSBvZiB0aGUgb3BlcmF0b3IncyBwcm8=",
    ),
    probe_protocols=("rest", "grpc"),
)

SERVED: dict[str, Any] = {
    "serving": {
        "replicas": 2,
        "gateway": {"parentRefs": [{"name": "contour", "namespace": "projectcontour"}]},
    },
    "promotion": {"mode": "Manual"},
}
"""Serving through the one Gateway of the simulated cluster."""


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it; ``None`` takes a key away."""
    out = deepcopy(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = deepcopy(value)
    return out


def model(
    spec: dict[str, Any] | None = None,
    *,
    name: str = NAME,
    metadata: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
) -> FinancialModel:
    """The HAR model of the samples with ``spec`` laid over its own."""
    body: dict[str, Any] = {
        "apiVersion": "fiduciary.dev/v1alpha1",
        "kind": "FinancialModel",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": T0.isoformat(),
            "annotations": {"fiduciary.dev/edited-by": "dev@desk"},
            **(metadata or {}),
        },
        "spec": merged(SPEC, spec or {}),
    }
    if status is not None:
        body["status"] = status
    return FinancialModel.model_validate(body)


def world(spec: dict[str, Any] | None = None, **parts: Any) -> World:
    """A world that holds nothing but the model, unless ``parts`` say more."""
    given = parts.pop("model", None) or model(spec)
    return World(model=given, platform=parts.pop("platform", PLATFORM), **parts)


def approval(name: str, decision: str, at: datetime, approver: str = "ana@desk", **spec: Any) -> ModelApproval:
    """A person's act on the model."""
    return ModelApproval.model_validate(
        {
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": name, "creationTimestamp": at.isoformat()},
            "spec": {
                "modelRef": {"name": NAME},
                "decision": decision,
                "approver": approver,
                "reason": "a test",
                **spec,
            },
        }
    )


def asking(name: str, kind: str, at: datetime, *, digit: str = "a", spec: dict[str, Any] | None = None) -> DriftPolicy:
    """A policy that asks the model for something, with evidence as a policy leaves it."""
    digest = "sha256:" + digit * 64
    monitor = {"name": "broken", "query": "sum(up)", "above": "0.5", "actions": ["Alert", "Retrain", "RollBack"]}
    base = {"modelRef": {"name": NAME}, "window": {"length": "1h", "minCount": 50}, "monitors": [monitor]}
    evidence = {"policy": name, "asked": {"kind": kind, "digest": digest}, "windows": {"last": 41, "judged": 40}}
    asked = {"kind": kind, "reason": "broken: 1 is above 0.5", "digest": digest, "at": at.isoformat()}
    return DriftPolicy.model_validate(
        {
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"dp-{name}", "generation": 1},
            "spec": merged(base, spec or {}),
            "status": {"observedGeneration": 1, "requestedAction": {**asked, "evidence": evidence}},
        }
    )


FOLDS = [0.05, 0.08, 0.07, 0.06, 0.09, 0.04]


def metric(estimate: float, se: float | None = 0.005, folds: list[float | None] | None = None, n: int = 3100) -> Any:
    """A metric as the contract writes it, with folds around the estimate."""
    spread = [estimate + value for value in (-0.01, 0.01, 0.0, -0.005, 0.005, 0.0)]
    return {"e": estimate, "se": se, "f": spread if folds is None else folds, "n": n}


CHECKS: dict[str, Any] = {
    "prediction_sd_ratio": 0.82,
    "effective_rows": 1500,
    "train_rows_min": 980,
    "leakage_max_score": 0.12,
    "leakage_feature": "rv_1",
    "future_cut_max_diff": 0.0,
    "onnx_max_diff": 2e-7,
    "duplicate_rows": 0,
    "train_test_overlap": 0,
}

METRICS: dict[str, dict[str, Any]] = {
    "Volatility": {
        "ewma_skill": metric(0.07),
        "har_skill": metric(0.07),
        "ols_skill": metric(0.001),
        "persistence_skill": metric(0.35),
        "mse": metric(0.16, 0.006),
        "qlike": metric(0.3, 0.01),
        "worst_fold_skill": {"e": 0.04, "n": 6},
        "effective_rows": {"e": 1500, "n": 3100},
    },
    "Direction": {
        "base_rate_skill": metric(0.02),
        "persistence_skill": metric(0.1),
        "ols_skill": metric(0.001),
        "accuracy": metric(0.56, 0.01),
        "sharpe": {**metric(0.08, 0.01), "skew": -0.4, "kurtosis": 6.0},
        "max_drawdown": {"e": 0.18, "n": 3100},
        "ece": {"e": 0.02, "f": [0.02, 0.03, 0.02, 0.02, 0.03, 0.02], "n": 3100},
        "worst_fold_skill": {"e": 0.01, "n": 6},
        "effective_rows": {"e": 1500, "n": 3100},
    },
    "Return": {
        "mean_skill": metric(0.02),
        "persistence_skill": metric(0.4),
        "ols_skill": metric(0.001),
        "worst_fold_skill": {"e": 0.01, "n": 6},
        "effective_rows": {"e": 1500, "n": 3100},
    },
}


def result(key: str, label_kind: str = "Volatility", change: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a training that passes every gate writes; ``change`` is laid over it."""
    hexadecimal = key.removeprefix("sha256:")
    checks = CHECKS if label_kind == "Volatility" else {**CHECKS, "predicted_up_share": 0.6}
    base: dict[str, Any] = {
        "contractVersion": 1,
        "outcome": "Measured",
        "trainingKey": key,
        "runId": f"run-{hexadecimal[:12]}",
        "experimentId": "1",
        "source": f"mlflow-artifacts:/1/run-{hexadecimal[:12]}/artifacts/version",
        "digest": identity.digest({"artifact": key}),
        "dataDigest": identity.digest("rows"),
        "rows": 4778,
        "dataFrom": "1999-01-04",
        "dataThrough": "2017-12-29",
        "labelKind": label_kind,
        "code": {"sha256": "ab" * 32, "python": "3.13.5", "torch": "2.6.0", "numpy": "2.2.4"},
        "seed": 7,
        "seconds": 31.2,
        "metrics": METRICS[label_kind],
        "checks": checks,
    }
    return merged(base, change or {})


def job(given: FinancialModel, *, as_of: str = "2017-12-29", attempt: int = 1, **parts: Any) -> JobView:
    """The Job that the operator made for this model."""
    trigger = parts.pop("trigger", {})
    key = identity.training_key(given.spec, as_of, trigger)
    fields: dict[str, Any] = {
        "name": identity.job_name(given.metadata.name, key, attempt),
        "uid": f"job-{attempt}",
        "resource_version": "5",
        "key": key,
        "spec_key": identity.spec_key(given.spec),
        "attempt": attempt,
        "as_of": date.fromisoformat(as_of),
        "trigger": trigger,
        "created_at": T0,
        "owner_uid": given.metadata.uid,
    }
    return JobView(**{**fields, **parts})


def pod(termination: str = "", exit_code: int | None = None, **parts: Any) -> PodView:
    """A pod of a Job; ended if it has an exit code."""
    ended: dict[str, Any] = {}
    if exit_code is not None:
        phase = "Succeeded" if exit_code == 0 else "Failed"
        ended = {"phase": phase, "started_at": T0, "finished_at": T0 + timedelta(seconds=40)}
    fields: dict[str, Any] = {"name": "pod-1", "phase": "Running", **ended}
    return PodView(**{**fields, "exit_code": exit_code, "termination_message": termination, **parts})
