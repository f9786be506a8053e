"""What stands on the sandbox's cluster: a Gateway, MLflow, Prometheus, Alertmanager, the operator, and a namespace for
the samples.

Every manifest is a kustomization of deploy/, or upstream's own; every image is built from a Dockerfile of this
checkout. Images get their content key as tag, so a changed file rolls exactly the workloads that it concerns.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox import gobuild, images
from sandbox.cluster import API, READY
from sandbox.steps import Run, StepFailed, Steps, Uses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandbox.cluster import Cluster

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy" / "sandbox"
IMAGES = ROOT / "sandbox" / "images"
GATEWAY = "projectcontour/contour"
BROKEN = "trainer-broken"
PROXY = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "envoy", "namespace": "projectcontour"},
    "spec": {
        "template": {"spec": {"containers": [{"name": "envoy", "resources": {"requests": {"cpu": "250m"}}}]}},
    },
}
KINDS = ("financialmodels", "modelexperiments", "driftpolicies", "modelapprovals", "modeldecisions")


def install(cluster: Cluster, steps: Steps) -> None:
    """Add every step. What takes longest to become ready comes first: compiling Contour, then the large images."""
    steps.add("addresses", lambda run: cluster.publish(KUBECTL=str(cluster.kubectl_program)))
    gateway(cluster, steps)
    registry(cluster, steps)
    operator(cluster, steps)
    monitoring(cluster, steps)


def gateway(cluster: Cluster, steps: Steps) -> None:
    """Contour and Envoy by upstream's manifest. A kind node pulls their images; this one has them built.

    One thing is added: a CPU request of the proxy, which has none. Without it every training on the node would starve
    it, and clients would wait for seconds.
    """
    loaded: list[str] = []
    if cluster.provider == "node":
        context = cluster.directory / "addons" / "contour"

        def compiled(run: Run) -> None:
            binary = gobuild.build(gobuild.CONTOUR, run) / "contour"
            context.mkdir(parents=True, exist_ok=True)
            shutil.copy2(binary, context / "contour")

        binary = steps.add("compile contour", compiled, uses=Uses.CPU)
        names, envoy = _contour_manifest_images(), IMAGES / "envoy"
        loaded = [
            cluster.add_image(steps, names["envoy"], envoy / "Dockerfile", envoy),
            cluster.add_image(steps, names["contour"], IMAGES / "contour" / "Dockerfile", context, after=(binary,)),
        ]

    def objects(run: Run) -> None:
        folder = cluster.directory / "addons" / "gateway"
        folder.mkdir(parents=True, exist_ok=True)
        manifest = _contour_manifest(run).read_text()
        asked = set(re.findall(r"^\s+image: (\S+)$", manifest, re.MULTILINE))
        if asked != set(_contour_manifest_images().values()):
            raise StepFailed(
                f"Contour's manifest asks for the images {sorted(asked)}: name the same in sandbox/addons.py"
            )
        definitions, rest = split_definitions(manifest)
        (folder / "definitions.yaml").write_text(definitions)
        (folder / "objects.yaml").write_text(rest)
        patches = [{"patch": json.dumps(PROXY)}]
        (folder / "kustomization.yaml").write_text(json.dumps({"resources": ["objects.yaml"], "patches": patches}))
        cluster.apply(folder / "definitions.yaml", run)
        cluster.established("-f", folder / "definitions.yaml", run=run)
        cluster.apply(folder, run)

    # Pods whose images are not there yet would be backed off from: load first.
    applied = steps.add("gateway: objects", objects, after=[API, *loaded])

    def ready(run: Run) -> None:
        cluster.available("projectcontour", "deployment/contour", run)
        cluster.available("projectcontour", "daemonset/envoy", run)
        # Not the GatewayClass: Contour answers for the one Gateway that it is told of and leaves the class Pending.
        for what in ("Accepted", "Programmed"):
            words = ("wait", "-n", "projectcontour", "gateway/contour", f"--for=condition={what}", "--timeout=60s")
            cluster.kubectl(*words, run=run)
        cluster.publish(GATEWAY_URL=f"http://{cluster.address()}")

    steps.add("gateway: accepted", ready, after=[applied, READY])


def registry(cluster: Cluster, steps: Steps) -> None:
    """MLflow, its database and artifacts on a claim."""
    folder = IMAGES / "mlflow"
    tag = "fiduciary-mlflow:" + images.key(folder / "Dockerfile", folder)
    loaded = cluster.add_image(steps, tag, folder / "Dockerfile", folder)
    _workload(cluster, steps, "mlflow", DEPLOY / "mlflow", "mlflow", "mlflow", {"fiduciary-mlflow": tag}, loaded)


def monitoring(cluster: Cluster, steps: Steps) -> None:
    """Prometheus, from which evidence comes, and Alertmanager, which hears of drift: both as Debian packages them."""
    for name in ("prometheus", "alertmanager"):
        folder = IMAGES / name
        tag = f"fiduciary-{name}:" + images.key(folder / "Dockerfile", folder)
        loaded = cluster.add_image(steps, tag, folder / "Dockerfile", folder)
        # Prometheus brings the namespace of both.
        after = (loaded, "prometheus: objects") if name == "alertmanager" else (loaded,)
        _workload(cluster, steps, name, DEPLOY / name, "monitoring", name, {f"fiduciary-{name}": tag}, *after)


def operator(cluster: Cluster, steps: Steps) -> None:
    """The operator from its own image with its own rights, and the images that its Jobs and Deployments name."""
    own, beside = ROOT / "Dockerfile", ROOT / "trainer_image" / "Dockerfile"
    tag = "fiduciary-operator:" + images.key(own, ROOT)
    loaded = cluster.add_image(steps, tag, own, ROOT)
    # What the tests and the demo break a model with: a model names it, the operator does not.
    cluster.add_image(steps, f"fiduciary-{BROKEN}:{images.key(beside, ROOT, BROKEN)}", beside, ROOT, target=BROKEN)
    named: list[dict[str, str]] = []
    for target in ("trainer", "server", "outcomes"):
        image = f"fiduciary-{target}:{images.key(beside, ROOT, target)}"
        cluster.add_image(steps, image, beside, ROOT, target=target)
        named.append({"name": f"FIDUCIARY_{target.upper()}_IMAGE", "value": image})

    def definitions(run: Run) -> None:
        cluster.apply(ROOT / "crds", run)
        cluster.established(*(f"crd/{kind}.fiduciary.dev" for kind in KINDS), run=run)
        cluster.apply(DEPLOY / "quant", run)

    defined = steps.add("operator: definitions", definitions, after=[API])
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fiduciary-operator", "namespace": "fiduciary-system"},
        "spec": {"template": {"spec": {"containers": [{"name": "operator", "env": named}]}}},
    }
    _workload(
        cluster,
        steps,
        "operator",
        DEPLOY / "operator",
        "fiduciary-system",
        "fiduciary-operator",
        {"fiduciary-operator": tag},
        loaded,
        defined,
        patches=(patch,),
        config=lambda: (DEPLOY / "operator" / "config.yaml").read_text() + gateways(cluster),
    )


def gateways(cluster: Cluster) -> str:
    """The part of the operator's settings that says where clients find the Gateway.

    A cloud's Gateway has an address in its status; here nothing hands one out. On a node of this machine host ports are
    reached by pods and people alike; kind's host port is on the machine's loopback, so pods go to Envoy's Service.
    """
    url = f"http://{cluster.address()}" if cluster.provider == "node" else "http://envoy.projectcontour.svc"
    namespace = GATEWAY.partition("/")[0]
    return (
        "\n# Where clients find a Gateway whose status holds no address, and whose proxies may reach serving pods.\n"
        f"gateways:\n  {GATEWAY}: {{url: {url}}}\ngatewayNamespaces: [{namespace}]\n"
    )


def _workload(
    cluster: Cluster,
    steps: Steps,
    name: str,
    base: Path,
    namespace: str,
    deployment: str,
    tags: Mapping[str, str],
    *after: str,
    patches: tuple[Mapping[str, object], ...] = (),
    config: Callable[[], str] | None = None,
) -> None:
    """The steps that apply a kustomization with these images and wait until its Deployment has rolled out."""

    def objects(run: Run) -> None:
        overlay = cluster.directory / "addons" / name
        overlay.mkdir(parents=True, exist_ok=True)
        content: dict[str, object] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            # kustomize takes no absolute path, and resolves links before it goes up.
            "resources": [os.path.relpath(base.resolve(), overlay.resolve())],
            "images": [{"name": image, "newTag": tag.rpartition(":")[2]} for image, tag in tags.items()],
            "patches": [{"patch": json.dumps(patch)} for patch in patches],
        }
        if config is not None:
            (overlay / "config.yaml").write_text(config())
            replaced = {"name": "fiduciary-config", "namespace": namespace, "behavior": "replace"}
            content["configMapGenerator"] = [{**replaced, "files": ["config.yaml"]}]
        (overlay / "kustomization.yaml").write_text(json.dumps(content, indent=1))
        cluster.apply(overlay, run)

    def ready(run: Run) -> None:
        cluster.available(namespace, f"deployment/{deployment}", run)
        if name in ADDRESSES:
            variable, service, port = ADDRESSES[name]
            words = ("get", "service", "-n", namespace, service, "-o", "jsonpath={.spec.clusterIP}")
            cluster.publish(**{variable: f"http://{cluster.kubectl(*words, run=run)}:{port}"})

    applied = steps.add(f"{name}: objects", objects, after=[API, *after])
    steps.add(f"{name}: ready", ready, after=[applied, READY])


# What `python -m sandbox env` tells: variable, Service, port. Addresses of Services are reached from this machine.
ADDRESSES = {"mlflow": ("MLFLOW_URL", "mlflow", 5000), "prometheus": ("PROMETHEUS_URL", "prometheus", 9090)}


def _contour_manifest(run: Run) -> Path:
    """Upstream's rendered manifest, in the directory of the Go module that the binary is compiled from."""
    return gobuild.source(gobuild.CONTOUR, gobuild.PROJECTCONTOUR, run) / "examples" / "render" / "contour-gateway.yaml"


def _contour_manifest_images() -> dict[str, str]:
    """The images that the manifest of the pinned Contour asks for; compared with it before it is applied."""
    version = gobuild.CONTOUR.version(gobuild.PROJECTCONTOUR)
    return {
        "contour": f"ghcr.io/projectcontour/contour:{version}",
        "envoy": "docker.io/envoyproxy/envoy:distroless-v1.38.9",
    }


def split_definitions(manifest: str) -> tuple[str, str]:
    """A manifest's CustomResourceDefinitions, and the rest: the second can be applied once the first are served."""
    documents = re.split(r"^---[^\n]*\n", manifest, flags=re.MULTILINE)
    kinds = [re.search(r"^kind: (\S+)", document, re.MULTILINE) for document in documents]
    known = [(kind[1], document) for kind, document in zip(kinds, documents, strict=True) if kind]
    if not known:
        raise StepFailed("the manifest holds no object")
    definitions = [document for kind, document in known if kind == "CustomResourceDefinition"]
    rest = [document for kind, document in known if kind != "CustomResourceDefinition"]
    return "---\n".join(definitions), "---\n".join(rest)
