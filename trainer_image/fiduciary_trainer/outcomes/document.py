"""The document of a sender of outcomes, checked before anything is asked for.

contractVersion 1
model           <namespace>.<name>
source          {uri: s3:// | pvc:// | file:// | https:// | http://, format: CSV | Parquet}
columns         {labelEnd, value, entity?, return?} or {requestId, value}: names in the files
within          days: label ends that are older are not sent (default 30; with requestId everything is)
scorer          {url, tokenFile}
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fiduciary_trainer.contract import FORMATS
from fiduciary_trainer.job import Files
from fiduciary_trainer.outcome import CONTRACT_VERSION, BadContract

if TYPE_CHECKING:
    from pathlib import Path

SCHEMES = ("s3", "pvc", "file", "https", "http")
KEYS = ({"labelEnd", "value"}, {"requestId", "value"})
MOST_DAYS = 36_500
_MODEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\.[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Document:
    """The whole document.

    Attributes:
        columns: what -> name in the files.
        within: days.
        scorer: its address, without path.
        token: file with the token that it asks for; the kubelet renews it.
    """

    model: str
    source: Files
    columns: dict[str, str]
    within: int
    scorer: str
    token: str

    @property
    def by_request(self) -> bool:
        return "requestId" in self.columns


def load(path: Path) -> Document:
    """Read and check the document at ``path``. Raises :class:`BadContract`."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise BadContract("NoContract", f"{path} cannot be read ({error.strerror}); expected the document") from None
    except ValueError as error:
        raise BadContract("InvalidJson", f"{path} is not JSON: {error}; expected the document") from None
    return parse(document)


def parse(document: Any) -> Document:
    """Check a parsed document. Raises :class:`BadContract`: the field, what was seen, what is expected."""
    version = document.get("contractVersion") if isinstance(document, dict) else None
    if version != CONTRACT_VERSION:
        raise BadContract(
            "UnsupportedContractVersion", f"contractVersion is {version}, this image speaks {CONTRACT_VERSION}"
        )
    uri = _text(document, "source", "uri")
    if urlsplit(uri).scheme not in SCHEMES:
        raise BadContract("InvalidValue", f"source.uri is {uri!r:.80}; expected one of {', '.join(SCHEMES)}")
    if urlsplit(uri).password is not None:
        raise BadContract("InvalidValue", "source.uri holds a password; expected it in the Secret that is mounted")
    form = _text(document, "source", "format")
    if form not in FORMATS:
        raise BadContract("InvalidValue", f"source.format is {form!r:.40}; expected {' or '.join(FORMATS)}")
    model = _text(document, "model")
    if not _MODEL.fullmatch(model):
        raise BadContract("InvalidValue", f"model is {model!r:.80}; expected <namespace>.<name>")
    return Document(
        model=model,
        source=Files(uri, form),
        columns=_columns(document.get("columns")),
        within=_days(document.get("within", 30)),
        scorer=_text(document, "scorer", "url").rstrip("/"),
        token=_text(document, "scorer", "tokenFile"),
    )


def _columns(found: Any) -> dict[str, str]:
    names = found if isinstance(found, dict) else {}
    for required, optional in ((KEYS[0], {"entity", "return"}), (KEYS[1], set[str]())):
        texts = all(isinstance(name, str) and name for name in names.values())
        if texts and required <= names.keys() <= required | optional:
            return {str(key): str(value) for key, value in names.items()}
    raise BadContract(
        "InvalidValue",
        f"columns is {json.dumps(found):.120}; expected labelEnd and value (entity and return beside them), or "
        "requestId and value, each with the name of a column",
    )


def _days(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_DAYS:
        return value
    raise BadContract("InvalidValue", f"within is {value!r:.40}; expected days, 1 to {MOST_DAYS}")


def _text(document: Any, *path: str) -> str:
    value = document
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, str) or not value:
        raise BadContract("InvalidValue", f"{'.'.join(path)} is {json.dumps(value):.80}; expected a text")
    return value
