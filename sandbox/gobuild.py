"""Compile the cluster's programs from pinned Go modules (checked-in go.mod and go.sum), once per content.

The cache key covers the module's files, the Go version and every flag. Compiled packages stay in Go's own build
cache as well, so an interrupted compilation goes on where it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sandbox import cache
from sandbox.steps import Run, StepFailed

SOURCES = Path(__file__).parent / "go"
OLDEST_GO = (1, 21)  # the first that fetches the toolchain named in go.mod by itself


@dataclass(frozen=True)
class Module:
    """A directory below sandbox/go with its own go.mod.

    packages: what to build; a binary is called like its package's last word. links: further names of a binary that
    looks at its own name. stamp: linker's -X settings, with {version:MODULE} replaced by what go.mod requires.
    """

    name: str
    packages: tuple[str, ...]
    links: tuple[tuple[str, str], ...] = ()
    stamp: tuple[tuple[str, str], ...] = ()

    @property
    def directory(self) -> Path:
        return SOURCES / self.name

    def version(self, module: str) -> str:
        """The version of `module` in go.mod, with its leading v."""
        requirements = (self.directory / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", requirements, re.M)
        if not found:
            raise StepFailed(f"{self.directory / 'go.mod'} does not require {module}")
        return found[1]

    def linker_flags(self) -> str:
        words = ["-s", "-w"]
        for variable, value in self.stamp:
            value = re.sub(r"\{version:([^}]+)\}", lambda match: self.version(match[1]), value)
            words += ["-X", f"{variable}={value}"]
        return " ".join(words)


KUBERNETES = "k8s.io/component-base/version"
CONTAINERD = "github.com/containerd/containerd/v2"
PROJECTCONTOUR = "github.com/projectcontour/contour"
CNI = "github.com/containernetworking/plugins/plugins"

KUBE = Module(
    "kube",
    packages=("fiduciary.dev/sandbox/kube",),
    links=tuple(
        (program, "kube")
        for program in (
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        )
    ),
    # Clients compare versions: an API server that says v0.0.0 is refused by some of them.
    stamp=(
        (f"{KUBERNETES}.gitVersion", "{version:k8s.io/kubernetes}"),
        (f"{KUBERNETES}.gitMajor", "1"),
        (f"{KUBERNETES}.gitMinor", "37"),
        (f"{KUBERNETES}.gitTreeState", "clean"),
    ),
)
NODE = Module(
    "node",
    packages=(
        f"{CONTAINERD}/cmd/containerd",
        f"{CONTAINERD}/cmd/containerd-shim-runc-v2",
        f"{CONTAINERD}/cmd/ctr",
        f"{CNI}/main/bridge",
        f"{CNI}/main/loopback",
        f"{CNI}/ipam/host-local",
        f"{CNI}/meta/portmap",
        "fiduciary.dev/sandbox/node/coredns",
        "fiduciary.dev/sandbox/node/pause",
    ),
    stamp=((f"{CONTAINERD}/version.Version", f"{{version:{CONTAINERD}}}"),),
)
CONTOUR = Module(
    "contour",
    packages=(f"{PROJECTCONTOUR}/cmd/contour",),
    stamp=((f"{PROJECTCONTOUR}/internal/build.Version", f"{{version:{PROJECTCONTOUR}}}"),),
)

KIND = Module(
    "kind",
    packages=("sigs.k8s.io/kind", "fiduciary.dev/sandbox/kind/kubectl"),
    stamp=((f"{KUBERNETES}.gitVersion", "{version:k8s.io/kubectl}"),),
)


def key(module: Module, go_version: str) -> str:
    """The content hash under which the module's binaries are kept."""
    flags = module.linker_flags()
    return cache.content_key(module.directory, go_version, flags, repr(module.packages), repr(module.links))


def build(module: Module, run: Run | None = None) -> Path:
    """The directory with the module's verified binaries, compiled if they are not cached.

    Raises StepFailed when no usable Go is installed or the compiler fails.
    """
    run = run or Run()
    go, version = _go(run)

    def compile_into(directory: Path) -> None:
        # nice: the compiler takes every core for minutes, and whatever else the user does should stay responsive.
        env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        run.detail("downloading modules")
        run.call([go, "mod", "download"], env=env, cwd=module.directory)
        run.detail(f"compiling {module.name} from source, once for this machine")
        flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={module.linker_flags()}"]
        argv = ["nice", "-n", "10", go, "build", *flags, "-o", f"{directory}/", *module.packages]
        run.call(argv, env=env, cwd=module.directory)
        for link, binary in module.links:
            (directory / link).symlink_to(binary)

    return cache.obtain("bin", key(module, version), compile_into).directory


def source(module: Module, path: str, run: Run | None = None) -> Path:
    """The directory of the Go module `path` that `module` requires: its manifests are there as well as its code."""
    run = run or Run()
    go, _ = _go(run)
    said = run.call([go, "mod", "download", "-json", path], env={**os.environ, "GOWORK": "off"}, cwd=module.directory)
    return Path(json.loads(said)["Dir"])


def _go(run: Run) -> tuple[str, str]:
    go = shutil.which("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").exists() else None)
    advice = "install Go 1.26 from https://go.dev/dl/ (unpack it to /usr/local/go) and run this again"
    if go is None:
        raise StepFailed(f"no `go` in PATH or /usr/local/go/bin: {advice}")
    # Asked inside the kube module: the answer is the toolchain that its go.mod selects.
    said = run.call([go, "env", "GOVERSION"], cwd=SOURCES / "kube").strip()
    found = re.match(r"go(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise StepFailed(f"{go} is {said or 'of unknown version'}, needed is 1.26 (1.21 and later fetch it): {advice}")
    return go, said
