"""The outcome scorer of one namespace: one process, its volume, who may reach it and who may write.

Everything is a function of the namespace and of the operator's settings, so that all models of a namespace ask for the
same. Nothing has an owner: ledgers are evidence, and outlive the model that they judge. The claim is created once and
never changed or deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import confinement
from fiduciary.manifests.content import sealed
from fiduciary.manifests.json_text import compact
from fiduciary.manifests.networkpolicy import DNS

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModelSpec
    from fiduciary.manifests.plans import Scoring

Body = dict[str, Any]

NAME = "fiduciary-outcomes"
"""Of the Deployment, its Service, account, claim and policy."""
WRITER_ACCOUNT = "outcome-writer"
COMPARISON_ACCOUNT = "fiduciary-comparison"
PORT, METRICS_PORT = 8080, 8082
DATA, SECRET, ISSUER = "/data", "/etc/fiduciary/secret", "/var/run/fiduciary/issuer"
PASSWORD = "password"
"""Field of the Secret that names PostgreSQL's password."""
IN_CLUSTER_KEYS = "https://kubernetes.default.svc/openid/v1/jwks"
CONTRACT_VERSION = 1
DRAIN_SECONDS, SPARE_SECONDS = 10, 20
TOKEN_SECONDS = 3600
ROOT_CA = "kube-root-ca.crt"  # ConfigMap that every namespace has
_COMPONENT = {meta.LABEL_COMPONENT: meta.OUTCOMES}
_SELECTOR = {"app.kubernetes.io/name": NAME, **_COMPONENT}
_API_SERVER: Body = {"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443}]}


def scored(spec: FinancialModelSpec) -> bool:
    """Whether experiments decide about this model, so that its predictions have to meet their outcomes.

    Pinning changes nothing here: whoever pins in an emergency must not have every pod replaced.
    """
    promotion = spec.promotion
    people_alone = promotion.mode == "Manual" and promotion.experiment is None
    return spec.serving is not None and not people_alone


def audience(namespace: str) -> str:
    """Of the tokens that the scorer of a namespace takes. What one receives, none of another namespace believes."""
    return f"{NAME}.{namespace}"


def records_url(namespace: str) -> str:
    """Where the model servers of a namespace send their predictions."""
    return f"http://{NAME}.{namespace}.svc:{PORT}/v1/records"


RECORDS_EGRESS: tuple[Body, ...] = (
    {"to": [{"podSelector": {"matchLabels": _SELECTOR}}], "ports": [{"protocol": "TCP", "port": PORT}]},
)
"""The way there, for their NetworkPolicy."""


def objects(namespace: str, scoring: Scoring) -> tuple[Body, ...]:
    """All but the claim; what confines the pod comes before it."""
    accounts = (NAME, WRITER_ACCOUNT, COMPARISON_ACCOUNT)
    bodies = (
        *(_account(namespace, name) for name in accounts),
        _policy(namespace, scoring),
        _service(namespace),
        _deployment(namespace, scoring),
    )
    return tuple(sealed(body) for body in bodies)


def claim(namespace: str, scoring: Scoring) -> Body | None:
    """The volume of the SQLite store; None where PostgreSQL keeps it."""
    if scoring.postgresql is not None:
        return None
    spec: Body = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": scoring.storage_size}},
    }
    if scoring.storage_class is not None:
        spec["storageClassName"] = scoring.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(namespace, NAME),
        "spec": spec,
    }


def document(namespace: str, scoring: Scoring) -> Body:
    """What the process is told (docs/outcomes.md)."""
    keys: Body = {"url": scoring.keys_url}
    if scoring.keys_url == IN_CLUSTER_KEYS:
        keys |= {"caFile": f"{ISSUER}/ca.crt", "tokenFile": f"{ISSUER}/token"}
    writers = (_subject(namespace, WRITER_ACCOUNT), *scoring.writers)
    return {
        "contractVersion": CONTRACT_VERSION,
        "namespace": namespace,
        "store": _store(namespace, scoring),
        "auth": {
            "issuer": scoring.issuer,
            "audience": audience(namespace),
            "keys": keys,
            "subjects": {
                # Model servers have no token; the policy says who reaches the port.
                "records": None,
                "read": None,
                "outcomes": sorted(set(writers)),
                "ledgers": [_subject(namespace, COMPARISON_ACCOUNT)],
                "define": [scoring.operator],
            },
        },
        "port": PORT,
        "metricsPort": METRICS_PORT,
        "retentionDays": scoring.retention_days,
        "drainSeconds": DRAIN_SECONDS,
    }


