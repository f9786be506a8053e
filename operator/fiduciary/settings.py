"""The operator's settings: environment variables ``FIDUCIARY_*`` and one YAML file (``FIDUCIARY_CONFIG``).

The environment says how this process runs; the file says what users may name (connections, storage prefixes, GitOps
editors), because those lists are read by people who review them. A value of the environment beats the file's.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PREFIX = "FIDUCIARY_"
#: Exchange calendars, made by operator/calendars/generate.py when the image is built.
CALENDARS = Path(__file__).with_name("calendars.json")


#: Without a name or password, which would be shown in messages, and without a query, which may hold a token.
_RECEIVER = r"^https?://[^\s/@?#]+(/[^\s?#]*)?$"


_USERINFO = re.compile(r"//[^/\s@]+@")


class SettingsError(ValueError):
    """The settings cannot be used; the message names the variable or the path in the file, and what was expected."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _names(camel: str) -> AliasChoices:
    """Files are written in camelCase as Kubernetes resources are, environment variables in snake case."""
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in camel)
    return AliasChoices(camel, snake)


class ConnectionSettings(_Strict):
    """One MLflow server that models may name in ``spec.registry.connection``."""

    tracking_uri: str = Field(validation_alias=_names("trackingUri"), pattern=r"^https?://[^\s/]+(/\S*)?$")
    trainer_uri: str = Field(default="", validation_alias=_names("trainerUri"), pattern=r"^(https?://[^\s/]+(/\S*)?)?$")
    web_uri: str = Field(
        default="",
        validation_alias=_names("webUri"),
        pattern=r"^(https?://[^\s/]+(/\S*)?)?$",
        description="where people open MLflow in a browser, for links in status; default trackingUri",
    )
    token_file: Path | None = Field(default=None, validation_alias=_names("tokenFile"))
    artifacts: str | None = Field(
        default=None,
        pattern=r"^(s3|gs|gcs|azureblob|pvc)://[^\s]+$",
        description="the server's --artifacts-destination: where backend Seldon fetches mlflow-artifacts:/ from",
    )


class GatewaySettings(_Strict):
    """A Gateway whose ``status.addresses`` is not where the operator reaches it."""

    url: str = Field(
        pattern=r"^https?://[^\s/]+$", description="scheme, host and port, e.g. http://envoy.projectcontour.svc"
    )
    ca_file: Path | None = Field(default=None, validation_alias=_names("caFile"))


class ProbeSettings(_Strict):
    """How often the operator asks what it serves, in seconds, and how many of these requests run at once: one that has
    waited for half a second counts no more."""

    fast_seconds: float = Field(
        default=0.25, validation_alias=_names("fastSeconds"), ge=0.05, description="just after a change; doubles"
    )
    steady_seconds: float = Field(
        default=30.0, validation_alias=_names("steadySeconds"), ge=1.0, description="in peace"
    )
    timeout_seconds: float = Field(default=5.0, validation_alias=_names("timeoutSeconds"), ge=0.1)
    concurrency: int = Field(default=8, ge=1, le=128)


class RecordSettings(_Strict):
    """Where model servers send their prediction records."""

    url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$")
    egress: tuple[Mapping[str, Any], ...] = Field(default=(), description="as in a NetworkPolicy: the way there")


class PostgresqlSettings(_Strict):
    """Where outcome scorers keep their ledgers instead of a volume: a database for each namespace."""

    url: str = Field(
        pattern=r"^postgres(ql)?://[^\s:/@]+@[^\s/]+/\S+$",
        description="without a password, {namespace} in it, e.g. postgresql://outcomes@db.data.svc/{namespace}",
    )
    secret: str = Field(
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        description="Secret of each model's namespace that holds the password in its field `password`",
    )
    egress: tuple[Mapping[str, Any], ...] = Field(default=(), description="as in a NetworkPolicy: the way there")

    @field_validator("url")
    @classmethod
    def _own(cls, value: str) -> str:
        if "{namespace}" not in value or value.replace("{namespace}", "").count("{"):
            raise ValueError(
                f"{value!r} names one database for all: write {{namespace}} where the name of the model's namespace "
                "belongs, since a scorer locks its database"
            )
        return value


