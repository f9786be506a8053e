"""The world of requests: what clients send minute by minute, what each arm does to it, and what Prometheus shows.

A :class:`World` is a recipe; a :class:`Tape` plays it for many replications at once. Rules differ in the weights that
they set, so each rule plays its own tape. Units: requests a minute, rates in 0 … 1, minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bench.decisions.arrays import select
from bench.decisions.proportions import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bench.decisions.proportions import Floats

GUARDRAILS = ("errors", "latency")
CHAMPION, CHALLENGER = 0, 1
SCRAPES = 4


@dataclass(frozen=True, slots=True)
class Bursts:
    """Rates inside an arm are multiplied by a lognormal AR(1) of mean one, independent in both arms.

    ``cv``: coefficient of variation of the multiplier; ``ar``: its correlation from minute to minute;
    ``arms``: which arms burst.
    """

    cv: float
    ar: float = 0.0
    arms: tuple[int, ...] = (CHAMPION, CHALLENGER)


@dataclass(frozen=True, slots=True)
class Dark:
    """Minutes ``first`` … ``last`` in which the arms' series are absent: Prometheus or the target is down."""

    first: int
    last: int
    arms: tuple[int, ...] = (CHAMPION, CHALLENGER)


@dataclass(frozen=True, slots=True)
class World:
    """One cell's truth. ``errors`` and ``slow``: (champion, challenger); the challenger's hold from ``onset`` on.

    A rate is a number, or an array with one a replication.
    """

    per_minute: float = 300.0
    errors: tuple[Floats | float, Floats | float] = (0.005, 0.005)
    slow: tuple[Floats | float, Floats | float] = (0.002, 0.002)
    onset: int = 0
    drift: Callable[[int], float] | None = None
    """Multiplies all rates of both arms in a minute."""
    volume: Callable[[int], float] | None = None
    """Multiplies the traffic in a minute."""
    bursts: Bursts | None = None
    dark: tuple[Dark, ...] = ()
    reset_every: float = math.inf
    """Mean minutes between restarts of an arm's only pod: the counts since its last scrape are lost."""
    routed: float = 1.0
    """Share that the router really gives to the challenger over the share that it was told."""
    eaten: float = 0.0
    """Share of the challenger's live requests that vanish before they are counted: first those that would fail."""
    sticky: bool = False
    """Clients in 64 buckets, the busiest of which sends an eighth of the traffic, stay with their arm."""
    history_minutes: int = 10_080


@dataclass(slots=True)
class Seen:
    """One minute as Prometheus shows it, and what clients met.

    ``arms[arm][guardrail]``: counts; ``live``: requests by arm without mirrored ones; ``dark``: which arms are absent
    (the same in all replications); ``excess``: failed or slow answers that clients got from the challenger, less what
    the champion's rates would have given them; ``suspects``: the replications in which more than a tenth of the
    challenger's answers failed, and for them ``scrapes``: errors' counts (champion, challenger) from the edge to each
    of the four scrapes.
    """

    arms: tuple[dict[str, Counts], dict[str, Counts]]
    live: tuple[Floats, Floats]
    dark: tuple[bool, bool]
    excess: Floats
    suspects: NDArray[np.int64] | None
    scrapes: list[tuple[Counts, Counts]]


