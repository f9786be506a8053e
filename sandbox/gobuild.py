"""Compile the cluster's programs from pinned Go modules (checked-in go.mod and go.sum), once per content.

The cache key covers the module's files, the Go version and every flag. Compiled packages stay in Go's own build
cache as well, so an interrupted compilation goes on where it was.
"""

from __future__ import annotations

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

    binaries: what to build, file name -> package path. links: further names of a binary that looks at its own name.
    stamp: linker's -X settings, with {version:MODULE} replaced by the version that go.mod requires.
    """

    name: str
    binaries: dict[str, str]
    links: dict[str, tuple[str, ...]]
    stamp: dict[str, str]

    @property
    def directory(self) -> Path:
        return SOURCES / self.name

    def version(self, module: str) -> str:
        """The version of `module` in go.mod, with its leading v."""
        found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", (self.directory / "go.mod").read_text(), re.M)
        if not found:
            raise StepFailed(f"{self.directory / 'go.mod'} does not require {module}")
        return found[1]

    def linker_flags(self) -> str:
        words = ["-s", "-w"]
        for variable, value in sorted(self.stamp.items()):
            value = re.sub(r"\{version:([^}]+)\}", lambda match: self.version(match[1]), value)
            words += ["-X", f"{variable}={value}"]
        return " ".join(words)


KUBE = Module(
    "kube",
    binaries={"kube": "."},
    links={
        "kube": (
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        )
    },
    # Clients compare versions: an API server that says v0.0.0 is refused by some of them.
    stamp={
        "k8s.io/component-base/version.gitVersion": "{version:k8s.io/kubernetes}",
        "k8s.io/component-base/version.gitMajor": "1",
        "k8s.io/component-base/version.gitMinor": "37",
        "k8s.io/component-base/version.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": "{version:k8s.io/kubernetes}",
    },
)


def key(module: Module, go_version: str) -> str:
    """The content hash under which the module's binaries are kept."""
    return cache.content_key(
        module.directory, go_version, module.linker_flags(), repr(sorted(module.binaries.items())), repr(module.links)
    )


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
        for number, (binary, package) in enumerate(module.binaries.items(), 1):
            run.detail(f"compiling {binary} ({number}/{len(module.binaries)})")
            flags = ["-mod=readonly", "-trimpath", "-buildvcs=false", f"-ldflags={module.linker_flags()}"]
            argv = ["nice", "-n", "10", go, "build", *flags, "-o", directory / binary, package]
            run.call(argv, env=env, cwd=module.directory)
            for link in module.links.get(binary, ()):
                (directory / link).symlink_to(binary)

    return cache.obtain("bin", key(module, version), compile_into).directory


def _go(run: Run) -> tuple[str, str]:
    go = shutil.which("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").exists() else None)
    advice = "install Go 1.26 from https://go.dev/dl/ (unpack it to /usr/local/go) and run this again"
    if go is None:
        raise StepFailed(f"no `go` in PATH or /usr/local/go/bin: {advice}")
    # Asked inside the kube module: the answer is the toolchain that its go.mod selects.
    said = run.call([go, "env", "GOVERSION"], cwd=SOURCES / "kube").strip()
    found = re.match(r"go(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise StepFailed(f"{go} is {said or 'of unknown version'}, needed is 1.26 (or 1.21 and later, which fetch it): {advice}")
    return go, said
