"""What KServe's admission makes of an InferenceService: what it would fill in is stated."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.manifests.inferenceservice import stated

# (requests, limits) by the user -> (requests, limits) of the container. KServe v0.20 as shipped puts 1 CPU and 2Gi
# where a request or a limit of the two is missing, so that the second, fourth and last made pods nobody can create.
CASES: list[tuple[dict[str, str], dict[str, str], dict[str, str], dict[str, str]]] = [
    ({"cpu": "100m", "memory": "256Mi"}, {}, {"cpu": "100m", "memory": "256Mi"}, {"cpu": "1", "memory": "2Gi"}),
    ({"cpu": "2", "memory": "256Mi"}, {}, {"cpu": "2", "memory": "256Mi"}, {"cpu": "2", "memory": "2Gi"}),
    (
        {"cpu": "100m", "memory": "1Gi"},
        {"memory": "1Gi"},
        {"cpu": "100m", "memory": "1Gi"},
        {"cpu": "1", "memory": "1Gi"},
    ),
    (
        {"cpu": "100m"},
        {"memory": "512Mi", "nvidia.com/gpu": "1"},
        {"cpu": "100m", "memory": "512Mi"},
        {"cpu": "1", "memory": "512Mi", "nvidia.com/gpu": "1"},
    ),
]


@pytest.mark.parametrize(("requests", "limits", "requested", "limited"), CASES)
def test_requests_and_limits_are_all_stated(
    requests: dict[str, str], limits: dict[str, str], requested: dict[str, str], limited: dict[str, str]
) -> None:
    given: dict[str, Any] = {"requests": requests, **({"limits": limits} if limits else {})}
    assert stated(given) == {"requests": requested, "limits": limited}
