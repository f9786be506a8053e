"""What is said of a version whose pods do not come."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.serving import podfacts
from fiduciary.serving.observed import DeploymentView, ServingPod

MADE = datetime(2026, 11, 27, 16, 13, tzinfo=UTC)
SILENT = DeploymentView(
    "ks-live-eafca6bebf73", "u1", "5", "sha256:eafc", "1", "c", "image", MADE, kind="InferenceService"
)
POD = ServingPod("ks-live-eafca6bebf73-predictor-bd8f7fc4-n52wp", "Pending", created_at=MADE)


@pytest.mark.parametrize(("seconds", "reason"), [(119, reasons.STARTING), (120, reasons.CONTROL_PLANE_DISCONNECTED)])
def test_a_controller_that_never_looks_is_told(seconds: int, reason: str) -> None:
    """KServe's CRDs without its controller, as seen on v0.20: no status, no Deployment, for ever."""
    note = podfacts.not_ready(SILENT, 1, MADE + timedelta(seconds=seconds))
    assert note is not None
    assert note.reason == reason
    assert ("kserve-controller-manager" in note.message) == note.stalled
    assert podfacts.next_look(SILENT, MADE) == MADE + podfacts.PATIENCE


def test_pods_say_more_than_silence() -> None:
    seen = replace(SILENT, pods=(POD,))
    note = podfacts.not_ready(seen, 1, MADE + timedelta(seconds=600))
    assert note is not None
    assert note.reason == reasons.STARTING


def test_a_pod_that_served_and_is_unready_for_a_moment_is_nobody_s_business_yet() -> None:
    """Seen on a starved node: a pod that had served for two minutes missed two readiness probes, and a person was told
    that it never became ready."""
    made, lost = MADE, MADE + timedelta(minutes=9)
    pod = replace(POD, phase="Running", container="server", unready=True, created_at=made, unready_since=lost)
    view = replace(SILENT, kind="Deployment", observed=True, pods=(pod,))
    early = podfacts.not_ready(view, 1, lost + timedelta(seconds=119))
    assert early is not None
    assert (early.reason, early.stalled) == (reasons.STARTING, False)
    assert podfacts.next_look(view, lost) == lost + podfacts.PATIENCE
    late = podfacts.not_ready(view, 1, lost + podfacts.PATIENCE)
    assert late is not None
    assert (late.reason, late.stalled) == (reasons.NEVER_READY, True)
    assert f"not ready since {lost:%H:%M:%S} UTC" in late.message


@pytest.mark.parametrize("container", ["server", "kserve-container"])
def test_who_is_told_to_read_a_log_is_told_of_the_container_that_runs(container: str) -> None:
    """KServe's v0.20 pod: its server is named ``kserve-container``, and ``-c server`` is an error of kubectl."""
    pod = replace(POD, phase="Running", container=container)
    note = podfacts.not_ready(replace(SILENT, pods=(pod,)), 1, MADE + timedelta(seconds=600))
    assert note is not None
    assert note.reason == reasons.NEVER_READY
    assert note.message.endswith(f"kubectl logs {pod.name} -c {container}")
