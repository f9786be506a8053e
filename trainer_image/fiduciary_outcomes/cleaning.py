"""What no open session needs is removed after the retention time. Ledger rows stay for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary_outcomes.calendar import instant
from fiduciary_outcomes.memory import earlier

if TYPE_CHECKING:
    from fiduciary_outcomes.memory import Memory
    from fiduciary_outcomes.state import ArmState

SENDER_SECONDS = 30 * 86400
MARGIN_DAYS = 10
"""A session's predictions may carry dates of a long weekend before it."""


def clean(memory: Memory, now: float, retention: float) -> None:
    """Forget predictions and outcomes that came more than ``retention`` seconds ago; inside a transaction.

    A time that was forgotten is remembered per version, so that a late copy is *expired* and not counted anew.
    """
    cutoff = int(now - retention)
    for arm in memory.arms.values():
        _clean_arm(memory, arm, cutoff)
    waiting = [ledger for ledger in memory.ledgers.values() if ledger.live and ledger.open]
    oldest = [earlier(min(ledger.open), MARGIN_DAYS) for ledger in waiting]
    memory.db.execute(
        "DELETE FROM outcomes WHERE arrived_at < ? AND request = '' AND label_end < ?",
        (cutoff, min(oldest, default="9999")),
    )
    # An outcome of a request names no time, but it came after the session that it belongs to had begun.
    by_request = [ledger for ledger in waiting if ledger.definition.pairing == "RequestId"]
    begun = [instant(earlier(min(ledger.open), MARGIN_DAYS)).timestamp() for ledger in by_request]
    memory.db.execute("DELETE FROM outcomes WHERE arrived_at < ? AND request <> ''", (int(min([cutoff, *begun])),))
    memory.db.execute("DELETE FROM revisions WHERE arrived_at < ?", (cutoff,))
    memory.db.execute("DELETE FROM senders WHERE seen_at < ?", (int(now) - SENDER_SECONDS,))


def _clean_arm(memory: Memory, arm: ArmState, cutoff: int) -> None:
    kept = [
        earlier(min([*ledger.open, ledger.closed_through or ledger.definition.first_session]), MARGIN_DAYS)
        for ledger in arm.ledgers
        if ledger.live
    ]
    newer = memory.db.execute("SELECT MIN(time) FROM predictions WHERE arm = ? AND arrived_at >= ?", (arm.id, cutoff))
    before = min([*kept, newer[0][0] or "9999"])
    last = memory.db.execute("SELECT MAX(time) FROM predictions WHERE arm = ? AND time < ?", (arm.id, before))[0][0]
    if last is None:
        return
    memory.db.execute("DELETE FROM predictions WHERE arm = ? AND time <= ?", (arm.id, last))
    memory.db.execute("DELETE FROM drops WHERE arm = ? AND time <= ?", (arm.id, last))
    arm.expired_through = max(arm.expired_through, last)
    memory.touch(arm)
