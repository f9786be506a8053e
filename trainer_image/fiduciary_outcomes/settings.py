"""The scorer's settings: one JSON document in ``FIDUCIARY_OUTCOMES``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fiduciary_outcomes.document import DNS_LABEL, Field, Object, envelope
from fiduciary_outcomes.sql import Store
from fiduciary_outcomes.tokens import OPEN_ROLES, ROLES, Keys, Role, Verifier

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "FIDUCIARY_OUTCOMES"
CALENDARS = Path(__file__).with_name("calendars.json")
"""Made by operator/calendars/generate.py when the image is built."""

REQUIRED = frozenset({"namespace", "store", "auth"})
OPTIONAL = frozenset(
    {"port", "metricsPort", "retentionDays", "drainSeconds", "calendars", "mostWaiting", "mostBytes", "host"}
)
SUBJECT = re.compile(r"[^\s]{1,512}")


@dataclass(frozen=True)
class Settings:
    """What the process is told.

    Attributes:
        most_waiting: records that may wait for their commit.
        most_bytes: of one request's body.
        retention: seconds that predictions and outcomes are kept.
        drain: seconds that requests under way get when the process ends.
    """

    namespace: str
    store: Store
    verifier: Verifier
    calendars: Path
    host: str
    port: int
    metrics_port: int
    retention: float
    drain: float
    most_waiting: int
    most_bytes: int


def read(environment: Mapping[str, str]) -> Settings:
    """Raises :class:`~document.Refused` with the field, what was seen and what was expected."""
    found = envelope(environment.get(VARIABLE, "").encode() or b"null", REQUIRED, OPTIONAL)
    integer = _integers(found)
    return Settings(
        namespace=found["namespace"].text(63, shape=DNS_LABEL, what="a namespace"),
        store=_store(found["store"]),
        verifier=_verifier(found["auth"]),
        calendars=Path(found["calendars"].text(1024)) if "calendars" in found else CALENDARS,
        host=found["host"].text() if "host" in found else "",
        port=integer("port", 0, 65535, 8080),
        metrics_port=integer("metricsPort", 0, 65535, 8082),
        retention=86400.0 * integer("retentionDays", 1, 36500, 400),
        drain=float(integer("drainSeconds", 0, 3600, 10)),
        most_waiting=integer("mostWaiting", 1, 10_000_000, 50_000),
        most_bytes=integer("mostBytes", 1024, 1 << 30, 16 << 20),
    )


def _integers(found: Object):
    def integer(name: str, low: int, high: int, default: int) -> int:
        return found[name].integer(low, high) if name in found else default

    return integer


def _store(field: Field) -> Store:
    found = field.object(frozenset(), frozenset({"sqlite", "postgresql"}))
    if ("sqlite" in found) == ("postgresql" in found):
        field.refuse("exactly one of sqlite and postgresql")
    if "sqlite" in found:
        return Store(Path(found["sqlite"].text(1024)))
    server = found["postgresql"].object(frozenset({"url"}), frozenset({"passwordFile"}))
    url = server["url"].text(1024)
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        server["url"].refuse("postgresql://USER@HOST/DATABASE")
    if urlsplit(url).password is not None:
        Field(server["url"].path, "a URL with a password").refuse("one without: put it into a file, passwordFile")
    return Store(None, url, Path(server["passwordFile"].text(1024)) if "passwordFile" in server else None)


def _verifier(field: Field) -> Verifier:
    found = field.object(frozenset({"issuer", "audience", "keys", "subjects"}))
    subjects = found["subjects"].object(frozenset(ROLES))
    return Verifier(
        issuer=found["issuer"].text(1024),
        audience=found["audience"].text(),
        keys=_keys(found["keys"]),
        subjects={role: _allowed(subjects[role], role) for role in ROLES},
    )


def _allowed(field: Field, role: Role) -> frozenset[str] | None:
    if field.value is None:
        if role not in OPEN_ROLES:
            field.refuse(f"a list of subjects: only {' and '.join(OPEN_ROLES)} may be open")
        return None
    return frozenset(each.text(512, shape=SUBJECT, what="a subject") for each in field.items(1000))


def _keys(field: Field) -> Keys:
    found = field.object(frozenset(), frozenset({"file", "url", "caFile", "tokenFile"}))
    if ("file" in found) == ("url" in found):
        field.refuse("exactly one of file and url")
    if "file" in found:
        return Keys(file=Path(found["file"].text(1024)))
    url = found["url"].text(1024)
    if urlsplit(url).scheme not in ("http", "https"):
        found["url"].refuse("an http or https address")
    return Keys(
        url=url,
        ca_file=Path(found["caFile"].text(1024)) if "caFile" in found else None,
        token_file=Path(found["tokenFile"].text(1024)) if "tokenFile" in found else None,
    )
