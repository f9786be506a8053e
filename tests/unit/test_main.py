"""The operator's programs at a terminal: what they say before they begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fiduciary
from fiduciary.__main__ import main
from fiduciary.cli import refold
from fiduciary.settings import ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No settings but the test's own, and no way to a cluster: whoever begins to work fails."""
    for name in (*(f"FIDUCIARY_{each.upper()}" for each in ENVIRONMENT), "FIDUCIARY_CONFIG", "FIDUCIARY_LEASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("FIDUCIARY_SANDBOX", raising=False)  # of the Makefile
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return monkeypatch


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_question_starts_no_operator(
    option: str, alone: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone.setenv("FIDUCIARY_NONSENSE", "1")
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    if option == "--version":
        assert said == f"fiduciary-operator {fiduciary.__version__}\n"
    else:
        assert all(name.upper() in said for name in ENVIRONMENT)


def test_settings_are_checked_without_a_cluster(
    alone: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text('cluster: prod\nconnections: {mlflow: {trackingUri: "http://mlflow.mlflow.svc:5000"}}\n')
    alone.setenv("FIDUCIARY_CONFIG", str(file))
    assert main(["--check"]) == 0
    assert capsys.readouterr().out == "the settings can be used: cluster prod, connections mlflow\n"
    file.write_text('connections: {mlflow: {trackingUrl: "http://mlflow.mlflow.svc:5000"}}\n')
    assert main(["--check"]) == 2
    said = capsys.readouterr().err
    assert "connections.mlflow.trackingUri: it is needed, and not there" in said
    assert "connections.mlflow.trackingUrl: there is no such setting" in said


def test_a_file_that_is_not_there_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refold.main([str(tmp_path / "blocks.jsonl"), str(tmp_path / "mx.json")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'blocks.jsonl'} cannot be read: No such file or directory\n"
    (tmp_path / "blocks.jsonl").write_text("")
    (tmp_path / "mx.json").write_text("apiVersion: fiduciary.dev/v1alpha1")
    assert refold.main([str(tmp_path / "blocks.jsonl"), str(tmp_path / "mx.json")]) == 2
    assert "mx.json is no JSON" in capsys.readouterr().err
