"""The provider `node`: this machine runs one real Kubernetes node inside namespaces of its own."""

from __future__ import annotations

import json
import resource
from pathlib import Path

from sandbox import cgroups, gobuild, images, requirements, state
from sandbox.cluster import API, BASE, READY, RUNTIME, Cluster
from sandbox.controlplane import ControlPlane, Network
from sandbox.namespaces import Namespaces
from sandbox.process import Daemon
from sandbox.runtime import PAUSE, SOCKET, Runtime
from sandbox.steps import Run, StepFailed, Steps, Uses
from sandbox.store import Store

ROOT = Path(__file__).parent.parent
PAUSE_IMAGE = ROOT / "sandbox" / "images" / "pause" / "Dockerfile"
DNS_IMAGE = ROOT / "sandbox" / "images" / "coredns" / "Dockerfile"
DNS_OBJECTS = ROOT / "deploy" / "sandbox" / "coredns" / "coredns.yaml"
DNS_TAG = "registry.k8s.io/coredns/coredns:v1.15.0"
DNS_SERVICE = 10  # its place in the Service range, as everywhere
VOLUMES = 64


class Node:
    """A node with its control plane. Its steps may run in any order that the graph allows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = state.directory(name)
        self.namespaces = Namespaces(name, self.directory)
        self._binaries: dict[str, Path] = {}

    # -- what others use

    @property
    def plane(self) -> ControlPlane:
        addresses = self.namespaces.addresses
        network = Network(addresses.node, addresses.services, addresses.pods, 6443, self.namespaces.enter)
        return ControlPlane(self.name, self.directory, network)

    @property
    def store(self) -> Store:
        return Store(self.namespaces.addresses.place)

    @property
    def runtime(self) -> Runtime:
        return Runtime(self.namespaces, self._program(gobuild.NODE), self.store.root)

    def _program(self, module: gobuild.Module, run: Run | None = None) -> Path:
        if module.name not in self._binaries:
            self._binaries[module.name] = gobuild.build(module, run)
        return self._binaries[module.name]

    def cluster(self) -> Cluster:
        """The cluster as addons see it."""
        addresses = self.namespaces.addresses
        plane = ControlPlane(self.name, self.directory)
        return Cluster(
            name=self.name,
            provider="node",
            directory=self.directory,
            kubeconfig=plane.kubeconfig,
            kubectl_program=self.directory / "bin" / "kubectl",
            address=lambda: addresses.node,
            loader=lambda image, run: self.store.load(image, self.runtime, run),
            service_address=lambda number: Network(services=addresses.services).service(number),
        )

    def plan(self, steps: Steps) -> Cluster:
        """Add the steps that lead to a ready node."""
        cluster = self.cluster()
        packages = steps.add("packages", lambda run: requirements.ensure(requirements.NODE, run), uses=Uses.IO)
        kube = steps.add("compile Kubernetes", self.compile_kubernetes, uses=Uses.CPU)
        tools = steps.add("compile containerd, CoreDNS", self.compile_tools, uses=Uses.CPU)
        steps.add(BASE, lambda run: images.provide_base("debian:trixie-slim", run), after=[packages], uses=Uses.IO)
        checked = steps.add("image store", self.check_store, uses=Uses.IO)
        spaces = steps.add("namespaces", self.namespaces.start, after=[packages])
        steps.add(RUNTIME, self.start_runtime, after=[tools, spaces, checked])
        steps.add(API, self.start_control_plane, after=[kube, spaces])
        pause = self._add_own_image(cluster, steps, PAUSE, PAUSE_IMAGE, tools)
        kubelet = steps.add("kubelet", self.start_kubelet, after=[API, RUNTIME])
        proxy = steps.add("kube-proxy", lambda run: self.start_proxy(cluster, run), after=[kubelet])
        dns = self._add_own_image(cluster, steps, DNS_TAG, DNS_IMAGE, tools)
        objects = steps.add("cluster DNS and volumes", lambda run: self.apply_objects(cluster, run), after=[API])
        steps.add(READY, lambda run: self.wait_ready(cluster, run), after=[kubelet, proxy, pause, dns, objects])
        return cluster

    def _add_own_image(self, cluster: Cluster, steps: Steps, tag: str, dockerfile: Path, compiled: str) -> str:
        def build(run: Run) -> None:
            image = images.build(tag, dockerfile, self._program(gobuild.NODE), run=run)
            cluster.loader(image, run)

        return steps.add(f"image {tag}", build, after=[compiled, RUNTIME], uses=Uses.LOAD)

    # -- steps

    def compile_kubernetes(self, run: Run) -> None:
        """Have Kubernetes' programs, and links to them at a place that does not change with their content."""
        binaries = self._program(gobuild.KUBE, run)
        link(binaries / "kubectl", self.directory / "bin" / "kubectl")

    def compile_tools(self, run: Run) -> None:
        binaries = self._program(gobuild.NODE, run)
        link(binaries / "ctr", self.directory / "bin" / "ctr")

    def check_store(self, run: Run) -> None:
        if self.namespaces.init.alive and self.runtime.daemon.alive:
            run.detail("in use")
        else:
            self.store.check(run)

    def start_runtime(self, run: Run) -> None:
        """Have containerd running on a store without pods of an earlier sandbox."""
        runtime = self.runtime
        if not runtime.daemon.alive:
            self.store.clean(runtime, run)
        runtime.start(run)

    def start_control_plane(self, run: Run) -> None:
        self.plane.start(self._program(gobuild.KUBE), controller_manager=True, scheduler=True, run=run)

    def start_kubelet(self, run: Run) -> None:
        """Have the kubelet running; it registers the node by itself."""
        cgroups.create(self.name)
        plane, name = self.plane, self.namespaces.hostname
        kubeconfig = self._kubeconfig("kubelet", f"system:node:{name}", ["system:nodes"])
        serving = plane.authority.issue("kubelet-server", name, names=[f"DNS:{name}", f"IP:{plane.network.bind}"])
        folder = self.directory / "kubelet"
        folder.mkdir(exist_ok=True)
        (folder / "resolv.conf").write_text("")
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(plane.ca)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            # Always cgroupfs: the service manager, if there is one, is outside of the node's PID namespace.
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroups.branch(self.name),
            "failCgroupV1": False,
            "clusterDomain": "cluster.local",
            "clusterDNS": [plane.network.service(DNS_SERVICE)],
            "resolvConf": str(folder / "resolv.conf"),
            # A throw-away node on somebody's machine neither evicts pods for the disk's sake nor removes images.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            # Machines without CAP_SYS_RESOURCE can neither raise the one nor lower the other.
            "maxOpenFiles": 1_000_000 if limit == resource.RLIM_INFINITY else min(limit, 1_000_000),
            "oomScoreAdj": 0,
            "failSwapOn": False,
            "podLogsDir": str(folder / "logs"),
            "volumePluginDir": str(folder / "plugins"),
        }
        config = folder / "config.json"
        config.write_text(json.dumps(settings, indent=1))
        Daemon("kubelet", self.directory, self.namespaces.enter).ensure(
            [
                self._program(gobuild.KUBE) / "kubelet",
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={name}",
                f"--node-ip={plane.network.bind}",
            ]
        )

    def start_proxy(self, cluster: Cluster, run: Run) -> None:
        """Have kube-proxy running. conntrack's limits are the machine's, not the node's: left as they are.

        Only once the node has an address: kube-proxy ends when that changes, from none to one as well (seen on a cold
        start, where the kubelet waits minutes for its container runtime to be compiled).
        """
        kubelet = Daemon("kubelet", self.directory, self.namespaces.enter)

        def addressed() -> bool:
            if not kubelet.alive:
                raise StepFailed(f"the kubelet ended by itself; {kubelet.log} ends with:\n{kubelet.tail()}")
            path = "jsonpath={.items[*].status.addresses[?(@.type=='InternalIP')].address}"
            return bool(cluster.kubectl("get", "nodes", "-o", path, run=run).strip())

        run.until(addressed, "registration of the node with its address", seconds=60, every=0.3)
        kubeconfig = self._kubeconfig("kube-proxy", "system:kube-proxy", [])
        Daemon("kube-proxy", self.directory, self.namespaces.enter).ensure(
            [
                self._program(gobuild.KUBE) / "kube-proxy",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={self.namespaces.hostname}",
                f"--cluster-cidr={self.namespaces.addresses.pods}",
                "--proxy-mode=iptables",
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
                "--oom-score-adj=0",
            ]
        )

    def _kubeconfig(self, name: str, user: str, groups: list[str]) -> Path:
        return self.plane.component(name, user, groups)

    def apply_objects(self, cluster: Cluster, run: Run) -> None:
        """Cluster DNS at this node's address, and volumes for whoever claims one."""
        dns = DNS_OBJECTS.read_text().replace("10.96.0.10", cluster.service_address(DNS_SERVICE))
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=dns, run=run)
        folder = self.directory / "volumes"
        objects = json.dumps(volumes(folder, self.namespaces.hostname))
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=objects, run=run)

    def wait_ready(self, cluster: Cluster, run: Run) -> None:
        """Return when pods run and names resolve."""
        run.detail("waiting for the node")
        cluster.kubectl("wait", "--for=condition=Ready", "node", self.namespaces.hostname, "--timeout=60s", run=run)
        run.detail("waiting for cluster DNS")
        cluster.available("kube-system", "deployment/coredns", run)
        proxy = Daemon("kube-proxy", self.directory, self.namespaces.enter)
        if not proxy.alive:
            raise StepFailed(f"kube-proxy ended by itself; {proxy.log} ends with:\n{proxy.tail()}")


def volumes(folder: Path, node: str) -> dict[str, object]:
    """A default StorageClass and local volumes for it, each a directory that any user may write to.

    kind brings a provisioner for this; here the volumes are made beforehand. Each serves one claim.
    """
    items: list[dict[str, object]] = [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
    ]
    for number in range(VOLUMES):
        path = folder / f"{number:02d}"
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        items.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"local-{number:02d}"},
                "spec": {
                    "capacity": {"storage": "100Gi"},
                    "accessModes": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": "standard",
                    "local": {"path": str(path)},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
                },
            }
        )
    return {"apiVersion": "v1", "kind": "List", "items": items}


def link(target: Path, path: Path) -> None:
    """A symbolic link, replaced in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.rename(path)
