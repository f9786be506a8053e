"""The training Job: one pod that measures and reports, confined to what it was given.

It meets the restricted Pod Security Standard. Exit codes decide retries (docs/trainer-contract.md); the operator
deletes the Job after its verdict is stored, so it has no time to live of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.api.quantities import timedelta_of
from fiduciary.manifests import confinement, contract, owned
from fiduciary.manifests.json_text import compact
from fiduciary.manifests.mounts import volumes
from fiduciary.manifests.networkpolicy import LABEL_EGRESS
from fiduciary.manifests.resources import container_resources, threads
from fiduciary.manifests.scheduling import scheduling
from fiduciary.manifests.serviceaccount import service_account_name

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel

Body = dict[str, Any]

CONTAINER = "trainer"
FATAL_EXIT_CODES = (42, 43, 44, 64)
"""Data refused, diverged, out of memory, contract refused: training again reads the same data and the same document.
(A kill by the kernel, 137, is tried again: a node that is short of memory does that too.)"""
GRACE_SECONDS = 60
"""From SIGTERM to SIGKILL: enough for a checkpoint."""
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"


def training_job(model: FinancialModel, training: contract.Training, egress: str) -> Body:
    """The Job of one training; ``egress`` names the rules of its NetworkPolicy."""
    spec = model.spec.training
    annotations = {
        meta.ANNOTATION_TRAINING_KEY: training.key,
        meta.ANNOTATION_SPEC_KEY: training.spec_key,
        meta.ANNOTATION_AS_OF: training.as_of,
        meta.ANNOTATION_TRIGGER: compact(dict(training.trigger)),
    }
    metadata = owned.metadata(model, training.job, annotations)
    if spec.queue_name is not None:
        metadata["labels"][KUEUE_QUEUE] = spec.queue_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            **_pods(model),
            "activeDeadlineSeconds": max(1, int(timedelta_of(spec.active_deadline).total_seconds())),
            "podReplacementPolicy": "Failed",  # two pods of one training would write one checkpoint
            "podFailurePolicy": {"rules": exit_code_rules()},
            "template": _template(model, training, egress),
        },
    }


def pods(model: FinancialModel) -> int:
    """How many pods train at the same time: those of a parallel search, which meet at the checkpoint and have a trial
    each."""
    search = model.spec.training.search
    if search is None or model.spec.training.checkpoint is None:
        return 1
    return min(search.parallelism, search.trials)


def _pods(model: FinancialModel) -> Body:
    """One pod; or, for a parallel search, numbered ones of which the first trains and the others carry out trials.

    Each number has its own retries, and the Job is over when the first has succeeded: what the others lack then is
    work that is done.
    """
    limit, several = model.spec.training.retry.limit, pods(model)
    if several == 1:
        return {"backoffLimit": limit}
    return {
        "completionMode": "Indexed",
        "completions": several,
        "parallelism": several,
        "backoffLimitPerIndex": limit,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def exit_code_rules() -> list[Body]:
    """Which ends of a pod are final, and which use up no retry."""
    return [
        # First: a drained node must not use up a retry, whatever the exit code.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(FATAL_EXIT_CODES)},
        },
    ]


def requests(model: FinancialModel) -> dict[str, str]:
    """What the training pod reserves: Kubernetes takes a limit for the request where none is given."""
    made = container_resources(model.spec.training.resources)
    return {**made.get("limits", {}), **made["requests"]}


def limits(model: FinancialModel) -> dict[str, str]:
    """What the training pod may use at most."""
    return dict(container_resources(model.spec.training.resources).get("limits", {}))


def _template(model: FinancialModel, training: contract.Training, egress: str) -> Body:
    user = model.spec.training.pod_template
    return {
        "metadata": {
            "labels": {**user.labels, **owned.labels(model, meta.TRAINING), LABEL_EGRESS: egress},
            "annotations": {**user.annotations, meta.ANNOTATION_JOB: contract.text(model, training)},
        },
        "spec": _pod(model, training),
    }


def _pod(model: FinancialModel, training: contract.Training) -> Body:
    made, mounted = volumes(model.spec)
    resources = container_resources(model.spec.training.resources)
    environment = {
        "FIDUCIARY_ATTEMPT_ID": training.job,
        "OMP_NUM_THREADS": str(threads(resources)),
        "HOME": "/scratch",
    }
    return {
        **scheduling(model.spec.training.pod_template, owned.labels(model, meta.TRAINING)),
        "restartPolicy": "Never",
        "serviceAccountName": service_account_name(model),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": confinement.POD,
        "containers": [
            {
                "name": CONTAINER,
                "image": training.image,
                "env": [{"name": name, "value": value} for name, value in environment.items()],
                "resources": resources,
                "securityContext": confinement.CONTAINER,
                # The log may hold data; a result is what the trainer wrote on purpose.
                "terminationMessagePolicy": "File",
                "volumeMounts": mounted,
            }
        ],
        "volumes": made,
    }
