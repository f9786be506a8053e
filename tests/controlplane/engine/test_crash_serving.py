"""A served model's life by real processes, each of which dies at a write that none died at before.

First traffic, a second version, a promotion by pin, a kill, the deletion. After each death the truths are looked at on
what the API server holds and on what clients get. With record and route swapped one of them breaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.controlplane.engine import models
from tests.controlplane.engine.lives import Lives
from tests.controlplane.engine.node import Node
from tests.controlplane.engine.serving import SERVES, ServingNode, apps, routes
from tests.controlplane.engine.test_serving import SERVED, is_ready
from tests.controlplane.server import path_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Body, Server


class ServedLife:
    """One served model, and the processes that look after it."""

    def __init__(self, server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]) -> None:
        self.api = server.admin
        self.namespace = namespace
        self.trainer = Node(server.admin, namespace, mlflow)
        self.node = ServingNode(server.admin, namespace).start().install()
        self.lives = Lives(operator(**self.node.settings()), self.untrue)
        self.path = path_of("FinancialModel", namespace, "spx")
        self.expected: str | None = None  # what clients must get, whoever dies

    def until(self, what: str, done: Callable[[], object], **options: Any) -> None:
        self.lives.until(what, done, network=self.node.network, **options)

    def train(self, **options: Any) -> str:
        self.until("a Job", lambda: self.trainer.unfinished(), **options)
        return str(self.trainer.run(self.trainer.unfinished()[0])["digest"])

    def change(self, **spec: Any) -> None:
        self.api.merge(self.path, {"spec": spec})

    def serves(self, digest: str) -> bool:
        return self.node.clients(self.namespace) == {digest} and is_ready(self.api, self.namespace)

    def route(self) -> Body | None:
        path = routes(self.namespace, "spx")
        return self.api.find(path)

    def untrue(self) -> Iterator[str]:
        """Which truth does not hold now."""
        records, route = models.records(self.api, self.namespace), self.route()
        model = self.api.find(self.path)
        accepted = {record["to"]["digest"] for record in records if record["action"] == "Accept"}
        decision = 0 if route is None else int(route["metadata"]["annotations"]["fiduciary.dev/decision"])
        if decision > len(records):
            yield "the route carries out a record that does not exist"
        if ((model or {}).get("status") or {}).get("lastDecision", {}).get("sequence", 0) > len(records):
            yield "the status names a record that does not exist"
        found = self.node.clients(self.namespace)
        if found - accepted:
            yield "clients get what no record accepted"
        if self.expected is not None and found != {self.expected}:
            yield "clients do not get the champion"
        if model is None and records[-1:] and records[-1]["action"] != "Retire":
            yield "the model is gone and no record says so"


@pytest.fixture
def life(server: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]) -> Iterator[ServedLife]:
    found = ServedLife(server, namespace, mlflow, operator)
    yield found
    found.node.stop()


@pytest.mark.timeout(1800)
def test_a_served_life_lived_by_processes_that_die_at_every_write(life: ServedLife) -> None:
    api, namespace = life.api, life.namespace
    api.create(models.model(namespace, change=SERVED))
    first = life.train()
    life.until("the first version serves", lambda: life.serves(first))
    life.expected = first
    life.change(training={"seed": 8})
    second = life.train()
    listed = f"spx-{second[7:19]}"
    life.until("the second is loaded and known", lambda: listed in str((life.route() or {}).get("spec")))
    life.expected = None
    number = next(r["to"]["version"] for r in models.records(api, namespace) if r.get("to", {}).get("digest") == second)
    life.change(promotion={"mode": "Pinned", "pinned": {"version": number, "digest": second}})
    life.until("the second version serves", lambda: life.serves(second))
    life.change(kill={"engaged": True})
    life.until("nobody is answered", lambda: life.node.clients(namespace) == set())
    api.delete(life.path)
    life.until("the model is gone", lambda: not api.exists(life.path))
    until("nothing is left that served", lambda: not api.request("GET", apps(namespace), params=SERVES)["items"], 60)
    assert not life.lives.broken
    actions = [record["action"] for record in models.records(api, namespace)]
    assert [action for action in actions if action != "Accept"] == ["Shift", "Promote", "Kill", "Retire"]
    kinds = {death.split(".")[0] for death in life.lives.deaths}
    assert {"0-version", "1-record", "2-route", "2-children", "3-status", "release"} <= kinds, life.lives.deaths


@pytest.mark.timeout(1200)
def test_record_and_route_swapped_are_noticed(life: ServedLife) -> None:
    truth = "the route carries out a record that does not exist"

    def noticed() -> bool:
        return any(truth in broken for broken in life.lives.broken)

    swap = ["1-record", "2-children"]
    life.api.create(models.model(life.namespace, change=SERVED))
    first = life.train(swap=swap)
    # Apart from what follows: the death that shows it comes before the second record.
    life.until("accepted", lambda: models.records(life.api, life.namespace), swap=swap)
    life.until("noticed, or served", lambda: noticed() or life.serves(first), swap=swap)
    assert noticed(), life.lives.deaths
