"""Trap 8: an exception that is swallowed, and a run that ends in "COMPLETED SUCCESSFULLY" without a result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fiduciary", reason="operator/ is not mounted beside the tests")
pytest.importorskip("torch", reason="runs in the trainer image")
from fiduciary_trainer import __main__ as process
from fiduciary_trainer import artifacts, data, measuring, pipeline
from fiduciary_trainer.tracking import Tracking
from tests.trainer.judged import document, market, write

if TYPE_CHECKING:
    from pathlib import Path

STEPS: list[tuple[Any, str]] = [
    (data, "load"),
    (pipeline, "run_walk_forward"),
    (measuring, "measurement_of"),
    (measuring, "checks_of"),
    (pipeline, "fit_final"),
    (artifacts, "build"),
    (pipeline, "write_report"),
    (Tracking, "deliver"),
]
"""Everything that a training does, in order: the report and the upload too, whose failure is a failure."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "data" / "bars.csv", market())
    (tmp_path / "work").mkdir()
    path = tmp_path / "job.json"
    path.write_text(json.dumps(document(tmp_path / "data" / "bars.csv", "HAR", "Volatility")))
    monkeypatch.setattr(Tracking, "start", lambda self, patience: None)
    return path


def run(job: Path) -> tuple[int, dict[str, Any]]:
    message = job.parent / "message"
    code = process.main([str(job), "--work", str(job.parent / "work"), "--termination-log", str(message)])
    return code, json.loads(message.read_bytes())


@pytest.mark.parametrize(("place", "name"), STEPS, ids=[name for _, name in STEPS])
def test_an_exception_in_any_step_is_the_end_of_it(
    job: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ArithmeticError("the third matrix is singular")

    monkeypatch.setattr(place, name, broken)
    code, said = run(job)
    assert code not in (0, 42, 64, 75)
    assert (said["outcome"], said["reason"]) == ("Failed", "ArithmeticError")
    assert "singular" in said["message"]
    assert "metrics" not in said, "half a result is none"