class OutcomeSettings(_Strict):
    """The outcome scorers: where they keep their ledgers, whom they believe, how the operator reads them."""

    url: str = Field(
        default="http://fiduciary-outcomes.{namespace}.svc:8080",
        pattern=r"^https?://[^\s/]+$",
        description="how the operator reaches the scorer of a namespace",
    )
    issuer: str = Field(default="", description="of ServiceAccount tokens; empty: what the operator's own token says")
    operator: str = Field(default="", description="subject of the operator; empty: what its own token says")
    keys_url: str = Field(
        default="https://kubernetes.default.svc/openid/v1/jwks",
        validation_alias=_names("keysUrl"),
        pattern=r"^https://\S+$",
        description="where the issuer publishes its keys",
    )
    writers: tuple[str, ...] = Field(
        default=(), description="subjects that may send outcomes to every scorer: system:serviceaccount:<ns>:<name>"
    )
    writer_namespaces: tuple[str, ...] = Field(
        default=(),
        validation_alias=_names("writerNamespaces"),
        description="where writers run, if not in the model's namespace: their pods carry fiduciary.dev/outcome-writer",
    )
    storage_class: str | None = Field(
        default=None, validation_alias=_names("storageClass"), description="absent: the cluster's default"
    )
    storage_size: str = Field(
        default="5Gi", validation_alias=_names("storageSize"), pattern=r"^[1-9][0-9]*(Mi|Gi|Ti|M|G|T)$"
    )
    postgresql: PostgresqlSettings | None = None
    retention_days: int = Field(default=400, validation_alias=_names("retentionDays"), ge=1, le=36_500)
    notional: str = Field(
        default="1000000",
        pattern=r"^[0-9]{1,15}(\.[0-9]{1,12})?$",
        description="capital of each arm on paper, in the currency of drawdown breakers",
    )
    replay: bool = Field(
        default=False, description="market replays (annotation fiduciary.dev/replay-from) may pass days as they like"
    )
    poll_seconds: float = Field(default=10.0, validation_alias=_names("pollSeconds"), ge=0.5, le=600.0)
    timeout_seconds: float = Field(default=10.0, validation_alias=_names("timeoutSeconds"), gt=0.0, le=120.0)

    @field_validator("operator")
    @classmethod
    def _account(cls, value: str) -> str:
        if value:
            cls._subjects((value,))
        return value

    @field_validator("writers")
    @classmethod
    def _subjects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for subject in value:
            if not _SUBJECT.fullmatch(subject):
                raise ValueError(f"{subject!r} is no subject: expected system:serviceaccount:<namespace>:<name>")
        return value


