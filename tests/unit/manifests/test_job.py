"""The training Job beside its golden YAML, and what must hold for any spec."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fiduciary.api import meta
from fiduciary.decide import identity
from fiduciary.manifests import contract
from fiduciary.manifests.engines import training_objects
from fiduciary.manifests.job import FATAL_EXIT_CODES, PEER_LOST, limits, requests
from fiduciary.manifests.mounts import references
from fiduciary.manifests.networkpolicy import LABEL_EGRESS, egress_id, network_policy
from fiduciary.manifests.quantity import parse_quantity, times
from fiduciary.manifests.serviceaccount import service_account
from tests.unit.decide.worlds import NAMESPACE, PLATFORM, UID, merged, model

ARGO = {"labels": {"app.kubernetes.io/instance": "desk", "team": "vol"}}

FILES: dict[str, Any] = {
    "data": {"source": {"dataset": None, "files": {"uri": "s3://desk/spx.csv", "secretRef": {"name": "desk-s3"}}}}
}
FEAST: dict[str, Any] = {
    "data": {
        "source": {
            "dataset": None,
            "feast": {
                "featureService": "spx_v3",
                "entityUri": "pvc://bars/spine.parquet",
                "configSecretRef": {"name": "desk-feast"},
            },
        }
    }
}
SHARED_CLAIM: dict[str, Any] = {
    "data": {"source": {"dataset": None, "files": {"uri": "pvc://bars/spx/*.parquet"}}},
    "training": {"checkpoint": {"uri": "pvc://bars/ckpt", "every": 2}},
}


def job(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return objects(spec, **metadata)[-1]


def objects(spec: dict[str, Any] | None = None, **metadata: Any) -> tuple[dict[str, Any], ...]:
    given = model(spec, metadata=metadata or None)
    key = identity.training_key(given.spec, "2017-12-29", {})
    training = contract.Training(
        key=key,
        spec_key=identity.spec_key(given.spec),
        config_key=identity.config_key(given.spec),
        attempt=1,
        as_of="2017-12-29",
        trigger={},
        job=identity.job_name(given.metadata.name, key, 1),
        cluster=PLATFORM.cluster,
        image=given.spec.training.image or PLATFORM.trainer_image,
        tracking_uri="http://mlflow.mlflow.svc:5000",
        operator_version="0.1.0",
    )
    return training_objects(given, training, egress_id(given, PLATFORM.mlflow_egress))


def pod(body: dict[str, Any]) -> dict[str, Any]:
    return body["spec"]["template"]["spec"]


def container(body: dict[str, Any]) -> dict[str, Any]:
    [found] = pod(body)["containers"]
    return found


def mounts(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {mount["mountPath"]: mount for mount in container(body)["volumeMounts"]}


@pytest.mark.parametrize("spec", [{}, FILES, SHARED_CLAIM])
def test_restricted_pod_security(spec: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/: every control of `restricted`."""
    body = job(spec)
    assert pod(body)["securityContext"]["runAsNonRoot"] is True
    assert pod(body)["securityContext"]["runAsUser"] > 0
    assert pod(body)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(body)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(body)["automountServiceAccountToken"] is False
    assert pod(body)["enableServiceLinks"] is False
    allowed = {"emptyDir", "downwardAPI", "secret", "persistentVolumeClaim"}
    assert {kind for volume in pod(body)["volumes"] for kind in volume if kind != "name"} <= allowed
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod(body).keys()


