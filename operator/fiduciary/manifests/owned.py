"""Metadata that every child carries: who made it, for which model, and who takes it along when deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel


def labels(model: FinancialModel, component: str) -> dict[str, str]:
    """Our own labels and none of the parent's: Argo CD prunes what carries the parent's tracking label."""
    return {
        meta.LABEL_MANAGED_BY: meta.MANAGED_BY,
        meta.LABEL_MODEL: model.metadata.name,
        meta.LABEL_COMPONENT: component,
    }


def metadata(
    model: FinancialModel,
    name: str,
    annotations: Mapping[str, str] | None = None,
    *,
    component: str = meta.TRAINING,
    owned: bool = True,
) -> dict[str, Any]:
    """Metadata of a child in the model's namespace, owned by the model unless it has to outlive it."""
    parts: dict[str, Any] = {
        "name": name,
        "namespace": model.metadata.namespace,
        "labels": labels(model, component),
    }
    if owned:
        parts["ownerReferences"] = [
            {
                "apiVersion": meta.API_VERSION,
                "kind": "FinancialModel",
                "name": model.metadata.name,
                "uid": model.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    else:
        parts["labels"][meta.LABEL_RETAINED] = "true"
    if annotations:
        parts["annotations"] = dict(annotations)
    return parts
