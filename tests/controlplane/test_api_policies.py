"""The admission policies of deploy/, met as the users that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.controlplane.examples import approval, decision, model
from tests.controlplane.server import Refused, collection, path_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.controlplane.server import Api, Body, Server

STAMP = "fiduciary.dev/edited-by"
CONTROLLER = ("kube-system", "namespace-controller")
EVERY_DECISION = ("Approve", "Reject", "Abort", "Retrain", "RollBack", "Kill", "Resume")


@pytest.fixture(scope="module", autouse=True)
def _rights(server: Server) -> Iterator[None]:
    """RBAC lets everybody do everything with our kinds, so that only the policies stand between."""
    role: Body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "everything-of-ours"},
        "rules": [{"apiGroups": ["fiduciary.dev"], "resources": ["*"], "verbs": ["*"]}],
    }
    binding: Body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "everything-of-ours"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "everything-of-ours"},
        "subjects": [{"kind": "Group", "name": "system:authenticated", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    for body in (role, binding):
        server.admin.create(body)
    nobody = server.user("nobody")
    until("RBAC knows the new binding", lambda: _may_list(nobody))
    yield
    for body in (binding, role):
        server.admin.delete(f"{collection(body)}/everything-of-ours")
    until("RBAC has forgotten the binding", lambda: not _may_list(nobody))


def _may_list(api: Api) -> bool:
    try:
        api.get("/apis/fiduciary.dev/v1alpha1/namespaces/default/financialmodels")
    except Refused:
        return False
    return True


@pytest.fixture
def ana(server: Server) -> Api:
    """A member of the approvers."""
    return server.user("ana@desk", ["fiduciary:approvers"])


@pytest.fixture
def bob(server: Server) -> Api:
    """A quant in no group that we know."""
    return server.user("bob@desk", ["quants"])


def _approval(word: str, approver: str) -> Body:
    more: Body = {}
    if word in ("Approve", "Reject"):
        more = {"experiment": "spx-volatility-8", "evidenceDigest": "sha256:" + "0" * 64}
    return approval(f"{word.lower()}-1", approver, decision=word, **more)


def _stamp(body: Body) -> str | None:
    return body["metadata"].get("annotations", {}).get(STAMP)


# -- who approves


@pytest.mark.parametrize("word", EVERY_DECISION)
def test_an_approver_decides_in_her_own_name(ana: Api, namespace: str, word: str) -> None:
    made = ana.create(_approval(word, "ana@desk"), namespace=namespace)
    assert made["spec"]["approver"] == "ana@desk"


@pytest.mark.parametrize("word", EVERY_DECISION)
def test_nobody_decides_in_the_name_of_another(ana: Api, namespace: str, word: str) -> None:
    with pytest.raises(Refused) as refused:
        ana.create(_approval(word, "bob@desk"), namespace=namespace)
    assert refused.value.code == 403
    assert (
        'spec.approver is "bob@desk", but the API server knows you as "ana@desk"; '
        "a decision is signed by who makes it: write your own name (kubectl auth whoami)"
    ) in refused.value.message


@pytest.mark.parametrize("word", [word for word in EVERY_DECISION if word != "Kill"])
def test_who_is_in_no_approver_group_does_not_decide(bob: Api, namespace: str, word: str) -> None:
    with pytest.raises(Refused) as refused:
        bob.create(_approval(word, "bob@desk"), namespace=namespace)
    assert refused.value.code == 403
    assert f'"bob@desk" may not decide {word} in namespace {namespace}' in refused.value.message
    assert "ConfigMap fiduciary-system/fiduciary-governance" in refused.value.message


def test_everybody_may_kill(bob: Api, namespace: str) -> None:
    bob.create(_approval("Kill", "bob@desk"), namespace=namespace)


def test_operators_retrain_and_abort_and_no_more(server: Server, namespace: str) -> None:
    carl = server.user("carl@desk", ["fiduciary:operators"])
    for word in ("Retrain", "Abort"):
        carl.create(_approval(word, "carl@desk"), namespace=namespace)
    for word in ("Approve", "Reject", "RollBack", "Resume"):
        with pytest.raises(Refused, match=f"may not decide {word}"):
            carl.create(_approval(word, "carl@desk"), namespace=namespace)


def test_an_approval_never_changes_but_may_be_withdrawn(ana: Api, namespace: str) -> None:
    ana.create(_approval("Approve", "ana@desk"), namespace=namespace)
    path = path_of("ModelApproval", namespace, "approve-1")
    with pytest.raises(Refused, match="a ModelApproval cannot be changed"):
        ana.merge(path, {"spec": {"decision": "Reject"}})
    ana.delete(path)
    assert not ana.exists(path)


@pytest.fixture
def governance(server: Server) -> Iterator[str]:
    """The parameters, put back as they were."""
    path = path_of("ConfigMap", "fiduciary-system", "fiduciary-governance", "v1")
    before = server.admin.get(path)["data"]
    yield path
    now = server.admin.get(path) if server.admin.exists(path) else None
    if now is None:
        body: Body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "fiduciary-governance", "namespace": "fiduciary-system"},
            "data": before,
        }
        server.admin.create(body)
    else:
        server.admin.merge(path, {"data": {**dict.fromkeys(now["data"]), **before}})
    ana = server.user("ana@desk", ["fiduciary:approvers"])
    until("the parameters are back", lambda: not _refused(ana, _approval("Resume", "ana@desk"), "default"))


def _refused(api: Api, body: Body, namespace: str) -> str:
    """What the API server has against ``body`` ("" if nothing), without storing it."""
    try:
        api.request(
            "POST", f"/apis/fiduciary.dev/v1alpha1/namespaces/{namespace}/modelapprovals", body, {"dryRun": "All"}
        )
    except Refused as refused:
        return refused.message
    return ""


def test_a_namespace_may_have_approvers_of_its_own(server: Server, namespace: str, governance: str, ana: Api) -> None:
    dora = server.user("dora@risk", ["CN=Risk, Equity,OU=desk"])
    server.admin.merge(governance, {"data": {f"approvers.{namespace}": "CN=Risk, Equity,OU=desk\n"}})
    until(
        "the new list is in force",
        lambda: not _refused(dora, _approval("Resume", "dora@risk"), namespace),
    )
    assert f"approvers.{namespace} of ConfigMap" in _refused(ana, _approval("Resume", "ana@desk"), namespace)
    assert "may not decide" in _refused(dora, _approval("Resume", "dora@risk"), "default")


def test_without_parameters_nobody_decides(server: Server, namespace: str, governance: str, ana: Api) -> None:
    server.admin.delete(governance)
    until(
        "approvals fail closed",
        lambda: "failed to configure binding" in _refused(ana, _approval("Resume", "ana@desk"), namespace),
    )


# -- who edits


def test_creating_a_model_stamps_its_author(bob: Api, namespace: str) -> None:
    forged = model()
    forged["metadata"]["annotations"] = {STAMP: "ana@desk", "desk": "vol"}
    made = bob.create(forged, namespace=namespace)
    assert made["metadata"]["annotations"] == {STAMP: "bob@desk", "desk": "vol"}


def test_changing_the_spec_stamps_the_editor_and_nothing_else_does(
    server: Server, namespace: str, ana: Api, bob: Api
) -> None:
    bob.create(model(), namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    assert _stamp(ana.merge(path, {"metadata": {"labels": {"desk": "vol"}}})) == "bob@desk"
    assert _stamp(ana.merge(f"{path}/status", {"status": {"phase": "Training"}})) == "bob@desk"
    finalizer = {"metadata": {"finalizers": ["fiduciary.dev/finalizer"]}}
    assert _stamp(server.operator().merge(path, finalizer)) == "bob@desk"
    assert _stamp(ana.merge(path, {"spec": {"suspend": True}})) == "ana@desk"
    assert _stamp(bob.merge(path, {"spec": {"suspend": True}})) == "ana@desk", "an equal spec is no edit"
    server.operator().merge(path, {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    "annotations", [{STAMP: "ana@desk"}, {STAMP: None}, None, {STAMP: ""}], ids=["forged", "removed", "all", "emptied"]
)
def test_nobody_sets_or_removes_the_stamp(server: Server, namespace: str, bob: Api, annotations: Body | None) -> None:
    bob.create(model(), namespace=namespace)
    path = path_of("FinancialModel", namespace, "spx-volatility")
    for user in (bob, server.admin, server.operator()):
        for target in (path, f"{path}/status"):
            user.merge(target, {"metadata": {"annotations": annotations}, "status": {"phase": "Training"}})
            assert _stamp(server.admin.get(path)) == "bob@desk"


def test_an_apply_without_the_stamp_keeps_it(bob: Api, ana: Api, namespace: str) -> None:
    """The stamp's field belongs to the manager whose request was stamped; leaving it out must not remove it."""
    path = path_of("FinancialModel", namespace, "spx-volatility")
    for _ in range(2):
        assert _stamp(bob.apply(path, model(), manager="argocd")) == "bob@desk"
    assert _stamp(ana.apply(path, model(), manager="argocd")) == "bob@desk"
    assert _stamp(ana.apply(path, model(suspend=True), manager="argocd")) == "ana@desk"


