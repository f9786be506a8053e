"""Serving that outlives its model (deletionPolicy Retain): the same objects without an owner, labelled as such.

A new model of the same name finds them by their label and takes them over, because its log names their versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.serving import objects, road
from fiduciary.decide.serving.routing import routing
from fiduciary.decide.serving.wanted import Wanted, view_of
from fiduciary.decide.step import Note
from fiduciary.manifests.content import content_of

if TYPE_CHECKING:
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.case import Case
    from fiduciary.decide.decision import Child
    from fiduciary.decide.history import History
    from fiduciary.decide.serving.ability import Able


def retained_route(case: Case, able: Able, history: History) -> tuple[Child, ...]:
    """The route as the log wants it, without an owner; nothing where it is that already."""
    route = routing(history)
    return road.left_behind(case, able, history, route) if route is not None else ()


def retained(case: Case, able: Able, history: History) -> tuple[Child, ...]:
    """What has to be written so that nothing that serves goes with the model; empty once it is done."""
    children: list[Child] = [*retained_route(case, able, history)]
    written: set[tuple[str, str]] = set()
    for version in _versions(case):
        deployment = view_of(case, version)
        if deployment is None:
            continue
        plan = objects.plan_of(case, able, Wanted(version, *_scale(case, version, deployment.replicas)), owned=False)
        made = objects.made_of(case, able, plan, deployment)
        if isinstance(made, Note):
            continue  # what cannot be described stays as it is: it goes on, with its owner's name on it
        for body in (*able.backend.shared(plan), *able.backend.companions(plan), made):
            kind, name = body["kind"], body["metadata"]["name"]
            there = deployment if kind == deployment.kind else objects.view_of_body(case, body)
            if there is None or (kind, name) in written:
                continue
            written.add((kind, name))
            if objects.differs(there, content_of(body)[0], case, owned=False):
                children.append(objects.applied(body, there))
    return tuple(children)


def _versions(case: Case) -> tuple[VersionRef, ...]:
    history = case.history
    standing = (history.champion, *history.former, history.challenger)
    return tuple(version for version in standing if version is not None)


def _scale(case: Case, version: VersionRef, replicas: int) -> tuple[int, bool]:
    """What the version has now: its autoscaler and budget stay with it."""
    kinds = {child.kind for child in case.world.children if child.digest == version.digest}
    return replicas, "HorizontalPodAutoscaler" in kinds
