"""Golden pairs: settings, and the outcome scorer of a namespace."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from fiduciary.manifests import outcomes
from fiduciary_outcomes import settings
from tests.golden.outcomes import FOLDER, build, scoring

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = sorted(FOLDER.glob("*.in.yaml"))


@pytest.mark.parametrize("given", PAIRS, ids=[path.name.removesuffix(".in.yaml") for path in PAIRS])
def test_objects(given: Path) -> None:
    expected = given.with_name(given.name.replace(".in.", ".out."))
    assert build(given) == expected.read_text(), "if this is meant: python -m tests.golden, and read the difference"


def test_every_pair_is_there() -> None:
    assert {path.name.removesuffix(".out.yaml") for path in FOLDER.glob("*.out.yaml")} == {
        path.name.removesuffix(".in.yaml") for path in PAIRS
    }
    assert len(PAIRS) == 3


def test_the_scorer_takes_its_settings() -> None:
    text = json.dumps(outcomes.document("quant", scoring()))
    found = settings.read({settings.VARIABLE: text})
    assert found.namespace == "quant"
    assert found.verifier.audience == outcomes.audience("quant") == "fiduciary-outcomes.quant"
    assert found.verifier.subjects["define"] == {"system:serviceaccount:fiduciary-system:fiduciary-operator"}
    assert found.verifier.subjects["outcomes"] == {"system:serviceaccount:quant:outcome-writer"}
    assert found.verifier.keys.token_file is not None
    assert (found.port, found.metrics_port) == (outcomes.PORT, outcomes.METRICS_PORT)


def test_only_the_namespace_and_the_settings_say_what_it_is() -> None:
    one, other = (outcomes.objects(namespace, scoring()) for namespace in ("quant", "desk"))
    assert outcomes.objects("quant", scoring()) == one
    assert [re.sub(r"\bdesk\b", "quant", json.dumps(body)) for body in other] == [json.dumps(body) for body in one]


def test_nothing_of_it_has_an_owner_and_the_claim_is_not_applied() -> None:
    bodies = [*outcomes.objects("quant", scoring()), outcomes.claim("quant", scoring())]
    assert all(body is not None and "ownerReferences" not in body["metadata"] for body in bodies)
    assert "PersistentVolumeClaim" not in [body["kind"] for body in outcomes.objects("quant", scoring())]
