"""The settings document: each mistake is named before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fiduciary_outcomes.document import Refused
from fiduciary_outcomes.settings import read

GOOD: dict[str, Any] = {
    "contractVersion": 1,
    "namespace": "quant",
    "store": {"sqlite": "/data/outcomes.db"},
    "auth": {
        "issuer": "https://kubernetes.default.svc.cluster.local",
        "audience": "fiduciary-outcomes",
        "keys": {"url": "https://kubernetes.default.svc/openid/v1/jwks", "caFile": "/ca.crt", "tokenFile": "/token"},
        "subjects": {"records": None, "read": None, "outcomes": ["a"], "ledgers": ["b"], "define": ["c"]},
    },
}


def changed(path: str, value: Any) -> dict[str, str]:
    document = json.loads(json.dumps(GOOD))
    *parents, last = path.split(".")
    found = document
    for parent in parents:
        found = found[parent]
    found[last] = value
    return {"FIDUCIARY_OUTCOMES": json.dumps(document)}


def test_defaults() -> None:
    found = read({"FIDUCIARY_OUTCOMES": json.dumps(GOOD)})
    assert (found.port, found.metrics_port, found.drain, found.retention) == (8080, 8082, 10.0, 400 * 86400.0)
    assert found.verifier.subjects["outcomes"] == frozenset({"a"})
    assert found.verifier.keys.ca_file == Path("/ca.crt")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("contractVersion", 2, "contractVersion is 2; expected 1"),
        ("namespace", "Quant", "namespace is 'Quant'; expected a namespace"),
        ("store", {}, "store is {}; expected exactly one of sqlite and postgresql"),
        ("store", {"postgresql": {"url": "mysql://x"}}, "expected postgresql://USER@HOST/DATABASE"),
        ("auth.subjects.outcomes", None, "auth.subjects.outcomes is absent; expected a list of subjects: only records"),
        ("auth.subjects.define", [""], r"auth.subjects.define\[0\] is ''; expected a subject"),
        ("auth.keys", {"file": "a", "url": "b"}, "exactly one of file and url"),
        ("auth.keys.url", "file:///etc/passwd", "an http or https address"),
        ("port", "8080", "port is '8080'; expected an integer from 0 to 65535"),
        ("prot", 1, "has the unknown prot"),
    ],
)
def test_a_mistake_is_named(path: str, value: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(changed(path, value))


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    url = "postgresql://user:hunter2@host/db"
    with pytest.raises(Refused, match="put it into a file, passwordFile") as refused:
        read(changed("store", {"postgresql": {"url": url}}))
    assert "hunter2" not in refused.value.message


def test_no_document_at_all() -> None:
    with pytest.raises(Refused, match="expected an object"):
        read({})
