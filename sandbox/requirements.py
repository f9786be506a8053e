"""What a provider needs on this machine: installed where that is allowed (root and apt), else named exactly."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sandbox import cache
from sandbox.steps import Run, StepFailed

CONTROL_PLANE = {"openssl": "openssl"}  # program -> Debian package
KIND = {**CONTROL_PLANE}
NODE = {
    **CONTROL_PLANE,
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "buildah": "buildah",
}
SYSTEM_PATHS = "/usr/local/sbin:/usr/sbin:/sbin"  # where Debian keeps half of them; not in everybody's PATH


def widen_path() -> None:
    """Let this program and what it starts find administrators' programs."""
    path = os.environ.get("PATH", "")
    missing = [folder for folder in SYSTEM_PATHS.split(":") if folder not in path.split(":")]
    os.environ["PATH"] = ":".join([path, *missing])


def missing(needed: dict[str, str]) -> dict[str, str]:
    """The programs that are not there, with their packages."""
    return {program: package for program, package in needed.items() if shutil.which(program) is None}


def ensure(needed: dict[str, str], run: Run) -> None:
    """Have every program. Raises StepFailed with what is missing and how to get it."""
    lacking = missing(needed)
    if not lacking:
        return
    packages = sorted(set(lacking.values()))
    command = f"apt-get install --yes --no-install-recommends {' '.join(packages)}"
    programs = ", ".join(sorted(lacking))
    if shutil.which("apt-get") is None:
        raise StepFailed(
            f"missing programs: {programs}. This machine has no apt-get; install what brings them (on Debian: "
            f"{' '.join(packages)}) and run this again"
        )
    if os.geteuid() != 0:
        raise StepFailed(f"missing programs: {programs}. Install them with `sudo {command}` and run this again")
    run.detail(f"installing {' '.join(packages)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5"]
    with cache.lock("apt"):
        log = cache.root() / "logs" / "apt.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # An apt-get that was stopped halfway leaves packages unpacked but not configured.
        run.call(["dpkg", "--configure", "-a"], env=env, log=log)
        run.call(["apt-get", *options, "update"], env=env, log=log)
        run.call(["apt-get", *options, *command.split()[1:]], env=env, log=log)
    if lacking := missing(needed):
        raise StepFailed(f"apt-get installed {' '.join(packages)}, but {', '.join(lacking)} cannot be found in PATH")
    run.detail(f"installed {' '.join(packages)}")


def node_possible() -> None:
    """Raise StepFailed where no node can run, before anything is compiled for one."""
    if not Path("/sys/fs/cgroup").exists():
        raise StepFailed("this machine has no cgroups (/sys/fs/cgroup): pods cannot run on it; use --provider kind")
    if os.geteuid() != 0:
        raise StepFailed(
            "the provider `node` makes namespaces and mounts, which takes root: run the same command with sudo, or "
            "install Docker for the provider `kind`, or ask for --control-plane-only"
        )
