"""What the settings say of the platform, as decisions read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

import fiduciary
from fiduciary.decide.world import Connection, Platform
from fiduciary.manifests.plans import Environment, Postgresql, Scoring
from fiduciary.settings import calendars

if TYPE_CHECKING:
    from fiduciary.clients.access import Access
    from fiduciary.clients.probekey import ProbeKey
    from fiduciary.settings import Settings

log = structlog.get_logger(part="platform")


def platform(settings: Settings, access: Access, key: ProbeKey | None) -> Platform:
    """What decisions know of the place where they are carried out."""
    return Platform(
        cluster=settings.cluster,
        trainer_image=settings.trainer_image,
        trainer_feast_image=settings.trainer_feast_image,
        operator_version=fiduciary.__version__,
        connections={
            name: Connection(
                name,
                connection.tracking_uri,
                connection.trainer_uri or connection.tracking_uri,
                connection.artifacts,
                connection.web_uri or connection.tracking_uri,
            )
            for name, connection in settings.connections.items()
        },
        allowed_uris=settings.allowed_uris,
        job_ttl_seconds=settings.job_ttl_seconds,
        progress_seconds=settings.progress_seconds,
        resync_seconds=settings.resync_seconds,
        gitops_editors=settings.gitops_editors,
        mlflow_egress=settings.mlflow_egress,
        calendars=calendars(),
        serving=_environment(settings, access, key) if settings.server_image else None,
        hostnames=settings.hostnames,
        probe_seconds=round(settings.probes.steady_seconds),
        probe_protocols=("rest", "grpc"),
        wave=settings.wave,
        experiments=settings.prometheus is not None,
        notional=settings.outcomes.notional,
        replay=settings.outcomes.replay,
    )


def _scoring(settings: Settings, access: Access) -> Scoring | None:
    """What makes a namespace's outcome scorer; None where no experiment could use one."""
    outcomes = settings.outcomes
    if settings.prometheus is None or not settings.outcomes_image:
        return None
    told = access.account() or ("", "")
    issuer, operator = outcomes.issuer or told[0], outcomes.operator or told[1]
    if not issuer or not operator:
        log.error(
            "outcomes.unusable",
            why="this process is no ServiceAccount, and the settings name no outcomes.issuer and outcomes.operator",
            then="no outcome scorer is made: run in a pod, or name both",
        )
        return None
    database = outcomes.postgresql
    return Scoring(
        image=settings.outcomes_image,
        issuer=issuer,
        operator=operator,
        operator_namespace=settings.namespace,
        monitoring_namespaces=settings.monitoring_namespaces,
        keys_url=outcomes.keys_url,
        writers=outcomes.writers,
        writer_namespaces=outcomes.writer_namespaces,
        storage_class=outcomes.storage_class,
        storage_size=outcomes.storage_size,
        postgresql=None if database is None else Postgresql(database.url, database.secret, database.egress),
        retention_days=outcomes.retention_days,
    )


def _environment(settings: Settings, access: Access, key: ProbeKey | None) -> Environment:
    return Environment(
        cluster=settings.cluster,
        image=settings.server_image,
        operator_namespace=settings.namespace,
        gateway_namespaces=settings.gateway_namespaces,
        monitoring_namespaces=settings.monitoring_namespaces,
        mlflow_egress=settings.mlflow_egress,
        records_url=settings.records.url if settings.records else None,
        records_egress=settings.records.egress if settings.records else (),
        scoring=_scoring(settings, access),
        probe_key=key.public if key else None,
        pre_stop_seconds=settings.pre_stop_seconds,
        drain_seconds=settings.drain_seconds,
    )
