"""The provider `kind`: a cluster in the machine's container engine (docker, podman or nerdctl)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

from sandbox import gobuild, state
from sandbox.cluster import API, BASE, READY, RUNTIME, Cluster
from sandbox.steps import Run, StepFailed, Steps, Uses

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.images import Image

SERVICES = "10.96.0.0/16"


class Kind:
    """A kind cluster called `fiduciary-NAME`. The host's port for the gateway is chosen once and remembered."""

    def __init__(self, name: str, engine: str) -> None:
        self.name = name
        self.cluster_name = name if name.startswith("fiduciary") else f"fiduciary-{name}"
        self.engine = engine
        self.directory = state.directory(name)
        self.kubeconfig = self.directory / "kubeconfig"

    @property
    def port(self) -> int:
        """Where the node's port 80 is reached on 127.0.0.1."""
        return state.ports(self.directory / "ports.json", ["gateway"])["gateway"]

    @property
    def env(self) -> dict[str, str]:
        chosen = {} if self.engine == "docker" else {"KIND_EXPERIMENTAL_PROVIDER": self.engine}
        return {**os.environ, **chosen}

    def configuration(self) -> dict[str, object]:
        """kind's cluster configuration: one node, the gateway's port, the usual Service range."""
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"serviceSubnet": SERVICES},
            "nodes": [
                {
                    "role": "control-plane",
                    "extraPortMappings": [
                        {"containerPort": 80, "hostPort": self.port, "listenAddress": "127.0.0.1", "protocol": "TCP"}
                    ],
                }
            ],
        }

    def cluster(self) -> Cluster:
        """The cluster as addons see it."""
        from sandbox.controlplane import Network

        return Cluster(
            name=self.name,
            provider="kind",
            directory=self.directory,
            kubeconfig=self.kubeconfig,
            kubectl_program=self.directory / "bin" / "kubectl",
            address=lambda: f"127.0.0.1:{self.port}",
            loader=self.load,
            service_address=lambda number: Network(services=SERVICES).service(number),
        )

    def plan(self, steps: Steps) -> Cluster:
        """Add the steps that lead to a ready cluster. The engine pulls base images when a build asks for them."""
        tools = steps.add("compile kind, kubectl", self.compile_tools, uses=Uses.CPU)
        steps.add(BASE, lambda _run: None)
        created = steps.add(API, self.create, after=[tools])
        steps.add(RUNTIME, lambda _run: None, after=[created])
        steps.add(READY, self.wait_ready, after=[created])
        return self.cluster()

    # -- steps

    def compile_tools(self, run: Run) -> None:
        for program in ("kind", "kubectl"):
            target, path = gobuild.build(gobuild.KIND, run) / program, self.directory / "bin" / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)

    def create(self, run: Run) -> None:
        """Have the cluster. One that an interrupted run left half-made does not answer, and is made anew."""
        if self.cluster_name in self._kind(run, "get", "clusters").split():
            self._kind(run, "export", "kubeconfig", "--name", self.cluster_name, "--kubeconfig", self.kubeconfig)
            if self._answers(run):
                return
            run.detail("removing a half-made cluster")
            self._kind(run, "delete", "cluster", "--name", self.cluster_name)
        config = self.directory / "kind.json"
        config.write_text(json.dumps(self.configuration(), indent=1))
        run.detail("pulling the node's image and starting it")
        self._kind(
            run,
            *("create", "cluster", "--name", self.cluster_name, "--config", config),
            *("--kubeconfig", self.kubeconfig, "--wait", "180s"),
        )

    def _answers(self, run: Run) -> bool:
        try:
            self.cluster().kubectl("get", "--raw", "/readyz", "--request-timeout=5s", run=run)
        except StepFailed:
            return False
        return True

    def wait_ready(self, run: Run) -> None:
        cluster = self.cluster()
        cluster.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=180s", run=run)
        cluster.available("kube-system", "deployment/coredns", run)

    def load(self, image: Image, run: Run) -> None:
        """Put an image of the engine into the node. kind skips one that is there already."""
        self._kind(run, "load", "docker-image", image.tag, "--name", self.cluster_name)

    def _kind(self, run: Run, *words: str | Path) -> str:
        return run.call([self.directory / "bin" / "kind", *words], env=self.env)

    def delete(self) -> None:
        """Remove the cluster. Works without kind's binary: its containers carry a label."""
        label = f"label=io.x-k8s.kind.cluster={self.cluster_name}"
        found = subprocess.run(
            [self.engine, "ps", "--all", "--quiet", "--filter", label], capture_output=True, text=True, check=False
        )
        if containers := found.stdout.split():
            subprocess.run([self.engine, "rm", "--force", "--volumes", *containers], capture_output=True, check=True)
