"""Which acts of people are believed: those that loosen something need a checked author who is not the spec's editor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api import meta
from fiduciary.decide import reasons

if TYPE_CHECKING:
    from fiduciary.api.modelapproval import ModelApproval
    from fiduciary.decide.world import Platform

STAMPS_SINCE_MINOR = 36
"""MutatingAdmissionPolicy, which stamps the editor, is v1 since Kubernetes 1.36."""


def objection(approval: ModelApproval, platform: Platform, editor: str | None) -> tuple[str, str] | None:
    """Why an act that loosens something is not believed (reason, message); None if it counts.

    The policies that checked its author must be older than it, and its author must not be ``editor``, who last changed
    the model's spec: one person does not both write and approve. Where a GitOps controller writes, or the server cannot
    stamp the editor (before 1.36), the approver groups alone separate the duties.
    """
    created, since = approval.metadata.creation_timestamp, platform.approval_policies_since
    name, approver = approval.metadata.name, approval.spec.approver
    if not platform.approval_policies_active or created is None or (since is not None and created < since):
        return reasons.APPROVALS_NOT_GUARDED, (
            f"ModelApproval {name} does not count: the admission policies that check its author are not installed, "
            "or are newer than it; apply deploy/kustomize/policies, then create it again"
        )
    if editor in platform.gitops_editors or platform.kubernetes_minor < STAMPS_SINCE_MINOR:
        return None
    if editor is None:
        return reasons.EDITOR_UNKNOWN, (
            f"ModelApproval {name} does not count: it is not known who last changed the spec (it is older than the "
            f"policy that stamps {meta.ANNOTATION_EDITED_BY}); change the spec once, then create it again"
        )
    if editor == approver:
        return reasons.APPROVER_IS_EDITOR, (
            f"ModelApproval {name} does not count: {approver} is also who last changed the spec; somebody else has "
            "to approve"
        )
    return None
