"""`python -m tests.in_trainer_image [pytest options]`: the trainer's tests where they belong, inside its own image.

The image brings the trainer's Python and torch; a real MLflow server runs beside it on this machine.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from sandbox import images, requirements
from sandbox.console import Console
from sandbox.steps import Run, StepFailed, Steps, Uses
from tests import mlflow_server

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "trainer_image" / "Dockerfile"
TARGET = "trainer-test"
NEEDED = {program: requirements.NODE[program] for program in ("mmdebstrap", "buildah", "unshare")}
MOUNTS = {ROOT / name: f"/work/{name}" for name in ("tests", "trainer_image", "deploy/samples")}
SECONDS = 1500


def main() -> int:
    """Exit code 0 when all tests passed."""
    requirements.widen_path()
    built: list[images.Image] = []
    reports: list[str] = []

    def build(run: Run) -> None:
        if images.engine() is None:
            requirements.ensure(NEEDED, run)
        tag = "fiduciary-trainer-test:" + images.key(DOCKERFILE, ROOT, TARGET)
        built.append(images.build(tag, DOCKERFILE, ROOT, target=TARGET, run=run))

    def test(run: Run) -> None:
        words = ["python", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-ra", *sys.argv[1:], "/work/tests/trainer"]
        # pytest's own exit code is passed on as text: its report is wanted above all when it is not 0.
        argv = ["sh", "-c", f"{shlex.join(words)} 2>&1; echo $?"]
        run.detail("starting MLflow")
        with tempfile.TemporaryDirectory() as folder, mlflow_server.running(Path(folder)) as address:
            run.detail("pytest in the image")
            env = {"FIDUCIARY_TEST_MLFLOW_URI": address}
            said = images.run(built[0], argv, mounts=MOUNTS, env=env, timeout=SECONDS, progress=run)
        report, _, code = said.strip().rpartition("\n")
        reports.append(report)
        if code != "0":
            raise StepFailed(f"pytest ended with exit code {code}; its report is above")

    steps = Steps()
    image = steps.add("image of the trainer's tests", build, uses=Uses.IO)
    steps.add("the trainer's tests", test, after=[image])
    failed = ""
    try:
        steps.run(Console())
    except StepFailed as error:
        failed = str(error)
    print(*reports, failed, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
