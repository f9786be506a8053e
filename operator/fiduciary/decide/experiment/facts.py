"""What a FinancialModel and its log say to an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api import meta
from fiduciary.api.quantities import timedelta_of
from fiduciary.decide.calendar import ALWAYS_OPEN
from fiduciary.decide.experiment.world import ModelFacts
from fiduciary.decide.serving.backends import named
from fiduciary.decide.trial import about, oldest_first

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.modelexperiment import ModelExperiment
    from fiduciary.api.versions import VersionRef
    from fiduciary.decide.history import History, Verdict


def facts(
    experiment: ModelExperiment, model: FinancialModel, history: History, others: Iterable[ModelExperiment] = ()
) -> ModelFacts:
    """The model as ``experiment`` sees it. ``others``: experiments of the model, to tell which ones are ahead."""
    spec, active = model.spec, model.status.active_experiment
    return ModelFacts(
        label=spec.data.label.kind,
        panel=spec.data.entity is not None,
        horizon=spec.data.label.horizon,
        champion=history.champion,
        active=None if active is None else (active.name, active.uid),
        ahead=tuple(
            other.metadata.name
            for other in sorted(others, key=oldest_first)
            if other.status.ruling is None
            and (active is None or other.metadata.uid != active.uid)
            and oldest_first(other) < oldest_first(experiment)
        ),
        mode=spec.promotion.mode,
        approvals=spec.promotion.approvals,
        rollback_window_seconds=round(timedelta_of(spec.promotion.rollback_window).total_seconds()),
        calendar=spec.data.calendar or ALWAYS_OPEN,
        moving=_moving(model, history),
        killed=history.kill is not None and history.kill.engaged,
        suspended=spec.suspend,
        editor=model.metadata.annotations.get(meta.ANNOTATION_EDITED_BY),
        acted=history.approvals,
    )


def _moving(model: FinancialModel, history: History) -> str:
    serving = model.spec.serving
    return serving.backend if serving is not None and serving.backend != named(serving, history) else ""


def pair(history: History, experiment: ModelExperiment) -> tuple[VersionRef | None, VersionRef | None]:
    """(champion, challenger) that the experiment compares; None for one that the log does not know.

    Fixed by digest once the experiment has started. Before, the champion is the one that serves, or that its spec
    names. A challenger that holds no place any more (rejected, rolled back, or a newer one took it) is None.
    """
    fixed, named = experiment.status.champion, experiment.spec.champion
    standing = [
        one
        for one in (history.challenger, history.waiting, history.champion, *history.former)
        if one is not None and one.digest not in history.refused
    ]
    if fixed is not None:
        serving = (history.champion, *history.former)
        champion = next((one for one in serving if one is not None and one.digest == fixed.digest), None)
    elif named is not None:
        serving = (history.champion, *history.former)
        champion = next((one for one in serving if one is not None and one.version == named.version), None)
    else:
        champion = history.champion
    started = experiment.status.challenger is not None
    # Only what was compared may be champion by now: by its promotion, which the experiment goes on watching.
    places = standing if started else [one for one in standing if one in (history.challenger, history.waiting)]
    challenger = next((one for one in places if about(experiment, one)), None)
    return champion, challenger


def same_configuration(history: History, champion: VersionRef | None, challenger: VersionRef | None) -> bool:
    """Whether both versions were trained by the same configuration (protocols §2, configKey)."""
    one, other = (None if ref is None else verdict_on(history, ref.digest) for ref in (champion, challenger))
    return one is not None and other is not None and one.config_key == other.config_key


def verdict_on(history: History, digest: str | None) -> Verdict | None:
    """The newest verdict on an artifact: gates may have judged it again."""
    found = [
        one
        for one in history.verdicts.values()
        if digest is not None and one.version is not None and one.version.digest == digest
    ]
    return max(found, key=lambda verdict: verdict.record.sequence, default=None)
