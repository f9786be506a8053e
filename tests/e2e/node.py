"""A hand on the node: data on its disk, and signals to its processes.

One privileged pod in a namespace of its own does what a test namespace (restricted Pod Security) must not be able to
do. It goes through the API server, so it works on a local node and inside a kind container alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date

    from tests.e2e.cluster import Cluster, Object

NAMESPACE = "fiduciary-e2e-node"
DISK = "/var/lib/fiduciary-e2e"
VOLUME_OF = "fiduciary-e2e/namespace"  # label of a volume: the namespace that it goes with
GENERATOR = Path(__file__).with_name("market_data.py")

# A signal to every process for which each word is one of its arguments (an option without its value, a program without
# its folder) or its pod's UID; looks again and again until there is one, or the seconds are over. Prints how many there
# were.
SIGNAL = r"""
import os, pathlib, signal, sys, time
def is_word(argument, word):
    return argument == word or argument.startswith(word + "=") or argument.endswith("/" + word)
def sought(entry):
    line = (entry / "cmdline").read_text(errors="replace").split("\0")
    if "fiduciary-e2e-signal" in " ".join(line):
        return False  # this very command line holds the words, too
    group = (entry / "cgroup").read_text()
    return all("pod" + word in group or any(is_word(argument, word) for argument in line) for word in words)
number, until, words, found = signal.Signals[sys.argv[1]], time.monotonic() + float(sys.argv[2]), sys.argv[3:], 0
while True:
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and sought(entry):
                os.kill(int(entry.name), number)
                found += 1
        except OSError:
            continue
    if found or time.monotonic() > until:
        break
    time.sleep(0.05)
print(found)
# fiduciary-e2e-signal
"""

# Ends when a file matches the pattern; fails after so many seconds.
UNTIL_FILE = """
import pathlib, sys, time
deadline = time.monotonic() + float(sys.argv[2])
while not any(path.is_file() for path in pathlib.Path("/disk").glob(sys.argv[1])):
    if time.monotonic() > deadline:
        sys.exit("no file " + sys.argv[1])
    time.sleep(0.1)
"""


def _namespace() -> Object:
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _pod(image: str) -> Object:
    container = {
        "name": "hand",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", "import signal; signal.sigwait({signal.SIGTERM})"],
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
        "volumeMounts": [{"name": "disk", "mountPath": "/disk"}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hand", "namespace": NAMESPACE},
        "spec": {
            "hostPID": True,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "disk", "hostPath": {"path": DISK, "type": "DirectoryOrCreate"}}],
        },
    }


def _volume(namespace: str, claim: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}", "labels": {VOLUME_OF: namespace}},
        "spec": {
            "capacity": {"storage": "64Mi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": f"{DISK}/{namespace}/{claim}", "type": "DirectoryOrCreate"},
        },
    }


def _claim(namespace: str, claim: str, consumable: bool) -> Object:
    labels = {"fiduciary.dev/consumable": "true"} if consumable else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": namespace, "labels": labels},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": f"{namespace}-{claim}",
            "resources": {"requests": {"storage": "64Mi"}},
        },
    }


@dataclass(frozen=True, slots=True)
class Node:
    """The pod that acts on the node. :meth:`start` may be called again: the pod stays for the next run."""

    cluster: Cluster
    image: str  # any image with python3 and numpy that the node has already: the trainer's

    def start(self) -> None:
        self.cluster.apply(_namespace(), _pod(self.image))
        self.cluster.until("pod", "hand", NAMESPACE, self._is_up, 90, "the node's hand is up")

    def _is_up(self, pod: Object) -> bool:
        """With this image: the container of an older one is replaced while its pod stays Running."""
        found = pod["status"].get("containerStatuses", ())
        return bool(found) and all(one["ready"] and one["image"].endswith(self.image) for one in found)

    def run(self, *command: str, stdin: str | None = None, within: float = 60) -> str:
        """Standard output of a command on the node."""
        interactive = ("-i",) if stdin is not None else ()
        return self.cluster.kubectl(
            "exec", *interactive, "hand", "--", *command, stdin=stdin, namespace=NAMESPACE, within=within
        )

    def signal(self, name: str, *words: str, within: float = 0) -> int:
        """A signal (`SIGKILL`) to every process that is meant by all of the words (see SIGNAL): how many there were.

        Waits until there is one for so many seconds.
        """
        return int(self.run("python3", "-c", SIGNAL, name, str(within), *words, within=within + 60))

    def until_file(self, pattern: str, within: float) -> None:
        """Wait until a file below the node's disk matches: namespace/claim/path, with wildcards."""
        self.run("python3", "-c", UNTIL_FILE, pattern, str(within), within=within + 10)

    def claim(self, namespace: str, claim: str, through: date | None = None, consumable: bool = True) -> None:
        """A bound claim; with ``through``, it holds the files of ``market_data.py`` up to that day."""
        folder = f"/disk/{namespace}/{claim}"
        self.run("mkdir", "-p", "-m", "0777", folder)
        if through is not None:
            self.run("python3", "-", folder, str(through), stdin=GENERATOR.read_text())
        self.cluster.apply(_volume(namespace, claim), _claim(namespace, claim, consumable))
        self.cluster.until(
            "pvc", claim, namespace, lambda found: found["status"].get("phase") == "Bound", 60, "the claim is bound"
        )