class PrometheusSettings(_Strict):
    """The Prometheus that scrapes serving pods and the gateway's proxies, and how it does so."""

    url: str = Field(pattern=r"^https?://[^\s/]+(/\S*)?$", description="e.g. http://prometheus.monitoring.svc:9090")
    ca_file: Path | None = Field(default=None, validation_alias=_names("caFile"))
    token_file: Path | None = Field(default=None, validation_alias=_names("tokenFile"))
    timeout_seconds: float = Field(default=10.0, validation_alias=_names("timeoutSeconds"), gt=0.0, le=120.0)
    scrape_seconds: int = Field(default=15, validation_alias=_names("scrapeSeconds"), ge=1, le=300)
    scrape_timeout_seconds: int = Field(default=10, validation_alias=_names("scrapeTimeoutSeconds"), ge=1, le=300)
    namespace_label: str = Field(
        default="namespace",
        validation_alias=_names("namespaceLabel"),
        pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$",
        description="label of the scrape target that holds its namespace; no pod may set it (honor_labels: false)",
    )
    pod_label: str = Field(default="pod", validation_alias=_names("podLabel"), pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    gateway: Literal["Contour"] | None = Field(
        default=None, description="whose proxies' counters are known; their pods run in gatewayNamespaces"
    )

    @model_validator(mode="after")
    def _in_time(self) -> PrometheusSettings:
        if self.scrape_timeout_seconds > self.scrape_seconds:
            raise ValueError(
                f"scrapeTimeoutSeconds ({self.scrape_timeout_seconds}) is longer than scrapeSeconds "
                f"({self.scrape_seconds}): write both as Prometheus' configuration has them"
            )
        return self


class ReceiverSettings(_Strict):
    """How the operator shows itself to a receiver of alerts. Credentials are files of a mounted Secret."""

    ca_file: Path | None = Field(default=None, validation_alias=_names("caFile"))
    cert_file: Path | None = Field(
        default=None, validation_alias=_names("certFile"), description="client certificate, with keyFile"
    )
    key_file: Path | None = Field(default=None, validation_alias=_names("keyFile"))
    token_file: Path | None = Field(default=None, validation_alias=_names("tokenFile"), description="bearer token")
    username: str = Field(default="", pattern=r"^[^:]*$", description="basic authentication, with passwordFile")
    password_file: Path | None = Field(default=None, validation_alias=_names("passwordFile"))
    timeout_seconds: float = Field(default=10.0, validation_alias=_names("timeoutSeconds"), gt=0.0, le=120.0)

    @model_validator(mode="after")
    def _one_way(self) -> ReceiverSettings:
        if (self.username == "") != (self.password_file is None):
            raise ValueError("username and passwordFile belong together: write both, or neither")
        if self.token_file is not None and self.password_file is not None:
            raise ValueError("tokenFile and passwordFile exclude each other: one Authorization header can be sent")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("keyFile needs certFile: the certificate that the key belongs to")
        return self


class AlertmanagerSettings(ReceiverSettings):
    """An Alertmanager that DriftPolicies may name: each member of its cluster, never a load balancer before them."""

    urls: tuple[Annotated[str, Field(pattern=_RECEIVER)], ...] = Field(
        min_length=1, max_length=16, description="e.g. http://alertmanager-0.alertmanager.monitoring.svc:9093"
    )


class EventSinkSettings(ReceiverSettings):
    """A receiver of CloudEvents that DriftPolicies may name."""

    url: str = Field(pattern=_RECEIVER, description="e.g. http://broker-ingress.knative-eventing.svc/quant/default")
    mode: Literal["Structured", "Binary"] = Field(default="Structured", description="content mode of the HTTP binding")


class ExportSettings(_Strict):
    """Where folded blocks are kept, so that the evidence of an experiment can be folded again."""

    directory: Path = Field(description="of a volume that every replica can write to")
    file_mebibytes: int = Field(
        default=64,
        validation_alias=_names("fileMebibytes"),
        ge=1,
        description="a file of this size is written no more; what follows it is numbered",
    )


class LeaseSettings(_Strict):
    """Times of the leader election in seconds, as in client-go: duration > renewal deadline > retry."""

    enabled: bool = True
    name: str = "fiduciary-operator"
    duration: float = Field(default=15.0, ge=1.0)
    renew_deadline: float = Field(default=10.0, validation_alias=_names("renewDeadline"), gt=0.0)
    retry: float = Field(default=2.0, gt=0.0)

    @model_validator(mode="after")
    def _ordered(self) -> LeaseSettings:
        if not self.duration > self.renew_deadline > self.retry:
            raise ValueError(
                f"duration ({self.duration}) > renewDeadline ({self.renew_deadline}) > retry ({self.retry}) must hold, "
                "else another replica could start before this one knows that it lost the Lease"
            )
        return self


class Settings(_Strict):
    """Everything that an operator process is told."""

    cluster: str = Field(default="default", min_length=1, description="name of this cluster in MLflow's owner tags")
    namespace: str = Field(default="fiduciary-system", description="where the Lease and the probe key live")
    identity: str = Field(default_factory=socket.gethostname, description="holder of the Lease: the pod's name")
    trainer_image: str = Field(default="fiduciary-trainer:0.1.0", validation_alias=_names("trainerImage"))
    trainer_feast_image: str = Field(
        default="",
        validation_alias=_names("trainerFeastImage"),
        description="trainer with Feast, for data.source.feast; empty: such models need an image of their own",
    )
    server_image: str = Field(
        default="fiduciary-server:0.1.0", validation_alias=_names("serverImage"), description="empty: nothing is served"
    )
    outcomes_image: str = Field(
        default="fiduciary-outcomes:0.1.0",
        validation_alias=_names("outcomesImage"),
        description="empty: no outcome scorer is made",
    )
    connections: Mapping[str, ConnectionSettings] = Field(default_factory=dict[str, ConnectionSettings])
    allowed_uris: tuple[str, ...] = Field(default=("pvc://",), validation_alias=_names("allowedUris"))
    mlflow_egress: tuple[Mapping[str, Any], ...] = Field(default=(), validation_alias=_names("mlflowEgress"))
    gitops_editors: tuple[str, ...] = Field(default=(), validation_alias=_names("gitopsEditors"))
    approval_policies: tuple[str, ...] = Field(
        default=("fiduciary-modelapproval", "fiduciary-modeldecision"),
        validation_alias=_names("approvalPolicies"),
        description="ValidatingAdmissionPolicies without which approvals count for nothing",
    )
    gateways: Mapping[str, GatewaySettings] = Field(
        default_factory=dict[str, GatewaySettings], description="<namespace>/<name> of a Gateway"
    )
    gateway_namespaces: tuple[str, ...] = Field(
        default=(),
        validation_alias=_names("gatewayNamespaces"),
        description="where the Gateways' proxies run: their pods may reach serving pods; the Gateway's own always may",
    )
    hostnames: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict[str, tuple[str, ...]],
        description="namespace, or * for all -> host names that its models may use: literal or *.suffix. Empty: any",
    )
    monitoring_namespaces: tuple[str, ...] = Field(
        default=("monitoring",),
        validation_alias=_names("monitoringNamespaces"),
        description="where Prometheus runs: its pods may scrape serving pods",
    )
    records: RecordSettings | None = Field(
        default=None, description="a sink of the platform for prediction records, in place of the outcome scorers"
    )
    outcomes: OutcomeSettings = Field(default_factory=OutcomeSettings)
    pre_stop_seconds: int = Field(
        default=5,
        validation_alias=_names("preStopSeconds"),
        ge=0,
        le=600,
        description="from the end of a pod's readiness to SIGTERM: longer than a Gateway needs to hear of it",
    )
    drain_seconds: int = Field(
        default=20,
        validation_alias=_names("drainSeconds"),
        ge=1,
        le=600,
        description="from SIGTERM to the end: what was begun is finished",
    )
    wave: int = Field(default=5, ge=1, description="Deployments that a new server image rolls at once, over all models")
    probes: ProbeSettings = Field(default_factory=ProbeSettings)
    prometheus: PrometheusSettings | None = Field(default=None, description="absent: experiments see nothing and hold")
    alertmanagers: Mapping[str, AlertmanagerSettings] = Field(
        default_factory=dict[str, AlertmanagerSettings],
        description="what DriftPolicies may name; usually: alertmanager",
    )
    event_sinks: Mapping[str, EventSinkSettings] = Field(
        default_factory=dict[str, EventSinkSettings], validation_alias=_names("eventSinks")
    )
    export: ExportSettings | None = Field(default=None, description="absent: folded blocks are kept nowhere")
    job_ttl_seconds: int = Field(default=3600, validation_alias=_names("jobTtlSeconds"), ge=0)
    progress_seconds: int = Field(default=15, validation_alias=_names("progressSeconds"), ge=1)
    resync_seconds: int = Field(default=600, validation_alias=_names("resyncSeconds"), ge=10)
    sweep_seconds: float = Field(default=600.0, validation_alias=_names("sweepSeconds"), ge=1.0)
    workers: int = Field(default=16, ge=1, le=256)
    listen: str = Field(default="0.0.0.0:8080", pattern=r"^[^\s:]*:\d{1,5}$")
    log_level: str = Field(default="INFO", validation_alias=_names("logLevel"), pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    lease: LeaseSettings = Field(default_factory=LeaseSettings)

    @model_validator(mode="after")
    def _proxies_are_somewhere(self) -> Settings:
        if self.prometheus is not None and self.prometheus.gateway is not None and not self.gateway_namespaces:
            raise ValueError(
                f"prometheus.gateway is {self.prometheus.gateway}, but gatewayNamespaces is empty: name the namespaces "
                "in which the Gateway's proxies run, since only their counters are believed"
            )
        return self

    @field_validator("allowed_uris")
    @classmethod
    def _prefixes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            if "://" not in prefix:
                raise ValueError(f"{prefix!r} is no URI prefix: expected e.g. 's3://desk/' or 'pvc://'")
        return value

    @field_validator("gateways")
    @classmethod
    def _gateways(cls, value: Mapping[str, GatewaySettings]) -> Mapping[str, GatewaySettings]:
        for name in value:
            if not _GATEWAY.fullmatch(name):
                raise ValueError(f"{name!r} names no Gateway: expected <namespace>/<name>, e.g. projectcontour/contour")
        return value

    @field_validator("hostnames")
    @classmethod
    def _hostnames(cls, value: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        for namespace, patterns in value.items():
            for pattern in patterns:
                if not _HOSTNAME.fullmatch(pattern):
                    raise ValueError(
                        f"{pattern!r} of {namespace} is no host name: expected e.g. models.example.com or *.example.com"
                    )
        return value


_GATEWAY = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_SUBJECT = re.compile(r"system:serviceaccount:[a-z0-9]([-a-z0-9]*[a-z0-9])?:[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_HOSTNAME = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

#: Environment variables that a Deployment sets one by one. What is structured comes from the file.
ENVIRONMENT = (
    "cluster",
    "namespace",
    "identity",
    "trainer_image",
    "trainer_feast_image",
    "server_image",
    "outcomes_image",
    "workers",
    "listen",
    "log_level",
    "sweep_seconds",
)


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of this process.

    Raises :class:`SettingsError` for an unknown ``FIDUCIARY_`` variable, an unreadable file, or a value that is
    refused: a misspelled setting that is silently ignored would be found much later.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    if path := environment.get(PREFIX + "CONFIG"):
        values.update(_read(Path(path)))
    known = {PREFIX + name.upper(): name for name in ENVIRONMENT}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable == PREFIX + "CONFIG":
            continue
        if variable == PREFIX + "LEASE":
            enabled = text.lower() not in ("0", "false", "no")
            values["lease"] = {**_mapping(values.get("lease", {}), "lease"), "enabled": enabled}
        elif variable in known:
            name = known[variable]
            for alias in _aliases(name):
                values.pop(alias, None)
            values[name] = text
        else:
            expected = ", ".join(sorted([*known, PREFIX + "CONFIG", PREFIX + "LEASE"]))
            raise SettingsError(f"environment variable {variable} is unknown: expected one of {expected}")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def calendars(path: Path = CALENDARS) -> Mapping[str, Any]:
    """Exchange -> its table (see decide.calendar); empty outside of the image, where no exchange is known then.

    Raises :class:`SettingsError` for a file that is not what the image was built with.
    """
    if not path.exists():
        return {}
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")), str(path))
    except ValueError as error:
        raise SettingsError(f"{path} is no valid JSON: {error}; build the operator's image again") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"FIDUCIARY_CONFIG names {path}, which cannot be read: {error.strerror}") from error
    try:
        content: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no valid YAML: {error}") from error
    return {} if content is None else _mapping(content, str(path))


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(f"{where}: expected a mapping of settings, found {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _aliases(name: str) -> list[str]:
    alias = Settings.model_fields[name].validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [name]


#: Where pydantic's words tell a person nothing.
_PLAIN = {
    "extra_forbidden": "there is no such setting: misspelled, or of another release (docs/install.md lists them)",
    "missing": "it is needed, and not there",
}


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "settings"
        found = _USERINFO.sub("//***@", repr(problem["input"]))  # a password in an address must not reach the log
        said = _PLAIN.get(problem["type"]) or f"{problem['msg'].removeprefix('Value error, ')} (found {found})"
        lines.append(f"{where}: {said}")
    return "the operator's settings cannot be used: " + "; ".join(lines)
