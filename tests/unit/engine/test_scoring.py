"""The outcome scorer of a namespace: made where experiments decide, one for all of its models, and never taken away."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.engine import kinds
from tests.golden.outcomes import scoring
from tests.unit.decide.worlds import PLATFORM, SERVED, merged
from tests.unit.engine.serving_story import ServingStory

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body

assert PLATFORM.serving is not None
SCORED = replace(PLATFORM, serving=replace(PLATFORM.serving, scoring=scoring()))
AUTO = merged(SERVED, {"promotion": {"mode": "Auto"}})
NAME = "fiduciary-outcomes"
PARTS = {
    ("ServiceAccount", "quant", NAME),
    ("ServiceAccount", "quant", "outcome-writer"),
    ("ServiceAccount", "quant", "fiduciary-comparison"),
    ("NetworkPolicy", "quant", NAME),
    ("Service", "quant", NAME),
    ("Deployment", "quant", NAME),
    ("PersistentVolumeClaim", "quant", NAME),
}


@pytest.fixture
def story() -> ServingStory:
    return ServingStory(platform=SCORED)


def serving(story: ServingStory, change: dict[str, Any], name: str = "spx") -> None:
    story.apply(change, name)
    story.train()
    story.calm()


def parts(story: ServingStory) -> set[tuple[str, str, str]]:
    labels = {"fiduciary.dev/component": "outcomes"}.items()
    return {place for place, body in story.cluster.objects.items() if labels <= kinds.labels_of(body).items()} - {
        place for place in story.cluster.objects if place[0] == "Pod"
    }


def told(story: ServingStory) -> Body:
    """What the model's server is told."""
    (deployment,) = [
        body
        for (kind, _, name), body in story.cluster.objects.items()
        if kind == "Deployment" and name.startswith("spx-")
    ]
    (variable,) = [
        entry
        for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        if entry["name"] == "FIDUCIARY_SERVING"
    ]
    return json.loads(variable["value"])


def test_a_model_that_experiments_decide_about_has_a_scorer_and_sends_to_it(story: ServingStory) -> None:
    serving(story, AUTO)
    assert parts(story) == PARTS
    assert story.ready() == ("True", "Serving")
    assert told(story)["records"]["url"] == f"http://{NAME}.quant.svc:8080/v1/records"
    (policy,) = [
        body
        for (kind, _, name), body in story.cluster.objects.items()
        if kind == "NetworkPolicy" and name.startswith("spx-") and "training" not in name
    ]
    (peer,) = policy["spec"]["egress"][-1]["to"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == NAME
    before = len(story.cluster.writes)
    story.calm(300)
    story.process = story.born()
    story.calm(60)
    assert story.cluster.writes[before:] == []


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"promotion": {"mode": "Manual"}}, False),
        ({"promotion": {"mode": "Manual", "experiment": {}}}, True),
        ({"promotion": {"mode": "Auto"}, "serving": None}, False),
    ],
)
def test_who_needs_one(story: ServingStory, change: dict[str, Any], needed: bool) -> None:
    serving(story, merged(SERVED, change))
    assert parts(story) == (PARTS if needed else set())
    if "serving" not in change:
        assert (told(story)["records"]["url"] is not None) == needed


def test_the_platform_s_own_sink_gets_the_records() -> None:
    assert SCORED.serving is not None
    sink = replace(SCORED.serving, records_url="http://sink.data.svc/records")
    story = ServingStory(platform=replace(SCORED, serving=sink))
    serving(story, AUTO)
    assert told(story)["records"]["url"] == "http://sink.data.svc/records"
    assert parts(story) == PARTS


def test_models_of_a_namespace_share_it_and_do_not_fight(story: ServingStory) -> None:
    serving(story, AUTO)
    versions = {place: story.cluster.objects[place]["metadata"]["resourceVersion"] for place in PARTS}
    serving(story, AUTO, "ndx")
    serving(story, SERVED, "dax")
    story.calm(120)
    now = {place: story.cluster.objects[place]["metadata"]["resourceVersion"] for place in PARTS}
    assert {place for place in PARTS if now[place] != versions[place]} <= {("Deployment", "quant", NAME)}
    assert len(story.process.loop.queue.core) == 0


@pytest.mark.parametrize("place", sorted(PARTS - {("PersistentVolumeClaim", "quant", NAME)}))
def test_what_somebody_takes_away_or_changes_comes_back(story: ServingStory, place: tuple[str, str, str]) -> None:
    serving(story, AUTO)
    serving(story, AUTO, "ndx")
    resource = story.cluster.resources[place[0]]
    story.cluster.remove(resource, *place[1:])
    story.calm(40)
    assert parts(story) == PARTS
    if place[0] == "ServiceAccount":
        return  # it has no spec
    found = story.cluster.objects[place]
    wanted = found["spec"]
    story.cluster.put(resource, {**found, "spec": {}})
    story.calm(40)
    assert story.cluster.objects[place]["spec"] == wanted


def test_a_claim_is_made_again_only_for_who_cannot_work_and_never_changed(story: ServingStory) -> None:
    serving(story, AUTO)
    place = ("PersistentVolumeClaim", "quant", NAME)
    claim = story.cluster.objects[place]
    story.cluster.put(kinds.CLAIM, {**claim, "spec": {"resources": {"requests": {"storage": "50Gi"}}}})
    story.calm(60)
    assert story.cluster.objects[place]["spec"]["resources"]["requests"]["storage"] == "50Gi", "grown by its owner"
    assert [verb for verb, kind, _ in story.cluster.writes if kind == "PersistentVolumeClaim"] == ["create"]


def test_the_model_goes_and_the_evidence_stays(story: ServingStory) -> None:
    serving(story, AUTO)
    story.cluster.remove(kinds.FINANCIALMODEL, "quant", "spx")
    story.calm(120)
    assert story.model() is None
    assert parts(story) == PARTS
    assert all("ownerReferences" not in story.cluster.objects[place]["metadata"] for place in PARTS)


def test_a_newer_scorer_image_rolls_it_once(story: ServingStory) -> None:
    serving(story, AUTO)
    serving(story, AUTO, "ndx")
    assert SCORED.serving is not None
    newer = replace(SCORED.serving, scoring=scoring(image="fiduciary-outcomes:0.2.0"))
    story.platform = replace(SCORED, serving=newer)
    before = len(story.cluster.writes)
    story.process = story.born()
    for name in ("spx", "ndx"):
        story.cluster.touch(kinds.FINANCIALMODEL, "quant", name, metadata=story.model(name)["metadata"])  # type: ignore[index]
    story.calm(60)
    done = [write for write in story.cluster.writes[before:] if write[1] == "Deployment"]
    assert done == [("apply", "Deployment", NAME)]


def test_somebody_else_s_object_of_the_name_is_named_and_left_alone() -> None:
    story = ServingStory(refusals=True, platform=SCORED)
    story.cluster.put(kinds.SERVICE, {"metadata": {"namespace": "quant", "name": NAME}, "spec": {}})
    serving(story, AUTO)
    story.calm(120)
    stalled = [entry for entry in story.status["conditions"] if entry["type"] == "Stalled"]
    assert f"Service quant/{NAME} exists already" in stalled[0]["message"]
    assert story.cluster.objects["Service", "quant", NAME]["spec"] == {}
    assert story.ready() == ("True", "Serving"), "clients do not notice"
