"""What the FinancialModel does about the requests of its policies: one at a time, and each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fiduciary.api.driftpolicy import DriftPolicy


def chosen(policies: Iterable[DriftPolicy], model: str, done: Collection[str]) -> DriftPolicy | None:
    """The policy whose ``status.requestedAction`` is carried out next; None: nothing is asked for.

    A rollback goes first, then the oldest request, then the name: two policies that ask for the same do not fight, the
    second one finds the model busy or its alarm over.

    Args:
        model: name of the FinancialModel.
        done: digests of requests that its log has carried out.
    """
    asking = [
        policy
        for policy in policies
        if policy.spec.model_ref.name == model
        and policy.metadata.deletion_timestamp is None
        and (asked := policy.status.requested_action) is not None
        and asked.digest not in done
    ]
    return min(asking, key=_order, default=None)


def _order(policy: DriftPolicy) -> tuple[bool, float, str]:
    asked = policy.status.requested_action
    at = 0.0 if asked is None else asked.at.timestamp()
    return (asked is None or asked.kind != "RollBack", at, policy.metadata.name)
