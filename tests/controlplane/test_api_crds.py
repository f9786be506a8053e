"""The CRDs on a real API server: accepted, defaulted, explained, and shown by kubectl."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from fiduciary.api.crd import KINDS
from tests.controlplane.examples import approval, decision, experiment, model, policy
from tests.controlplane.server import GROUP, Refused, path_of

if TYPE_CHECKING:
    from fiduciary.api.meta import Resource
    from tests.controlplane.server import Body, Kubectl, Server

ROOTS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_crd_is_established_and_structural(server: Server, kind: type[Resource]) -> None:
    crd = server.admin.get(f"{ROOTS}/{kind.registration.plural}.fiduciary.dev")
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


def test_short_names_and_category(server: Server) -> None:
    resources = server.admin.get(f"/apis/{GROUP}")["resources"]
    short = {resource["name"]: resource.get("shortNames") for resource in resources if "/" not in resource["name"]}
    assert short == {
        "financialmodels": ["fm"],
        "modelexperiments": ["mx"],
        "driftpolicies": ["dp"],
        "modelapprovals": ["ma"],
        "modeldecisions": ["md"],
    }
    assert all(r["categories"] == ["fiduciary"] for r in resources if "/" not in r["name"])
    assert {r["name"] for r in resources if r["name"].endswith("/status")} == {
        "financialmodels/status",
        "modelexperiments/status",
        "driftpolicies/status",
    }


def test_a_minimal_model_is_completed_with_the_documented_defaults(server: Server, namespace: str) -> None:
    made = server.admin.create(model(), namespace=namespace)
    assert made["status"] == {"observedGeneration": -1}
    spec = made["spec"]
    assert spec["suspend"] is False
    assert spec["deletionPolicy"] == "Delete"
    assert spec["kill"] == {"engaged": False, "action": "Block"}
    assert spec["data"]["label"] == {"kind": "Volatility", "column": "close", "horizon": 1}
    assert spec["data"]["checks"] == {"minRows": 1000, "maxMissing": "0.02", "maxStaleness": "5d"}
    assert spec["registry"] == {"connection": "mlflow"}
    assert spec["promotion"] == {"mode": "Auto", "approvals": 0, "rollbackWindow": "24h"}
    assert spec["training"] == {
        "engine": "Job",
        "architecture": "HAR",
        "validation": {"scheme": "WalkForward", "folds": 6, "purge": 1, "embargo": 66, "costBps": "2"},
        "seed": 7,
        "nodes": 1,
        "retry": {"limit": 2},
        "activeDeadline": "6h",
    }
    assert "serving" not in spec, "a model that asks for no serving must not look as if it did"


def test_status_is_a_subresource_that_a_spec_write_cannot_touch(server: Server, namespace: str) -> None:
    server.admin.create({**model(), "status": {"phase": "Serving"}}, namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    assert server.admin.get(path)["status"] == {"observedGeneration": -1}
    server.admin.merge(f"{path}/status", {"status": {"phase": "Training", "observedGeneration": 1}})
    stored = server.admin.get(path)
    assert stored["status"] == {"phase": "Training", "observedGeneration": 1}
    assert stored["metadata"]["generation"] == 1, "a status write is no new generation"


def test_conditions_are_a_map_by_type(server: Server, namespace: str) -> None:
    server.admin.create(model(), namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "Training",
        "message": "attempt 1 of 3",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-24T00:00:00Z",
    }
    identity: Body = {"apiVersion": GROUP, "kind": "FinancialModel", "metadata": {"name": "spx-volatility"}}
    twice = {**identity, "status": {"conditions": [ready, ready]}}
    with pytest.raises(Refused, match="duplicate entries for key"):
        server.admin.apply(f"{path}/status", twice, manager="fiduciary")
    server.admin.apply(f"{path}/status", {**identity, "status": {"conditions": [ready]}}, manager="fiduciary")
    other = {**ready, "type": "ByAnother"}
    server.admin.apply(f"{path}/status", {**identity, "status": {"conditions": [other]}}, manager="another")
    kinds = {condition["type"] for condition in server.admin.get(path)["status"]["conditions"]}
    assert kinds == {"Ready", "ByAnother"}, "one manager's apply must not remove another's condition"


@pytest.mark.parametrize("make", [model, experiment, policy, approval, decision], ids=lambda make: make.__name__)
def test_a_good_object_of_each_kind_is_accepted_and_parsed_back(
    server: Server, namespace: str, make: type[Body]
) -> None:
    body = make()
    user = server.operator() if body["kind"] == "ModelDecision" else server.admin
    stored = user.create(body, namespace=namespace)
    kind = next(kind for kind in KINDS if kind.__name__ == body["kind"])
    parsed = kind.model_validate(stored)
    again = parsed.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert _contains(again["spec"], stored["spec"]), "parsing lost something that the API server stored"


def _contains(whole: object, part: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return whole == part


def test_what_kubectl_get_shows(server: Server, namespace: str, kubectl: Kubectl) -> None:
    server.admin.create(model(), namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    status: Body = {
        "observedGeneration": 1,
        "phase": "Serving",
        "champion": {"version": "1"},
        "challenger": {"version": "2"},
        "endpoint": {"url": "http://models.example.com/v2/models/quant.spx-volatility"},
        "training": {"key": "sha256:" + "a" * 64, "runId": "run-1", "progress": {"percent": 40}},
        "nextTraining": "2026-11-25T03:00:00Z",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Serving",
                "message": "version 1 answers",
                "lastTransitionTime": "2026-11-24T00:00:00Z",
            }
        ],
    }
    server.admin.merge(f"{path}/status", {"status": status})
    head, row = (line.split() for line in kubectl("get", "fm").splitlines())
    assert head == ["NAME", "PHASE", "CHAMPION", "CHALLENGER", "READY", "REASON", "ENDPOINT", "AGE"]
    assert row[:6] == ["spx-volatility", "Serving", "1", "2", "True", "Serving"]
    assert row[6] == "http://models.example.com/v2/models/quant.spx-volatility"
    wide = kubectl("get", "fm", "-o", "wide")
    assert wide.splitlines()[0].split()[8:] == [
        "ARCHITECTURE",
        "PROGRESS",
        "RUN",
        "NEXT",
        "SUSPENDED",
        "MESSAGE",
    ]
    assert "version 1 answers" in wide
    assert "<invalid>" not in wide, "a time in the future is not an age"


def test_columns_of_the_other_kinds(server: Server, namespace: str, kubectl: Kubectl) -> None:
    server.admin.create(experiment(), namespace=namespace)
    server.admin.create(policy(), namespace=namespace)
    server.operator().create(decision(), namespace=namespace)
    heads = {name: kubectl("get", name).splitlines()[0].split() for name in ("mx", "dp", "md")}
    assert heads == {
        "mx": ["NAME", "MODEL", "PHASE", "STEP", "WEIGHT", "VERDICT", "LOGE", "N", "DATA", "AGE"],
        "dp": ["NAME", "MODEL", "STATE", "REASON", "WORST", "SCORE", "WINDOW", "NEXT", "AGE"],
        "md": ["NAME", "MODEL", "ACTION", "FROM", "TO", "CAUSE", "AGE"],
    }
    shown = kubectl("get", "fiduciary", "-o", "name").split()
    assert len(shown) == 3, "the category shows all kinds"


def test_records_are_found_by_their_model(server: Server, namespace: str, kubectl: Kubectl) -> None:
    operator = server.operator()
    for name in ("spx-volatility", "other"):
        operator.create(decision(name), namespace=namespace)
    found = kubectl("get", "md", "--field-selector=spec.modelRef.name=other", "-o", "name")
    assert found.split() == ["modeldecision.fiduciary.dev/other-1"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("fm", "A financial machine-learning model from its data to its production service."),
        ("fm.spec.data.asOf", "Point in time: no row after this date is read."),
        ("fm.spec.training.validation.embargo", "Default: 66."),
        ("fm.spec.kill.engaged", "newer ModelApproval {decision: Resume}"),
        ("fm.status.conditions.reason", "One stable CamelCase word for programs"),
        ("mx.spec.evidence.alpha.promote", 'Default: "0.05".'),
        ("dp.spec.window.rows", "Rows per entity."),
        ("ma.spec.evidenceDigest", "status.approvalRequest.digest of the model or of the experiment"),
        ("md.spec.previous", "a chain that cannot be changed unnoticed"),
    ],
)
def test_kubectl_explain_reads_well(kubectl: Kubectl, field: str, text: str) -> None:
    assert text in " ".join(kubectl("explain", field).split())


def test_only_mode_suspend_and_rising_approvals_of_an_experiment_change(server: Server, namespace: str) -> None:
    server.admin.create(experiment(), namespace=namespace)
    path = path_of("ModelExperiment", namespace, "spx-volatility-8")
    changed = server.admin.merge(path, {"spec": {"mode": "Advise", "suspend": True, "approvals": 2}})
    assert changed["metadata"]["generation"] == 2
    with pytest.raises(Refused, match=r"spec\.approvals: Invalid value: approvals may only rise"):
        server.admin.merge(path, {"spec": {"approvals": 1}})
    for patch in (
        {"challenger": {"version": "9"}},
        {"champion": {"version": "7"}},
        {"purpose": "Refresh"},
        {"traffic": {"sticky": {"header": "fiduciary-bucket"}}},
        {"evidence": {"alpha": {"promote": "0.1"}}},
        {"objectives": [{"name": "profit", "metric": "PairedLoss"}]},
        {"circuitBreakers": [{"metric": "PaperDrawdown", "above": "25000"}]},
        {"calendar": {"exchange": "XNYS"}},
    ):
        (field,) = patch
        with pytest.raises(Refused, match=f"{field} of a ModelExperiment cannot be changed"):
            server.admin.merge(path, {"spec": patch})


def test_approvals_are_immutable(server: Server, namespace: str) -> None:
    server.admin.create(approval(), namespace=namespace)
    with pytest.raises(Refused, match="a ModelApproval cannot be changed; create a new one"):
        server.admin.merge(path_of("ModelApproval", namespace, "kill-1"), {"spec": {"reason": "on second thought"}})


def test_a_model_can_be_replaced_with_a_shorter_one(server: Server, namespace: str) -> None:
    """Nothing in the schema holds on to optional parts: rules must not compare with what is gone."""
    full = model(gates=[{"metric": "har_skill", "above": "-0.02"}])
    server.admin.create(full, namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    short = copy.deepcopy(model())
    short["metadata"]["resourceVersion"] = server.admin.get(path)["metadata"]["resourceVersion"]
    replaced = server.admin.request("PUT", path, short)
    assert "gates" not in replaced["spec"]
