"""The engine and the judge together on a model that serves: what others do to it, and what a restart does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from fiduciary.clients.kube import Body, Forbidden, Resource
from fiduciary.decide import financialmodel
from fiduciary.decide.decision import Apply, Scale
from fiduciary.engine import kinds
from fiduciary.engine.children import Children
from fiduciary.engine.patience import PatientDesk
from fiduciary.engine.registry import Desk
from fiduciary.engine.stores import Key, Stores
from fiduciary.engine.writes import ForeignObject, Stale, Target
from tests.unit.decide.worlds import SERVED
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry
from tests.unit.engine.serving_story import ServingStory

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def story() -> ServingStory:
    """A model that serves its first version."""
    found = ServingStory()
    found.apply(SERVED)
    found.expected = found.train()
    found.serves(found.expected)
    found.clock.seconds += 7200  # the TTL of a Job whose verdict is stored
    found.serves(found.expected)
    return found


def writes(story: ServingStory) -> list[tuple[str, str, str]]:
    return [write for write in story.cluster.writes if write[1] != "Event"]


def condition(story: ServingStory, kind: str) -> Any:
    found = [entry for entry in story.status["conditions"] if entry["type"] == kind]
    return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else None


def test_an_idle_operator_writes_nothing_and_a_restart_neither(story: ServingStory) -> None:
    before = len(story.cluster.writes)
    story.calm(300)
    assert story.cluster.writes[before:] == []
    story.process = story.born()
    story.calm(120)
    assert story.cluster.writes[before:] == []
    assert story.ready() == ("True", "Serving")


def test_probes_begin_soon_after_a_restart(story: ServingStory) -> None:
    story.process = story.born()
    assert len(story.process.loop.queue.core) == 0, "nothing is owed"
    due = story.process.loop.queue.core.next_due()
    assert due is not None
    assert due - story.clock.seconds <= 0.1
    story.calm(3)
    assert len(story.process.prober._aims) == 2


def test_an_edited_route_is_put_back_under_the_record_that_it_carries_out(story: ServingStory) -> None:
    route = story.route()
    assert route is not None
    wanted, records = route["spec"], len(story.log())
    story.cluster.put(kinds.HTTPROUTE, {**route, "spec": {**wanted, "rules": []}})
    assert story.node.clients("quant", "spx") == {story.expected}
    story.calm()
    restored = story.route()
    assert restored is not None
    assert restored["spec"] == wanted
    assert restored["metadata"]["uid"] == route["metadata"]["uid"]
    assert len(story.log()) == records
    assert story.ready() == ("True", "Serving")


@pytest.mark.parametrize("kind", ["Service", "Deployment", "HTTPRoute", "NetworkPolicy", "PodDisruptionBudget"])
def test_what_somebody_deletes_is_made_anew(story: ServingStory, kind: str) -> None:
    resource = story.cluster.resources[kind]
    places = [place for place in story.cluster.objects if place[0] == kind and "training" not in place[2]]
    assert places
    for place in places:
        story.cluster.remove(resource, place[1], place[2])
    story.calm(40)
    assert set(places) <= set(story.cluster.objects)
    assert story.ready() == ("True", "Serving")


def test_an_object_that_lost_its_label_is_taken_back_and_not_made_twice(story: ServingStory) -> None:
    route = story.route()
    assert route is not None
    unlabelled = {**route["metadata"], "labels": {}}
    story.cluster.touch(kinds.HTTPROUTE, "quant", "spx", metadata=unlabelled)
    story.calm()
    found = story.route()
    assert found is not None
    assert found["metadata"]["uid"] == route["metadata"]["uid"]
    assert kinds.watched(kinds.HTTPROUTE, found)
    story.clock.seconds += 1
    story.cluster.put(kinds.HTTPROUTE, {**found, "spec": {**found["spec"], "rules": []}})
    story.calm()
    again = story.route()
    assert again is not None
    assert again["spec"] == route["spec"], "it is watched again"


def test_gateway_api_that_comes_later_is_used_and_until_then_named() -> None:
    story = ServingStory(gateway=False)
    story.cluster.absent = {kinds.HTTPROUTE, kinds.GATEWAY}
    story.process = story.born()
    story.apply(SERVED)
    digest = story.train()
    story.calm()
    assert story.ready() == ("False", "GatewayApiMissing")
    assert story.route() is None
    story.node.install()
    story.process.discover()
    story.serves(digest)


def test_a_kill_is_one_record_and_one_write_to_the_route(story: ServingStory) -> None:
    story.registry.silent = True  # a timeout would be seconds in which clients are still answered
    model = story.model()
    assert model is not None
    before = len(story.cluster.writes)
    story.cluster.put(kinds.FINANCIALMODEL, {**model, "spec": {**model["spec"], "kill": {"engaged": True}}})
    while story.process.cluster.outbox:
        story.process.deliver(story.process.cluster.outbox.pop(0))
    story.process.step()
    done = [write[:2] for write in story.cluster.writes[before:]]
    assert done[:2] == [("create", "ModelDecision"), ("apply", "HTTPRoute")], done
    assert not any(story.weights().values())


def test_an_edited_route_is_put_back_while_mlflow_is_silent(story: ServingStory) -> None:
    story.registry.silent = True
    route = story.route()
    assert route is not None
    story.cluster.put(kinds.HTTPROUTE, {**route, "spec": {**route["spec"], "rules": []}})
    while story.cluster.outbox:
        story.process.deliver(story.cluster.outbox.pop(0))
    story.process.step()
    restored = story.route()
    assert restored is not None
    assert restored["spec"] == route["spec"]


def test_a_kill_that_comes_while_mlflow_is_asked_is_carried_out_at_once(story: ServingStory) -> None:
    """Also by the worker that waits: with all its turns taken, and for longer than anybody would wait."""

    class Silent(MemoryRegistry):
        async def _answer(self, *, write: bool = False) -> None:
            asked.set()
            await asyncio.Event().wait()

    asked = asyncio.Event()
    process, key = story.process, Key("FinancialModel", "quant", "spx")
    queue = process.loop.queue

    async def scenario() -> None:
        desk = Desk({"mlflow": Silent()}, financialmodel.questions, story.clock.now)
        patient = PatientDesk(
            desk,
            lambda key: queue.add(cast("Key", key)),
            lambda key: queue.news(cast("Key", key)),
            patience=3600.0,
        )
        process.reconcile._registrar = patient
        working = asyncio.create_task(process.loop.run(process.reconcile))
        queue.add(key)
        await asked.wait()
        model = story.model()
        assert model is not None
        story.cluster.put(kinds.FINANCIALMODEL, {**model, "spec": {**model["spec"], "kill": {"engaged": True}}})
        while story.cluster.outbox:
            process.deliver(story.cluster.outbox.pop(0))
        for _ in range(100):
            await asyncio.sleep(0)
        assert story.log()[-1]["action"] == "Kill"
        assert not any(story.weights().values())
        working.cancel()
        await patient.close()

    asyncio.run(scenario())


def test_what_is_somebody_else_s_is_named_and_holds_up_nothing_else() -> None:
    story = ServingStory(refusals=True)
    story.cluster.put(kinds.SERVICEACCOUNT, {"metadata": {"namespace": "quant", "name": "spx-serving"}})
    story.apply(SERVED)
    digest = story.train()
    story.calm()
    assert condition(story, "Stalled")[:2] == ("True", "WriteRefused")
    assert "ServiceAccount quant/spx-serving exists already" in condition(story, "Stalled")[2]
    assert ("Deployment", "quant", f"spx-{digest[7:19]}") in story.cluster.objects
    mine = story.cluster.objects["ServiceAccount", "quant", "spx-serving"]
    assert "labels" not in mine["metadata"], "not a field of it was touched"
    story.cluster.remove(kinds.SERVICEACCOUNT, "quant", "spx-serving")
    story.clock.seconds += 60
    story.serves(digest)


def test_one_refused_child_holds_up_neither_the_status_nor_a_kill(story: ServingStory) -> None:
    story.process.refusals = True
    aliases = story.registry.alias["quant.spx"] | {}
    assert aliases
    story.cluster.remove(kinds.SERVICEACCOUNT, "quant", "spx-serving")
    story.cluster.put(kinds.SERVICEACCOUNT, {"metadata": {"namespace": "quant", "name": "spx-serving"}})
    story.calm()
    assert condition(story, "Stalled")[:2] == ("True", "WriteRefused")
    model = story.model()
    assert model is not None
    story.cluster.put(kinds.FINANCIALMODEL, {**model, "spec": {**model["spec"], "kill": {"engaged": True}}})
    story.registry.alias["quant.spx"].clear()
    story.calm(5)
    assert not any(story.weights().values())
    assert story.status["phase"] == "Killed"
    assert story.status["lastDecision"]["sequence"] == len(story.log())
    assert story.status["observedGeneration"] == story.model()["metadata"]["generation"]  # type: ignore[index]
    assert condition(story, "Stalled")[:2] == ("True", "WriteRefused"), "a person still has to act"
    assert condition(story, "Killed")[0] == "True"
    told = [body["reason"] for (kind, _, _), body in story.cluster.objects.items() if kind == "Event"]
    assert "NotServingAnyMore" in told or "KillEngaged" in told, told
    story.calm(60)
    assert story.registry.alias["quant.spx"] == aliases, "the mirror goes on as well"
    since, tries = len(writes(story)), story.points.count("2-children.0")
    story.calm(300)
    assert writes(story)[since:] == [], "what is refused again and again is not written again and again"
    assert story.points.count("2-children.0") - tries <= 10
    story.cluster.remove(kinds.SERVICEACCOUNT, "quant", "spx-serving")
    story.calm(120)
    assert condition(story, "Stalled")[0] == "False"


# --- write 2 by itself ------------------------------------------------------------------------------------------------

ROUTE: Body = {
    "apiVersion": kinds.HTTPROUTE.api_version,
    "kind": "HTTPRoute",
    "metadata": {
        "namespace": "quant",
        "name": "spx",
        "labels": dict(kinds.SERVES),
        "annotations": {"fiduciary.dev/decision": "7"},
    },
    "spec": {"rules": [{"name": "rest"}]},
}
TARGET = Target(kinds.FINANCIALMODEL, "quant", "spx", "model-uid", "1")


def carrying(decision: int, **spec: Any) -> Body:
    metadata = {**ROUTE["metadata"], "annotations": {"fiduciary.dev/decision": str(decision)}}
    return {**ROUTE, "metadata": metadata, "spec": spec or ROUTE["spec"]}


def children(cluster: MemoryCluster, stores: Stores) -> Children:
    return Children(cluster, stores.by_kind, lambda name: None)


def test_a_route_never_goes_back_to_an_older_record() -> None:
    cluster, stores = MemoryCluster(), Stores()
    writer = children(cluster, stores)
    asyncio.run(writer.write(TARGET, [Apply(ROUTE)]))
    there = stores.routes.get(("quant", "spx"))
    assert there is not None
    same = Apply(carrying(7, rules=[]), there.uid, there.resource_version)
    asyncio.run(writer.write(TARGET, [same]))
    there = stores.routes.get(("quant", "spx"))
    assert there is not None
    older = Apply(carrying(6), there.uid, there.resource_version)
    with pytest.raises(
        ForeignObject, match="carries out decision 7, but the newest record that the cluster shows is 6"
    ):
        asyncio.run(writer.write(TARGET, [older]))
    assert cluster.objects["HTTPRoute", "quant", "spx"]["spec"] == {"rules": []}


def test_nor_does_one_that_lost_its_label() -> None:
    cluster, stores = MemoryCluster(), Stores()
    metadata = {**ROUTE["metadata"], "labels": {}, "ownerReferences": [{"uid": TARGET.uid}]}
    cluster.put(kinds.HTTPROUTE, {**ROUTE, "metadata": metadata})
    with pytest.raises(ForeignObject, match="decision 7"):
        asyncio.run(children(cluster, stores).write(TARGET, [Apply(carrying(6))]))
    asyncio.run(children(cluster, stores).write(TARGET, [Apply(carrying(8))]))
    assert stores.routes.get(("quant", "spx")) is not None


def test_a_new_object_that_the_mirror_only_had_not_seen_is_looked_at_first() -> None:
    cluster, stores = MemoryCluster(), Stores()
    cluster.put(kinds.HTTPROUTE, carrying(9))
    with pytest.raises(Stale, match="is there already"):
        asyncio.run(children(cluster, stores).write(TARGET, [Apply(carrying(7))]))
    view = stores.routes.get(("quant", "spx"))
    assert view is not None
    assert view.decision == 9


def test_what_is_refused_keeps_nothing_else_from_being_written() -> None:
    class Refusing(MemoryCluster):
        async def apply(
            self, resource: Resource, body: Body, *, manager: str = "fiduciary", force: bool = True
        ) -> Body:
            if resource is kinds.SERVICE:
                raise Forbidden(403, "Forbidden", "quota of Services")
            return await super().apply(resource, body, manager=manager, force=force)

    cluster, stores = Refusing(), Stores()
    service = {**ROUTE, "apiVersion": "v1", "kind": "Service"}
    with pytest.raises(Forbidden, match="quota of Services"):
        asyncio.run(children(cluster, stores).write(TARGET, [Apply(service), Apply(ROUTE)]))
    assert ("HTTPRoute", "quant", "spx") in cluster.objects


def test_a_silent_webhook_keeps_what_it_admits_alone_from_being_written(story: ServingStory) -> None:
    """As where KServe's manager is down: its webhooks fail closed, so no InferenceService is written, and a kill is."""
    story.process.refusals = True
    story.cluster.unadmitted.add(kinds.SERVICEACCOUNT)
    story.cluster.remove(kinds.SERVICEACCOUNT, "quant", "spx-serving")
    story.calm()
    status, reason, message = condition(story, "Stalled")
    assert (status, reason) == ("True", "WriteRefused")
    assert "failed calling webhook" in message
    model = story.model()
    assert model is not None
    story.cluster.put(kinds.FINANCIALMODEL, {**model, "spec": {**model["spec"], "kill": {"engaged": True}}})
    story.calm(5)
    assert not any(story.weights().values())
    assert story.status["phase"] == "Killed"
    story.cluster.unadmitted.clear()
    story.calm(60)
    assert ("ServiceAccount", "quant", "spx-serving") in story.cluster.objects
    assert condition(story, "Stalled")[1] != "WriteRefused"


