"""Promotion and rollback on any cluster, by backend: ``make e2e BACKEND=seldon|kserve|gateway``.

It asks for nothing but kubectl and what docs/<backend>.md installs; where that is not there it is skipped, and says
what is missing. Clients' requests go on all the time. In the environment:

- ``KUBECONFIG``: the cluster, with the operator on it, whose settings name a Prometheus (docs/counters.md);
- ``NAMESPACE`` (quant): labelled and confined as deploy/kustomize/namespace has it; with Seldon's scheduler and Server;
- ``GATEWAY``: ``<namespace>/<name>``; not needed with Seldon, whose mesh is asked through a port-forward then;
- ``CLIENT_URL``: where the Gateway is reached from here, if not at its own address;
- ``BROKEN``: an image of target ``trainer-broken`` (trainer_image/Dockerfile) that the cluster can pull, for the
  challenger that does harm.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e.any_cluster import BACKEND, NAMESPACE, Model, asking, kubectl, market, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "samples" / "spx-volatility.yaml"
NAMES = {"seldon": "Seldon", "kserve": "KServe", "gateway": "Gateway"}
CRDS = {
    "seldon": ("models.mlops.seldon.io", "experiments.mlops.seldon.io", "servers.mlops.seldon.io"),
    "kserve": ("inferenceservices.serving.kserve.io", "httproutes.gateway.networking.k8s.io"),
    "gateway": ("httproutes.gateway.networking.k8s.io",),
}
TRAINED, JUDGED = 1800.0, 2400.0
# Blocks as long as two usual scrapes. The margin counts as .001 where nothing ever failed (evidence/spending.py: what a
# series of promotions may lose): some 4,000 requests of each version show it, which takes minutes on a slow node.
TEMPLATE: dict[str, Any] = {
    "traffic": {
        "steps": [
            {"name": "shadow", "mirror": 100, "minBlocks": 2},
            {"name": "half", "weight": 50, "minBlocks": 3},
        ]
    },
    "evidence": {"block": "30s", "dispersion": "1", "outcomes": "Prequential"},
    "objectives": [{"name": "loss", "metric": "PairedLoss"}],
    "guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.02"}}],
    "circuitBreakers": [{"metric": "ErrorRate", "above": "0.25", "normal": "0.01"}],
    "stopping": {"minDuration": "1m", "maxDuration": "2h"},
    "noData": {"maxHold": "20m"},
}

HOW = "runs on a cluster of yours: make e2e BACKEND=seldon|kserve|gateway"
pytestmark = [
    pytest.mark.skipif(not BACKEND, reason=HOW),
    pytest.mark.timeout(TRAINED + JUDGED + 900),  # each wait has its own end, and says what it waited for
]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Skips, and says why, where the backend is not there."""
    if BACKEND not in NAMES:
        pytest.exit(f"BACKEND is {BACKEND!r}; expected one of {', '.join(NAMES)}", returncode=2)
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    try:
        kubectl("version", "--request-timeout=20s")
    except AssertionError as error:
        pytest.skip(f"no cluster answers; set KUBECONFIG: {str(error).splitlines()[-1]}")
    for crd in ("financialmodels.fiduciary.dev", *CRDS[BACKEND]):
        try:
            kubectl("get", "crd", crd)
        except AssertionError as error:
            page = "install.md" if crd.endswith("fiduciary.dev") else f"{BACKEND}.md"
            pytest.skip(f"{crd} is not on this cluster (docs/{page} says how it comes there): {error}")
    if BACKEND == "seldon":
        servers = json.loads(kubectl("-n", NAMESPACE, "get", "servers.mlops.seldon.io", "-o", "json"))["items"]
        if not any("fiduciary-onnx" in (one["spec"].get("capabilities") or ()) for one in servers):
            pytest.skip(f"no Server in namespace {NAMESPACE} offers fiduciary-onnx: kubectl apply -k deploy/seldon")
    elif "GATEWAY" not in os.environ:
        pytest.skip("name the Gateway of the models: GATEWAY=<namespace>/<name>")


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    name = f"e2e-{BACKEND}-{secrets.token_hex(3)}"
    body = yaml.safe_load(SAMPLE.read_text())
    body["metadata"] = {"name": name, "namespace": NAMESPACE}
    serving = body["spec"]["serving"]
    serving["backend"] = NAMES[BACKEND]
    serving.pop("gateway", None)
    if "GATEWAY" in os.environ:
        namespace, _, gateway = os.environ["GATEWAY"].partition("/")
        serving["gateway"] = {"parentRefs": [{"name": gateway, "namespace": namespace}]}
    body["spec"]["promotion"] = {"mode": "Auto", "rollbackWindow": "2m", "experiment": TEMPLATE}
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
    yield Model(name)
    kubectl("-n", NAMESPACE, "delete", "fm", name, "--timeout=120s")


def test_a_model_is_trained_and_serves(model: Model) -> None:
    until("it is trained", lambda: model.status.get("champion"), TRAINED)
    model.serves("1")
    record = model.records()[-1]
    assert record["action"] == "Shift"
    assert record.get("backend", "Gateway") == NAMES[BACKEND]


