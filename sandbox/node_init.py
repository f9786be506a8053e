"""The first process of the node's own PID, mount, network, IPC and UTS namespaces.

Everything of the node lives in them: when this process ends, by whatever cause, the kernel ends all others and takes
the mounts, interfaces and packet filter rules along. That is why nothing has to be remembered to clean up, and why
two nodes and the machine's own network do not meet. Run by namespaces.py as `python3 node_init.py STATE HOSTNAME`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

FIXED = ("/var/lib/cni", "/var/lib/kubelet")  # places that programs use whatever they are told


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def prepare(state: Path, hostname: str) -> None:
    """Give the namespaces what a machine has: its own /proc, /sys, /run and logs, a loopback, a name."""
    # Pods' mounts must propagate into the runtime's and back, but never to the machine.
    mount("--make-rshared", "/")
    mount("-t", "proc", "proc", "/proc")
    system = state / "node" / "sys"
    system.mkdir(parents=True, exist_ok=True)
    mount("-t", "sysfs", "sysfs", system)  # shows the interfaces of this network namespace, not the machine's
    mount("--rbind", "/sys/fs/cgroup", system / "fs" / "cgroup")
    mount("--rbind", system, "/sys")
    for path in ("/run", "/var/log"):
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", path)
    for fixed in FIXED:
        own = state / "node" / Path(fixed).name
        own.mkdir(parents=True, exist_ok=True)
        mount("--bind", own, fixed)
    socket.sethostname(hostname)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in {"ip_forward": "1", "conf/all/rp_filter": "0"}.items():
        Path("/proc/sys/net/ipv4", name).write_text(value)


def main() -> None:
    state, hostname = Path(sys.argv[1]), sys.argv[2]
    waited_for = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    prepare(state, hostname)
    (state / "node" / "ready").write_text("")
    # As process 1 it inherits every orphan, such as the shims of ended pods.
    while signal.sigwait(waited_for) == signal.SIGCHLD:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()
