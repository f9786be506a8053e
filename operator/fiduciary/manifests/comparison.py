"""The comparison Job: replays the procedures of two versions over the same past days and posts the ledger.

Confined as a training is, with two differences: a token for the scorer, and the scorer to talk to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.api.quantities import timedelta_of
from fiduciary.manifests import confinement, owned
from fiduciary.manifests.contract import CONTRACT_VERSION
from fiduciary.manifests.job import CONTAINER, GRACE_SECONDS, KUEUE_QUEUE, exit_code_rules
from fiduciary.manifests.json_text import compact
from fiduciary.manifests.mounts import volumes
from fiduciary.manifests.networkpolicy import LABEL_EGRESS, egress_rules
from fiduciary.manifests.resources import container_resources, threads
from fiduciary.manifests.scheduling import scheduling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel, FinancialModelSpec
    from fiduciary.api.versions import VersionRef

Body = dict[str, Any]

SERVICE_ACCOUNT = "fiduciary-comparison"
"""Made with the scorer of the namespace, which takes replayed ledgers from this subject only."""
TOKEN = "/var/run/secrets/fiduciary/outcomes"
TOKEN_SECONDS = 3600
"""The kubelet renews it in time; the trainer reads it anew for each try."""
RETRIES = 3
"""Of the Job's pods, with Kubernetes' growing delays. Each waits for MLflow and the scorer by itself first."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """The outcome scorer of the model's namespace, as pods there reach it.

    Attributes:
        url: without path, e.g. ``http://fiduciary-outcomes.quant.svc:8080``.
        audience: of the tokens that it takes.
        egress: NetworkPolicy rules that let a pod talk to it.
    """

    url: str
    audience: str
    egress: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """One comparison Job: which versions, for which experiment, and the settings of the operator that it runs with.

    Attributes:
        experiment, experiment_uid: the ModelExperiment, which owns the Job.
        ledger: name that the ledger gets at the scorer.
        attempt: from 1.
        tracking_uri: MLflow as pods of the namespace reach it.
    """

    model: FinancialModel
    experiment: str
    experiment_uid: str
    ledger: str
    champion: VersionRef
    challenger: VersionRef
    attempt: int
    scorer: Scorer
    cluster: str
    image: str
    tracking_uri: str
    operator_version: str
    mlflow_egress: tuple[Mapping[str, Any], ...] = ()


def job_name(replay: Replay) -> str:
    """Deterministic: the same attempt posted twice is one Job; another experiment on the pair has another one."""
    key = hashlib.sha256(f"{replay.experiment_uid} {replay.ledger}".encode()).hexdigest()[:8]
    return f"{replay.model.metadata.name}-compare-{key}-{replay.attempt}"


def document(replay: Replay) -> dict[str, Any]:
    """The job document of ``docs/trainer-contract.md``, command ``compare``. No credentials are in it."""
    metadata = replay.model.metadata
    return {
        "contractVersion": CONTRACT_VERSION,
        "model": {
            "cluster": replay.cluster,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
        },
        "experiment": {"name": replay.experiment, "uid": replay.experiment_uid},
        "attempt": replay.attempt,
        "champion": _version(replay.champion),
        "challenger": _version(replay.challenger),
        "ledger": {"name": replay.ledger, "url": replay.scorer.url, "tokenFile": f"{TOKEN}/token"},
        "mlflow": {"trackingUri": replay.tracking_uri},
        "provenance": {"image": replay.image, "operatorVersion": replay.operator_version},
    }


def comparison_job(replay: Replay) -> Body:
    """The Job of one replay. The ModelExperiment owns it: without the question nobody waits for the answer."""
    training = replay.model.spec.training
    rules = egress_id(replay)
    labels = owned.labels(replay.model, meta.COMPARISON)
    queue = {} if training.queue_name is None else {KUEUE_QUEUE: training.queue_name}
    user = training.pod_template
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(replay),
            "namespace": replay.model.metadata.namespace,
            "labels": {**labels, **queue},
            "annotations": {meta.ANNOTATION_LEDGER: replay.ledger},
            "ownerReferences": [
                {
                    "apiVersion": meta.API_VERSION,
                    "kind": "ModelExperiment",
                    "name": replay.experiment,
                    "uid": replay.experiment_uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": max(1, int(timedelta_of(training.active_deadline).total_seconds())),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": exit_code_rules()},
            "template": {
                "metadata": {
                    "labels": {**user.labels, **labels, LABEL_EGRESS: rules},
                    "annotations": {**user.annotations, meta.ANNOTATION_JOB: compact(document(replay))},
                },
                "spec": _pod(replay),
            },
        },
    }


def egress(replay: Replay) -> list[Body]:
    """DNS, MLflow, the storage that the spec names, and the scorer."""
    return [*egress_rules(replay.model, replay.mlflow_egress), *(dict(rule) for rule in replay.scorer.egress)]


def egress_id(replay: Replay) -> str:
    """Name of the rules: eight hexadecimal digits of their hash."""
    return hashlib.sha256(compact(egress(replay)).encode()).hexdigest()[:8]


def network_policy(replay: Replay) -> Body:
    """Default deny for the comparison pods of this model, with the rules above; named after them, so never changed."""
    model, rules = replay.model, egress_id(replay)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owned.metadata(model, f"{model.metadata.name}-comparison-{rules}", component=meta.COMPARISON),
        "spec": {
            "podSelector": {"matchLabels": {**owned.labels(model, meta.COMPARISON), LABEL_EGRESS: rules}},
            "policyTypes": ["Ingress", "Egress"],
            "egress": egress(replay),
        },
    }


def _version(version: VersionRef) -> Body:
    return {
        "version": version.version,
        "digest": version.digest,
        "runId": version.run_id,
        "dataDigest": version.data_digest,
    }


def _pod(replay: Replay) -> Body:
    training = replay.model.spec.training
    made, mounted = volumes(_without_checkpoint(replay.model.spec))
    resources = container_resources(training.resources)
    environment = {
        "FIDUCIARY_ATTEMPT_ID": job_name(replay),
        "OMP_NUM_THREADS": str(threads(resources)),
        "HOME": "/scratch",
    }
    token = {"audience": replay.scorer.audience, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    made.append({"name": "token", "projected": {"sources": [{"serviceAccountToken": token}], "defaultMode": 0o440}})
    mounted.append({"name": "token", "mountPath": TOKEN, "readOnly": True})
    return {
        **scheduling(training.pod_template, owned.labels(replay.model, meta.COMPARISON)),
        "restartPolicy": "Never",
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": confinement.POD,
        "containers": [
            {
                "name": CONTAINER,
                "image": replay.image,
                "args": ["compare"],
                "env": [{"name": name, "value": value} for name, value in environment.items()],
                "resources": resources,
                "securityContext": confinement.CONTAINER,
                "terminationMessagePolicy": "File",
                "volumeMounts": mounted,
            }
        ],
        "volumes": made,
    }


def _without_checkpoint(spec: FinancialModelSpec) -> FinancialModelSpec:
    """A replay keeps no state: the claim may be held by a training that runs beside it."""
    return spec.model_copy(update={"training": spec.training.model_copy(update={"checkpoint": None})})
