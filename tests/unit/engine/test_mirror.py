"""The mirror: old news, lost deletions, other objects of the same name, and when everything has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.engine import kinds
from fiduciary.engine.mirror import Change, Listed, Store, listed
from fiduciary.engine.stores import Key, Stores

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body


def body(name: str = "a", version: int = 1, uid: str = "u1", parent: str = "p", **spec: Any) -> Body:
    metadata = {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Thing", "metadata": metadata, "spec": {"parent": parent, **spec}}


class Spec(dict[str, Any]):
    """What a store hands out can be referred to weakly, as the API's models can."""


def store() -> Store[dict[str, Any]]:
    return Store(
        kinds.JOB, lambda found: Spec(found["spec"]), keep=kinds.trimmed, parent=lambda found: found["spec"]["parent"]
    )


NAME = ("ns", "a")


def test_news_replaces_and_old_news_does_not() -> None:
    things = store()
    assert things.put(body(version=5, n=1)) is Change.NEW
    assert things.put(body(version=7, n=2)) is Change.CHANGED
    assert things.put(body(version=6, n=3)) is Change.STALE
    assert things.put(body(version=7, n=2)) is Change.SAME
    assert things.get(NAME) == {"parent": "p", "n": 2}


def test_an_object_is_parsed_once_while_somebody_holds_it_and_anew_when_it_is_another_one() -> None:
    things = store()
    things.put(body(version=5, n=1))
    held = things.get(NAME)
    assert things.get(NAME) is held
    assert things.of("p")[0] is held
    assert next(things.values()) is held
    things.put(body(version=6, n=2))
    assert held == {"parent": "p", "n": 1}
    newer = things.get(NAME)
    assert newer == {"parent": "p", "n": 2}
    things.remove(NAME, "u1", 7)
    assert things.get(NAME) is None
    things.put(body(version=8, uid="u2", n=3))
    assert things.get(NAME) == {"parent": "p", "n": 3}


def test_the_echo_of_an_own_write_is_no_news_and_brings_the_server_s_truth() -> None:
    things = store()
    things.put(body(version=5, n=1))
    things.put_value({"namespace": "ns", "name": "a", "uid": "u1", "resourceVersion": "8"}, {"n": 2})
    assert things.get(NAME) == {"n": 2}
    assert things.of("p") == [{"n": 2}], "an own write keeps its place in the index"
    assert things.put(body(version=8, n=3)) is Change.SAME
    assert things.get(NAME) == {"parent": "p", "n": 3}


def test_a_late_answer_does_not_bring_a_deleted_object_back() -> None:
    things = store()
    things.put(body(version=5))
    assert things.remove(NAME, "u1", 9) is Change.GONE
    assert things.put(body(version=8)) is Change.STALE
    assert things.get(NAME) is None
    assert things.of("p") == []
    assert things.put(body(version=10, uid="u2")) is Change.NEW


def test_a_deletion_of_an_earlier_object_of_that_name_is_ignored() -> None:
    things = store()
    things.put(body(version=5, uid="u1"))
    assert things.put(body(version=9, uid="u2")) is Change.CHANGED
    assert things.remove(NAME, "u1", 8) is Change.STALE
    assert things.get(NAME) is not None
    assert things.put(body(version=7, uid="u1")) is Change.STALE


def test_moving_to_another_parent_leaves_the_first() -> None:
    things = store()
    things.put(body(version=1, parent="p"))
    things.put(body(version=2, parent="q"))
    assert things.of("p") == []
    assert len(things.of("q")) == things.count("q") == 1


def test_a_sweep_finds_what_is_gone_and_what_was_never_told() -> None:
    things = store()
    things.put(body("kept", 1, "u1"))
    things.put(body("gone", 2, "u2"))
    things.put(body("remade", 3, "u3"))
    things.put(body("young", 9, "u9"))
    listing = [Listed(("ns", "kept"), "u1", 1), Listed(("ns", "remade"), "u4", 5), Listed(("ns", "missed"), "u5", 6)]
    phantoms, missing = things.compare(listing, at=7)
    assert phantoms == [(("ns", "gone"), "u2"), (("ns", "remade"), "u3")]
    assert missing == [("ns", "remade"), ("ns", "missed")]


def test_a_store_is_synced_when_everything_listed_has_arrived_or_is_known_to_be_gone() -> None:
    things = store()
    things.expect([Listed(("ns", name), name, 4) for name in ("a", "b", "c")])
    assert not things.synced
    things.put(body("a", 4, "a"))
    things.put(body("b", 3, "b"))  # an older state than the LIST has seen
    things.remove(("ns", "c"), "c", 5)
    assert not things.synced
    things.put(body("b", 6, "b"))
    assert things.synced


def test_a_second_list_forgets_what_vanished_between_the_first_and_the_watch() -> None:
    things = store()
    things.expect([Listed(("ns", "vanished"), "v", 4)])
    assert not things.synced
    things.expect([])
    assert things.synced


