"""The training Job: one pod that measures and reports, confined to what it was given; or several, see ``_pods``.

It meets the restricted Pod Security Standard. Exit codes decide retries (docs/trainer-contract.md); the operator
deletes the Job after its verdict is stored, so it has no time to live of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.api.quantities import timedelta_of
from fiduciary.manifests import confinement, contract, owned, workers
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
PEER_LOST = 76
"""The pod went because another worker of its training did: that one's end counts as a retry, this one's does not."""
GRACE_SECONDS = 60
"""From SIGTERM to SIGKILL: enough for a checkpoint."""
KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"


def training_job(model: FinancialModel, training: contract.Training, egress: str) -> Body:
    """The Job of one training; ``egress`` names the rules of its NetworkPolicy."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(model, training),
        "spec": job_spec(model, training, egress),
    }


def metadata(model: FinancialModel, training: contract.Training) -> Body:
    """Of whatever runs a training: what it trains is read from it again when the status is lost."""
    spec = model.spec.training
    annotations = {
        meta.ANNOTATION_TRAINING_KEY: training.key,
        meta.ANNOTATION_SPEC_KEY: training.spec_key,
        meta.ANNOTATION_AS_OF: training.as_of,
        meta.ANNOTATION_TRIGGER: compact(dict(training.trigger)),
    }
    made = owned.metadata(model, training.job, annotations)
    if spec.queue_name is not None:
        made["labels"][KUEUE_QUEUE] = spec.queue_name
    return made


def job_spec(model: FinancialModel, training: contract.Training, egress: str) -> Body:
    """``spec`` of the Job; also of the one inside a JobSet."""
    return {
        **_pods(model),
        "activeDeadlineSeconds": deadline_seconds(model),
        "podReplacementPolicy": "Failed",  # two pods of one training would write one checkpoint
        "podFailurePolicy": {"rules": [*exit_code_rules(), *(_peer_rules() if workers.several(model) else [])]},
        "template": _template(model, training, egress),
    }


def deadline_seconds(model: FinancialModel) -> int:
    """``spec.training.activeDeadline`` in whole seconds."""
    return max(1, int(timedelta_of(model.spec.training.active_deadline).total_seconds()))


def pods(model: FinancialModel) -> int:
    """How many pods train at the same time: workers that share batches, or those of a parallel search, which meet at
    the checkpoint and have a trial each."""
    search = model.spec.training.search
    if workers.several(model) or search is None or model.spec.training.checkpoint is None:
        return model.spec.training.nodes
    return min(search.parallelism, search.trials)


def _pods(model: FinancialModel) -> Body:
    """One pod; or numbered ones of which the first trains, and the others help: with their shares of each batch, or
    with trials of a search.

    Each number has its own retries, and the Job is over when the first has succeeded: what the others lack then is
    work that is done. A search goes on without a pod that cannot be kept alive; workers do not.
    """
    limit, several = model.spec.training.retry.limit, pods(model)
    if several == 1:
        return {"backoffLimit": limit}
    return {
        "completionMode": "Indexed",
        "completions": several,
        "parallelism": several,
        "backoffLimitPerIndex": limit,
        **({"maxFailedIndexes": 0} if workers.several(model) else {}),
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def exit_code_rules() -> list[Body]:
    """Which ends of a pod are final, and which use up no retry."""
    return [
        # First: a drained node must not use up a retry, whatever the exit code.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        _on_exit("FailJob", *FATAL_EXIT_CODES),
    ]


def _peer_rules() -> list[Body]:
    return [_on_exit("Ignore", PEER_LOST)]


def _on_exit(action: str, *codes: int) -> Body:
    return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(codes)}}


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
        **workers.environment(model, training.job),
    }
    named = workers.several(model) and model.spec.training.engine == "Job"
    return {
        **scheduling(model.spec.training.pod_template, owned.labels(model, meta.TRAINING)),
        **({"subdomain": workers.subdomain(model)} if named else {}),  # a JobSet sets its own
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
