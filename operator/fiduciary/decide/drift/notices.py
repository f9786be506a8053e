"""Alerts as others take them: Alertmanager's API v2 and CloudEvents 1.0. Repeating any of them is a no-op there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.decide.drift.decision import Alert

TYPE = "dev.fiduciary.drift.alarm"


def postable(alert: Alert) -> dict[str, Any]:
    """One entry of the body of ``POST /api/v2/alerts``. One that lasts is given an end ahead, and posted again before
    that: without, Alertmanager would take its own resolve_timeout, which nobody here knows."""
    entry: dict[str, Any] = {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": _text(alert.starts_at),
    }
    return entry if alert.ends_at is None else {**entry, "endsAt": _text(alert.ends_at)}


def cloud_event(alert: Alert) -> dict[str, Any]:
    """The begin of an alarm, or its end, as a structured CloudEvent. Its id is the evidence's digest and which of both
    it is, so that a sink that was told twice can tell."""
    begun = alert.ends_at is None
    labels = alert.labels
    return {
        "specversion": "1.0",
        "id": f"{alert.annotations['evidence']}/{'begun' if begun else 'ended'}",
        "source": f"/apis/fiduciary.dev/v1alpha1/namespaces/{labels['namespace']}/driftpolicies/{labels['policy']}",
        "type": f"{TYPE}.{'begun' if begun else 'ended'}.v1",
        "subject": labels["model"],
        "time": _text(alert.starts_at if alert.ends_at is None else alert.ends_at),
        "datacontenttype": "application/json",
        "data": {"monitor": labels["monitor"], "severity": labels["severity"], **alert.annotations},
    }


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