def counts(model: Model) -> None:
    """Skips where the operator could count nothing."""
    status, message = model.condition("NotYetActive")
    if status == "True" and "Prometheus" in message:
        pytest.skip("the operator's settings name no Prometheus (prometheus.url, docs/counters.md): nothing is judged")


def phase(model: Model, version: str, *wanted: str) -> str:
    """The experiment's phase, once it is one of these; a failure says where it is."""
    try:
        return until(
            f"the experiment of version {version} is {' or '.join(wanted)}",
            lambda: next((one for one in wanted if _status(model, version).get("phase") == one), None),
            JUDGED,
        )
    except AssertionError as error:
        conditions = _status(model, version).get("conditions", ())
        told = [f"{one['type']}={one['status']} {one['reason']}: {one['message']}" for one in conditions]
        raise AssertionError("\n".join([str(error), *told])) from error


def _status(model: Model, version: str) -> dict[str, Any]:
    return model.experiment(version).get("status", {})


def test_an_experiment_promotes_a_better_version(model: Model) -> None:
    """Copies, then half of the requests, then all of them, by counters of the cluster's own Prometheus."""
    counts(model)
    challenger = model.challenger({"architecture": "Linear"}, TRAINED)
    version = challenger["version"]
    with asking(model) as clients:
        until("copies go to it", lambda: _status(model, version).get("step") == "shadow", JUDGED)
        assert clients.lately == {"1"}, "copies are nobody's answers"
        until("half of the requests are its", lambda: clients.lately == {"1", version}, JUDGED)
        assert phase(model, version, "Promoted", "RolledBack", "Kept") == "Promoted", _status(model, version)
        until("all answers are its", lambda: clients.lately == {version}, 60)
    assert not clients.failed, f"{len(clients.failed)} of {len(clients.answers)} failed: {clients.failed[:3]}"
    model.serves(version)
    mine = [record for record in model.records() if record["cause"].get("experiment")]
    assert [record["action"] for record in mine] == ["Shift", "Shift", "Promote"]
    guardrails = mine[-1]["evidence"]["summary"]["guardrails"]
    assert guardrails["errors"][0] == "ErrorRate"


def test_an_experiment_takes_requests_back_from_one_that_does_harm(model: Model) -> None:
    """It answers its own example, and fails on days that it never saw."""
    counts(model)
    image = os.environ.get("BROKEN")
    if image is None:
        pytest.skip("no challenger that does harm: BROKEN=<image of target trainer-broken, trainer_image/Dockerfile>")
    until("nobody is watched or tried", lambda: "activeExperiment" not in model.status, 300)
    champion = model.status["champion"]["version"]
    bad = {"image": image, "architecture": "HAR", "hyperparameters": {"fault": "error"}, "seed": 8}
    # No copies before the split: it is to be found by what clients see.
    steps = {"steps": [{"name": "half", "weight": 50, "minBlocks": 100}]}
    model.patch({"promotion": {"experiment": {**TEMPLATE, "traffic": steps}}})
    days = market(image)
    version = model.challenger(bad, TRAINED)["version"]
    with asking(model, days) as clients:
        assert phase(model, version, "RolledBack", "Promoted", "Kept") == "RolledBack", _status(model, version)
        until("the champion answers all", lambda: clients.lately == {champion}, 60)
        quiet = len(clients.answers)
        until("many more are asked", lambda: len(clients.answers) > quiet + 200, 120)
    late = [answer for answer in clients.answers[quiet:] if answer[0] != 200]
    print(f"{BACKEND}: {len(clients.failed)} of {len(clients.answers)} requests failed until it was rolled back")
    assert clients.failed, "it did harm to nobody"
    assert not late, f"{len(late)} failed after the rollback: {late[:3]}"
    model.patch({"training": {"image": None, "architecture": "Linear", "hyperparameters": None, "seed": 7}})


def moved(model: Model, version: dict[str, str]) -> None:
    """Move every request to a version while clients ask; nobody is refused."""
    before = model.status["champion"]["version"]
    with asking(model) as clients:
        begun = time.monotonic()
        model.pin(version)
        model.serves(version["version"])
        until("all answers are the new version's", lambda: clients.lately == {version["version"]}, 60)
        seconds = time.monotonic() - begun
    print(f"{BACKEND}: version {before} -> {version['version']} in {seconds:.1f} s, {len(clients.answers)} requests")
    assert not clients.failed, f"{len(clients.failed)} of {len(clients.answers)} failed: {clients.failed[:3]}"
    assert {version for _, version in clients.answers} == {before, version["version"]}


def test_a_pin_and_its_revert_refuse_nobody(model: Model) -> None:
    accepted = {record["to"]["version"]: record["to"]["digest"] for record in model.records() if _accepts(record)}
    if "2" not in accepted:  # nothing was judged before
        accepted["2"] = model.challenger({"architecture": "Linear"}, TRAINED)["digest"]
    now = model.status["champion"]["version"]
    other = "1" if now == "2" else "2"
    for version in (other, now):
        moved(model, {"version": version, "digest": accepted[version]})
    assert {record["action"] for record in model.records()[-2:]} == {"Promote", "RollBack"}


def _accepts(record: dict[str, Any]) -> bool:
    return record["action"] == "Accept"
