"""The market's replay: what follows a day, and when."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sandbox import replay
from sandbox.market import Market
from sandbox.replay import Replay, Rows
from sandbox.steps import StepFailed

if TYPE_CHECKING:
    from sandbox.kubectl import Kubectl
    from sandbox.load import Client

DAYS = ("2018-01-02", "2018-01-03", "2018-01-04", "2018-01-05")
MARKET = Market(DAYS, {"close": (100.0, 110.0, 99.0, 99.0)}, (-4.5, -4.25, -4.0, None))


def test_an_outcome_is_that_of_the_session_after() -> None:
    told = replay.outcome(MARKET, "2018-01-03")
    assert told["labelEnd"] == "2018-01-04", "what was said at a close is about the next session"
    assert told["value"] == -4.25
    assert told["return"] == pytest.approx(-0.1)


def test_outcomes_come_after_every_prediction_of_their_day(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "time", lambda: now)
    client: Client = None  # type: ignore[assignment]
    played = Replay(client, MARKET.after("2018-01-01"), dwell=10.0, began=1000.0)
    seen: list[tuple[str, int]] = []
    for seconds in (0, 9, 10, 19.9, 20, 30, 35, 1000):
        now = 1000.0 + seconds
        seen.append((played.day, played.known()))
    first, second, third = DAYS[:3]
    assert seen == [
        (first, 0), (first, 0), (second, 0), (second, 0), (third, 1), (first, 2), (first, 2), (second, 3),
    ]  # fmt: skip


def test_rows_go_only_where_a_model_would_read_them() -> None:
    kubectl: Kubectl = None  # type: ignore[assignment]
    data = {"asOf": "2017-12-29", "source": {"files": {"uri": "pvc://bars/good.csv", "format": "CSV"}}}
    model = {"metadata": {"name": "m", "namespace": "n"}, "spec": {"data": data}}
    with pytest.raises(StepFailed, match="asOf: Rolling"):
        Rows(kubectl, model, "image")
    Rows(kubectl, {**model, "spec": {"data": {**data, "asOf": "Rolling"}}}, "image")


def test_the_writer_s_token_is_for_the_scorer_of_its_namespace_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    class Recorded:
        def get(self, *words: str) -> dict[str, Any]:
            return {"spec": {"clusterIP": "10.0.0.7"}}

        def __call__(self, *words: str) -> str:
            asked.append(words)
            return "t0ken\n"

    posted: list[httpx.Request] = []

    def post(url: str, *, json: object, headers: dict[str, str], timeout: float) -> httpx.Response:
        posted.append(httpx.Request("POST", url, headers=headers))
        return httpx.Response(200)

    monkeypatch.setattr(httpx, "post", post)
    kubectl: Kubectl = Recorded()  # type: ignore[assignment]
    tell = replay.Outcomes(kubectl, "quant", "spx")
    tell(MARKET, DAYS[:1])
    tell(MARKET, DAYS[1:2])
    (words,) = asked
    assert words[:5] == ("create", "token", "outcome-writer", "-n", "quant")
    assert "--audience=fiduciary-outcomes.quant" in words
    assert {(str(one.url), one.headers["Authorization"]) for one in posted} == {
        ("http://10.0.0.7:8080/v1/outcomes", "Bearer t0ken")
    }
