"""One running cluster, whatever provides it: what addons and tests need to know of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox import images, state
from sandbox.steps import Run, StepFailed, Steps, Uses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sandbox.images import Image

# Steps that both providers add to a full `up`, for others to wait for.
BASE = "base image"  # debian:trixie-slim can be built upon
RUNTIME = "container runtime"  # images can be loaded
API = "API server"  # kubectl works
READY = "node ready"  # pods run, names resolve


@dataclass
class Cluster:
    """What `addons.install(cluster, steps)` gets. Attributes are known before anything runs.

    provider: `node` or `kind`. kubeconfig: admin's. address: where host ports of the node (80 for the gateway) are
    reached from this machine; it holds after the step READY. loader: puts an image into the node's runtime.
    """

    name: str
    provider: str
    directory: Path
    kubeconfig: Path
    kubectl_program: str | Path
    address: Callable[[], str]
    loader: Callable[[Image, Run], None]
    service_address: Callable[[int], str]

    def kubectl(self, *words: str | Path, run: Run | None = None, stdin: str | None = None) -> str:
        """What kubectl writes to stdout, as the cluster's admin. Raises StepFailed with what it wrote to stderr."""
        argv = [self.kubectl_program, f"--kubeconfig={self.kubeconfig}", *words]
        # Without a home kubectl would keep its discovery cache where another cluster's could be.
        env = {**os.environ, "KUBECACHEDIR": str(self.directory / "kubectl-cache")}
        return (run or Run()).call(argv, env=env, stdin=stdin)

    def apply(self, path: Path, run: Run | None = None) -> None:
        """Server-side apply of a kustomization (a directory with kustomization.yaml) or of a file."""
        option = "-k" if (path / "kustomization.yaml").exists() else "-f"
        self.kubectl("apply", "--server-side", "--force-conflicts", option, path, run=run)

    def established(self, *definitions: str | Path, run: Run, seconds: int = 60) -> None:
        """Wait until the API server serves custom resources: their CRDs' names (`crd/x`), or `-f` and a file."""

        def served() -> bool:
            try:
                self.kubectl("wait", "--for=condition=Established", "--timeout=5s", *definitions, run=run)
            except StepFailed as error:
                run.detail(str(error).splitlines()[-1])
                return False  # kubectl ends with an error, too, where a CRD is so new that it has no conditions
            return True

        run.until(served, "establishing the custom resources", seconds=seconds, every=0.2)

    def available(self, namespace: str, workload: str, run: Run, *, seconds: int = 180) -> None:
        """Wait until a workload (`deployment/x`, `daemonset/y`) has rolled out. Raises StepFailed with its events."""
        try:
            self.kubectl("rollout", "status", "-n", namespace, workload, f"--timeout={seconds}s", run=run)
        except StepFailed as error:
            pods = self.kubectl("get", "pods", "-n", namespace, "-o", "wide", run=run)
            recent = ("get", "events", "-n", namespace, "--sort-by=.lastTimestamp", "--field-selector=type=Warning")
            events = self.kubectl(*recent, run=run).strip().splitlines()[-8:]
            raise StepFailed("\n".join([str(error), "", pods.rstrip(), *events])) from error

    def add_image(
        self,
        steps: Steps,
        tag: str,
        dockerfile: Path,
        context: Path,
        *,
        target: str | None = None,
        build_args: Mapping[str, str] | None = None,
        after: tuple[str, ...] = (),
    ) -> str:
        """Add the steps that build an image and load it into the node. Returns the name of the last.

        The build waits for the base image and `after` only, so that it overlaps with the compiler.
        """
        built: list[Image] = []

        def build(run: Run) -> None:
            built.append(images.build(tag, dockerfile, context, target=target, build_args=build_args, run=run))

        made = steps.add(f"image {tag}", build, after=[BASE, *after], uses=Uses.IO)
        return steps.add(f"load {tag}", lambda run: self.loader(built[0], run), after=[made, RUNTIME], uses=Uses.LOAD)

    def publish(self, **variables: str) -> None:
        """Add variables to what `python -m sandbox env` prints."""
        file = self.directory / "env.json"
        state.write(file, {**state.read(file), **variables})
