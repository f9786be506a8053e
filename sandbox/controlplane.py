"""etcd, the API server and, on request, the controller manager and scheduler, with credentials and the audit log.

Alone it needs no root, no container runtime and no network but the loopback, and is ready in seconds:

    cp = controlplane.start("tests", directory=tmp_path)
    ... cp.kubeconfig, cp.url, cp.audit_log, cp.user_kubeconfig("ana", ["risk"]) ...
    cp.stop()
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox import gobuild, pki, process, state
from sandbox.process import Daemon
from sandbox.steps import Run, StepFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Metadata of every completed request, reads included: tests and benchmarks count requests by user, verb and resource.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "omitManagedFields": True,
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True)
class Network:
    """Addresses of a control plane.

    bind: where the API server listens. services: the cluster's Service range. pods: the node's Pod range, None
    without a node. enter: words that start a program inside the node's namespaces.
    """

    bind: str = "127.0.0.1"
    services: str = "10.96.0.0/16"
    pods: str | None = None
    port: int | None = None
    enter: tuple[str, ...] = ()

    @property
    def first_service(self) -> str:
        """The address of the Service `kubernetes`: the first of the range."""
        return self.service(1)

    def service(self, number: int) -> str:
        return str(ipaddress.ip_network(self.services)[number])


class ControlPlane:
    """A running control plane; its files are below `directory`.

    Attributes: url, kubeconfig (admin: group system:masters), ca, admin (certificate and key), audit_log (JSON lines),
    and the daemons etcd, api_server, controller_manager, scheduler (see process.Daemon: pid, alive, signal, tail).
    """

    def __init__(self, name: str, directory: Path, network: Network | None = None, *, audit: bool = True) -> None:
        self.name = name
        self.directory = directory
        self.network = network or Network()
        self.audit = audit
        self.audit_log = directory / "audit" / "audit.log"
        self.kubeconfig = directory / "kubeconfig"
        enter = self.network.enter
        self.etcd = Daemon("etcd", directory, enter)
        self.api_server = Daemon("kube-apiserver", directory, enter)
        self.controller_manager = Daemon("kube-controller-manager", directory, enter)
        self.scheduler = Daemon("kube-scheduler", directory, enter)

    @property
    def daemons(self) -> list[Daemon]:
        """In the order in which they are stopped."""
        return [self.scheduler, self.controller_manager, self.api_server, self.etcd]

    @property
    def authority(self) -> pki.Authority:
        return pki.Authority(self.directory / "pki")

    @property
    def ca(self) -> Path:
        return self.directory / "pki" / "ca.crt"

    @property
    def admin(self) -> pki.Identity:
        return self.authority.issue("admin", "sandbox-admin", ["system:masters"])

    @property
    def port(self) -> int:
        if self.network.port is not None:
            return self.network.port
        return state.ports(self.directory / "ports.json", ["api"])["api"]

    @property
    def url(self) -> str:
        return f"https://{self.network.bind}:{self.port}"

    # -- identities

    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a client certificate for `user` in `groups` (the API server adds system:authenticated)."""
        name = pki.file_name(user, groups)
        identity = self.authority.issue(name, user, groups)
        path = self.directory / "users" / f"{name}.kubeconfig"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pki.kubeconfig(self.url, self.ca, identity))
        path.chmod(0o600)
        return path

    def component(self, name: str, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for one of the cluster's own programs."""
        path = self.directory / "users" / f"{name}.kubeconfig"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pki.kubeconfig(self.url, self.ca, self.authority.issue(name, user, groups)))
        path.chmod(0o600)
        return path

    # -- life

    def start(
        self, binaries: Path, *, controller_manager: bool = False, scheduler: bool = False, run: Run | None = None
    ) -> None:
        """Start what is not running, with the programs in `binaries`, and wait until the API server is ready."""
        run = run or Run()
        self.directory.mkdir(parents=True, exist_ok=True)
        etcd = state.ports(self.directory / "ports.json", ["api", "etcd", "etcd-peer"])
        client, peer = (f"http://127.0.0.1:{etcd[name]}" for name in ("etcd", "etcd-peer"))
        self.etcd.ensure(
            [
                binaries / "etcd",
                "--name=sandbox",
                f"--data-dir={self.directory / 'etcd'}",
                "--log-level=warn",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=sandbox={peer}",
                # Losing the last writes in a power cut does not matter to a throw-away cluster; a fsync takes 1-10 ms.
                "--unsafe-no-fsync",
            ]
        )
        self._start_api_server(binaries, client)
        self.wait_ready(run)
        # They read their own permissions once, at their start, and end when the API server does not have them yet.
        if controller_manager:
            self._start_controller_manager(binaries)
        if scheduler:
            self._start_scheduler(binaries)
        if controller_manager:
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            run.until(lambda: self._status(account) == 200, f"{self.controller_manager.name} at work", seconds=60)

    def _start_api_server(self, binaries: Path, etcd: str) -> None:
        network, authority = self.network, self.authority
        service_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        names = [f"DNS:{name}" for name in (*service_names, "kubernetes.default.svc.cluster.local", "localhost")]
        names += [f"IP:{address}" for address in dict.fromkeys(("127.0.0.1", network.bind, network.first_service))]
        server = authority.issue("kube-apiserver", "kube-apiserver", names=names)
        kubelet_client = authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
        tokens = authority.signing_key("service-accounts")
        with_node = network.pods is not None
        argv: list[str | Path] = [
            binaries / "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--bind-address={network.bind}",
            f"--advertise-address={network.bind}",
            f"--secure-port={self.port}",
            # Without a node nobody follows the Service `kubernetes`, and a loopback address may not be its endpoint.
            f"--endpoint-reconciler-type={'lease' if with_node else 'none'}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            f"--client-ca-file={self.ca}",
            f"--kubelet-certificate-authority={self.ca}",
            f"--kubelet-client-certificate={kubelet_client.certificate}",
            f"--kubelet-client-key={kubelet_client.key}",
            # The node's name resolves nowhere.
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={tokens}",
            f"--service-account-signing-key-file={tokens}",
            f"--service-cluster-ip-range={network.services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--profiling=false",
        ]
        if self.audit:
            self.audit_log.parent.mkdir(parents=True, exist_ok=True)
            policy = self.directory / "audit-policy.json"
            policy.write_text(json.dumps(AUDIT_POLICY, indent=1))
            # Rotation would take lines away from whoever counts them: one file, however large.
            argv += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
            argv += ["--audit-log-maxsize=100000"]
        self.api_server.ensure(argv)
        self.kubeconfig.write_text(pki.kubeconfig(self.url, self.ca, self.admin))
        self.kubeconfig.chmod(0o600)

    def _start_controller_manager(self, binaries: Path) -> None:
        credentials = self.component("kube-controller-manager", "system:kube-controller-manager")
        tokens = self.authority.signing_key("service-accounts")
        ports = state.ports(self.directory / "ports.json", ["controller-manager"])
        argv: list[str | Path] = [
            binaries / "kube-controller-manager",
            f"--kubeconfig={credentials}",
            f"--authentication-kubeconfig={credentials}",
            f"--authorization-kubeconfig={credentials}",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports['controller-manager']}",
            f"--root-ca-file={self.ca}",
            f"--cluster-signing-cert-file={self.ca}",
            f"--cluster-signing-key-file={self.directory / 'pki' / 'ca.key'}",
            f"--service-account-private-key-file={tokens}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            # The defaults spare large clusters; here a namespace's deletion or an owner's would only take longer.
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]
        if self.network.pods is not None:
            argv += [f"--cluster-cidr={self.network.pods}", "--allocate-node-cidrs"]
            argv += [f"--service-cluster-ip-range={self.network.services}"]
        self.controller_manager.ensure(argv)

    def _start_scheduler(self, binaries: Path) -> None:
        credentials = self.component("kube-scheduler", "system:kube-scheduler")
        ports = state.ports(self.directory / "ports.json", ["scheduler"])
        self.scheduler.ensure(
            [
                binaries / "kube-scheduler",
                f"--kubeconfig={credentials}",
                f"--authentication-kubeconfig={credentials}",
                f"--authorization-kubeconfig={credentials}",
                "--bind-address=127.0.0.1",
                "--leader-elect=false",
                f"--secure-port={ports['scheduler']}",
            ]
        )

    def ready(self) -> bool:
        """Whether the API server says so, and the namespace `default` exists (it comes a moment later)."""
        return self._status("/readyz") == 200 and self._status("/api/v1/namespaces/default") == 200

    def _status(self, path: str) -> int:
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.admin.certificate, self.admin.key)
        try:
            with urllib.request.urlopen(self.url + path, timeout=5, context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ssl.SSLError):
            return 0

    def wait_ready(self, run: Run | None = None, seconds: float = 300.0) -> None:
        """Return when the API server is ready. Raises StepFailed with the end of its log."""
        run = run or Run()
        deadline = time.monotonic() + seconds
        while not self.ready():
            for daemon in (self.etcd, self.api_server):
                if not daemon.alive:
                    raise StepFailed(f"{daemon.name} ended by itself; its log {daemon.log} ends with:\n{daemon.tail()}")
            if time.monotonic() > deadline:
                log = f"its log {self.api_server.log} ends with:\n{self.api_server.tail()}"
                raise StepFailed(f"the API server at {self.url} was not ready within {seconds:.0f} s; {log}")
            run.pause(0.05)

    def restart_api_server(self, number: int | None = None) -> None:
        """End the API server (SIGKILL, or `number` as a signal), start it as it was and wait until it is ready."""
        words = self.api_server.argv
        if number is None:
            self.api_server.kill()
        else:
            self.api_server.signal(number)
            self.api_server.wait_gone(60)
        self.api_server.ensure(words)
        self.wait_ready()

    def stop(self, *, keep: bool = False) -> None:
        """End every program of the control plane and remove its directory (unless `keep`)."""
        for daemon in self.daemons:
            daemon.signal(9)  # what they would save on the way out is thrown away
        for daemon in self.daemons:
            daemon.wait_gone(10)
            daemon.pid_file.unlink(missing_ok=True)
        for pid in process.marked(self.directory):
            os.kill(pid, 9)
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)


def start(
    name: str,
    *,
    controller_manager: bool = False,
    audit: bool = True,
    directory: Path | None = None,
    run: Run | None = None,
) -> ControlPlane:
    """A control plane called `name`, compiled if need be (minutes, once), running and ready (seconds).

    Calling it again with the same name and directory gives the running one. `directory` defaults to the sandbox's
    place for state. Raises StepFailed when it cannot be built or does not become ready.
    """
    binaries = gobuild.build(gobuild.KUBE, run)
    plane = ControlPlane(name, directory or state.directory(name), audit=audit)
    began = not plane.api_server.alive
    try:
        plane.start(binaries, controller_manager=controller_manager, run=run)
    except StepFailed:
        if began:  # nobody else would end what nobody was given
            plane.stop()
        raise
    return plane
