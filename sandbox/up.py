"""`up`: choose a provider, collect the steps, run them, and remember what was made."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING

from sandbox import gobuild, images, process, requirements, state, teardown
from sandbox.controlplane import ControlPlane
from sandbox.kind import Kind
from sandbox.node import Node, link
from sandbox.steps import Progress, Run, StepFailed, Steps, Uses

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.cluster import Cluster

PROVIDERS = ("kind", "node")
CONTROL_PLANE = "control plane"  # what sandbox.json calls the provider of --control-plane-only


def up(
    name: str, *, provider: str | None, control_plane_only: bool, with_addons: bool, progress: Progress
) -> dict[str, float]:
    """Have the sandbox called `name` running. Returns the seconds that each step took.

    Raises StepFailed when a step fails, or when a sandbox of that name has another provider.
    """
    requirements.widen_path()
    with state.exclusive(name):
        directory = state.directory(name)
        steps = Steps()
        if control_plane_only:
            _remember(directory, CONTROL_PLANE, None)
            _plan_control_plane(name, directory, steps)
        else:
            engine = images.engine()
            chosen = provider or _existing(directory) or ("kind" if engine else "node")
            if chosen == "kind" and engine is None:
                raise StepFailed(
                    "the provider `kind` needs a container engine: none of docker, podman and nerdctl is installed and "
                    "answers `info`; start one, or use --provider node"
                )
            _remember(directory, chosen, engine if chosen == "kind" else None)
            cluster = _plan_cluster(name, directory, chosen, engine, steps)
            if with_addons and importlib.util.find_spec("sandbox.addons"):
                importlib.import_module("sandbox.addons").install(cluster, steps)
        # Whatever this program starts carries the mark, so that `down` finds it even if this is killed right now.
        os.environ[process.MARK] = str(directory)
        steps.run(progress)
        return steps.seconds()


def _plan_control_plane(name: str, directory: Path, steps: Steps) -> None:
    packages = steps.add("packages", lambda run: requirements.ensure(requirements.CONTROL_PLANE, run), uses=Uses.IO)

    def compile_kubernetes(run: Run) -> None:
        link(gobuild.build(gobuild.KUBE, run) / "kubectl", directory / "bin" / "kubectl")

    compiled = steps.add("compile Kubernetes", compile_kubernetes, uses=Uses.CPU)

    def start(run: Run) -> None:
        plane = ControlPlane(name, directory)
        plane.start(gobuild.build(gobuild.KUBE, run), controller_manager=True, run=run)

    steps.add("API server", start, after=[packages, compiled])


def _plan_cluster(name: str, directory: Path, provider: str, engine: str | None, steps: Steps) -> Cluster:
    if provider == "kind":
        assert engine is not None
        return Kind(name, engine).plan(steps)
    requirements.node_possible()
    teardown.note_machine(directory)
    return Node(name).plan(steps)


def _existing(directory: Path) -> str | None:
    known = state.read(directory / "sandbox.json").get("provider")
    return str(known) if known in PROVIDERS else None


def _remember(directory: Path, provider: str, engine: str | None) -> None:
    """Write down what this sandbox is. Raises StepFailed when it is something else already."""
    file = directory / "sandbox.json"
    known = state.read(file).get("provider")
    if known not in (None, provider):
        raise StepFailed(
            f"the sandbox {directory.name!r} exists as {known!r}, asked for is {provider!r}: take it down first "
            f"(`python -m sandbox down --name {directory.name}`) or choose another --name"
        )
    state.write(file, {"provider": provider, "engine": engine})
