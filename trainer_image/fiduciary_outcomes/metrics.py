"""What Prometheus sees. Counters come from the store, so a restart neither loses nor repeats an increment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fiduciary_outcomes.definition import ARMS
from fiduciary_outcomes.state import PER_ARM, PER_SESSION
from fiduciary_outcomes.trading import mark

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.state import ArmState, LedgerState
    from fiduciary_outcomes.writer import Writer

VERSION = ["model", "version", "digest"]
LEDGER = ["ledger", "model"]
SHOWN_SECONDS = 30 * 86400
"""A version without a live ledger whose newest record is older is no longer shown."""

WORDS = {"withoutOutcome": "without_outcome", "outsideCalendar": "outside_calendar"}


def short(digest: str) -> str:
    """As the runtime's own metrics write it."""
    return digest.removeprefix("sha256:")[:8]


def families(memory: Memory, writer: Writer, now: float) -> list[Metric]:
    """All metric families, one consistent look at memory."""
    shown = [arm for arm in memory.arms.values() if arm.ledgers or arm.last_at >= now - SHOWN_SECONDS]
    return [
        *_of_versions(shown),
        *_of_outcomes(memory),
        *_of_ledgers(memory.ledgers.values()),
        *watched(memory),
        *_paper(memory),
        _gauge("fiduciary_outcomes_waiting_records", "Records that wait for their commit.", writer.waiting),
        _counter("fiduciary_outcomes_commits", "Transactions of requests.", writer.commits),
        _counter("fiduciary_outcomes_sessions_closed", "Sessions closed by this process.", writer.closed),
    ]


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _of_versions(arms: Iterable[ArmState]) -> list[Metric]:
    records = CounterMetricFamily(
        "fiduciary_outcomes_records", "Prediction records, by what became of them.", labels=[*VERSION, "result"]
    )
    dropped = CounterMetricFamily(
        "fiduciary_outcomes_records_dropped", "Records lost in transport, as runtimes said.", labels=VERSION
    )
    rows = CounterMetricFamily(
        "fiduciary_histogram_rows", "(entity, feature time) counted in the histograms, each once.", labels=VERSION
    )
    features = CounterMetricFamily(
        "fiduciary_feature_rows", "Rows by bin of the version's drift reference.", labels=[*VERSION, "feature", "bin"]
    )
    missing = CounterMetricFamily(
        "fiduciary_feature_missing_rows", "Rows in which the feature was missing.", labels=[*VERSION, "feature"]
    )
    predictions = CounterMetricFamily(
        "fiduciary_prediction_rows", "Rows by bin of the prediction.", labels=[*VERSION, "bin"]
    )
    joint = CounterMetricFamily(
        "fiduciary_joint_rows",
        "Rows by bin of the distance of all features together from their centre in training.",
        labels=[*VERSION, "bin"],
    )
    reference = GaugeMetricFamily(
        "fiduciary_outcomes_reference_info",
        "Hash of the edges that bins are numbered on; histograms over other edges are not comparable.",
        labels=[*VERSION, "reference"],
    )
    for arm in arms:
        labels = [arm.model, arm.version, short(arm.digest)]
        for result, count in arm.results.items():
            records.add_metric([*labels, result], count)
        dropped.add_metric(labels, arm.dropped)
        rows.add_metric(labels, arm.rows)
        if arm.layout is None:
            continue
        if arm.layout.reference is not None:
            reference.add_metric([*labels, arm.layout.reference], 1)
        for name, bins, lost in zip(arm.layout.features, arm.bins, arm.missing, strict=True):
            for number, count in enumerate(bins):
                features.add_metric([*labels, name, str(number)], count)
            missing.add_metric([*labels, name], lost)
        for number, count in enumerate(arm.prediction_bins):
            predictions.add_metric([*labels, str(number)], count)
        for number, count in enumerate(arm.joint_bins):
            joint.add_metric([*labels, str(number)], count)
    return [records, dropped, rows, features, missing, predictions, joint, reference]


def _of_outcomes(memory: Memory) -> list[Metric]:
    outcomes = CounterMetricFamily(
        "fiduciary_outcomes_received", "Outcomes, by what became of them.", labels=["model", "result"]
    )
    for model in memory.models.values():
        for result, count in model.results.items():
            outcomes.add_metric([model.name, result], count)
    return [outcomes]


