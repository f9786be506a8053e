"""The identity of training pods: one of their own, with no rights and no token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.manifests.owned import metadata

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel


def service_account_name(model: FinancialModel) -> str:
    """Never ``default``, to which somebody may have bound rights."""
    return f"{model.metadata.name}-training"


def service_account(model: FinancialModel) -> dict[str, Any]:
    """A ServiceAccount whose token is mounted nowhere."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(model, service_account_name(model)),
        "automountServiceAccountToken": False,
    }
