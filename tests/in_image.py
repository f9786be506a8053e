"""Run a folder of tests inside one of the images of trainer_image/Dockerfile: they test the very packages that ship."""

from __future__ import annotations

import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import images, requirements
from sandbox.console import Console
from sandbox.steps import Run, StepFailed, Steps, Uses
from tests import mlflow_server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "trainer_image" / "Dockerfile"
NEEDED = {program: requirements.NODE[program] for program in ("mmdebstrap", "buildah", "unshare")}
MOUNTS = {ROOT / name: f"/scratch/{name}" for name in ("tests", "trainer_image", "operator", "bench", "deploy/samples")}
SECONDS = 1500


def image(target: str, run: Run) -> images.Image:
    """The image of a stage, built where it is missing."""
    if images.engine() is None:
        requirements.ensure(NEEDED, run)
    tag = f"fiduciary-{target}:{images.key(DOCKERFILE, ROOT, target)}"
    return images.build(tag, DOCKERFILE, ROOT, target=target, run=run)


def main(
    name: str,
    target: str,
    folder: str,
    made: Callable[[Run], Mapping[Path, str]] | None = None,
    beside: Callable[[Path], AbstractContextManager[Mapping[str, str]]] | None = None,
) -> int:
    """Build the stage ``target``, run pytest in it on ``/scratch/tests/<folder>``; exit code 0 when all tests passed.

    A real MLflow server runs beside it on this machine; its address is in FIDUCIARY_TEST_MLFLOW_URI.

    Args:
        name: whose tests they are, for the display.
        target, folder: see above.
        made: makes what the tests need first; returns more mounts.
        beside: starts what else runs on this machine, in a scratch folder; gives environment variables that say where.
    """
    requirements.widen_path()
    built: list[images.Image] = []
    mounts: dict[Path, str] = dict(MOUNTS)
    reports: list[str] = []

    def test(run: Run) -> None:
        words = [
            "python",
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "-ra",
            "--timeout=600",
            "--durations=12",
            *sys.argv[1:],
            f"/scratch/tests/{folder}",
        ]
        # pytest's own exit code is passed on as text: its report is wanted above all when it is not 0.
        argv = ["sh", "-c", f"{shlex.join(words)} 2>&1; echo $?"]
        run.detail("starting MLflow")
        with ExitStack() as stack:
            scratch, other = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
            env = {"FIDUCIARY_TEST_MLFLOW_URI": stack.enter_context(mlflow_server.running(scratch))}
            if beside is not None:
                env |= stack.enter_context(beside(other))
            run.detail("pytest in the image")
            said = images.run(built[0], argv, mounts=mounts, env=env, timeout=SECONDS, progress=run)
        report, _, code = said.strip().rpartition("\n")
        reports.append(report)
        if code != "0":
            raise StepFailed(f"pytest ended with exit code {code}; its report is above")

    steps = Steps()
    before = [steps.add(f"image of the {name}'s tests", lambda run: built.append(image(target, run)), uses=Uses.IO)]
    if made is not None:
        before.append(steps.add(f"what the {name}'s tests need", lambda run: mounts.update(made(run)), uses=Uses.IO))
    steps.add(f"the {name}'s tests", test, after=before)
    failed = ""
    try:
        steps.run(Console())
    except StepFailed as error:
        failed = str(error)
    print(*reports, failed, sep="\n")
    return 1 if failed else 0