def _of_ledgers(ledgers: Iterable[LedgerState]) -> list[Metric]:
    rows = CounterMetricFamily("fiduciary_ledger_rows", "Sessions in the ledger.", labels=[*LEDGER, "kind"])
    last = GaugeMetricFamily(
        "fiduciary_ledger_last_label_end_seconds", "Label end of the newest row, since 1970.", labels=LEDGER
    )
    opened = GaugeMetricFamily("fiduciary_ledger_open_sessions", "Sessions that wait for their close.", labels=LEDGER)
    totals = CounterMetricFamily("fiduciary_ledger_units", "Units of closed sessions.", labels=[*LEDGER, "what"])
    per_arm = CounterMetricFamily(
        "fiduciary_ledger_predictions", "Predictions of closed sessions.", labels=[*LEDGER, "arm", "what"]
    )
    after = CounterMetricFamily(
        "fiduciary_ledger_too_late", "What came after its session was closed, or has none.", labels=[*LEDGER, "what"]
    )
    loss = GaugeMetricFamily("fiduciary_ledger_loss_sum", "Sum of losses over paired units.", labels=[*LEDGER, "arm"])
    unhealthy = GaugeMetricFamily(
        "fiduciary_ledger_unhealthy",
        "1 where the chain is broken or the calendar does not reach; the log and the API say why.",
        labels=[*LEDGER, "why"],
    )
    for ledger in ledgers:
        labels = [ledger.name, ledger.definition.model]
        rows.add_metric([*labels, ledger.definition.kind], ledger.rows)
        unhealthy.add_metric([*labels, "chain"], float(ledger.broken is not None))
        for arm in ARMS:
            loss.add_metric([*labels, arm], ledger.loss[arm])
            for what in PER_ARM:
                per_arm.add_metric([*labels, arm, what], ledger.arm_totals[what][arm])
        for what in PER_SESSION:
            totals.add_metric([*labels, WORDS.get(what, what)], ledger.totals[what])
        if ledger.definition.kind == "Prequential":
            continue
        unhealthy.add_metric([*labels, "calendar"], float(ledger.problem is not None))
        opened.add_metric(labels, len(ledger.open))
        for what, count in ledger.after.items():
            after.add_metric([*labels, WORDS.get(what, what)], count)
        if ledger.rows:
            last.add_metric(labels, ledger.last_label_end)
    return [rows, last, opened, totals, per_arm, after, loss, unhealthy]


def watched(memory: Memory) -> list[Metric]:
    labels = [*LEDGER, "arm", "version"]
    units = CounterMetricFamily(
        "fiduciary_realised_units", "What a watched version predicted in time, of closed sessions.", labels=labels
    )
    loss = GaugeMetricFamily("fiduciary_realised_loss_sum", "Sum of its losses over them.", labels=labels)
    for ledger in memory.ledgers.values():
        for arm, version in ledger.definition.versions.items() if ledger.definition.kind == "Watch" else ():
            names = [ledger.name, ledger.definition.model, arm, version.number]
            units.add_metric(names, ledger.own[arm][0])
            loss.add_metric(names, ledger.own[arm][1])
    return [units, loss]


def _paper(memory: Memory) -> list[Metric]:
    labels = [*LEDGER, "arm", "version"]
    pnl = GaugeMetricFamily(
        "fiduciary_paper_pnl", "Profit on paper after costs, not yet closed sessions too.", labels=labels
    )
    drawdown = GaugeMetricFamily("fiduciary_paper_drawdown", "Loss from the peak, now.", labels=labels)
    worst = GaugeMetricFamily("fiduciary_paper_drawdown_max", "Largest loss from a peak so far.", labels=labels)
    turnover = CounterMetricFamily("fiduciary_paper_turnover", "Traded, in multiples of the notional.", labels=labels)
    for ledger in memory.ledgers.values():
        if ledger.definition.paper is None:
            continue
        books = mark(memory, ledger)
        for arm, version in ledger.definition.versions.items():
            book = books[arm]
            names = [ledger.name, ledger.definition.model, arm, version.number]
            pnl.add_metric(names, book.pnl)
            drawdown.add_metric(names, book.drawdown)
            worst.add_metric(names, book.worst)
            turnover.add_metric(names, book.turnover)
    return [pnl, drawdown, worst, turnover]