def test_replicas_are_set_on_that_very_deployment_under_a_manager_of_their_own() -> None:
    managers: list[tuple[str, Mapping[str, Any]]] = []

    class Telling(MemoryCluster):
        async def apply(
            self, resource: Resource, body: Body, *, manager: str = "fiduciary", force: bool = True
        ) -> Body:
            managers.append((manager, body["spec"]))
            return await super().apply(resource, body, manager=manager, force=force)

    cluster, stores = Telling(), Stores()
    deployment = {**ROUTE, "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"paused": False}}
    made = cluster.put(kinds.DEPLOYMENT, deployment)
    asyncio.run(children(cluster, stores).write(TARGET, [Scale("spx", made["metadata"]["uid"], 4)]))
    assert managers == [("fiduciary-scale", {"replicas": 4})]
    assert cluster.objects["Deployment", "quant", "spx"]["spec"] == {"paused": False, "replicas": 4}
    with pytest.raises(Stale):
        asyncio.run(children(cluster, stores).write(TARGET, [Scale("spx", "another", 4)]))


def test_what_a_training_makes_is_no_child_of_serving() -> None:
    cluster, stores = MemoryCluster(), Stores()
    policy: Body = {**ROUTE, "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    training = {**policy["metadata"], "labels": {**kinds.MANAGED, "fiduciary.dev/component": "training"}}
    asyncio.run(children(cluster, stores).write(TARGET, [Apply({**policy, "metadata": training})]))
    assert len(stores.by_kind["NetworkPolicy"]) == 0
