"""Log lines: JSON for machines, in an order that people can read down."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import logging
import structlog
from fiduciary import logs
logs.configure("INFO")
log = structlog.get_logger(part="reconcile")
log.info("decision", wrote=["3-status"], key="FinancialModel/quant/m", phase="Shifting")
try:
    raise ValueError("no")
except ValueError:
    log.exception("reconcile.bug", key="FinancialModel/quant/m")
logging.getLogger("kopf.activities").warning("from a library")
logging.getLogger("kopf.activities").info("too much")
"""


def test_a_line_begins_with_when_how_bad_what_and_about_whom() -> None:
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(root / "operator")},
    )
    decision, bug, library = map(json.loads, ran.stderr.splitlines())
    assert list(decision) == ["timestamp", "level", "event", "key", "part", "wrote", "phase"]
    assert list(bug)[:4] == ["timestamp", "level", "event", "key"]
    assert "ValueError: no" in bug["exception"]
    assert (library["level"], library["event"], library["logger"]) == ("warning", "from a library", "kopf.activities")
    assert list(library)[:3] == ["timestamp", "level", "event"]
