"""The operator with a wrong clock: its own process, and libfaketime (Debian's) before the C library.

Monotonic time goes on as it does: a node whose clock somebody set wrong measures durations rightly.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.conftest import OPERATOR, OPERATOR_NAMESPACE, wait_for_operator

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.e2e.cluster import Cluster

LIBRARY = Path("usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fiduciary" / "libfaketime"
NAME, FOLDER = "wrong-clock", "/opt/wrong-clock"


def library() -> bytes:
    """What is preloaded: installed here, or out of Debian's package, which is not installed for it."""
    for root in (Path("/"), CACHE):
        if (root / LIBRARY).exists():
            return (root / LIBRARY).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        download = "apt-get download -qq libfaketime"
        words = f"{download} 2>/dev/null || {{ apt-get update -qq && {download}; }}"
        subprocess.run(["bash", "-euc", words], cwd=folder, check=True)
        (package,) = Path(folder).glob("libfaketime_*.deb")
        subprocess.run(["dpkg-deb", "--extract", str(package), str(CACHE)], check=True)
    return (CACHE / LIBRARY).read_bytes()


@contextmanager
def operator_ahead(cluster: Cluster, seconds: float) -> Generator[None]:
    """Restart the operator with a clock that is so many seconds ahead of the node's; in the end with the right one."""
    right = cluster.read("deployment", OPERATOR, OPERATOR_NAMESPACE)["spec"]["template"]
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}}
    cluster.apply(
        {**body, "binaryData": {LIBRARY.name: base64.b64encode(library()).decode()}}, namespace=OPERATOR_NAMESPACE
    )
    environment = {
        "LD_PRELOAD": f"{FOLDER}/{LIBRARY.name}",
        "FAKETIME": f"{seconds:+g}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    container = {
        "name": "operator",
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "volumeMounts": [{"name": NAME, "mountPath": FOLDER, "readOnly": True}],
    }
    spec = {"containers": [container], "volumes": [{"name": NAME, "configMap": {"name": NAME}}]}
    wrong = json.dumps({"spec": {"template": {"spec": spec}}})
    deployment = ("deployment", OPERATOR)
    cluster.kubectl("patch", *deployment, "--type=strategic", "-p", wrong, namespace=OPERATOR_NAMESPACE)
    try:
        wait_for_operator(cluster)
        yield
    finally:
        back = json.dumps([{"op": "replace", "path": "/spec/template", "value": right}])
        cluster.kubectl("patch", *deployment, "--type=json", "-p", back, namespace=OPERATOR_NAMESPACE)
        wait_for_operator(cluster)
        cluster.kubectl("delete", "configmap", NAME, namespace=OPERATOR_NAMESPACE)
