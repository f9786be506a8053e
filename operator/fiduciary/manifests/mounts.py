"""Volumes of a training pod: scratch space, the job document, and what the spec names (Secrets, claims)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fiduciary.api import meta

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModelSpec

Body = dict[str, Any]
ReferenceKind = Literal["Secret", "PersistentVolumeClaim"]
Reference = tuple[ReferenceKind, str]

JOB_DOCUMENT = "/etc/fiduciary/job.json"
SECRET = "/etc/fiduciary/secret"
CHECKPOINT_SECRET = "/etc/fiduciary/checkpoint-secret"
CLAIMS = "/data"
CHECKPOINTS = "/checkpoint"
SCRATCH = {"tmp": "/tmp", "scratch": "/scratch"}


def claim_of(uri: str) -> str | None:
    """The PersistentVolumeClaim of a ``pvc://claim/path``; None for any other address."""
    return uri.removeprefix("pvc://").partition("/")[0] if uri.startswith("pvc://") else None


def secret_of(spec: FinancialModelSpec) -> str | None:
    """The Secret with the credentials of the data source, if the spec names one."""
    source = spec.data.source
    if source.files is not None and source.files.secret_ref is not None:
        return source.files.secret_ref.name
    return source.feast.config_secret_ref.name if source.feast is not None else None


def checkpoint_secret_of(spec: FinancialModelSpec) -> str | None:
    """The Secret with the credentials of checkpoints, if the spec names one of their own."""
    checkpoint = spec.training.checkpoint
    return None if checkpoint is None or checkpoint.secret_ref is None else checkpoint.secret_ref.name


def data_uri(spec: FinancialModelSpec) -> str | None:
    """Address that data are read from; None for a dataset inside the image."""
    source = spec.data.source
    if source.files is not None:
        return source.files.uri
    return source.feast.entity_uri if source.feast is not None else None


def references(spec: FinancialModelSpec) -> tuple[Reference, ...]:
    """Secrets and claims that a training mounts, each once."""
    uri, checkpoint = data_uri(spec), spec.training.checkpoint
    secrets = (secret_of(spec), checkpoint_secret_of(spec))
    found: list[Reference] = [("Secret", secret) for secret in secrets if secret is not None]
    for address in (uri, checkpoint.uri if checkpoint is not None else None):
        claim = claim_of(address) if address is not None else None
        if claim is not None:
            found.append(("PersistentVolumeClaim", claim))
    return tuple(dict.fromkeys(found))


def storage_secret(spec: FinancialModelSpec) -> Reference | None:
    """The Secret with which versions are fetched to be served, by our pods or by Seldon's Servers."""
    serving = spec.serving
    if serving is None:
        return None
    ref = serving.storage_secret_ref or (serving.seldon.storage_secret_ref if serving.seldon is not None else None)
    return ("Secret", ref.name) if ref is not None else None


def volumes(spec: FinancialModelSpec) -> tuple[list[Body], list[Body]]:
    """``spec.volumes`` of the pod and ``volumeMounts`` of its container."""
    made: list[Body] = [{"name": name, "emptyDir": {}} for name in SCRATCH]
    mounted: list[Body] = [{"name": name, "mountPath": path} for name, path in SCRATCH.items()]
    annotation = f"metadata.annotations['{meta.ANNOTATION_JOB}']"
    made.append(
        {"name": "job", "downwardAPI": {"items": [{"path": "job.json", "fieldRef": {"fieldPath": annotation}}]}}
    )
    # As a single file: the Secret's folder could not be mounted inside a read-only volume.
    mounted.append({"name": "job", "mountPath": JOB_DOCUMENT, "subPath": "job.json", "readOnly": True})
    secrets = (
        ("secret", secret_of(spec), SECRET),
        ("checkpoint-secret", checkpoint_secret_of(spec), CHECKPOINT_SECRET),
    )
    for name, secret, path in secrets:
        if secret is not None:
            # Group-readable only: the pod's fsGroup is the trainer's own group.
            made.append({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}})
            mounted.append({"name": name, "mountPath": path, "readOnly": True})
    uri, checkpoint = data_uri(spec), spec.training.checkpoint
    read = claim_of(uri) if uri is not None else None
    written = claim_of(checkpoint.uri) if checkpoint is not None else None
    names: dict[str, str] = {}  # claim -> volume: one claim may hold data and checkpoints
    for claim in (read, written):
        if claim is not None and claim not in names:
            names[claim] = f"claim-{len(names)}"
            # readOnly belongs to the mount; on the volume it would hold for the checkpoints of the same claim too.
            made.append({"name": names[claim], "persistentVolumeClaim": {"claimName": claim}})
    if read is not None:
        mounted.append({"name": names[read], "mountPath": f"{CLAIMS}/{read}", "readOnly": True})
    if written is not None:
        mounted.append({"name": names[written], "mountPath": f"{CHECKPOINTS}/{written}"})
    return made, mounted
