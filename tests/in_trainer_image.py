"""`python -m tests.in_trainer_image [pytest options]`: the trainer's tests where they belong, inside its own image."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests import in_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def scorer(folder: Path) -> Iterator[Mapping[str, str]]:
    """The real outcome scorer, with the tokens of ServiceAccounts that may post ledgers, send outcomes, and neither."""
    from tests.outcomes.process import ISSUED, JOB, WRITER, Process

    process, until = Process(folder), int(time.time()) + in_image.SECONDS
    process.start()
    try:
        yield {
            "FIDUCIARY_TEST_SCORER_URI": f"http://127.0.0.1:{process.port}",
            "FIDUCIARY_TEST_SCORER_JOB": ISSUED.token(JOB, exp=until),
            "FIDUCIARY_TEST_SCORER_WRITER": ISSUED.token(WRITER, exp=until),
            "FIDUCIARY_TEST_SCORER_STRANGER": ISSUED.token("system:serviceaccount:quant:default", exp=until),
        }
    finally:
        process.kill()


if __name__ == "__main__":
    sys.exit(in_image.main("trainer", "trainer-test", "trainer", beside=scorer))
