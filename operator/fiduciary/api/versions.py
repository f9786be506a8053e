"""References to trained versions: what the log and the status name, and by which identifiers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fiduciary.api.base import ApiModel, ShortText, Time
from fiduciary.api.quantities import Date, Digest, VersionNumber

Role = Literal["Champion", "PreviousChampion", "Challenger", "Candidate", "Anchor"]


class VersionRef(ApiModel):
    """An immutable trained artifact, found again by its digest."""

    version: VersionNumber | None = None
    """Number in the registry, for example "7". Absent while (or because) the version was not registered."""
    run_id: ShortText | None = None
    """MLflow run that trained it."""
    uri: str | None = Field(default=None, max_length=2048)
    """Where the artifact is stored, as the registry resolved it."""
    digest: Digest | None = None
    """Content digest of the artifact: it decides where number and digest disagree."""
    data_digest: Digest | None = None
    """Digest over all rows that the training read."""
    training_key: Digest | None = None
    """Hash of what defines the training: equal keys are never trained twice."""
    role: Role | None = None
    """What the version was, or became, for the model."""
    architecture: ShortText | None = None
    """Architecture that was trained, for example Linear."""
    as_of: Date | None = None
    """Last date whose data the training may have read."""


class StandingVersion(VersionRef):
    """A version that holds a place: champion, previous champion, anchor or challenger."""

    since: Time | None = None
    """When it took this place."""
    decision: int | None = Field(default=None, ge=1)
    """Sequence number of the ModelDecision that gave it this place."""
    report: str | None = Field(default=None, max_length=2048)
    """Where its report can be read in a browser, in MLflow: what was measured, with plots."""
