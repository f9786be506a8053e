"""Chaos: what people, time and machines do to a model under trial, drawn by a seed. Both judges are the real ones."""

from __future__ import annotations

import copy
import math
import random
from typing import TYPE_CHECKING, Any

from fiduciary.api.modeldecision import ModelDecision
from fiduciary.decide.history import fold
from fiduciary.engine import kinds
from tests.unit.decide.worlds import merged
from tests.unit.engine.experiment_story import TEMPLATE, TRIED, ExperimentStory

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body

SCRAPE = 15
UNWATCHED = 40
"""Seconds that a share may outlive its watcher: a record, a route and the noticing of a wiped status."""
VERDICTS = 2
"""Of one experiment: a promotion, and the way back."""
RECORDS = 60
PEACE = 900
SHORT = {"stopping": {"minDuration": "1m", "maxDuration": "12m"}, "noData": {"maxHold": "3m"}}
QUICK = merged(TRIED, {"promotion": {"experiment": merged(TEMPLATE, SHORT)}})
WELL = 0.02


class Chaos:
    """One life. ``told``: what happened when; ``bad``: what must never happen and did."""

    def __init__(self, seed: int, begun: ExperimentStory) -> None:
        self.draw = random.Random(seed)
        self.story = begun.goes_on(-1)
        self.told: list[tuple[Any, ...]] = []
        self.bad: list[str] = []
        self._trainings = 0
        self._unwatched: float | None = None

    def run(self) -> None:
        self._pass(self.draw.choice([5, 60, 200, 350]))
        events = {name.removeprefix("on_"): getattr(self, name) for name in dir(self) if name.startswith("on_")}
        often = [*sorted(events), "unpin", "restart", "die", "die", "prometheus", "retrain"]
        for _ in range(self.draw.randint(6, 12)):
            name = self.draw.choice(often)
            self.told.append((round(self.story.clock.seconds), name, events[name]()))
            self._pass(self.draw.choice([1, 3, 10, 30, 90]))
        self._peace()

    # -- what happens

    def on_pin(self) -> str | None:
        places = [self.story.status.get(name) for name in ("champion", "challenger", "previousChampion")]
        known = [one for one in places if one]
        if not known:
            return None
        chosen = self.draw.choice(known)
        named = {"version": chosen["version"], "digest": chosen["digest"]}
        self._edit({"promotion": {"mode": "Pinned", "pinned": named}})
        return chosen["version"]

    def on_unpin(self) -> None:
        spec = copy.deepcopy(self._model["spec"])
        spec["promotion"].pop("pinned", None)
        spec["promotion"]["mode"] = "Auto"
        spec["suspend"] = False
        self._spec(spec)

    def on_suspend(self) -> None:
        self._edit({"suspend": self.draw.random() < 0.6})

    def on_kill(self) -> None:
        if self.draw.random() < 0.4:
            self.story.act("Kill")

    def on_resume(self) -> None:
        if (self.story.status.get("kill") or {}).get("engaged"):
            self.story.act("Resume")

    def on_roll_back(self) -> None:
        if self.draw.random() < 0.5:
            self.story.act("RollBack")

    def on_wiped_status_of_an_experiment(self) -> str | None:
        return self._one(lambda name: self.story.cluster.touch(kinds.MODELEXPERIMENT, "quant", name, status={}))

    def on_wiped_status_of_the_model(self) -> None:
        self.story.cluster.touch(kinds.FINANCIALMODEL, "quant", "spx", status={})

    def on_restart(self) -> None:
        self.story.process = self.story.born()

    def on_outage(self) -> int:
        """Of the operator: clients, pods and Prometheus go on."""
        seconds, story = self.draw.choice([20, 60, 200, 600]), self.story
        del story.process
        end = story.clock.seconds + seconds
        while story.clock.seconds < end:
            story.clock.seconds += 1
            story.node.turn()
            if story.clock.seconds >= story.scraped + SCRAPE:
                story.scraped += SCRAPE
                story.serve()
        story.process = story.born()
        return seconds

    def on_die(self) -> None:
        """At one of the next writes."""
        self.story.die_at = len(self.story.points) + self.draw.randint(0, 6)

    def on_deleted_experiment(self) -> str | None:
        return self._one(lambda name: self.story.cluster.remove(kinds.MODELEXPERIMENT, "quant", name))

    def on_prometheus(self) -> str | None:
        away = None if self.story.prometheus.away else self.draw.choice(["PrometheusTimeout", "PrometheusTooLarge"])
        self.story.prometheus.away = away
        return away

    def on_retrain(self) -> str | None:
        if self._trainings == 4:
            return None
        self._trainings += 1
        if self.draw.random() < 0.5:
            self._edit({"training": {"seed": 100 + self._trainings}})
        else:
            self.story.act("Retrain")
        self.story.calm(5)
        return self.story.train()

    def on_reject(self) -> None:
        bodies = [body for (kind, _, _), body in self.story.cluster.objects.items() if kind == "ModelDecision"]
        records = sorted(map(ModelDecision.model_validate, bodies), key=lambda record: record.spec.sequence)
        digest = fold(records).challenger_evidence
        if digest and self.story.status.get("challenger"):
            self.story.act("Reject", evidenceDigest=digest)

    def on_abort(self) -> str | None:
        return self._one(lambda name: self.story.act("Abort", experiment=name))

    def on_bad_version(self) -> str:
        number = self.draw.choice(["1", "2", "3"])
        self.story.bad[number] = 0.3
        return number

    def on_good_versions(self) -> None:
        self.story.bad = dict.fromkeys(self.story.bad, WELL)

    # -- what must never happen

    def _pass(self, seconds: int) -> None:
        for _ in range(seconds):
            self.story.calm(1)
            self._watched()

    def _watched(self) -> None:
        story = self.story
        traffic, now = story.status.get("traffic") or {}, story.clock.seconds
        share = traffic.get("challenger", 0) + traffic.get("mirror", 0)
        if not share or any(map(_watches, story.experiments())):
            self._unwatched = None
        elif self._unwatched is None:
            self._unwatched = now
        elif now - self._unwatched > UNWATCHED:
            self.bad.append(f"{now:.0f}: a challenger has {share} % and nobody watches it")
            self._unwatched = math.inf
        for mx in story.experiments():
            evidence, name = (mx.get("status") or {}).get("evidence"), mx["metadata"]["name"]
            told = f"{name}: a sample ratio alarm, though the router did what the log says"
            if evidence and '"ratio_alarm":true' in evidence["state"] and told not in self.bad:
                self.bad.append(told)

    def _peace(self) -> None:
        """Everything is repaired; then a quarter of an hour in which all that was begun has to end."""
        story = self.story
        story.prometheus.away = None
        self.on_unpin()
        self.on_good_versions()
        self._pass(3)
        self.on_resume()
        for mx in story.experiments():
            if (mx.get("status") or {}).get("phase") == "Stalled":
                story.cluster.remove(kinds.MODELEXPERIMENT, "quant", mx["metadata"]["name"])
        self.told.append((round(story.clock.seconds), "peace", len(story.log())))
        self._pass(PEACE)
        self._ended()

    def _ended(self) -> None:
        verdicts: dict[str, list[str]] = {}
        for record in self.story.log():
            uid = (record.get("evidence") or {}).get("summary", {}).get("uid")
            if uid and record["action"] != "Shift":
                verdicts.setdefault(uid, []).append(record["action"])
        for mx in self.story.experiments():
            status, name, uid = mx.get("status") or {}, mx["metadata"]["name"], mx["metadata"]["uid"]
            if status.get("ruling") and status.get("challenger") and uid not in verdicts:
                self.bad.append(f"{name}: its ruling {status['ruling']['verdict']} was never recorded")
            if mx["metadata"].get("deletionTimestamp"):
                self.bad.append(f"{name}: deleted, and never goes")
        self.bad += [f"{uid}: verdicts {found}" for uid, found in verdicts.items() if len(found) > VERDICTS]
        for body in (self._model, *self.story.experiments()):
            said = (body.get("status") or {}).get("conditions", ())
            self.bad += [one["message"] for one in said if one["reason"] == "InternalError"]
        if len(self.story.log()) > RECORDS:
            self.bad.append(f"{len(self.story.log())} records")

    # -- how it is done

    @property
    def _model(self) -> Body:
        model = self.story.model()
        assert model is not None
        return model

    def _edit(self, change: dict[str, Any]) -> None:
        self._spec(merged(self._model["spec"], change))

    def _spec(self, spec: dict[str, Any]) -> None:
        self.story.cluster.touch(kinds.FINANCIALMODEL, "quant", "spx", spec=spec)

    def _one(self, act: Any) -> str | None:
        """Of the experiments that are there."""
        found = self.story.experiments()
        if not found:
            return None
        name = self.draw.choice(found)["metadata"]["name"]
        act(name)
        return name


def _watches(mx: Body) -> bool:
    status = mx.get("status") or {}
    return bool(status.get("evidence")) and not status.get("ruling") and status.get("phase") != "Stalled"