def test_exit_codes_decide_retries_and_a_drained_node_burns_none() -> None:
    rules = job({"training": {"retry": {"limit": 4}}})["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert rules[1]["onExitCodes"]["values"] == list(FATAL_EXIT_CODES) == [42, 43, 44, 64]
    assert job({"training": {"retry": {"limit": 4}}})["spec"]["backoffLimit"] == 4
    assert pod(job())["restartPolicy"] == "Never", "podFailurePolicy needs it"


SEARCH: dict[str, Any] = {
    "training": {
        "architecture": "MLP",
        "retry": {"limit": 4},
        "checkpoint": {"uri": "pvc://ckpt/spx", "every": 1},
        "search": {"trials": 20, "parallelism": 2, "space": {"hidden": {"int": [8, 64]}}},
    }
}


def test_a_parallel_search_is_one_job_of_numbered_pods_that_ends_with_the_one_that_trains() -> None:
    spec = job(SEARCH)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert spec["backoffLimitPerIndex"] == 4, "a pod that cannot be kept alive costs the others no retry"
    assert "backoffLimit" not in spec
    assert spec["podReplacementPolicy"] == "Failed"
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "FailJob"]
    few = merged(SEARCH, {"training": {"search": {"trials": 3, "parallelism": 8}}})
    assert (job(few)["spec"]["completions"], job(few)["spec"]["parallelism"]) == (3, 3), "no pod without a trial"
    alone = merged(SEARCH, {"training": {"search": {"parallelism": 1}}})
    assert "completionMode" not in job(alone)["spec"]
    assert job(alone)["spec"]["backoffLimit"] == 4


WORKERS: dict[str, Any] = {"training": {"architecture": "LSTM", "nodes": 3, "retry": {"limit": 4}}}


def test_workers_are_numbered_pods_none_of_which_can_be_missed() -> None:
    spec = job(WORKERS)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (4, 0)
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    lost = spec["podFailurePolicy"]["rules"][-1]
    assert (lost["action"], lost["onExitCodes"]["values"]) == ("Ignore", [PEER_LOST])
    assert PEER_LOST not in FATAL_EXIT_CODES


def test_workers_meet_at_the_first_of_them_under_a_name_that_fits() -> None:
    given = merged(WORKERS, {"training": {"nodes": 64}})
    body = job(given, name="m" * 40)
    environment = {entry["name"]: entry["value"] for entry in container(body)["env"]}
    host, _, service = environment["MASTER_ADDR"].partition(".")
    assert host == f"{body['metadata']['name']}-0"
    assert service == pod(body)["subdomain"] == objects(given, name="m" * 40)[0]["metadata"]["name"]
    assert len(f"{body['metadata']['name']}-63") <= 63, "a host name is a label"
    assert environment["MASTER_PORT"] == "29500"
    assert "MASTER_ADDR" not in {entry["name"] for entry in container(job())["env"]}
    assert "subdomain" not in pod(job())


