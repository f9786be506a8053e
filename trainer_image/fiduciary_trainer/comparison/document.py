"""The job document of a comparison, checked before anything is asked for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.outcome import CONTRACT_VERSION, BadContract

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Version:
    """One of the two versions, as the decision log names it.

    Attributes:
        number: in the registry.
        digest: of its artifact.
        run_id: of MLflow, which holds the artifact.
        data_digest: over all rows that its training read.
    """

    number: str
    digest: str
    run_id: str
    data_digest: str


@dataclass(frozen=True)
class Document:
    """The whole document.

    Attributes:
        model: ``<namespace>.<name>``.
        ledger: name under which the scorer keeps it.
        scorer: the scorer's address, without path.
        token: file with the token that the scorer asks for; the kubelet renews it.
        mlflow: tracking address.
    """

    model: str
    champion: Version
    challenger: Version
    ledger: str
    scorer: str
    token: str
    mlflow: str


def load(path: Path) -> Document:
    """Read and check the document at ``path``. Raises :class:`BadContract`."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise BadContract(
            "NoContract", f"{path} cannot be read ({error.strerror}); expected the job document"
        ) from None
    except ValueError as error:
        raise BadContract("InvalidJson", f"{path} is not JSON: {error}; expected the job document") from None
    return parse(document)


def parse(document: Any) -> Document:
    """Check a parsed document. Raises :class:`BadContract`: the field, what was seen, what is expected."""
    version = _at(document, "contractVersion")
    if version != CONTRACT_VERSION:
        raise BadContract(
            "UnsupportedContractVersion",
            f"contractVersion is {version}, this trainer speaks {CONTRACT_VERSION}; "
            "use a trainer image of the operator's release",
        )
    found = Document(
        model=f"{_text(document, 'model.namespace')}.{_text(document, 'model.name')}",
        champion=_version(document, "champion"),
        challenger=_version(document, "challenger"),
        ledger=_text(document, "ledger.name"),
        scorer=_text(document, "ledger.url").rstrip("/"),
        token=_text(document, "ledger.tokenFile"),
        mlflow=_text(document, "mlflow.trackingUri"),
    )
    if found.champion.digest == found.challenger.digest:
        raise BadContract(
            "SameVersion", f"champion and challenger are both {found.champion.digest}; expected two versions"
        )
    return found


def _version(document: Any, arm: str) -> Version:
    return Version(
        number=_text(document, f"{arm}.version"),
        digest=_digest(document, f"{arm}.digest"),
        run_id=_text(document, f"{arm}.runId"),
        data_digest=_digest(document, f"{arm}.dataDigest"),
    )


def _at(document: Any, path: str) -> Any:
    value = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(document: Any, path: str) -> str:
    value = _at(document, path)
    if not isinstance(value, str) or not value:
        raise BadContract("InvalidValue", f"{path} is {json.dumps(value):.80}; expected a text")
    return value


def _digest(document: Any, path: str) -> str:
    value = _text(document, path)
    if not _DIGEST.fullmatch(value):
        raise BadContract("InvalidValue", f"{path} is {value[:80]!r}; expected sha256: and 64 hexadecimal digits")
    return value
