"""containerd and its CNI network inside the node's namespaces."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from sandbox.process import Daemon
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox.namespaces import Namespaces

PAUSE = "localhost/fiduciary-pause:1"
SOCKET = "/run/containerd/containerd.sock"  # inside the node's namespaces, where /run is its own
# Not needed here; each of them probes the machine at every start or brings a gRPC service of its own.
UNUSED_PLUGINS = (
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
CRI_PLUGINS = (
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.grpc.v1.cri",
    "io.containerd.podsandbox.controller.v1.podsandbox",
)


class Runtime:
    """containerd of one node. store: where it keeps images; a directory that outlives the sandbox."""

    def __init__(self, namespaces: Namespaces, binaries: Path, store: Path) -> None:
        self.namespaces = namespaces
        self.binaries = binaries
        self.store = store
        self.folder = namespaces.directory / "containerd"

    @property
    def daemon(self) -> Daemon:
        return Daemon("containerd", self.namespaces.directory, self.namespaces.enter)

    def start(self, run: Run, *, pods: bool = True) -> None:
        """Have containerd running and answering. pods=False leaves out the part that the kubelet talks to."""
        (self.folder / "cni").mkdir(parents=True, exist_ok=True)
        self.store.mkdir(parents=True, exist_ok=True)
        network = cni_network(self.namespaces.addresses.pods, self.folder / "ipam")
        (self.folder / "cni" / "10-sandbox.conflist").write_text(json.dumps(network, indent=1))
        config = self.folder / ("config.toml" if pods else "images-only.toml")
        disabled = UNUSED_PLUGINS if pods else (*UNUSED_PLUGINS, *CRI_PLUGINS)
        config.write_text(configuration(self.binaries, self.store, self.folder, disabled))
        env = {**os.environ, "PATH": f"{self.binaries}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        daemon = self.daemon
        daemon.ensure([self.binaries / "containerd", "--config", config, "--log-level", "warn"], env=env)
        run.until(lambda: self._answers(run) or not daemon.alive, "containerd answering", seconds=60)
        if not daemon.alive:
            raise StepFailed(f"containerd ended by itself; its log {daemon.log} ends with:\n{daemon.tail()}")

    def _answers(self, run: Run) -> bool:
        try:
            self.ctr(run, "version")
        except StepFailed:
            return False
        return True

    def ctr(self, run: Run, *words: str | Path) -> str:
        """containerd's own client, in the namespace that Kubernetes uses."""
        program = [self.binaries / "ctr", "--address", SOCKET, "--namespace", "k8s.io"]
        return run.call([*self.namespaces.enter, *program, *words])


def cni_network(pods: str, state: Path) -> dict[str, object]:
    """A bridge for the node's pods, with host ports. It enforces no NetworkPolicy."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(state),
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return {"cniVersion": "1.0.0", "name": "sandbox", "plugins": [bridge, ports]}


def configuration(binaries: Path, store: Path, folder: Path, disabled: tuple[str, ...]) -> str:
    """containerd's config.toml.

    restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE cannot lower it, and then no pod would start.
    AppArmor is off since its profiles would be loaded into the machine's kernel and stay.
    """
    text = json.dumps  # a JSON string is a TOML string, a JSON list of strings a TOML array
    return f"""version = 3
root = {text(str(store))}
state = "/run/containerd"
disabled_plugins = {text(list(disabled))}

[grpc]
  address = {text(SOCKET)}

[plugins.'io.containerd.internal.v1.opt']
  path = {text(str(folder / "opt"))}

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = {text(PAUSE)}

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [{text(str(binaries))}]
    conf_dir = {text(str(folder / "cni"))}
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = {text(shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") or "runc")}
        SystemdCgroup = false
"""
