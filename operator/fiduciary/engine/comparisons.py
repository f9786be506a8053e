"""Comparison Jobs as the decision sees them. The experiment that owns one is found by its owner reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api import meta
from fiduciary.decide.experiment.world import ComparisonJob
from fiduciary.engine import kinds

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body


def comparison_job(body: Body) -> ComparisonJob | None:
    """A Job that replays two procedures; None for any other Job, a training or somebody else's."""
    metadata, ledger = body["metadata"], kinds.annotations_of(body).get(meta.ANNOTATION_LEDGER)
    number = str(metadata["name"]).rpartition("-")[2]
    if kinds.labels_of(body).get(meta.LABEL_COMPONENT) != meta.COMPARISON or ledger is None or not number.isdecimal():
        return None
    owners = [owner for owner in kinds.entries(metadata, "ownerReferences") if owner.get("controller")]
    ended = kinds.job_end(body)
    return ComparisonJob(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=int(number),
        ledger=ledger,
        owner_uid=owners[0]["uid"] if owners else "",
        created_at=kinds.created(body),
        suspended=bool(kinds.part(body, "spec").get("suspend", False)),
        succeeded=ended.get("type") == "Complete",
        failed=ended.get("type") == "Failed",
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        finished_at=kinds.moment(ended.get("lastTransitionTime")),
        deleting="deletionTimestamp" in metadata,
    )