def test_workers_talk_to_each_other_and_to_nobody_else() -> None:
    given = model(WORKERS)
    policy, alone = (network_policy(each, PLATFORM.mlflow_egress)["spec"] for each in (given, model()))
    [peer] = policy["ingress"][0]["from"]
    assert peer["podSelector"] == policy["podSelector"], "the pods of this very policy, in this namespace"
    assert peer.keys() == {"podSelector"}
    assert len(policy["ingress"]) == 1
    assert policy["egress"] == [*alone["egress"], {"to": [peer]}]
    assert "ingress" not in alone
    assert egress_id(given, PLATFORM.mlflow_egress) != egress_id(model(), PLATFORM.mlflow_egress)
    labels = job(WORKERS)["spec"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("engine", ["JobSet", "TrainJob"])
def test_other_engines_run_the_same_confined_pod(engine: str) -> None:
    given = merged(WORKERS, {"training": {"engine": engine}})
    *_, last = objects(given)
    assert last["kind"] == engine
    first = objects(given)[0]
    spec = first["spec"] if engine == "JobSet" else first["spec"]["template"]["spec"]
    [replicated] = spec["replicatedJobs"]
    inner, plain = replicated["template"]["spec"], job(WORKERS)["spec"]
    assert (inner["completions"], inner["parallelism"], inner["backoffLimit"]) == (3, 3, 0)
    assert not {"backoffLimitPerIndex", "maxFailedIndexes"} & inner.keys(), "all are restarted, not one of them"
    assert spec["failurePolicy"]["maxRestarts"] == 4
    assert inner["podFailurePolicy"] == plain["podFailurePolicy"]
    mine, theirs = inner["template"]["spec"], dict(plain["template"]["spec"])
    del theirs["subdomain"]
    assert {**mine, "containers": []} == {**theirs, "containers": []}
    environment = {entry["name"]: entry["value"] for entry in mine["containers"][0]["env"]}
    name = last["metadata"]["name"]
    assert environment["MASTER_ADDR"] == f"{name}-node-0-0.{name}"
    assert last["metadata"]["annotations"].keys() == job(WORKERS)["metadata"]["annotations"].keys()


def test_the_names_of_a_jobsets_pods_fit() -> None:
    """JobSet's webhook refuses names of which a pod's would be longer than a label."""
    [body] = objects({"training": {"engine": "JobSet", "architecture": "LSTM", "nodes": 64}}, name="m" * 35)
    attempt = body["metadata"]["name"].removesuffix("1") + "21"
    assert len(f"{attempt}-node-0-63-abcde") <= 63


def test_the_operator_deletes_the_job_not_a_timer() -> None:
    spec = job({"training": {"activeDeadline": "1h30m"}})["spec"]
    assert "ttlSecondsAfterFinished" not in spec
    assert "suspend" not in spec, "Kueue's to set"
    assert spec["activeDeadlineSeconds"] == 5400


def test_labels_are_ours_alone() -> None:
    body = job(**ARGO)
    assert body["metadata"]["labels"] == {
        meta.LABEL_MODEL: "spx-volatility",
        meta.LABEL_MANAGED_BY: "fiduciary",
        meta.LABEL_COMPONENT: "training",
    }
    assert body["spec"]["template"]["metadata"]["labels"].keys() == {
        meta.LABEL_MODEL,
        meta.LABEL_MANAGED_BY,
        meta.LABEL_COMPONENT,
        LABEL_EGRESS,
    }
    assert body["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "fiduciary.dev/v1alpha1",
            "kind": "FinancialModel",
            "name": "spx-volatility",
            "uid": UID,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def test_a_user_cannot_overwrite_our_labels_or_the_document() -> None:
    """The API server refuses such keys; what was stored before must not get through either."""
    template = {"labels": {"team": "vol"}, "annotations": {"note": "x"}}
    body = job({"training": {"podTemplate": template, "queueName": "quant"}})
    metadata = body["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "vol"
    assert metadata["annotations"]["note"] == "x"
    assert json.loads(metadata["annotations"][meta.ANNOTATION_JOB])["contractVersion"] == 1
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "quant"


def test_scheduling_is_copied_and_nothing_else() -> None:
    template: dict[str, Any] = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "batch",
        "runtimeClassName": "nvidia",
        "imagePullSecrets": [{"name": "registry"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]
                }
            }
        },
        "topologySpread": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
    }
    spec = pod(job({"training": {"podTemplate": template}}))
    assert spec["nodeSelector"] == {"disk": "ssd"}
    assert spec["tolerations"][0]["key"] == "gpu"
    assert spec["priorityClassName"] == "batch"
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["key"] == "gpu"
    assert spec["topologySpreadConstraints"][0]["maxSkew"] == 1


def test_the_document_is_the_contract_and_names_no_secret() -> None:
    text = job(FILES)["spec"]["template"]["metadata"]["annotations"][meta.ANNOTATION_JOB]
    document = json.loads(text)
    assert "desk-s3" not in text
    assert document["model"] == {
        "cluster": "sandbox",
        "namespace": NAMESPACE,
        "name": "spx-volatility",
        "uid": UID,
    }
    assert document["asOf"] == "2017-12-29"
    assert "asOf" not in document["data"]
    assert document["data"]["label"] == {"kind": "Volatility", "column": "close", "horizon": 1}
    assert document["data"]["checks"] == {"minRows": 1000, "maxMissing": "0.02", "maxStaleness": "5d"}
    assert document["training"]["validation"]["embargo"] == 66
    assert document["training"]["seed"] == 7
    assert document["checkpoint"] is None
    assert document["mlflow"] == {
        "trackingUri": "http://mlflow.mlflow.svc:5000",
        "experiment": "quant.spx-volatility",
    }
    assert document["provenance"]["image"] == "fiduciary-trainer:0.1.0"


