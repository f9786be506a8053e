"""The worlds that are played: what is true, which verdict would be wrong, and whether we claim our level there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from bench.decisions import market
from bench.decisions import sessions as s
from bench.decisions.life import Life
from bench.decisions.traffic import CHALLENGER, Bursts, Dark, World

BUDGET = 2880
"""Minutes that every rule may take: two days."""
SESSIONS = 3350
"""Walk-forward sessions that every rule may see: thirteen years, of which 250 freeze our scale."""
DAY = 1440
Truth = Literal["good", "bad", "neither"]


@dataclass(frozen=True, slots=True)
class Cell:
    """``truth``: good: a rollback is wrong; bad: a promotion is wrong. ``unclaimed``: why no level is claimed here."""

    name: str
    title: str
    truth: Truth
    world: World | s.SessionWorld | Life
    budget: int = BUDGET
    long: bool = False
    """Nothing may be promoted before the budget ends: the experiment waits for outcomes of days."""
    breaker: bool = True
    """Whether the spec has a circuit breaker at 25 % errors, normal 1 %."""
    sticky: bool = False
    """The route is declared sticky: the operator judges from copies only."""
    unclaimed: str = ""
    most: int = 1_000_000
    """Replications, where more would be the same again or would take hours."""

    @property
    def claimed(self) -> bool:
        """Whether our level has to hold here."""
        return not self.unclaimed and self.truth != "neither"

    @property
    def begins(self) -> int:
        """The minute in which the challenger turns bad."""
        return self.world.onset if isinstance(self.world, World) else 0


BASE = World()
BAD_5, BAD_2 = (0.005, 0.05), (0.005, 0.02)
SLOW_CHANGE = Bursts(1.0, 0.97)


def _daily(minute: int) -> float:
    """A day's rhythm of the error rate, ×1 … ×4."""
    return 1.0 + 1.5 * (1.0 - math.cos(2.0 * math.pi * minute / 1440.0))


def _mildly(minute: int) -> float:
    """The same, ×1 … ×2."""
    return 1.0 + (_daily(minute) - 1.0) / 3.0


def _rising(minute: int) -> float:
    """Errors of both arms rise to five times while the weights ramp up, and stay."""
    return 1.0 + 4.0 * min(1.0, max(0.0, minute / 120.0))


def _pauses(minute: int) -> float:
    """Ten minutes without a request in each hour."""
    return 0.0 if minute >= 0 and minute % 60 >= 50 else 1.0


