"""The outcome scorer of the model's namespace: asked for by each model that experiments decide about, deleted by none.

All of them ask for the same, so whoever comes first makes it and whoever sees a difference mends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.decide.decision import Apply, Create
from fiduciary.manifests import outcomes
from fiduciary.manifests.content import content_of

if TYPE_CHECKING:
    from fiduciary.decide.case import Case
    from fiduciary.decide.decision import Child
    from fiduciary.decide.serving.ability import Able
    from fiduciary.decide.serving.wanted import Wanted


def scorer(case: Case, able: Able, versions: tuple[Wanted, ...]) -> tuple[Child, ...]:
    """What is missing of it or differs; nothing where this model needs none, or has no version to load yet."""
    scoring, namespace = able.environment.scoring, case.world.model.metadata.namespace
    if scoring is None or not versions or not outcomes.scored(case.spec):
        return ()
    children: list[Child] = []
    seen = case.world.scorer
    for body in outcomes.objects(namespace, scoring):
        kind, name = body["kind"], body["metadata"]["name"]
        view = (
            seen.deployment
            if kind == "Deployment"
            else next((one for one in seen.others if (one.kind, one.name) == (kind, name)), None)
        )
        if view is None:
            children.append(Apply(body))
        elif not view.deleting and (view.edited or view.content != content_of(body)[0]):
            children.append(Apply(body, uid=view.uid, resource_version=view.resource_version))
    claim = outcomes.claim(namespace, scoring)
    if claim is not None and (seen.deployment is None or seen.deployment.ready == 0):
        # Claims are not watched: who has no volume cannot work, and one that is there stays as it is.
        children.insert(0, Create(claim))
    return tuple(children)
