"""What an operator process asks and tells beside the API server, made from its settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from fiduciary.clients.alertmanager import PATH, Alertmanager
from fiduciary.clients.cloudevents import EventSink
from fiduciary.clients.delivery import Credentials, Receiver
from fiduciary.clients.exports import Files
from fiduciary.clients.ledger import Scorers
from fiduciary.clients.mlflow import Registry
from fiduciary.clients.prometheus import Prometheus
from fiduciary.clients.tokens import Tokens
from fiduciary.decide.counters.contour import Contour
from fiduciary.decide.counters.runtime import Runtime, Seldon
from fiduciary.engine.drift.counted import Scrapes
from fiduciary.engine.drift.counters import Counters
from fiduciary.engine.drift.reconcile import Sources as DriftSources
from fiduciary.engine.drift.references import References
from fiduciary.engine.experiments.asking import Sources
from fiduciary.engine.experiments.exporting import Exporter
from fiduciary.engine.experiments.gather import Gatherer
from fiduciary.engine.experiments.past import Pasts
from fiduciary.engine.experiments.reconcile import Counted
from fiduciary.engine.ledgers import Ledgers
from fiduciary.manifests.outcomes import audience

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from fiduciary.clients.kube import AiohttpCluster
    from fiduciary.decide.world import Platform
    from fiduciary.engine.loop import Loop
    from fiduciary.engine.metrics import Metrics
    from fiduciary.engine.registry import Registries
    from fiduciary.engine.stores import Key
    from fiduciary.settings import ReceiverSettings, Settings

#: Questions about the present that Prometheus is asked at once; it runs 20 at a time by itself.
URGENT_IN_FLIGHT = 8


def wake(loop: Loop, key: Hashable) -> None:
    """For parts that know no keys of the loop: they give back what they were asked for."""
    loop.queue.add(cast("Key", key))


def prometheus_of(given: Settings) -> Prometheus | None:
    """The Prometheus that is asked; None where the settings name none."""
    settings = given.prometheus
    if settings is None:
        return None
    return Prometheus(
        settings.url,
        ca_file=settings.ca_file,
        token_file=settings.token_file,
        timeout=settings.timeout_seconds,
    )


def counted_by(prometheus: Prometheus, given: Settings, loop: Loop, metrics: Metrics) -> Counted:
    """What asks Prometheus for experiments."""
    settings = given.prometheus
    assert settings is not None
    namespace, pod = settings.namespace_label, settings.pod_label
    gateway = None
    if settings.gateway == "Contour":
        gateway = Contour(given.gateway_namespaces, namespace=namespace, pod=pod)
    pods = Runtime(namespace, pod), Seldon(namespace, pod)
    sources = Sources(*pods, gateway, settings.scrape_seconds, settings.scrape_timeout_seconds)

    # A failing challenger is seen at each scrape, however long others' answers take: the next scrape asks anew.
    urgent = prometheus.beside(
        timeout=min(settings.timeout_seconds, float(settings.scrape_seconds)), in_flight=URGENT_IN_FLIGHT
    )
    past = prometheus.beside(in_flight=1)
    return Counted(
        Gatherer(prometheus, sources, partial(wake, loop), metrics, urgent=urgent),
        Pasts(past, sources, partial(wake, loop), metrics),
    )


def exporter_of(given: Settings, loop: Loop) -> Exporter | None:
    """Where closed blocks are kept beside the status; None where the settings name no place."""
    if given.export is None:
        return None
    return Exporter(Files(given.export.directory, given.export.file_mebibytes << 20), partial(wake, loop))


def ledgers_of(
    given: Settings, cluster: AiohttpCluster, platform: Platform, loop: Loop, metrics: Metrics
) -> tuple[Scorers, Ledgers] | tuple[None, None]:
    """What reads the outcome scorers; nothing where none is made."""
    if platform.serving is None or platform.serving.scoring is None:
        return None, None
    settings = given.outcomes
    tokens = Tokens(cluster, platform.serving.scoring.operator)

    scorers = Scorers(
        settings.url,
        token=lambda namespace: tokens.of(audience(namespace)),
        timeout=settings.timeout_seconds,
        observe=metrics.ledger_request,
    )
    return scorers, Ledgers(scorers, partial(wake, loop), seconds=settings.poll_seconds)


def drift_sources(
    given: Settings,
    prometheus: Prometheus | None,
    registries: Registries,
    ledgers: Ledgers | None,
    loop: Loop,
    metrics: Metrics,
) -> DriftSources:
    """What is read for drift policies."""
    artifacts = {name: cast("Registry", registry) for name, registry in registries.items()}
    settings = given.prometheus
    counters = None
    if prometheus is not None and settings is not None:
        scrapes = Scrapes(
            settings.scrape_seconds, settings.scrape_timeout_seconds, settings.namespace_label, settings.pod_label
        )
        counters = Counters(prometheus, scrapes, partial(wake, loop), metrics)
    return DriftSources(References(artifacts, partial(wake, loop)), counters, ledgers)


def receivers(given: Settings, metrics: Metrics) -> tuple[Mapping[str, Alertmanager], Mapping[str, EventSink]]:
    """Who takes alerts, by the names that the settings give them."""

    def receiver(name: str, address: str, settings: ReceiverSettings) -> Receiver:
        shown = Credentials(
            token_file=settings.token_file,
            username=settings.username,
            password_file=settings.password_file,
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
        )
        observe = partial(metrics.alert_post, name)
        return Receiver(address, shown, timeout=settings.timeout_seconds, observe=observe)

    managers = {
        name: Alertmanager([receiver(name, url.rstrip("/") + PATH, its) for url in its.urls])
        for name, its in given.alertmanagers.items()
    }
    sinks = {name: EventSink(receiver(name, its.url, its), its.mode) for name, its in given.event_sinks.items()}
    return managers, sinks


def registries_of(given: Settings, metrics: Metrics) -> Registries:
    """Clients of MLflow, by the names that the settings give them."""
    return {
        name: Registry(connection.tracking_uri, token_file=connection.token_file, observe=metrics.registry_request)
        for name, connection in given.connections.items()
    }
