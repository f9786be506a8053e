"""`python -m tests.in_server_image [pytest options]`: the server's tests in its image, on versions of the trainer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from sandbox import cache, images
from tests import in_image

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.steps import Run

MAKER = in_image.ROOT / "tests" / "server" / "made_by_trainer.py"
CONTRACTS = in_image.ROOT / "tests" / "trainer" / "contracts.py"


def versions(run: Run) -> Path:
    """A folder of real versions, made once by the trainer's image of this checkout (see ``made_by_trainer.py``)."""
    trainer = in_image.image("trainer-test", run)

    def make(folder: Path) -> None:
        run.detail("training real versions")
        mounts = {**in_image.MOUNTS, folder: "/made"}
        argv = ["python", "/scratch/tests/server/made_by_trainer.py", "/made"]
        env = {"PYTHONPATH": "/opt/trainer/app:/scratch"}
        images.run(trainer, argv, mounts=mounts, env=env, user="0", progress=run)

    return cache.obtain("versions", cache.content_key(trainer.key, MAKER, CONTRACTS), make).directory


if __name__ == "__main__":
    sys.exit(in_image.main("server", "server-test", "server", lambda run: {versions(run): "/scratch/versions"}))
