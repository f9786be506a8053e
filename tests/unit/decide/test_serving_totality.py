"""Whatever a cluster shows of serving, a decision comes of it: the same one each time, and one that can be stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiduciary.decide import financialmodel
from fiduciary.decide.decision import Delete
from fiduciary.serving.observed import (
    ChildView,
    DeploymentView,
    GatewayView,
    ParentStatus,
    ProbeView,
    RolloutView,
    RouteView,
    ServingPod,
)
from tests.unit.decide.lives import challenged, digest_of, service_name
from tests.unit.decide.simulated_serving import OTHER_DIGEST
from tests.unit.decide.test_serving_machine import EDITS
from tests.unit.decide.worlds import PLATFORM, T0, approval

if TYPE_CHECKING:
    from tests.unit.decide.simulated_world import SimulatedWorld


@cache
def lived() -> SimulatedWorld:
    """A model with a champion and a challenger; nobody changes it."""
    return challenged()


DIGESTS = st.sampled_from(["1", "2", "other", ""]).map(
    lambda number: (
        {"other": OTHER_DIGEST, "": ""}.get(number) if number in ("other", "") else digest_of(lived(), number)
    )
)
texts = st.text(max_size=20)
counts = st.integers(0, 4)
times = st.integers(-(10**5), 10**5).map(lambda seconds: T0 + timedelta(seconds=seconds, microseconds=seconds % 7))
words = texts | st.sampled_from(['{"reason": "DigestMismatch", "message": 3}', "[1]", '{"reason": null}', "{"])
pods = st.builds(
    ServingPod,
    name=texts,
    phase=st.sampled_from(["Pending", "Running", "Failed", "Unknown"]),
    ready=st.booleans(),
    container=st.sampled_from(["fetch", "server", "", "mesh"]),
    reason=st.sampled_from(["", "ImagePullBackOff", "Unschedulable", "CrashLoopBackOff", "Error", "weird reason!"]),
    message=texts,
    last_reason=st.sampled_from(["", "OOMKilled", "Error"]),
    exit_code=st.none() | st.integers(0, 255),
    termination_message=words,
    restarts=counts,
    created_at=st.none() | times,
    image_id=texts | st.just("x@sha256:" + "5" * 64),
    deleting=st.booleans(),
)
names = DIGESTS.map(lambda digest: service_name(lived(), digest)) | texts
deployments = st.builds(
    DeploymentView,
    name=names,
    uid=texts,
    resource_version=texts,
    digest=DIGESTS,
    version=texts,
    content=texts,
    image=texts,
    created_at=times,
    edited=st.booleans(),
    serving_key=texts,
    owner_uid=texts,
    replicas=counts,
    ready=counts,
    failure=st.just("") | texts,
    deleting=st.booleans(),
    pods=st.lists(pods, max_size=3).map(tuple),
)
children = st.builds(
    ChildView,
    api_version=st.just("v1"),
    kind=st.sampled_from(["Service", "NetworkPolicy", "ServiceAccount", "HorizontalPodAutoscaler"]),
    name=names,
    uid=texts,
    resource_version=texts,
    content=texts,
    edited=st.booleans(),
    digest=DIGESTS,
    deleting=st.booleans(),
)
parents = st.builds(
    ParentStatus,
    namespace=st.sampled_from(["projectcontour", "quant"]),
    name=st.sampled_from(["contour", "other"]),
    section=st.none() | texts,
    controller=texts,
    accepted=st.booleans(),
    resolved=st.booleans(),
    observed_generation=counts,
    reason=texts,
    message=texts,
)
routes = st.none() | st.builds(
    RouteView,
    name=texts,
    uid=texts,
    resource_version=texts,
    generation=counts,
    decision=st.integers(0, 6),
    content=texts,
    edited=st.booleans(),
    owner_uid=texts,
    backends=st.lists(st.tuples(names, st.sampled_from([0, 50, 100])), max_size=3).map(tuple),
    parents=st.lists(parents, max_size=3).map(tuple),
    written_at=st.none() | times,
    confirmed_at=st.none() | times,
    deleting=st.booleans(),
)
gateways = st.builds(
    GatewayView,
    namespace=st.sampled_from(["projectcontour", "quant"]),
    name=st.just("contour"),
    url=st.none() | st.just("http://10.0.0.1"),
    programmed=st.booleans(),
    message=texts,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    change=st.lists(st.sampled_from(EDITS), max_size=3),
    # A name exists once in a namespace: the API server sees to that.
    loaded=st.lists(deployments, max_size=3, unique_by=lambda view: view.name),
    around=st.lists(children, max_size=3, unique_by=lambda view: (view.kind, view.name)),
    route=routes,
    known=st.lists(gateways, max_size=2),
    answers=st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.none() | st.integers(100, 599), DIGESTS, texts, times),
        max_size=4,
    ),
    missing=st.sets(st.sampled_from(["HTTPRoute", "Gateway"])),
    rollout=st.none() | st.builds(RolloutView, counts, counts),
    acts=st.lists(st.tuples(st.sampled_from(["RollBack", "Kill", "Resume"]), times), max_size=3),
    serves=st.booleans(),
    deleted=st.none() | times,
    now=times,
)
def test_no_view_of_serving_makes_decide_raise(
    change: list[dict[str, Any]],
    loaded: list[DeploymentView],
    around: list[ChildView],
    route: RouteView | None,
    known: list[GatewayView],
    answers: list[Any],
    missing: set[str],
    rollout: RolloutView | None,
    acts: list[Any],
    serves: bool,
    deleted: Any,
    now: Any,
) -> None:
    from tests.unit.decide.simulated_world import SimulatedWorld

    sim = SimulatedWorld()
    sim.world = lived().world
    for edit in change:
        if edit.get("serving") is not None and sim.model.spec.serving is None:
            continue  # part of a spec that is not there
        sim.edit(edit)
    metadata = sim.model.metadata.model_copy(update={"deletion_timestamp": deleted})
    targets = lived().serving.asked
    probes = tuple(
        ProbeView(targets[place % len(targets)], at, ok, status, "2", digest, message, 0.1, at)
        for place, ok, status, digest, message, at in answers
    )
    given_world = replace(
        sim.world,
        model=sim.model.model_copy(update={"metadata": metadata}),
        deployments=tuple(loaded),
        children=tuple(around),
        route=route,
        gateways=tuple(known),
        probes=probes,
        missing_kinds=frozenset(missing),
        rollout=rollout,
        approvals=tuple(approval(f"act-{number}", kind, at) for number, (kind, at) in enumerate(acts)),
        platform=PLATFORM if serves else replace(PLATFORM, serving=None),
    )
    financialmodel.questions(given_world, now)
    decision = financialmodel.decide(given_world, now)
    assert decision == financialmodel.decide(given_world, now), "the same world, the same answer"
    assert type(decision.status).model_validate(decision.status.body()) == decision.status
    if decision.record is not None:
        assert type(decision.record).model_validate(decision.record.body()) == decision.record
    deletions = [(child.kind, child.name, child.uid) for child in decision.children if isinstance(child, Delete)]
    assert len(deletions) == len(set(deletions)), "nothing is deleted twice"
    if decision.wake_at is not None and not decision.again and not decision.children:
        # One that has passed would be waited for at once, for ever.
        assert decision.wake_at > now - timedelta(seconds=1)
