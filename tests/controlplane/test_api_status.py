"""A status with every field set is stored as it was written: nothing is pruned, nothing refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fiduciary.api.conditions import Condition
from fiduciary.api.financialmodel import FinancialModelStatus
from fiduciary.api.modelstatus import (
    ActiveExperiment,
    AlphaSpending,
    ApprovalRequest,
    Endpoint,
    KillStatus,
    LastDecision,
    MetricValue,
    Progress,
    RejectedVersion,
    RunRecord,
    SearchProgress,
    TrafficStatus,
    TrainingStatus,
)
from fiduciary.api.versions import StandingVersion
from tests.controlplane.examples import DIGEST, model
from tests.controlplane.server import GROUP, Refused, path_of

if TYPE_CHECKING:
    from tests.controlplane.server import Server

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


REPORT = "https://mlflow.example.com/#/experiments/1/runs/8/artifacts/report/report.html"


def _version(number: str) -> StandingVersion:
    return StandingVersion(
        version=number,
        run_id="run-1",
        uri="mlflow-artifacts:/1/run-1/artifacts/version",
        digest=DIGEST,
        data_digest=DIGEST,
        training_key=DIGEST,
        role="Champion",
        architecture="HAR",
        as_of="2017-12-29",
        report=REPORT,
        since=NOW,
        decision=1,
    )


FULL = FinancialModelStatus(
    observed_generation=4,
    phase="Registered",
    conditions=(
        Condition(
            type="Ready",
            status="False",
            reason="ServingNotActive",
            message="registered",
            observed_generation=4,
            last_transition_time=NOW,
        ),
    ),
    champion=_version("3"),
    previous_champion=_version("2"),
    anchor=_version("1"),
    challenger=_version("4"),
    active_experiment=ActiveExperiment(name="spx-4", uid="u"),
    kill=KillStatus(engaged=True, action="PreviousChampion", since=NOW, by="spec", decision=2),
    rejected_versions=(
        RejectedVersion(
            version="5", digest=DIGEST, training_key=DIGEST, reason="GateFailed", message="no skill", at=NOW, decision=3
        ),
    ),
    training=TrainingStatus(
        key=DIGEST,
        spec_key=DIGEST,
        trigger={"requestId": "retrain-1"},
        as_of="2017-12-29",
        job="spx-00000000-1",
        attempt=2,
        run_id="run-2",
        progress=Progress(
            epoch=3,
            epochs=30,
            percent=10,
            eta_seconds=90,
            last_metric=MetricValue(name="loss", value="0.12346"),
            at=NOW,
        ),
        search=SearchProgress(trials=12, total=20, running=2, pruned=3, failed=1, best="0.16843"),
        phase="Running",
        since=NOW,
        message="epoch 3 of 30",
    ),
    runs=(
        RunRecord(
            key=DIGEST,
            run_id="run-1",
            job="spx-00000000-1",
            attempt=1,
            trigger={"scheduleTick": "2026-11-24T03:00:00Z"},
            as_of="2017-12-29",
            report=REPORT,
            architecture="HAR",
            outcome="Accepted",
            reason="GatesPassed",
            message="all gates passed",
            version="3",
            digest=DIGEST,
            decision=1,
            finished_at=NOW,
        ),
    ),
    traffic=TrafficStatus(
        champion=90, challenger=10, mirror=100, step="canary", decision=3, since=NOW, confirmed_at=NOW
    ),
    alpha_spending=AlphaSpending(configurations=2, tests=1, discoveries=1, margin_consumed="0.001"),
    gates_digest=DIGEST,
    serving_runtime_digest=DIGEST,
    endpoint=Endpoint(url="https://models.example.com/v2/models/quant.spx", headers={"Host": "models.example.com"}),
    approval_request=ApprovalRequest(digest=DIGEST, version="2", needed=2, given=1, at=NOW),
    last_decision=LastDecision(sequence=3, action="Reject", digest=DIGEST, at=NOW),
    next_training=NOW,
)


def test_the_example_sets_every_field() -> None:
    """Else a field that is added later would not be looked at."""
    for part in (FULL, FULL.champion, FULL.training, FULL.kill, FULL.runs[0], FULL.rejected_versions[0]):
        assert part is not None
        assert part.model_fields_set == set(type(part).model_fields)
    assert FULL.training is not None
    assert FULL.training.progress is not None
    assert FULL.training.progress.model_fields_set == set(Progress.model_fields)
    assert FULL.training.search is not None
    assert FULL.training.search.model_fields_set == set(SearchProgress.model_fields)


def test_a_full_status_is_stored_as_written_by_the_operator(server: Server, namespace: str) -> None:
    server.admin.create(model(), namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    written = FULL.body()
    identity = {"apiVersion": GROUP, "kind": "FinancialModel", "metadata": {"name": "spx-volatility"}}
    server.operator().apply(f"{path}/status", {**identity, "status": written}, manager="fiduciary")
    stored = server.admin.get(path)
    assert stored["status"] == written
    assert FinancialModelStatus.model_validate(stored["status"]) == FULL
    again = server.operator().apply(f"{path}/status", {**identity, "status": written}, manager="fiduciary")
    assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"], "an equal apply is no write"


def test_the_registry_is_fixed_once_there_is_a_champion(server: Server, namespace: str) -> None:
    server.admin.create(model(), namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    server.admin.merge(path, {"spec": {"registry": {"model": "desk.first"}}})
    server.operator().merge(f"{path}/status", {"status": FinancialModelStatus(champion=_version("1")).body()})
    with pytest.raises(Refused, match=r"spec\.registry cannot be changed once there is a champion"):
        server.admin.merge(path, {"spec": {"registry": {"model": "desk.second"}}})
    server.admin.merge(path, {"spec": {"suspend": True}})
