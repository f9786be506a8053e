"""The scorer as a process: real HTTP, real restarts, SIGKILL at every commit."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fiduciary_outcomes.chain import Link, broken
from tests.outcomes.conftest import STORES
from tests.outcomes.process import JOB, OPERATOR, WRITER, Process
from tests.outcomes.worlds import MODEL, at, batch, live, outcome, prequential, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DAYS = ("2018-01-01", "2018-01-02")
ENTITIES = ("A", "B")


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path)
    process.start()
    yield process
    if process.process is not None and process.process.poll() is None:
        process.kill()


def story(forecasts: dict[str, float]) -> list[tuple[str, str, Any, str | None]]:
    """Requests of a small experiment, each repeatable; ``("CLOCK", day, …)`` moves the clock."""
    steps: list[tuple[str, str, Any, str | None]] = [("PUT", "/v1/ledgers/x", live(graceSeconds=0), OPERATOR)]
    for number, day in enumerate(DAYS):
        for arm, value in forecasts.items():
            rows = [record(day, value + number / 10, entity) for entity in ENTITIES]
            steps.append(("POST", "/v1/records", batch(arm, [*rows, *rows], sequence=number + 1), None))
    for number, (end, after) in enumerate([("2018-01-02", "2018-01-03"), ("2018-01-03", "2018-01-04")]):
        known = [outcome(end, -4.5 + number / 7, entity) for entity in ENTITIES]
        steps.append(("CLOCK", f"{end}T23:59:59", None, None))
        steps.append(("POST", "/v1/outcomes", {"contractVersion": 1, "model": MODEL, "outcomes": known}, WRITER))
        steps.append(("CLOCK", after, None, None))
        steps.append(("POST", "/v1/records", batch("champion", [], sequence=10 + number), None))
    row = {"session": "2017-01-03", "entities": 2, "sum": "0.5", "sumSquares": "0.25"}
    steps.append(("PUT", "/v1/ledgers/p", prequential([row, {**row, "session": "2017-01-04"}]), JOB))
    return steps


def play(scorer: Process, steps: list[tuple[str, str, Any, str | None]], restart: Any = None) -> None:
    """Each step until it is answered, as senders do it."""
    for method, path, body, subject in steps:
        if method == "CLOCK":
            day, _, clock = path.partition("T")
            scorer.set_clock(at(day, clock or "00:00:00"))
            continue
        while True:
            try:
                answer = scorer.send(method, path, body, subject)
            except httpx.TransportError:
                assert scorer.wait() == -9
                restart()
                continue
            assert answer.status_code == 200, answer.text
            break


def truth(scorer: Process) -> dict[str, Any]:
    """What must not depend on where a process died."""
    ledgers = {name: scorer.get(f"/v1/ledgers/{name}").json() for name in ("x", "p")}
    names = ("fiduciary_outcomes_records_total", "fiduciary_feature_rows", "fiduciary_prediction_rows",
             "fiduciary_histogram_rows", "fiduciary_ledger_units", "fiduciary_ledger_predictions")  # fmt: skip
    metrics = {name: value for name, value in scorer.metrics().items() if name.startswith(names)}
    return {"ledgers": ledgers, "metrics": metrics}


@pytest.fixture(params=STORES)
def fresh_store(request: pytest.FixtureRequest) -> Callable[[], dict[str, Any] | None]:
    """Configuration of an empty store, another one at each call."""
    if request.param == "sqlite":
        return lambda: None
    server = request.getfixturevalue("server")
    return lambda: {"postgresql": {"url": server.database()}}


def test_killed_at_every_commit_it_ends_in_the_same_ledger(
    tmp_path: Path, fresh_store: Callable[[], dict[str, Any] | None]
) -> None:
    steps = story({"champion": -4.0, "challenger": -4.3})
    (tmp_path / "calm").mkdir()
    calm = Process(tmp_path / "calm", fresh_store())
    calm.start()
    play(calm, steps)
    expected = truth(calm)
    calm.terminate()
    assert calm.wait() == 0
    rows = expected["ledgers"]["x"]["rows"]
    assert [(row["session"], row["entities"]) for row in rows] == [(day, 2) for day in DAYS]

    died = 0
    for commit in range(200):
        for after in (False, True):
            folder = tmp_path / f"{commit}-{after}"
            folder.mkdir()
            scorer = Process(folder, fresh_store())
            deaths: list[None] = []

            def restart(scorer: Process = scorer, deaths: list[None] = deaths) -> None:
                deaths.append(None)
                scorer.start()

            scorer.start(commit=commit, after=after)
            if scorer.process is not None and scorer.process.poll() is not None:
                assert scorer.wait() == -9
                restart()
            play(scorer, steps, restart)
            found = truth(scorer)
            scorer.kill()
            assert found == expected, f"killed {'after' if after else 'before'} commit {commit}"
            died += len(deaths)
        if not deaths:
            break
    assert died >= 2 * len([step for step in steps if step[0] != "CLOCK"])


def test_the_ledger_over_http(scorer: Process) -> None:
    play(scorer, story({"champion": -4.0, "challenger": -4.3}))
    whole = scorer.get("/v1/ledgers/x").json()
    assert (whole["length"], whole["next"], whole["closedThrough"]) == (2, None, "2018-01-02")
    links = [Link(row["sequence"], row["session"], row["digest"], json.dumps(row)) for row in whole["rows"]]
    assert broken(whole["digest"], links, 2, whole["head"]) is None
    first = scorer.get("/v1/ledgers/x?limit=1").json()
    rest = scorer.get(f"/v1/ledgers/x?limit=1&after={first['next']}").json()
    assert (first["rows"] + rest["rows"], first["next"], rest["next"]) == (whole["rows"], "2018-01-01", None)
    tag = scorer.get("/v1/ledgers/x").headers["ETag"]
    unchanged = scorer.get("/v1/ledgers/x", **{"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", tag)
    assert scorer.get("/v1/ledgers/p", **{"If-None-Match": tag}).status_code == 200
    heads = scorer.get(f"/v1/ledgers?model={MODEL}").json()["ledgers"]
    assert {head["name"]: head["length"] for head in heads} == {"x": 2, "p": 2}
    ended = scorer.send("PUT", "/v1/ledgers/x/end", {"contractVersion": 1, "lastSession": "2018-01-02"}, OPERATOR)
    assert ended.status_code == 200


def test_metrics(scorer: Process) -> None:
    play(scorer, story({"champion": -4.0, "challenger": -4.3}))
    found = scorer.metrics()
    seven = {"model": MODEL, "version": "7", "digest": "77777777"}
    x = {"ledger": "x", "model": MODEL}
    for name, value, labels in [
        ("fiduciary_outcomes_records_total", 4, {**seven, "result": "first"}),
        ("fiduciary_outcomes_records_total", 4, {**seven, "result": "duplicate"}),
        ("fiduciary_outcomes_records_dropped_total", 0, seven),
        ("fiduciary_feature_rows_total", 4, {**seven, "feature": "rv_w", "bin": "2"}),
        ("fiduciary_feature_rows_total", 0, {**seven, "feature": "rv_w", "bin": "9"}),
        ("fiduciary_feature_missing_rows_total", 0, {**seven, "feature": "rv_d"}),
        ("fiduciary_prediction_rows_total", 4, {**seven, "bin": "3"}),
        ("fiduciary_outcomes_reference_info", 1, {**seven, "reference": "ab" * 32}),
        ("fiduciary_outcomes_received_total", 4, {"model": MODEL, "result": "accepted"}),
        ("fiduciary_ledger_rows_total", 2, {**x, "kind": "Live"}),
        ("fiduciary_ledger_units_total", 4, {**x, "what": "paired"}),
        ("fiduciary_ledger_predictions_total", 0, {**x, "arm": "challenger", "what": "missing"}),
        ("fiduciary_ledger_unhealthy", 0, {**x, "why": "chain"}),
        ("fiduciary_ledger_open_sessions", 0, x),
    ]:
        assert found[series(name, labels)] == value, name


def series(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f'{label}="{labels[label]}"' for label in sorted(labels)) + "}"


@pytest.mark.parametrize(
    ("method", "path", "body", "subject", "status", "said"),
    [
        ("POST", "/v1/records", b"{", None, 400, "the body is not JSON"),
        ("POST", "/v1/records", b'{"a": NaN}', None, 400, "NaN is not a JSON number"),
        ("POST", "/v1/records", b'{"a": 1, "a": 2}', None, 400, "a key appears twice"),
        ("POST", "/v1/records", b"\xff", None, 400, "not JSON"),
        ("POST", "/v1/records", b"[" * 100_000, None, 400, "not JSON"),
        ("POST", "/v1/records", {"contractVersion": 1}, None, 400, "lacks digest, edges"),
        ("POST", "/v1/records", batch("champion", [], contractVersion=2), None, 400, "expected 1"),
        ("POST", "/v1/records", batch("champion", [], model="other.spx"), None, 400, "namespace quant only"),
        ("POST", "/v1/records", batch("champion", [], digest="sha256:7"), None, 400, "64 hexadecimal digits"),
        ("POST", "/v1/records", batch("champion", [], sequence=-1), None, 400, "an integer from 0"),
        ("POST", "/v1/records", batch("champion", [record("2018-01-32", 0.0)]), None, 400, r"records[0].time is"),
        ("POST", "/v1/records", batch("champion", [record("2018-01-01T10", "x")]), None, 400, "a finite number"),
        ("POST", "/v1/records", batch("champion", [record("2018-01-01", 1e101)]), None, 400, "at most 1e100"),
        ("POST", "/v1/records", batch("champion", [record("2018-01-01", 0.0, bins=[1])]), None, 400, "each of 2 feat"),
        ("POST", "/v1/records", batch("champion", [record("2018-01-01", 0.0, bins=[1, 10])]), None, 400, "from 0 to 9"),
        ("POST", "/v1/records", batch("champion", [record("2018-01-01", 0.0, arm="x")]), None, 400, "the unknown arm"),
        ("POST", "/v1/records", batch("champion", [record("2018-01-01", 0.0)] * 10_001), None, 413, "at most 10000"),
        ("POST", "/v1/records", b" " * (17 << 20), None, 413, "Maximum request body size"),
        ("POST", "/v1/outcomes", {}, None, 401, "no bearer token; expected one of audience fiduciary-outcomes"),
        ("POST", "/v1/outcomes", {}, JOB, 403, "may not do this"),
        ("POST", "/v1/outcomes", {"contractVersion": 1, "model": MODEL, "outcomes": []}, WRITER, 400, "at least 1"),
        ("PUT", "/v1/ledgers/x", live(), JOB, 403, "configured as define"),
        ("PUT", "/v1/ledgers/x", prequential([]), OPERATOR, 403, "configured as ledgers"),
        ("PUT", "/v1/ledgers/x", prequential([]), JOB, 400, "rows is []; expected at least 1 items"),
        ("PUT", "/v1/ledgers/x", [], JOB, 400, "expected an object"),
        ("PUT", "/v1/ledgers/x", {"kind": "Other"}, JOB, 400, "kind is 'Other'; expected one of Live, Watch, Preq"),
        ("PUT", "/v1/ledgers/UP", live(), OPERATOR, 400, "a DNS label"),
        ("PUT", "/v1/ledgers/x", live(challenger=live()["champion"]), OPERATOR, 400, "another version"),
        ("PUT", "/v1/ledgers/x", live(paper={"notional": "1", "costBps": "2"}), OPERATOR, 400, "nothing to trade"),
        ("PUT", "/v1/ledgers/x", live(graceSeconds="1d"), OPERATOR, 400, "graceSeconds is '1d'; expected an integer"),
        ("GET", "/v1/ledgers/none", b"", None, 404, "there is no ledger none"),
        ("GET", "/v1/ledgers/none?after=x", b"", None, 400, "a date such as"),
        ("GET", "/v1/ledgers/none?limit=0", b"", None, 400, "from 1 to 5000"),
        ("GET", "/v1/ledgers/none?limit=x", b"", None, 400, "from 1 to 5000"),
        ("DELETE", "/v1/ledgers/x", b"", OPERATOR, 405, "DELETE /v1/ledgers/x"),
        ("GET", "/nothing", b"", None, 404, "GET /nothing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    module_scorer: Process, method: str, path: str, body: Any, subject: str | None, status: int, said: str
) -> None:
    answer = module_scorer.send(method, path, body, subject)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"reason", "message"}
    assert said in answer.json()["message"]
    assert module_scorer.get("/v1/ledgers").json() == {"contractVersion": 1, "ledgers": []}


@pytest.fixture(scope="module")
def module_scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("wrong"))
    process.start()
    yield process
    process.terminate()
    assert process.wait() == 0


def test_content_type_is_asked_for(module_scorer: Process) -> None:
    answer = module_scorer.client.post("/v1/records", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")


def test_sigterm_answers_what_was_taken(scorer: Process) -> None:
    """Batches are on their way while the process is told to end: each is either answered and stored, or refused."""
    answered: list[int] = []
    began = threading.Event()

    def send(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{scorer.port}", timeout=30.0) as client:
            for sequence in range(1, 400):
                rows = [record("2018-01-01", -4.0, f"{number}-{sequence}-{i}") for i in range(20)]
                body = json.dumps(batch("champion", rows, sequence, sender=f"s{number}")).encode()
                try:
                    answer = client.post("/v1/records", content=body, headers={"Content-Type": "application/json"})
                except httpx.TransportError:
                    return
                if answer.status_code != 200:
                    assert answer.status_code == 503
                    return
                answered.append(answer.json()["first"])
                if len(answered) > 20:
                    began.set()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert began.wait(60)
    scorer.terminate()
    assert scorer.wait() == 0
    for thread in threads:
        thread.join()
    scorer.start()
    labels = {"model": MODEL, "version": "7", "digest": "77777777", "result": "first"}
    stored = scorer.metrics()[series("fiduciary_outcomes_records_total", labels)]
    # a batch that was stored, whose answer the ending connection lost, is sent again and known
    assert sum(answered) <= stored <= sum(answered) + 4 * 20


def test_a_second_process_waits_for_the_first(scorer: Process, tmp_path: Path) -> None:
    second = Process(tmp_path)
    second.start(ready=False)
    ready = second.get("/readyz")
    assert (ready.status_code, ready.json()["reason"]) == (503, "StoreNotOpen")
    assert second.get("/livez").status_code == 200
    answer = second.send("POST", "/v1/records", batch("champion", [record("2018-01-01", -4.0)]))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    scorer.terminate()
    assert scorer.wait() == 0
    while second.get("/readyz").status_code != 200:
        assert second.process is not None
        assert second.process.poll() is None
    assert second.send("POST", "/v1/records", batch("champion", [record("2018-01-01", -4.0)])).json()["first"] == 1
    second.kill()


def test_bad_settings_are_named(tmp_path: Path) -> None:
    process = Process(tmp_path, retentionDays=0)
    with pytest.raises(AssertionError, match="retentionDays is 0; expected an integer from 1 to 36500"):
        process.start()
    assert process.process is not None
    assert process.process.wait(60) == 64
