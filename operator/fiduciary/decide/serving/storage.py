"""Whether the Secret with which versions are fetched may be used: asked before anything that mounts it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.step import Note
from fiduciary.manifests import mounts

if TYPE_CHECKING:
    from fiduciary.decide.case import Case


def secret_obstacle(case: Case) -> Note | None:
    """Its owner has to have released it; what is in it only its reader can tell."""
    wanted = mounts.storage_secret(case.spec)
    if wanted is None:
        return None
    view = next((one for one in case.world.references if (one.kind, one.name) == wanted), None)
    where = f"Secret {wanted[1]}, which storageSecretRef of spec.serving names,"
    if view is None or view.state == "Missing":
        return Note(reasons.REFERENCE_MISSING, f"{where} does not exist in this namespace: create it", stalled=True)
    if view.state == "Forbidden":
        message = f"{where} may not be looked at: apply deploy/kustomize/namespace to this namespace"
        return Note(reasons.REFERENCE_FORBIDDEN, message, stalled=True)
    if not view.consumable:
        message = f'{where} is not released for models: its owner labels it fiduciary.dev/consumable: "true"'
        return Note(reasons.REFERENCE_NOT_CONSUMABLE, message, stalled=True)
    return None