REQUESTS: tuple[Cell, ...] = (
    Cell("equal", "equal, 300 requests/min", "good", BASE),
    Cell("better", "half the errors", "good", replace(BASE, errors=(0.005, 0.0025))),
    Cell("within", "errors within the margin (.5 % and .55 %)", "neither", replace(BASE, errors=(0.005, 0.0055))),
    Cell("margin", "errors at the margin (.5 % and .625 %)", "bad", replace(BASE, errors=(0.005, 0.00625))),
    Cell("margin_latency", "slow answers at the margin (.2 % and .3 %)", "bad", replace(BASE, slow=(0.002, 0.003))),
    Cell("errors_1pct", "1 % errors (2×)", "bad", replace(BASE, errors=(0.005, 0.01))),
    Cell("errors_2pct", "2 % errors (4×)", "bad", replace(BASE, errors=BAD_2)),
    Cell("errors_5pct", "5 % errors (10×)", "bad", replace(BASE, errors=BAD_5)),
    Cell("errors_all", "100 % errors", "bad", replace(BASE, errors=(0.005, 1.0))),
    Cell("slow_2pct", "2 % slow answers (10×)", "bad", replace(BASE, slow=(0.002, 0.02))),
    Cell("late_1d", "5 % errors after 1 day", "bad", replace(BASE, errors=BAD_5, onset=1440), 1740, long=True),
    Cell("late_5d", "5 % errors after 5 days", "bad", replace(BASE, errors=BAD_5, onset=7200), 7500, long=True),
    Cell("quiet_5d", "equal, 5 days", "good", BASE, 7200, long=True),
    Cell("rpm_0.5", "equal, .5 requests/min", "good", replace(BASE, per_minute=0.5)),
    Cell("rpm_2", "equal, 2 requests/min", "good", replace(BASE, per_minute=2.0)),
    Cell("rpm_10", "equal, 10 requests/min", "good", replace(BASE, per_minute=10.0)),
    Cell("rpm_3000", "equal, 3,000 requests/min", "good", replace(BASE, per_minute=3000.0)),
    Cell("rpm_0.5_5pct", "5 % errors, .5 requests/min", "bad", replace(BASE, per_minute=0.5, errors=BAD_5)),
    Cell("rpm_2_5pct", "5 % errors, 2 requests/min", "bad", replace(BASE, per_minute=2.0, errors=BAD_5)),
    Cell("rpm_10_5pct", "5 % errors, 10 requests/min", "bad", replace(BASE, per_minute=10.0, errors=BAD_5)),
    Cell("rpm_3000_1pct", "1 % errors, 3,000 requests/min", "bad", replace(BASE, per_minute=3e3, errors=(0.005, 0.01))),
    Cell("daily", "equal, errors of both ×1–4 over the day", "good", replace(BASE, drift=_daily)),
    Cell("daily_2", "equal, errors of both ×1–2 over the day", "good", replace(BASE, drift=_mildly)),
    Cell("ramp", "equal, errors of both ×5 while weights ramp", "good", replace(BASE, drift=_rising)),
    Cell("ramp_2pct", "4× errors, both ×5 while weights ramp", "bad", replace(BASE, drift=_rising, errors=BAD_2)),
    Cell("cv_0.5", "equal, bursts cv .5 by the minute", "good", replace(BASE, bursts=Bursts(0.5)), breaker=False),
    Cell("cv_1", "equal, bursts cv 1 by the minute", "good", replace(BASE, bursts=Bursts(1.0)), breaker=False),
    Cell("cv_2", "equal, bursts cv 2 by the minute", "good", replace(BASE, bursts=Bursts(2.0)), breaker=False),
    Cell("cv_0.5_ar", "equal, bursts cv .5, AR .9", "good", replace(BASE, bursts=Bursts(0.5, 0.9)), breaker=False),
    Cell("cv_1_ar", "equal, bursts cv 1, AR .9", "good", replace(BASE, bursts=Bursts(1.0, 0.9)), breaker=False),
    Cell(
        "cv_2_ar", "equal, bursts cv 2, AR .9", "good",
        replace(BASE, bursts=Bursts(2.0, 0.9)), breaker=False,
    ),
    Cell(
        "cv_1_slow", "equal, bursts cv 1, AR .97", "good",
        replace(BASE, bursts=SLOW_CHANGE), breaker=False,
    ),
    Cell(
        "cv_1_margin", "errors at the margin, bursts cv 1, AR .9", "bad",
        replace(BASE, bursts=Bursts(1.0, 0.9), errors=(0.005, 0.00625)), breaker=False,
    ),
    Cell(
        "cv_1_5pct", "5 % errors, bursts cv 1, AR .9", "bad",
        replace(BASE, bursts=Bursts(1.0, 0.9), errors=BAD_5), breaker=False,
    ),
    Cell(
        "cv_1_ar_day", "equal, bursts cv 1, AR .9, φ̂ of a day", "good",
        replace(BASE, bursts=Bursts(1.0, 0.9), history_minutes=DAY), breaker=False,
        unclaimed="a day estimates φ from 24 hours: take a week",
    ),
    Cell(
        "cv_2_ar_day", "equal, bursts cv 2, AR .9, φ̂ of a day", "good",
        replace(BASE, bursts=Bursts(2.0, 0.9), history_minutes=DAY), breaker=False,
        unclaimed="a day holds too few bursts this strong to estimate φ: take a week",
    ),
    Cell(
        "cv_1_slow_day", "equal, bursts cv 1, AR .97, φ̂ of a day", "good",
        replace(BASE, bursts=SLOW_CHANGE, history_minutes=DAY), breaker=False,
        unclaimed="a day holds too few bursts this long to estimate φ: take a week",
    ),
    Cell(
        "cv_2_breaker", "equal, bursts cv 2, with a breaker at 25 %", "good", replace(BASE, bursts=Bursts(2.0)),
        unclaimed="minutes with more than 25 % errors are this service's own: its breaker must stand higher",
    ),
    Cell(
        "cv_1_challenger", "same mean, bursts cv 1, AR .9 only in the challenger", "good",
        replace(BASE, bursts=Bursts(1.0, 0.9, (CHALLENGER,))), breaker=False,
        unclaimed="the champion's past cannot show bursts that only the challenger has: its bad minutes are real",
    ),
    Cell(
        "outage", "equal, Prometheus away for 20 min, twice", "good",
        replace(BASE, dark=(Dark(100, 119), Dark(400, 419))),
    ),
    Cell(
        "outage_5pct", "5 % errors, Prometheus away from minute 1 to 20", "bad",
        replace(BASE, errors=BAD_5, dark=(Dark(1, 20),)),
    ),
    Cell("pauses", "equal, no request in 10 min of each hour (NaN)", "good", replace(BASE, volume=_pauses)),
    Cell(
        "dark", "the challenger's series vanish after 40 min", "bad",
        replace(BASE, dark=(Dark(40, BUDGET, (CHALLENGER,)),)),
    ),
    Cell("resets", "equal, counters reset every 30 min in each arm", "good", replace(BASE, reset_every=30.0)),
    Cell("eaten", "2 % errors, and a tenth of its requests vanish", "bad", replace(BASE, eaten=0.1, errors=BAD_2)),
    Cell("router_more", "equal, the router gives it 20 % more", "neither", replace(BASE, routed=1.2)),
    Cell("router_less", "equal, the router gives it 20 % less", "neither", replace(BASE, routed=0.8)),
    Cell("sticky", "equal, sticky clients, declared", "good", replace(BASE, sticky=True), sticky=True),
    Cell(
        "sticky_2pct", "2 % errors, sticky clients, declared", "bad", replace(BASE, sticky=True, errors=BAD_2),
        sticky=True,
    ),
    Cell("sticky_hidden", "equal, sticky clients, not declared", "neither", replace(BASE, sticky=True)),
)  # fmt: skip