@dataclass(slots=True)
class Tape:
    """A world played for ``replications`` experiments. ``now`` is the minute to come; below 0 is history."""

    world: World
    rng: np.random.Generator
    replications: int
    now: int = 0
    chunk: int | None = None
    """Which part of a cell this is, where the champion's past may be shared with other cells."""
    base: dict[str, list[Floats]] = field(init=False)
    log_burst: Floats = field(init=False)
    busy: Floats = field(init=False)

    def __post_init__(self) -> None:
        pairs = {"errors": self.world.errors, "latency": self.world.slow}
        self.base = {name: [np.broadcast_to(rate, self.replications) for rate in pair] for name, pair in pairs.items()}
        self.log_burst = self.rng.standard_normal((2, self.replications))
        shares = self.rng.pareto(1.2, (64, self.replications)) + 0.05
        self.busy = shares / shares.sum(axis=0)

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Go on with some of the replications."""
        self.base, self.log_burst, self.busy = select((self.base, self.log_burst, self.busy), chosen)
        self.replications = self.log_burst.shape[1]

    def history(self) -> Iterator[dict[str, Counts]]:
        """The champion alone, all requests, for the minutes before the experiment (oldest first)."""
        for minute in range(-self.world.history_minutes, 0):
            self.now = minute
            rates = self._rates(CHAMPION)
            trials = self._requests()
            yield {name: Counts(trials, self._bad(trials, rates[name])) for name in GUARDRAILS}
            self._advance()
        self.now = 0

    def minute(self, weight: Floats | float, mirror: Floats | float = 0.0, control: float | None = None) -> Seen:
        """Play one minute.

        Args:
            weight: share of live requests that the route gives to the challenger, 0 … 1; one, or one a replication.
            mirror: share of the champion's requests copied to the challenger, likewise.
            control: share whose champion answers are compared (None: all that the challenger does not get).
        """
        world, everything = self.world, self._requests()
        share = np.minimum(1.0, weight * world.routed)
        if world.sticky:
            buckets = np.broadcast_to(np.rint(64.0 * np.asarray(weight)).astype(int), self.replications)
            before = np.vstack([np.zeros(self.replications), np.cumsum(self.busy, axis=0)])
            share = np.minimum(1.0, before[buckets, np.arange(self.replications)])
        live = self.rng.binomial(everything.astype(np.int64), share).astype(float)
        rest = everything - live
        mirrors = bool(np.any(mirror))
        copies = self.rng.binomial(rest.astype(np.int64), mirror).astype(float) if mirrors else np.zeros_like(rest)
        compared = rest
        if control is not None:
            part = np.minimum(1.0, control / np.maximum(1.0 - np.asarray(weight), 1e-12))
            compared = self.rng.binomial(rest.astype(np.int64), part).astype(float)
        here, there = self._rates(CHAMPION), self._rates(CHALLENGER)
        excess = np.zeros_like(live)
        champion, challenger = {}, {}
        eaten = self.rng.binomial(live.astype(np.int64), world.eaten).astype(float) if world.eaten else 0.0
        for name in GUARDRAILS:
            bad = self._bad(live, there[name])
            excess += bad - live * here[name]
            # what vanishes would have failed, as far as that goes
            kept = np.maximum(0.0, bad - eaten) if world.eaten else bad
            mirrored = self._bad(copies, there[name]) if mirrors else 0.0
            champion[name] = Counts(compared, self._bad(compared, here[name]))
            challenger[name] = Counts(live - eaten + copies, kept + mirrored)
        arms = (self._restarted(champion), self._restarted(challenger))
        dark = tuple(
            any(d.first <= self.now <= d.last and arm in d.arms for d in world.dark) for arm in (CHAMPION, CHALLENGER)
        )
        self._advance()
        self.now += 1
        errors = arms[CHALLENGER]["errors"]
        suspects = np.flatnonzero(errors.bad > 0.1 * errors.trials)
        scrapes = self._scrapes(arms[CHAMPION]["errors"], errors, suspects) if suspects.size else []
        return Seen(arms, (compared, live - eaten), (dark[0], dark[1]), excess, suspects, scrapes)

    def _scrapes(
        self, champion: Counts, challenger: Counts, suspects: NDArray[np.int64]
    ) -> list[tuple[Counts, Counts]]:
        """A minute's requests come evenly: how many of them, and of the bad ones, by each quarter."""
        answer = []
        for scrape in range(1, SCRAPES + 1):
            pair = []
            for arm in (champion, challenger):
                bad = arm.bad[suspects]
                good = arm.trials[suspects] - bad
                if scrape < SCRAPES:
                    bad, good = (self.rng.binomial(part.astype(np.int64), scrape / SCRAPES) for part in (bad, good))
                pair.append(Counts(bad + good + 0.0, bad + 0.0))
            answer.append((pair[0], pair[1]))
        return answer

    def _requests(self) -> Floats:
        factor = self.world.volume(self.now) if self.world.volume else 1.0
        return self.rng.poisson(self.world.per_minute * factor, self.replications).astype(float)

    def _rates(self, arm: int) -> dict[str, Floats]:
        world = self.world
        own = arm if self.now >= world.onset else CHAMPION
        factor = np.full(self.replications, world.drift(self.now) if world.drift else 1.0)
        if world.bursts and arm in world.bursts.arms:
            sigma = math.sqrt(math.log1p(world.bursts.cv**2))
            factor *= np.exp(sigma * self.log_burst[arm] - 0.5 * sigma * sigma)
        return {name: np.minimum(1.0, rates[own] * factor) for name, rates in self.base.items()}

    def _bad(self, trials: Floats, rate: Floats) -> Floats:
        return self.rng.binomial(trials.astype(np.int64), rate).astype(float)

    def _restarted(self, arm: dict[str, Counts]) -> dict[str, Counts]:
        """A pod that ends between two scrapes 15 s apart takes about an eighth of the minute's counts with it."""
        if math.isinf(self.world.reset_every):
            return arm
        lost = np.where(self.rng.random(self.replications) < 1.0 / self.world.reset_every, 0.125, 0.0)
        answer = {}
        for name, counts in arm.items():
            bad = counts.bad - self.rng.binomial(counts.bad.astype(np.int64), lost)
            good = counts.trials - counts.bad
            answer[name] = Counts(bad + good - self.rng.binomial(good.astype(np.int64), lost), bad)
        return answer

    def _advance(self) -> None:
        bursts = self.world.bursts
        if bursts:
            fresh = self.rng.standard_normal(self.log_burst.shape)
            self.log_burst = bursts.ar * self.log_burst + math.sqrt(1.0 - bursts.ar**2) * fresh
