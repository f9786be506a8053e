"""The Secret with the key that signs probes: read once at the start, made when there is none."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING

import structlog

from fiduciary.api import meta
from fiduciary.clients.kube import Conflict, KubeError, NotFound, Unavailable
from fiduciary.clients.probekey import ProbeKey, ProbeKeyError
from fiduciary.engine import kinds

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body, Cluster

log = structlog.get_logger(part="probekey")

NAME = "fiduciary-probe-key"
FIELD = "privateKey"

RETRY_SECONDS = 1.0


async def probe_key(cluster: Cluster, namespace: str) -> ProbeKey | None:
    """The key of this operator; None where the cluster does not let it have one, which the log explains.

    Without a key probes go on unsigned: models are served all the same, but their servers count probes as requests.
    """
    while True:
        try:
            return await _read_or_make(cluster, namespace)
        except Unavailable as error:
            log.warning("probekey.waits", why=str(error))
            await asyncio.sleep(RETRY_SECONDS)
        except (KubeError, ProbeKeyError) as error:
            log.error(
                "probekey.unusable",
                secret=f"{namespace}/{NAME}",
                why=str(error),
                then="probes are not signed, so they count as requests; mend the Secret or the Role, and restart",
            )
            return None


async def _read_or_make(cluster: Cluster, namespace: str) -> ProbeKey:
    try:
        return _parse(await cluster.get(kinds.SECRET, namespace, NAME))
    except NotFound:
        pass
    key = ProbeKey.generate()
    body: Body = {
        "apiVersion": kinds.SECRET.api_version,
        "kind": kinds.SECRET.kind,
        "metadata": {"name": NAME, "namespace": namespace, "labels": {meta.LABEL_MANAGED_BY: meta.MANAGED_BY}},
        "immutable": True,
        "data": {FIELD: base64.b64encode(key.private()).decode()},
    }
    try:
        await cluster.create(kinds.SECRET, body)
    except Conflict:  # another replica was faster
        return _parse(await cluster.get(kinds.SECRET, namespace, NAME))
    log.info("probekey.made", secret=f"{namespace}/{NAME}")
    return key


def _parse(secret: Body) -> ProbeKey:
    text = kinds.part(secret, "data").get(FIELD)
    if text is None:
        raise ProbeKeyError(f"the Secret has no field {FIELD}: expected base64 of 32 bytes; delete it to get a new one")
    try:
        return ProbeKey.from_private(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ProbeKeyError(f"field {FIELD} is no base64") from error