def _store(namespace: str, scoring: Scoring) -> Body:
    if scoring.postgresql is None:
        return {"sqlite": f"{DATA}/outcomes.db"}
    url = scoring.postgresql.url.replace("{namespace}", namespace)
    return {"postgresql": {"url": url, "passwordFile": f"{SECRET}/{PASSWORD}"}}


def _deployment(namespace: str, scoring: Scoring) -> Body:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(namespace, NAME),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # one writer: a second one would wait for the first one's lock
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": _SELECTOR},
            "template": {
                "metadata": {
                    "labels": _SELECTOR,
                    "annotations": {
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(METRICS_PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": _pod(namespace, scoring),
            },
        },
    }


def _pod(namespace: str, scoring: Scoring) -> Body:
    volumes, mounts = _volumes(scoring)
    return {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS + SPARE_SECONDS,
        "securityContext": confinement.POD,
        "containers": [
            {
                "name": "scorer",
                "image": scoring.image,
                "env": [{"name": "FIDUCIARY_OUTCOMES", "value": compact(document(namespace, scoring))}],
                "ports": [
                    {"name": "http", "containerPort": PORT, "protocol": "TCP"},
                    {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
                ],
                # A store of a year is verified row by row before it opens; a process that waits for its lock is alive.
                "startupProbe": _probe("/livez", 2, 150),
                "livenessProbe": _probe("/livez", 10, 6),
                "readinessProbe": _probe("/readyz", 2, 3),
                "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
                "securityContext": confinement.CONTAINER,
                "terminationMessagePolicy": "File",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def _probe(path: str, seconds: int, failures: int) -> Body:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _volumes(scoring: Scoring) -> tuple[list[Body], list[Body]]:
    """Store, scratch space, and the token with which the API server is asked for its keys."""
    token = {"path": "token", "expirationSeconds": TOKEN_SECONDS}
    authority = {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    volumes: list[Body] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "issuer", "projected": {"sources": [{"serviceAccountToken": token}, {"configMap": authority}]}},
    ]
    mounts: list[Body] = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "issuer", "mountPath": ISSUER, "readOnly": True},
    ]
    if scoring.postgresql is None:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": NAME}})
        mounts.append({"name": "data", "mountPath": DATA})
    else:
        secret = {"secretName": scoring.postgresql.secret, "defaultMode": 0o440}
        volumes.append({"name": "secret", "secret": secret})
        mounts.append({"name": "secret", "mountPath": SECRET, "readOnly": True})
    return volumes, mounts


def _policy(namespace: str, scoring: Scoring) -> Body:
    """Predictions come without a token: nobody but model servers, the comparison Job, marked writers and the operator
    reaches the port."""
    components = {"key": meta.LABEL_COMPONENT, "operator": "In", "values": [meta.SERVING, meta.COMPARISON]}
    peers: list[Body] = [
        {"podSelector": {"matchExpressions": [components]}},
        {"podSelector": {"matchLabels": {meta.LABEL_OUTCOME_WRITER: "true"}}},
        _namespace(scoring.operator_namespace),
        *(
            {**_namespace(name), "podSelector": {"matchLabels": {meta.LABEL_OUTCOME_WRITER: "true"}}}
            for name in sorted(scoring.writer_namespaces)
        ),
    ]
    ingress: list[Body] = [{"from": peers, "ports": [{"protocol": "TCP", "port": PORT}]}]
    if scoring.monitoring_namespaces:
        monitors = [_namespace(name) for name in sorted(scoring.monitoring_namespaces)]
        ingress.append({"from": monitors, "ports": [{"protocol": "TCP", "port": METRICS_PORT}]})
    # The API server's address is not known here.
    egress = [DNS, _API_SERVER, *(dict(rule) for rule in (scoring.postgresql.egress if scoring.postgresql else ()))]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(namespace, NAME),
        "spec": {
            "podSelector": {"matchLabels": _SELECTOR},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _service(namespace: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(namespace, NAME),
        "spec": {
            "type": "ClusterIP",
            "selector": _SELECTOR,
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def _account(namespace: str, name: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(namespace, name),
        "automountServiceAccountToken": False,
    }


def _metadata(namespace: str, name: str) -> Body:
    labels = {"app.kubernetes.io/name": NAME, meta.LABEL_MANAGED_BY: meta.MANAGED_BY, **_COMPONENT}
    return {"name": name, "namespace": namespace, "labels": labels}


def _namespace(name: str) -> Body:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _subject(namespace: str, account: str) -> str:
    return f"system:serviceaccount:{namespace}:{account}"
