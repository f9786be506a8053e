"""Where pods run: the user's part of a pod. The API type is the allow-list, its fields are those of Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.pods import PodTemplate

Body = dict[str, Any]


def scheduling(template: PodTemplate, own: Mapping[str, str]) -> Body:
    """Fields of a PodSpec; a spread without selector counts the pods with the labels ``own``."""
    fields = template.body()
    names = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName", "imagePullSecrets")
    made: Body = {name: fields[name] for name in names if fields.get(name)}
    if fields.get("topologySpread"):
        selector = {"labelSelector": {"matchLabels": dict(own)}}
        made["topologySpreadConstraints"] = [{**selector, **constraint} for constraint in fields["topologySpread"]]
    return made
