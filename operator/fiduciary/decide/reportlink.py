"""Where a person reads what was measured of a version: the page that the trainer left beside it in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from fiduciary.api.versions import StandingVersion
    from fiduciary.decide.case import Case
    from fiduciary.decide.history import History, Verdict

PAGE = "report/report.html"


def of_verdict(case: Case, verdict: Verdict | None) -> str | None:
    """Address of the report of a measured training; None where MLflow's run is not known, or its server is not."""
    connection = case.world.platform.connections.get(case.spec.registry.connection)
    if verdict is None or verdict.measured is None or connection is None:
        return None
    experiment, run = verdict.measured.get("experimentId"), verdict.measured.get("runId")
    if not experiment or not run:
        return None
    base = (connection.web_uri or connection.tracking_uri).rstrip("/")
    return f"{base}/#/experiments/{quote(str(experiment), safe='')}/runs/{quote(str(run), safe='')}/artifacts/{PAGE}"


def linked(case: Case, history: History, version: StandingVersion | None) -> StandingVersion | None:
    """The version with the address of its report."""
    if version is None or version.training_key is None:
        return version
    return version.model_copy(update={"report": of_verdict(case, history.verdicts.get(version.training_key))})
