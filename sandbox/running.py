"""A sandbox that is up, as its users see it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sandbox import images
from sandbox.kubectl import Kubectl
from sandbox.market import Market
from sandbox.steps import StepFailed

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Running:
    """What `python -m sandbox env` says. variables: all of it."""

    name: str
    kubectl: Kubectl
    gateway: str
    variables: dict[str, str]

    @classmethod
    def of(cls, name: str) -> Running:
        """Raises StepFailed where no sandbox of that name is up, or one without a Gateway."""
        argv = [sys.executable, "-m", "sandbox", "env", "--name", name]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StepFailed(done.stderr.strip())
        found = re.finditer(r"^(?:export )?(\w+)=(.*)$", done.stdout, re.MULTILINE)
        said = {match[1]: match[2].strip("'\"") for match in found}
        if "GATEWAY_URL" not in said:
            raise StepFailed(f"the sandbox {name!r} has no Gateway; `make sandbox-up` adds what is missing")
        kubectl = Kubectl(Path(said.get("KUBECTL", "kubectl")), Path(said["KUBECONFIG"]))
        return cls(name, kubectl, said["GATEWAY_URL"], said)


def trainer_image(target: str = "trainer") -> images.Image:
    """The trainer's image, or another stage of its Dockerfile, as the sandbox built it."""
    dockerfile = ROOT / "trainer_image" / "Dockerfile"
    tag = f"fiduciary-{target}:{images.key(dockerfile, ROOT, target)}"
    return images.build(tag, dockerfile, ROOT, target=target)


def held_out() -> Market:
    """The data that ship inside the trainer's image, with the days after the samples' asOf."""
    return Market.parse(images.run(trainer_image(), Market.command()))
