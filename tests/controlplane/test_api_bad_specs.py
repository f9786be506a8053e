"""Each bad spec is refused by the real API server, with exactly the message that the case names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.controlplane.bad import Case, cases
from tests.controlplane.server import Refused

if TYPE_CHECKING:
    from tests.controlplane.server import Server

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_spec_is_refused_with_its_message(server: Server, case: Case) -> None:
    user = server.operator() if case.body["kind"] == "ModelDecision" else server.admin
    with pytest.raises(Refused) as refused:
        user.create(case.body, namespace="default", dry_run=True)
    assert refused.value.message == case.says


def test_there_are_many_and_each_is_different() -> None:
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({str(case.body) for case in CASES}) == len(CASES)
