"""What deploy/ promises: least rights, restricted pods, settings that the operator takes, names that the tests use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fiduciary.api.crd import KINDS
from fiduciary.engine.kinds import TRAININGS
from fiduciary.settings import load

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(
    path
    for folder in ("kustomize", "sandbox")
    for path in (DEPLOY / folder).rglob("*.yaml")
    if path.name not in ("kustomization.yaml", "config.yaml")
)
Object = dict[str, Any]


def objects(*kinds: str, below: Path = DEPLOY) -> list[tuple[str, Object]]:
    """(where, object) of every object of these kinds; of all where none is named."""
    return [
        (f"{path.relative_to(ROOT)}:{item['metadata']['name']}", item)
        for path in MANIFESTS
        if path.is_relative_to(below)
        for item in yaml.safe_load_all(path.read_text())
        if item and (not kinds or item["kind"] in kinds)
    ]


def rules(below: Path = DEPLOY) -> list[tuple[str, Object]]:
    return [(where, rule) for where, role in objects("ClusterRole", "Role", below=below) for rule in role["rules"]]


def pod_specs() -> list[tuple[str, Object]]:
    return [(where, item["spec"]["template"]["spec"]) for where, item in objects("Deployment", "DaemonSet", "Job")]


def test_no_wildcard_in_any_role() -> None:
    assert rules()
    for where, rule in rules():
        for field in ("apiGroups", "resources", "verbs"):
            assert "*" not in rule.get(field, []), f"{where} allows every one of {field}: {rule}"
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), where


def test_no_secret_is_readable_cluster_wide() -> None:
    for where, role in objects("ClusterRole"):
        for rule in role["rules"]:
            assert not {"secrets", "persistentvolumeclaims", "pods/exec"} & set(rule["resources"]), where


def test_operator_reads_secrets_only_by_name_and_only_where_a_namespace_agreed() -> None:
    """Nowhere else than in namespaces that agreed, but for the one Secret that it makes itself."""
    secret = [(where, rule) for where, rule in rules(DEPLOY / "kustomize") if "secrets" in rule["resources"]]
    assert {where.partition(":")[0] for where, _ in secret} == {
        "deploy/kustomize/namespace/role.yaml",
        "deploy/kustomize/operator/role.yaml",
    }
    for where, rule in secret:
        assert rule["verbs"] in (["get"], ["create"]), "list or watch would show every Secret of the namespace"
        if "/operator/" in where and rule["verbs"] == ["get"]:
            assert rule["resourceNames"] == ["fiduciary-probe-key"], where


def test_records_can_be_made_but_neither_changed_nor_deleted_by_the_operator() -> None:
    verbs = {
        verb
        for _, rule in rules(DEPLOY / "kustomize" / "operator")
        if "modeldecisions" in rule["resources"]
        for verb in rule["verbs"]
    }
    assert "create" in verbs
    assert not verbs & {"update", "patch", "delete", "deletecollection"}


def test_no_right_is_for_what_is_never_done() -> None:
    """Acts of people have no status that could be written; what trains is posted once and never changed."""
    granted = {
        (resource, verb)
        for _, rule in rules(DEPLOY / "kustomize" / "operator")
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    kinds_with_status = {kind.registration.plural for kind in KINDS if kind.registration.has_status}
    written = {resource.partition("/")[0] for resource, _ in granted if resource.endswith("/status")}
    assert written <= kinds_with_status
    assert not {(resource.plural, "patch") for resource in TRAININGS} & granted


@pytest.mark.parametrize(("where", "spec"), pod_specs(), ids=[where for where, _ in pod_specs()])
def test_pods_are_restricted_and_bounded(where: str, spec: Object) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            assert probe in container, f"{where} has no {probe}"


def test_no_image_floats() -> None:
    for where, spec in pod_specs():
        for container in spec["containers"]:
            _, _, tag = container["image"].rpartition(":")
            assert re.search(r"\d", tag), f"{where}: {container['image']} names no version"
            assert tag != "latest"


def test_every_namespace_enforces_restricted_pods() -> None:
    for where, namespace in objects("Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", where


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*/operator/config.yaml")), ids=lambda path: path.parts[-3])
def test_settings_are_ones_that_the_operator_takes(file: Path, tmp_path: Path) -> None:
    deployment = dict(objects("Deployment", below=DEPLOY / "kustomize" / "operator"))
    (spec,) = (item["spec"]["template"]["spec"] for item in deployment.values())
    named = {entry["name"]: entry.get("value", "from-the-pod") for entry in spec["containers"][0]["env"]}
    dockerfile = (ROOT / "Dockerfile").read_text()
    baked = dict(re.findall(r"\b(FIDUCIARY_\w+)=(\S+)", dockerfile))
    if file.is_relative_to(DEPLOY / "sandbox"):
        # Where the Gateway is the sandbox knows once it is there (sandbox.addons.gateways).
        whole = tmp_path / "config.yaml"
        whole.write_text(file.read_text() + "gatewayNamespaces: [projectcontour]\n")
        file = whole
    settings = load({**baked, **named, "FIDUCIARY_CONFIG": str(file)})
    assert settings.connections.keys() == {"mlflow"}
    assert settings.mlflow_egress, "training pods could not reach MLflow"


def test_the_operator_makes_tokens_of_itself_alone_and_reaches_outcome_scorers() -> None:
    made = [(where, rule) for where, rule in rules() if "serviceaccounts/token" in rule["resources"]]
    ((where, rule),) = made
    assert where.partition(":")[0] == "deploy/kustomize/operator/role.yaml"
    assert (rule["resourceNames"], rule["verbs"]) == (["fiduciary-operator"], ["create"])
    (policy,) = [policy for where, policy in objects("NetworkPolicy") if where.endswith(":fiduciary-operator")]
    scorers = {"fiduciary.dev/component": "outcomes"}
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", [])]
    assert any(peer.get("podSelector", {}).get("matchLabels") == scorers for peer in peers)


def test_claims_are_made_only_where_a_namespace_agreed_and_never_changed_or_deleted() -> None:
    claims = [(where, rule) for where, rule in rules() if "persistentvolumeclaims" in rule["resources"]]
    assert {where.partition(":")[0] for where, _ in claims} == {"deploy/kustomize/namespace/role.yaml"}
    assert {verb for _, rule in claims for verb in rule["verbs"]} == {"get", "create"}


def test_operators_image_holds_neither_torch_nor_mlflow() -> None:
    lock = (ROOT / "requirements" / "operator.txt").read_text()
    packages = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert "kopf" in packages
    assert not packages & {"torch", "mlflow", "mlflow-skinny", "pandas", "numpy"}


@pytest.mark.parametrize(
    "lock",
    [
        path
        for path in sorted(ROOT.glob("*/**/requirements*.txt")) + sorted((ROOT / "requirements").glob("*.txt"))
        if ".venv" not in path.parts
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_locks_carry_hashes_and_no_index(lock: Path) -> None:
    text = lock.read_text()
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", text.strip())
    for block in blocks:
        assert "--hash=sha256:" in block or block.startswith("#"), f"{block.splitlines()[0]} has no hash"
    assert not re.search(r"--(extra-)?index-url|--find-links|https?://", text)


def test_mlflow_accepts_the_names_by_which_it_is_called() -> None:
    (mlflow,) = (item for _, item in objects("Deployment", below=DEPLOY / "sandbox" / "mlflow"))
    container = mlflow["spec"]["template"]["spec"]["containers"][0]
    hosts = next(word for word in container["args"] if word.startswith("--allowed-hosts=")).partition("=")[2].split(",")
    assert any(host.startswith("mlflow.mlflow.svc") for host in hosts)
    assert "--workers=1" in container["args"]
    assert {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"} in container["env"]
