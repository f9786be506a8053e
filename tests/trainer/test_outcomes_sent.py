"""Outcomes from files, S3 and HTTP reach the real outcome scorer, once however often they are sent."""

from __future__ import annotations

import io
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from fiduciary_trainer.__main__ import main
from fiduciary_trainer.data import Locations
from fiduciary_trainer.outcome import DataRefused
from fiduciary_trainer.outcomes import document as documents
from fiduciary_trainer.outcomes.table import outcomes
from tests.trainer import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = pd.Timestamp.now("UTC").tz_localize(None).normalize()
SCORER = os.environ.get("FIDUCIARY_TEST_SCORER_URI", "")
BY_ENTITY = {"entity": "symbol", "labelEnd": "date", "value": "rv", "return": "ret"}


def frame(days: int = 10, symbol: str = "SPX") -> pd.DataFrame:
    dates = pd.date_range(end=NOW - pd.Timedelta(days=1), periods=days)
    return pd.DataFrame(
        {"symbol": symbol, "date": dates.strftime("%Y-%m-%d"), "rv": [-4.0 - k / 10 for k in range(days)], "ret": 0.01}
    )


class Pod:
    """Mounts of a sender, and its runs. Each test has an entity of its own: the scorer keeps what others sent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("claims/desk", "secret"):
            (root / folder).mkdir(parents=True)
        (root / "token").write_text(os.environ["FIDUCIARY_TEST_SCORER_WRITER"])

    def document(self, uri: str, form: str = "CSV", **changes: Any) -> dict[str, Any]:
        return {
            "contractVersion": 1,
            "model": "quant.spx",
            "source": {"uri": uri, "format": form},
            "columns": BY_ENTITY,
            "scorer": {"url": SCORER, "tokenFile": str(self.root / "token")},
            **changes,
        }

    def send(self, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        (self.root / "job.json").write_text(json.dumps(document))
        said = self.root / "said.json"
        mounts = ["--claims", str(self.root / "claims"), "--secrets", str(self.root / "secret")]
        places = [str(self.root / "job.json"), "--termination-log", str(said), *mounts, "--patience", "5"]
        code = main(["outcomes", *places])
        return code, json.loads(said.read_bytes())


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def counted(said: dict[str, Any]) -> dict[str, int]:
    return {what: said[what] for what in ("sent", "accepted", "duplicate", "revised", "refused") if said[what]}


def test_a_file_is_sent_once_however_often_and_a_revision_is_counted(pod: Pod) -> None:
    file = pod.root / "claims" / "desk" / "rv.csv"
    table = frame(symbol="FILE")
    table.to_csv(file, index=False)
    document = pod.document("pvc://desk/*.csv")
    code, said = pod.send(document)
    assert (code, said["outcome"], counted(said)) == (0, "Sent", {"sent": 10, "accepted": 10}), said
    assert counted(pod.send(document)[1]) == {"sent": 10, "duplicate": 10}
    table.loc[3, "rv"] = -9.0
    table.to_csv(file, index=False)
    assert counted(pod.send(document)[1]) == {"sent": 10, "duplicate": 9, "revised": 1}


def test_s3_with_the_secret_that_is_mounted(pod: Pod) -> None:
    with s3_server.running() as store:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", store.key),
            ("AWS_SECRET_ACCESS_KEY", store.secret),
            ("AWS_ENDPOINT_URL", store.address),
            ("AWS_REGION", s3_server.REGION),
        ):
            (pod.root / "secret" / name).write_text(value)
        content = io.BytesIO()
        frame(symbol="S3").to_parquet(content, index=False)
        store.put("rv/today.parquet", content.getvalue())
        code, said = pod.send(pod.document("s3://desk/rv/*.parquet", "Parquet"))
        assert (code, counted(said)) == (0, {"sent": 10, "accepted": 10}), said
        (pod.root / "secret" / "AWS_SECRET_ACCESS_KEY").write_text("wrong")
        code, said = pod.send(pod.document("s3://desk/rv/*.parquet", "Parquet"))
        assert (code, said["reason"]) == (42, "AccessDenied")


class Vendor(BaseHTTPRequestHandler):
    """Answers with a table who shows the token."""

    table = b""

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/rv.csv")
            self.end_headers()
            return
        known = self.headers.get("Authorization") == "Bearer of-the-desk"
        self.send_response((200 if known else 401) if self.path == "/rv.csv" else 404)
        self.end_headers()
        if known:
            self.wfile.write(self.table)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def vendor() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Vendor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_http_source_is_asked_with_its_token_and_never_followed_elsewhere(pod: Pod, vendor: str) -> None:
    Vendor.table = frame(symbol="HTTP").to_csv(index=False).encode()
    code, said = pod.send(pod.document(f"{vendor}/rv.csv"))
    assert (code, said["reason"]) == (42, "AccessDenied")
    (pod.root / "secret" / "token").write_text("of-the-desk")
    code, said = pod.send(pod.document(f"{vendor}/rv.csv"))
    assert (code, counted(said)) == (0, {"sent": 10, "accepted": 10}), said
    assert pod.send(pod.document(f"{vendor}/none"))[1]["reason"] == "SourceNotFound"
    assert pod.send(pod.document(f"{vendor}/moved"))[1]["reason"] == "SourceUnreachable"


def test_outcomes_of_requests_and_of_instants(pod: Pod) -> None:
    file = pod.root / "claims" / "desk" / "defaults.csv"
    file.write_text("id,defaulted\nr-1,1\nr-2,0\nr-3,\n")
    by_request = {"requestId": "id", "value": "defaulted"}
    code, said = pod.send(pod.document("pvc://desk/defaults.csv", columns=by_request))
    assert (code, counted(said)) == (0, {"sent": 2, "accepted": 2}), "one is not known yet"
    file.write_text(f"at,y\n{NOW - pd.Timedelta(hours=3):%Y-%m-%dT%H:%M:%S}+01:00,0.5\n")
    document = documents.parse(pod.document("pvc://desk/defaults.csv", columns={"labelEnd": "at", "value": "y"}))
    (item,) = outcomes(document, Locations(claims=pod.root / "claims"), NOW)
    assert item == {"entity": "", "labelEnd": f"{NOW - pd.Timedelta(hours=4):%Y-%m-%dT%H:%M:%S}Z", "value": 0.5}


def test_what_is_older_than_asked_for_stays_at_home(pod: Pod) -> None:
    frame(60, "OLD").to_csv(pod.root / "claims" / "desk" / "old.csv", index=False)
    assert counted(pod.send(pod.document("pvc://desk/old.csv", within=5))[1]) == {"sent": 4, "accepted": 4}, (
        "since yesterday"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("symbol,date,rv,ret\nA,yesterday,1,0\n", "UnreadableTimes"),
        ("symbol,date,rv,ret\nA,2026-01-02,much,0\n", "UnreadableValues"),
        ("symbol,date,ret\nA,2026-01-02,0\n", "MissingColumn"),
        ("", "UnreadableFile"),
    ],
)
def test_a_table_that_holds_something_else_is_refused_with_its_column(pod: Pod, text: str, reason: str) -> None:
    (pod.root / "claims" / "desk" / "bad.csv").write_text(text)
    document = documents.parse(pod.document("pvc://desk/bad.csv"))
    with pytest.raises(DataRefused) as refused:
        outcomes(document, Locations(claims=pod.root / "claims"), NOW)
    assert refused.value.reason == reason


def test_a_stranger_and_a_document_that_is_none(pod: Pod) -> None:
    frame(3, "STRANGER").to_csv(pod.root / "claims" / "desk" / "x.csv", index=False)
    (pod.root / "token").write_text(os.environ["FIDUCIARY_TEST_SCORER_STRANGER"])
    code, said = pod.send(pod.document("pvc://desk/x.csv"))
    assert (code, said["reason"]) == (75, "ScorerUnauthorized")
    for change in ({"columns": {"value": "rv"}}, {"source": {"uri": "ftp://x", "format": "CSV"}}, {"within": 0}):
        code, said = pod.send({**pod.document("pvc://desk/x.csv"), **change})
        assert (code, said["reason"]) == (64, "InvalidValue"), said
