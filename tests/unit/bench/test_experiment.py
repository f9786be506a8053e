"""bench-experiment in small: the judge takes the plans that are measured, and what is shown goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bench import experiment_cluster, experiment_scale
from bench.experiment_scale import NAMESPACE, PROXIES, PROXY, Exporter
from fiduciary.decide import reasons
from tests.e2e import experiments
from tests.unit.decide.experiment.trials import Trial
from tests.unit.decide.worlds import merged

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def begins(purpose: str, template: dict[str, Any]) -> str:
    found = Trial(spec=merged({"purpose": purpose, "champion": None, "challenger": {"version": "8"}}, template))
    return found.evaluate().ruling.reason


def test_plans_of_the_benchmark_are_begun() -> None:
    assert begins("Refresh", experiment_scale.TEMPLATE) == reasons.STEP_ENTERED
    assert begins("Improve", merged(experiments.TEMPLATE, experiment_cluster.TEMPLATE)) == reasons.STEP_ENTERED


def test_what_is_shown_goes_on_when_more_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = [_pod("one")]
    api: Any = SimpleNamespace(request=lambda *_, **__: {"items": list(pods)})
    clock = [1000.0]
    monkeypatch.setattr(experiment_scale.time, "time", lambda: clock[0])
    exporter = Exporter()
    try:
        exporter.show(api, tmp_path / "targets.json")
        clock[0] += 100.0
        before = _shown(exporter, "one")
        pods.append(_pod("two"))
        exporter.show(api, tmp_path / "targets.json")
        after = _shown(exporter, "one")
        assert after == before, "the counters of pods and of the gateway were set back"
        assert _shown(exporter, "two") != before
    finally:
        exporter.close()


def _pod(model: str) -> dict[str, Any]:
    return {"metadata": {"name": f"{model}-abc-def-gh", "labels": {"fiduciary.dev/model": model}}}


def _shown(exporter: Exporter, model: str) -> tuple[list[str], list[str]]:
    """What the pod of a model shows, and what the gateway shows of it: values alone."""
    pod = exporter.text(exporter.pages[f"/{NAMESPACE}/{model}-abc-def-gh"]).splitlines()
    gateway = exporter.text(exporter.pages[f"/{PROXIES}/{PROXY}"]).splitlines()
    return [line.split()[-1] for line in pod], [line.split()[-1] for line in gateway if f"_{model}-abc_" in line]