def test_a_model_from_before_the_policies_has_no_editor(server: Server, namespace: str, bob: Api) -> None:
    """Such a model is made by taking the policy away for a moment; a change of labels invents no editor for it."""
    bindings = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings"
    binding = server.admin.get(f"{bindings}/fiduciary-editor")
    server.admin.delete(f"{bindings}/fiduciary-editor")
    try:
        unstamped = until(
            "models are not stamped any more",
            lambda: (lambda made: made if _stamp(made) is None else None)(
                bob.create({**model(), "metadata": {"generateName": "old-"}}, namespace=namespace)
            ),
        )
        forged = {**model("forged"), "metadata": {"name": "forged", "annotations": {STAMP: "ana@desk"}}}
        with pytest.raises(Refused, match=r'says who last changed the spec: it must be "bob@desk" here'):
            bob.create(forged, namespace=namespace)
    finally:
        for server_set in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
            binding["metadata"].pop(server_set, None)
        server.admin.request("POST", bindings, binding)
    probe = {**model(), "metadata": {"generateName": "probe-"}}
    until("models are stamped again", lambda: _stamp(bob.create(probe, namespace=namespace, dry_run=True)))
    path = path_of("FinancialModel", namespace, unstamped["metadata"]["name"])
    assert _stamp(bob.merge(path, {"metadata": {"labels": {"desk": "vol"}}})) is None
    assert _stamp(bob.merge(path, {"metadata": {"annotations": {STAMP: "ana@desk"}}})) is None
    assert _stamp(bob.merge(path, {"spec": {"suspend": True}})) == "bob@desk"


