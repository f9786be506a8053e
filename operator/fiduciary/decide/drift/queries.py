"""The queries of a policy as they are sent: confined to its namespace, or refused with a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.promql import Refused, confined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.driftpolicy import DriftPolicy


def queries(policy: DriftPolicy, label: str = "namespace") -> Mapping[str, str | Refused]:
    """Monitor -> PromQL, asked for at each end of a window (``time=``). ``label``: as in :func:`confined`."""
    namespace = policy.metadata.namespace or ""
    return {its.name: confined(its.query, namespace, label) for its in policy.spec.monitors if its.query is not None}