def test_the_trainer_itself_accepts_the_document() -> None:
    trainer = pytest.importorskip("fiduciary_trainer.contract")
    for spec in ({}, FILES, SHARED_CLAIM, FEAST):
        annotation = job(spec)["spec"]["template"]["metadata"]["annotations"][meta.ANNOTATION_JOB]
        parsed = trainer.parse(json.loads(annotation))
        assert parsed.training.architecture == "HAR"
    annotation = job(SEARCH)["spec"]["template"]["metadata"]["annotations"][meta.ANNOTATION_JOB]
    search = trainer.parse(json.loads(annotation)).training.search
    assert (search.trials, search.parallelism, search.sampler, search.pruner) == (20, 2, "TPE", "Median")
    assert [(each.name, each.ends) for each in search.space] == [("hidden", (8, 64))]


def test_quantiles_reach_the_trainer_and_stand_nowhere_else() -> None:
    """A document without them is what it was: its bytes are in the Job, and a change would make another one."""
    trainer = pytest.importorskip("fiduciary_trainer.contract")
    spec = {"training": {"architecture": "MLP", "quantiles": ["0.05", "0.95"]}}
    parsed = trainer.parse(json.loads(job(spec)["spec"]["template"]["metadata"]["annotations"][meta.ANNOTATION_JOB]))
    assert parsed.training.quantiles == (0.05, 0.95)
    assert "quantiles" not in job({})["spec"]["template"]["metadata"]["annotations"][meta.ANNOTATION_JOB]


def test_a_secret_is_mounted_and_not_inside_the_documents_folder() -> None:
    found = mounts(job(FILES))
    assert found["/etc/fiduciary/secret"]["readOnly"] is True
    assert found["/etc/fiduciary/job.json"]["subPath"] == "job.json"
    assert not {path for path in found if path.rstrip("/") == "/etc/fiduciary"}


def test_checkpoints_may_have_a_secret_of_their_own() -> None:
    spec = merged(FILES, {"training": {"checkpoint": {"uri": "s3://ckpt/spx", "secretRef": {"name": "desk-ckpt"}}}})
    body = job(spec)
    volumes = {volume["name"]: volume for volume in pod(body)["volumes"]}
    assert volumes["secret"]["secret"]["secretName"] == "desk-s3"
    assert volumes["checkpoint-secret"]["secret"] == {"secretName": "desk-ckpt", "defaultMode": 0o440}
    assert mounts(body)["/etc/fiduciary/checkpoint-secret"]["readOnly"] is True
    text = body["spec"]["template"]["metadata"]["annotations"][meta.ANNOTATION_JOB]
    assert "desk-ckpt" not in text
    assert json.loads(text)["checkpoint"] == {"uri": "s3://ckpt/spx", "every": 1}
    assert ("Secret", "desk-ckpt") in references(model(spec).spec), "preflight asks whether its owner allows it"


def test_a_feature_store_gets_its_settings_its_entity_frame_and_a_way_out() -> None:
    body = job(FEAST)
    volumes = {volume["name"]: volume for volume in pod(body)["volumes"]}
    assert volumes["secret"]["secret"]["secretName"] == "desk-feast"
    assert {"/etc/fiduciary/secret", "/data/bars"} <= set(mounts(body))
    text = body["spec"]["template"]["metadata"]["annotations"][meta.ANNOTATION_JOB]
    assert json.loads(text)["data"]["source"] == {
        "feast": {"featureService": "spx_v3", "entityUri": "pvc://bars/spine.parquet"}
    }
    assert "desk-feast" not in text
    egress = network_policy(model(FEAST), PLATFORM.mlflow_egress)["spec"]["egress"]
    assert {"protocol": "TCP", "port": 443} in egress[-1]["ports"], "registry and sources are wherever the Secret says"


