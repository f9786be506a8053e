"""Settings: the environment beats the file, and what is wrong is named with what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fiduciary.settings import SettingsError, load

if TYPE_CHECKING:
    from pathlib import Path


def written(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return {"FIDUCIARY_CONFIG": str(path)}


def test_defaults_need_neither_file_nor_environment() -> None:
    settings = load({})
    assert settings.namespace == "fiduciary-system"
    assert settings.connections == {}
    assert settings.lease.enabled


def test_the_file_is_camel_case_and_the_environment_beats_it(tmp_path: Path) -> None:
    text = """
    cluster: prod
    trainerImage: from-file
    connections: {mlflow: {trackingUri: "http://mlflow.mlflow.svc:5000", tokenFile: /run/token}}
    allowedUris: ["s3://desk/", "pvc://"]
    lease: {duration: 30, renewDeadline: 20, retry: 4}
    gateways: {projectcontour/contour: {url: "http://envoy.projectcontour.svc:8080"}}
    gatewayNamespaces: [projectcontour]
    hostnames: {quant: ["*.quant.example.com", models.example.com], "*": ["*.example.com"]}
    drainSeconds: 20
    export: {directory: /var/lib/fiduciary/export, fileMebibytes: 8}
    probes: {fastSeconds: 0.5, steadySeconds: 60, timeoutSeconds: 3, concurrency: 4}
    """
    settings = load(
        {**written(tmp_path, text), "FIDUCIARY_TRAINER_IMAGE": "from-environment", "FIDUCIARY_WORKERS": "3"}
    )
    assert (settings.cluster, settings.trainer_image, settings.workers) == ("prod", "from-environment", 3)
    assert settings.connections["mlflow"].tracking_uri == "http://mlflow.mlflow.svc:5000"
    assert settings.allowed_uris == ("s3://desk/", "pvc://")
    assert settings.lease.renew_deadline == 20
    assert settings.gateways["projectcontour/contour"].url == "http://envoy.projectcontour.svc:8080"
    assert settings.hostnames["quant"] == ("*.quant.example.com", "models.example.com")
    assert (settings.gateway_namespaces, settings.drain_seconds) == (("projectcontour",), 20)
    assert (settings.probes.fast_seconds, settings.probes.steady_seconds) == (0.5, 60)
    assert settings.export is not None
    assert (str(settings.export.directory), settings.export.file_mebibytes) == ("/var/lib/fiduciary/export", 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conections: {}", "conections: there is no such setting"),
        ("connections: {mlflow: {trackingUri: mlflow:5000}}", "connections.mlflow.trackingUri: String should match"),
        ("allowedUris: [desk]", "'desk' is no URI prefix: expected e.g. 's3://desk/'"),
        ("lease: {duration: 5, renewDeadline: 10}", "duration (5.0) > renewDeadline (10.0) > retry (2.0) must hold"),
        ("workers: 0", "workers: Input should be greater than or equal to 1"),
        ("gateways: {contour: {url: http://a}}", "'contour' names no Gateway: expected <namespace>/<name>"),
        ("gateways: {a/b: {url: envoy:80}}", "gateways.a/b.url: String should match"),
        ("hostnames: {quant: ['*']}", "'*' of quant is no host name: expected e.g. models.example.com or"),
        ("probes: {fastSeconds: 0}", "probes.fastSeconds: Input should be greater than or equal to 0.05"),
        ("drainSeconds: 0", "drainSeconds: Input should be greater than or equal to 1"),
        ("- a\n- list", "expected a mapping of settings, found list"),
        ("a: [", "is no valid YAML"),
    ],
    ids=[
        *("unknown-key", "address", "prefix", "lease", "workers", "gateway", "gateway-url", "hostname", "probes"),
        *("drain", "list", "yaml"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(written(tmp_path, text))
    assert message in str(refused.value)


def test_a_misspelled_variable_is_not_ignored() -> None:
    with pytest.raises(SettingsError, match="FIDUCIARY_WORKER is unknown: expected one of FIDUCIARY_CLUSTER"):
        load({"FIDUCIARY_WORKER": "3"})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.yaml, which cannot be read: No such file"):
        load({"FIDUCIARY_CONFIG": str(tmp_path / "missing.yaml")})


def test_the_lease_can_be_switched_off(tmp_path: Path) -> None:
    environment = written(tmp_path, "lease: {name: mine}") | {"FIDUCIARY_LEASE": "false"}
    settings = load(environment)
    assert (settings.lease.enabled, settings.lease.name) == (False, "mine")


def test_prometheus_is_told_how_it_is_configured(tmp_path: Path) -> None:
    text = "prometheus: {url: 'http://p.monitoring:9090', scrapeSeconds: 5, scrapeTimeoutSeconds: 4, gateway: Contour}"
    with pytest.raises(SettingsError, match="gatewayNamespaces is empty"):
        load(written(tmp_path, text))
    settings = load(written(tmp_path, f"{text}\ngatewayNamespaces: [projectcontour]")).prometheus
    assert settings is not None
    assert (settings.scrape_seconds, settings.scrape_timeout_seconds, settings.gateway) == (5, 4, "Contour")
    assert load({}).prometheus is None
    with pytest.raises(SettingsError, match=r"scrapeTimeoutSeconds \(10\) is longer than scrapeSeconds \(5\)"):
        load(written(tmp_path, "prometheus: {url: 'http://p:9090', scrapeSeconds: 5}"))
    with pytest.raises(SettingsError, match="url"):
        load(written(tmp_path, "prometheus: {url: 'file:///etc/passwd'}"))


def test_outcome_scorers_need_no_settings_and_take_many(tmp_path: Path) -> None:
    usual = load({})
    assert usual.outcomes_image == "fiduciary-outcomes:0.1.0"
    assert (usual.outcomes.storage_class, usual.outcomes.postgresql, usual.outcomes.replay) == (None, None, False)
    text = """
    outcomesImage: from-file
    outcomes:
      storageClass: fast
      writers: ["system:serviceaccount:marketdata:closes"]
      postgresql: {url: "postgresql://outcomes@db.data.svc/{namespace}", secret: outcomes-database}
    """
    settings = load({**written(tmp_path, text), "FIDUCIARY_OUTCOMES_IMAGE": ""})
    assert (settings.outcomes_image, settings.outcomes.storage_class) == ("", "fast")
    assert settings.outcomes.postgresql is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("writers: [closes]", "'closes' is no subject: expected system:serviceaccount:<namespace>:<name>"),
        ("operator: fiduciary", "'fiduciary' is no subject: expected system:serviceaccount:<namespace>:<name>"),
        ("postgresql: {url: 'postgresql://a@db/all', secret: s}", "names one database for all"),
        ("postgresql: {url: 'postgresql://a:b@db/{namespace}', secret: s}", "outcomes.postgresql.url"),
        ("storageSize: much", "outcomes.storageSize"),
        ("keysUrl: 'http://keys'", "outcomes.keysUrl"),
        ("notional: '-1'", "outcomes.notional"),
        ("pollSeconds: 0", "outcomes.pollSeconds"),
    ],
    ids=["writer", "operator", "one-database", "password", "size", "keys", "notional", "poll"],
)
def test_wrong_outcome_settings_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(written(tmp_path, f"outcomes: {{{text}}}"))
    assert message in str(refused.value)


def test_receivers_of_alerts_are_addresses_and_files(tmp_path: Path) -> None:
    text = """
    alertmanagers:
      alertmanager:
        urls: ["https://am-0.monitoring.svc:9093", "https://am-1.monitoring.svc:9093/prefix"]
        caFile: /etc/am/ca.crt
        username: fiduciary
        passwordFile: /etc/am/password
    eventSinks: {broker: {url: "http://broker.events.svc/quant", mode: Binary, tokenFile: /etc/events/token}}
    """
    settings = load(written(tmp_path, text))
    manager, sink = settings.alertmanagers["alertmanager"], settings.event_sinks["broker"]
    assert manager.urls[1] == "https://am-1.monitoring.svc:9093/prefix"
    assert (str(manager.ca_file), manager.username, str(manager.password_file)) == (
        "/etc/am/ca.crt", "fiduciary", "/etc/am/password",
    )  # fmt: skip
    assert (sink.mode, str(sink.token_file)) == ("Binary", "/etc/events/token")
    assert (load({}).alertmanagers, load({}).event_sinks) == ({}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alertmanagers: {a: {urls: []}}", "alertmanagers.a.urls: Tuple should have at least 1 item"),
        ("alertmanagers: {a: {urls: ['am:9093']}}", "alertmanagers.a.urls.0: String should match"),
        ("alertmanagers: {a: {urls: ['http://me:secret@am']}}", "alertmanagers.a.urls.0: String should match"),
        ("eventSinks: {a: {url: 'http://b/?token=x'}}", "eventSinks.a.url: String should match"),
        ("eventSinks: {a: {url: 'http://b', username: me}}", "username and passwordFile belong together"),
        (
            "eventSinks: {a: {url: 'http://b', username: me, passwordFile: /p, tokenFile: /t}}",
            "tokenFile and passwordFile exclude each other",
        ),
        ("eventSinks: {a: {url: 'http://b', keyFile: /k}}", "keyFile needs certFile"),
    ],
)
def test_wrong_receivers_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(written(tmp_path, text))
    assert message in str(error.value)
    assert "secret" not in str(error.value)