# -- the log


def test_only_the_operator_writes_records(server: Server, namespace: str, ana: Api) -> None:
    server.operator().create(decision(), namespace=namespace)
    other = server.service_account("quant", "fiduciary-operator")
    for user, name in (
        (ana, "ana@desk"),
        (server.admin, "sandbox-admin"),
        (other, "system:serviceaccount:quant:fiduciary-operator"),
    ):
        with pytest.raises(Refused) as refused:
            user.create(decision("other"), namespace=namespace)
        assert refused.value.code == 403
        assert (
            f'"{name}" may not write ModelDecisions: records are written by the operator only' in refused.value.message
        )


def test_record_n_is_created_once(server: Server, namespace: str) -> None:
    operator = server.operator()
    operator.create(decision(), namespace=namespace)
    with pytest.raises(Refused) as refused:
        operator.create(decision(action="Reject"), namespace=namespace)
    assert refused.value.code == 409
    assert refused.value.reason == "AlreadyExists"


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"action": "Reject"}},
        {"spec": {"evidence": {"summary": {"metrics": None}}}},
        {"metadata": {"labels": {"fiduciary.dev/model": "other"}}},
        {"metadata": {"annotations": {"note": "not so"}}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]}},
        {"metadata": {"finalizers": ["example.com/never"]}},
    ],
    ids=["action", "evidence", "label", "annotation", "owner", "finalizer"],
)
def test_records_are_never_changed(server: Server, namespace: str, patch: Body) -> None:
    server.operator().create(decision(), namespace=namespace)
    path = path_of("ModelDecision", namespace, "spx-volatility-1")
    retention = server.user("archive", ["fiduciary:retention"])
    before = server.admin.get(path)
    for user in (server.admin, retention):
        with pytest.raises(Refused, match="a ModelDecision"):
            user.merge(path, patch)
    assert server.admin.get(path) == before


def test_records_are_deleted_by_retention_only(server: Server, namespace: str, ana: Api) -> None:
    server.operator().create(decision(), namespace=namespace)
    path = path_of("ModelDecision", namespace, "spx-volatility-1")
    all_of_them = path.rpartition("/")[0]
    for user, name in ((ana, "ana@desk"), (server.admin, "sandbox-admin")):
        for target in (path, all_of_them):
            with pytest.raises(Refused, match=f'"{name}" may not delete ModelDecisions: the log outlives its model'):
                user.delete(target)
    with pytest.raises(Refused, match="may not delete ModelDecisions"):
        server.service_account(*CONTROLLER).delete(path)
    assert server.admin.exists(path), "somebody deleted a record of a living namespace"
    server.user("archive", ["fiduciary:retention"]).delete(path)
    assert not server.admin.exists(path)


def test_deleting_a_model_leaves_its_records(server: Server, namespace: str) -> None:
    server.admin.create(model(), namespace=namespace)
    server.operator().create(decision(), namespace=namespace)
    server.admin.delete(path_of("FinancialModel", namespace, "spx-volatility"))
    assert server.admin.exists(path_of("ModelDecision", namespace, "spx-volatility-1"))


def test_a_namespace_with_records_can_be_deleted(server: Server, namespace: str, ana: Api) -> None:
    server.admin.create(model(), namespace=namespace)
    ana.create(_approval("Resume", "ana@desk"), namespace=namespace)
    for number in (1, 2, 3):
        server.operator().create(decision(sequence=number), namespace=namespace)
    server.admin.delete(f"/api/v1/namespaces/{namespace}")
    until("the namespace is gone", lambda: not server.admin.exists(f"/api/v1/namespaces/{namespace}"), seconds=60)


def test_retention_in_the_foreground_is_not_held_up(server: Server, namespace: str) -> None:
    """The garbage collector takes its finalizer off by an update, which changes nothing of the record."""
    server.operator().create(decision(), namespace=namespace)
    path = path_of("ModelDecision", namespace, "spx-volatility-1")
    options: Body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
    server.user("archive", ["fiduciary:retention"]).request("DELETE", path, options)
    until("the record is gone", lambda: not server.admin.exists(path), seconds=60)