def test_an_empty_kind_is_synced_by_its_list() -> None:
    things = store()
    things.expect(listed([]))
    assert things.synced


def test_bookkeeping_of_field_managers_is_not_kept() -> None:
    found = body()
    found["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    found["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}
    assert kinds.trimmed(found)["metadata"]["annotations"] == {"mine": "1"}
    assert "managedFields" not in kinds.trimmed(found)["metadata"]


def model(name: str, registry: dict[str, str] | None = None, version: int = 1) -> Body:
    spec: dict[str, Any] = {
        "data": {
            "source": {"dataset": {"name": "arch/sp500"}},
            "time": "date",
            "asOf": "2017-12-29",
            "features": {"set": "ohlcv-v1"},
            "label": {"kind": "Volatility"},
        },
        "training": {"architecture": "HAR"},
    }
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}
    metadata["creationTimestamp"] = f"2026-01-0{version}T00:00:00Z"
    if registry:
        spec["registry"] = registry
    return {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel", "metadata": metadata, "spec": spec}


def test_rivals_for_one_registered_model_know_of_each_other() -> None:
    stores = Stores()
    stores.models.put(model("first", {"model": "shared"}, 1))
    stores.models.put(model("second", {"model": "shared"}, 2))
    stores.models.put(model("other", None, 3))
    first = stores.models.get(("ns", "first"))
    assert first is not None
    assert [claim.name for claim in stores.claims(first)] == ["second"]
    index = stores.models.index_of(("ns", "second"))
    concerned = set(stores.concerned(kinds.FINANCIALMODEL, ("ns", "second"), "ns", index))
    assert concerned == {Key("FinancialModel", "ns", "first"), Key("FinancialModel", "ns", "second")}


def test_a_default_name_and_the_same_name_written_out_are_one_claim() -> None:
    stores = Stores()
    stores.models.put(model("first", None, 1))
    stores.models.put(model("second", {"model": "ns.first"}, 2))
    first = stores.models.get(("ns", "first"))
    assert first is not None
    assert [claim.name for claim in stores.claims(first)] == ["second"]


def test_a_change_of_what_no_decision_reads_is_no_change() -> None:
    store: Store[str] = Store(kinds.GATEWAY, lambda body: body["spec"])
    store.put(thing("a", 1, spec="x"))
    assert store.put(thing("a", 2, spec="x")) is Change.SAME
    assert store.version(("ns", "a")) == 2
    assert store.put(thing("a", 3, spec="y")) is Change.CHANGED


def test_an_object_that_loses_its_label_and_gets_it_back_is_no_ghost() -> None:
    store: Store[str] = Store(kinds.HTTPROUTE, lambda body: body["spec"])
    store.put(thing("a", 1, spec="x"))
    assert store.remove(("ns", "a"), "a", 2) is Change.GONE
    assert store.put(thing("a", 2, spec="x")) is Change.STALE, "what the deletion itself held"
    assert store.put(thing("a", 3, spec="x")) is Change.NEW


def test_sums_follow_what_comes_changes_and_goes() -> None:
    told: list[tuple[str | None, str | None]] = []
    store: Store[str] = Store(
        kinds.DEPLOYMENT, lambda body: body["spec"], tally=lambda gone, come: told.append((gone, come))
    )
    store.put(thing("a", 1, spec="x"))
    store.put(thing("a", 2, spec="y"))
    store.put(thing("a", 1, spec="x"))
    store.put(thing("b", 3, spec="z"))
    store.remove(("ns", "a"), "a", 4)
    store.clear()
    assert told == [(None, "x"), ("x", "y"), (None, "z"), ("y", None), ("z", None)]
    assert not store.synced
    assert store.put(thing("a", 5, spec="x")) is Change.NEW, "a kind that comes back is listed anew"


def thing(name: str, version: int, spec: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": str(version)}, "spec": spec}


def routed(name: str, version: int, *gateways: dict[str, str]) -> dict[str, Any]:
    body = model(name, None, version)
    body["spec"]["serving"] = {"gateway": {"parentRefs": list(gateways)}}
    return body


def test_a_gateway_concerns_the_models_that_name_it() -> None:
    stores = Stores()
    stores.models.put(routed("both", 1, {"name": "edge", "namespace": "gw"}, {"name": "inner"}))
    stores.models.put(routed("inner", 2, {"name": "inner"}))
    stores.models.put(model("none", None, 3))
    edge = set(stores.concerned(kinds.GATEWAY, ("gw", "edge"), None, ()))
    inner = set(stores.concerned(kinds.GATEWAY, ("ns", "inner"), None, ()))
    assert edge == {Key("FinancialModel", "ns", "both")}
    assert inner == {Key("FinancialModel", "ns", "both"), Key("FinancialModel", "ns", "inner")}
    assert not set(stores.concerned(kinds.GATEWAY, ("gw", "inner"), None, ()))
    assert [stores.names_optional(("ns", name)) for name in ("both", "inner", "none")] == [True, True, False]