SP500 = partial(s.SessionWorld, tried=2)

OUTCOMES: tuple[Cell, ...] = (
    Cell("t3", "no better, t₃", "bad", s.SessionWorld(s.student())),
    Cell("garch", "no better, GARCH-t", "bad", s.SessionWorld(s.garch())),
    Cell("ar", "no better, AR(1) .3", "bad", s.SessionWorld(s.autoregressive(0.3))),
    Cell("regimes_0.1", "no better, regimes ±.1 sd of 125 days", "bad", s.SessionWorld(s.regimes(0.1))),
    Cell("worse", "worse by .1 sd, t₃", "bad", s.SessionWorld(s.student(-0.1))),
    Cell("late_labels", "no better, a fifth of labels too late", "bad", s.SessionWorld(s.student(), late=0.2)),
    Cell(
        "late_if_large", "no better, half of the large days' labels too late", "bad",
        s.SessionWorld(s.student(), late=0.5, late_if_large=True),
    ),
    Cell("hides", "no better, and silent where it would lose most", "bad", s.SessionWorld(s.student(), hides=1.6)),
    Cell("better_0.05", "better by .05 sd, t₃", "good", s.SessionWorld(s.student(0.05))),
    Cell("better_0.1", "better by .1 sd, t₃", "good", s.SessionWorld(s.student(0.1))),
    Cell("better_0.2", "better by .2 sd, t₃", "good", s.SessionWorld(s.student(0.2))),
    Cell("better_garch", "better by .1 sd, GARCH-t", "good", s.SessionWorld(s.garch(0.1))),
    Cell("better_late", "better by .1 sd, a fifth of labels late", "good", s.SessionWorld(s.student(0.1), late=0.2)),
    Cell(
        "pnl_bound", "fair short-volatility profit, declared loss bound 20 sd", "bad",
        s.SessionWorld(s.short_volatility(), loss_bound=20.0),
    ),
    Cell("sp500_null", "S&P 500: HAR → linear less its advantage, resampled", "bad", SP500(market.centred)),
    Cell("sp500_noise", "S&P 500: linear against its copy with noise", "bad", SP500(market.noisy_copy)),
    Cell("sp500", "S&P 500: HAR → linear, resampled", "good", SP500(market.har_to_linear)),
    Cell("sp500_real", "S&P 500: HAR → linear, as it happened", "good", SP500(market.as_it_happened), most=1),
    Cell(
        "regimes_0.2", "no better, regimes ±.2 sd of 125 days", "bad", s.SessionWorld(s.regimes(0.2)),
        unclaimed="a challenger that is better only in long regimes was better so far; reported as regimes",
    ),
    Cell(
        "short_volatility", "fair short-volatility profit, mistaken for a paired loss", "bad",
        s.SessionWorld(s.short_volatility()),
        unclaimed="the loss that would tell is beyond what was seen, and beyond the clip at 4 sd",
    ),
)  # fmt: skip

LIVES: tuple[Cell, ...] = (
    Cell(
        "chain",
        "20 refreshes, each .04 points worse: beyond the margin",
        "bad",
        Life("chain"),
        most=250,
        unclaimed="what promotions have lost is an estimate, made when chance favours the challenger: it is too small",
    ),
    Cell(
        "chain_2",
        "20 refreshes, each .04 points worse: beyond two margins",
        "bad",
        Life("chain", 2.0),
        most=250,
        unclaimed="the same, and twice the margin is passed in a tenth of the chains",
    ),
    Cell("retries", "1 % errors, tried ten times", "bad", Life("retries")),
    Cell("specs", "ten changed specs, none better: one promoted", "bad", Life("specs")),
    Cell("best_of_20", "the best of 20 configurations, none better", "bad", Life("best_of_20")),
)
FAMILIES = {"requests": REQUESTS, "outcomes": OUTCOMES, "lives": LIVES}
ALL = (*REQUESTS, *OUTCOMES, *LIVES)