def test_one_claim_may_hold_data_and_checkpoints() -> None:
    body = job(SHARED_CLAIM)
    claims = [volume for volume in pod(body)["volumes"] if "persistentVolumeClaim" in volume]
    assert len(claims) == 1
    assert mounts(body)["/data/bars"]["readOnly"] is True
    assert "readOnly" not in mounts(body)["/checkpoint/bars"]
    assert "readOnly" not in claims[0]["persistentVolumeClaim"]


@pytest.mark.parametrize(
    ("resources", "expected", "threads"),
    [
        ({"requests": {"cpu": "1", "memory": "1Gi"}}, {"cpu": "1", "memory": "1Gi"}, "1"),
        ({"requests": None}, {"cpu": "500m", "memory": "1Gi"}, "1"),
        ({"requests": {"cpu": "2500m", "memory": None}}, {"cpu": "2500m", "memory": "1Gi"}, "3"),
        ({"requests": None, "limits": {"cpu": "4", "memory": "8Gi"}}, {"cpu": "4", "memory": "8Gi"}, "4"),
    ],
)
def test_resources(resources: dict[str, Any], expected: dict[str, str], threads: str) -> None:
    spec = {"training": {"resources": resources}}
    assert requests(model(spec)) == expected
    environment = {entry["name"]: entry["value"] for entry in container(job(spec))["env"]}
    assert environment["OMP_NUM_THREADS"] == threads
    assert environment["HOME"] == "/scratch"
    assert limits(model(spec)) == resources.get("limits", {})


@pytest.mark.parametrize(
    ("text", "value"),
    [("200m", "0.2"), ("1Gi", "1073741824"), ("1e3", "1000"), ("2", "2"), ("1.5Mi", "1572864"), ("100n", "1e-7")],
)
def test_quantities(text: str, value: str) -> None:
    assert parse_quantity(text) == parse_quantity(value)


@pytest.mark.parametrize("text", ["200m", "1Gi", "0.5", "1.25Mi", "1e3", "2"])
def test_quantities_of_several_pods(text: str) -> None:
    assert times(text, 1) == text
    assert parse_quantity(times(text, 3)) == 3 * parse_quantity(text)


def test_network_policy_denies_all_but_dns_mlflow_and_storage() -> None:
    plain, remote = (network_policy(model(spec), PLATFORM.mlflow_egress) for spec in ({}, FILES))
    assert plain["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in plain["spec"]
    ports = [[port["port"] for port in rule["ports"]] for rule in plain["spec"]["egress"]]
    assert ports == [[53, 53], [5000]]
    assert [[port["port"] for port in rule["ports"]] for rule in remote["spec"]["egress"]] == [[53, 53], [5000], [443]]
    assert plain["metadata"]["name"] != remote["metadata"]["name"], "another source is another policy"
    selected = plain["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= job()["spec"]["template"]["metadata"]["labels"].items()


def test_the_service_account_has_no_token() -> None:
    body = service_account(model())
    assert body["automountServiceAccountToken"] is False
    assert body["metadata"]["name"] == pod(job())["serviceAccountName"] != "default"


def test_names_fit() -> None:
    longest = "m" * 40
    given = model({}, name=longest)
    assert len(network_policy(given, ())["metadata"]["name"]) <= 63
    assert len(identity.job_name(longest, "sha256:" + "f" * 64, 99)) <= 63


def test_equal_worlds_make_equal_jobs() -> None:
    again = merged(FILES, {})
    assert job(FILES) == job(again)
