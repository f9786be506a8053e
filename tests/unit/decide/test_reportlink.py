"""Status says where a version's report can be read, of those that were refused too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.decide.lives import NO_SKILL, champion, trained
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM


def test_champion_and_runs_link_to_their_page() -> None:
    status = champion().status
    assert status.champion is not None
    run = status.champion.run_id
    link = f"http://mlflow.mlflow.svc:5000/#/experiments/1/runs/{run}/artifacts/report/report.html"
    assert status.champion.report == status.runs[0].report == link


def test_a_refused_training_has_a_report_too() -> None:
    sim = SimulatedWorld()
    trained(sim, NO_SKILL)
    assert sim.status.champion is None
    assert sim.status.runs[0].outcome == "Rejected"
    assert (sim.status.runs[0].report or "").endswith("/artifacts/report/report.html")


@pytest.mark.parametrize(
    ("web", "base"), [("", "http://mlflow:5000"), ("https://ml.example.com/", "https://ml.example.com")]
)
def test_links_are_for_browsers(web: str, base: str) -> None:
    connection = replace(PLATFORM.connections["mlflow"], tracking_uri="http://mlflow:5000", web_uri=web)
    sim = SimulatedWorld(platform=replace(PLATFORM, connections={"mlflow": connection}))
    trained(sim)
    assert sim.status.champion is not None
    assert (sim.status.champion.report or "").startswith(f"{base}/#/experiments/1/runs/")


def test_without_a_run_there_is_no_link() -> None:
    sim = SimulatedWorld()
    trained(sim, {"experimentId": None})
    assert sim.status.runs[0].report is None
