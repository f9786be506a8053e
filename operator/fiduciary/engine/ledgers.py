"""Reading the outcome scorers' ledgers, beside the reconciles: one request a namespace tells how far all of them are.

A reconcile says which sessions it wants (:class:`Wanted`) and takes what has been read and verified since
(:class:`LedgerView`). A live ledger, or a watch over the version that serves, is begun when its first session is known,
and ended when that is asked for; both are repeated until the scorer shows them, so that nothing has to be remembered
here.

After a start, a ledger is read from its first row: the chain begins at its definition, and the rows that were folded
already have to hash to what the experiment's status says. Whoever rewrote the scorer's volume is found out.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from fiduciary.clients.ledger_answers import LedgerError
from fiduciary.decide.drift.world import SessionLoss
from fiduciary.decide.experiment.fold import chained
from fiduciary.decide.experiment.ledgers import LedgerView, Wanted
from fiduciary.decide.experiment.world import LedgerRow
from fiduciary.engine.ledgerrows import Reading, Untrusted, as_folded, as_watched, check
from fiduciary.engine.queue import Backoff, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from fiduciary.clients.ledger_answers import Head, Page
    from fiduciary.engine.ledgerrows import Source

log = structlog.get_logger(part="ledgers")

BACKOFF = Backoff(first=1.0, limit=30.0)

#: Seconds that a scorer may take before others are asked beside it: each is in a tenant's hands, and may never answer.
QUICK = 1.0


class Client(Protocol):
    """The calls of :class:`fiduciary.clients.ledger.Scorers` that are made here."""

    async def heads(self, namespace: str, tag: str = "") -> tuple[str, tuple[Head, ...]] | None: ...
    async def page(self, namespace: str, name: str, after: str = "") -> Page: ...
    async def define(self, namespace: str, name: str, definition: Mapping[str, Any]) -> None: ...
    async def end(self, namespace: str, name: str, last_session: str) -> None: ...


@dataclass
class _Aim:
    """What one key wants, and what was read for it."""

    wanted: Wanted
    prequential: Reading = field(default_factory=Reading)
    live: Reading = field(default_factory=Reading)
    #: rows up to this number were folded when reading began: they are checked, and not kept
    checked: int = -1
    anchor: str = ""
    chain: str = ""
    rows: list[LedgerRow | SessionLoss] = field(default_factory=list["LedgerRow | SessionLoss"])
    view: LedgerView = field(default_factory=LedgerView)

    @classmethod
    def at(cls, wanted: Wanted) -> _Aim:
        return cls(wanted, checked=wanted.folded, anchor=wanted.chain)

    def anew(self) -> None:
        """Read from the first row again: what was read of a ledger that is not to be trusted says nothing."""
        fresh = _Aim.at(self.wanted)
        self.prequential, self.live, self.rows, self.chain = fresh.prequential, fresh.live, fresh.rows, fresh.chain
        self.checked, self.anchor = fresh.checked, fresh.anchor

    def holding(self, view: LedgerView) -> LedgerView:
        """The view with the rows that are wanted still: what was folded while others were read is not."""
        kept = [row for row in self.rows if row.number > self.wanted.folded]
        folded = tuple(row for row in kept if isinstance(row, LedgerRow))
        return replace(view, rows=folded, watched=tuple(row for row in kept if isinstance(row, SessionLoss)))

    def take(self, row: LedgerRow | SessionLoss) -> None:
        """Keep a new row; compare those that are folded already. Raises :class:`Untrusted`."""
        if row.number > self.checked:
            self.rows.append(row)
            return
        self.chain = chained(self.chain, row)
        if row.number == self.checked and self.chain != self.anchor:
            raise Untrusted(
                "LedgerRewritten",
                f"the first {row.number + 1} rows of {self.wanted.model} are not those that were folded: the scorer's "
                f"store was replaced; {_way_out(self.wanted)}",
            )


class Ledgers:
    """``changed`` is told the key of which there is something new: rows, a ledger that began or ended, a problem."""

    def __init__(
        self,
        client: Client,
        changed: Callable[[Hashable], None],
        *,
        seconds: float = 10.0,
        concurrency: int = 4,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.queue: Waiting[str] = Waiting(BACKOFF, clock)  # of namespaces
        self._client = client
        self._changed = changed
        self._seconds = seconds
        self._concurrency = concurrency
        self._now = now
        self._jitter = jitter
        self._aims: dict[Hashable, _Aim] = {}
        self._heads: dict[str, tuple[str, dict[str, Head]]] = {}

    def aim(self, key: Hashable, wanted: Wanted) -> None:
        """What ``key`` wants from now on. Rows that it has folded meanwhile are forgotten."""
        aim = self._aims.get(key)
        if aim is None or _question(aim.wanted) != _question(wanted) or wanted.folded < aim.wanted.folded:
            self._aims[key] = _Aim.at(wanted)
            self.queue.add(wanted.namespace)
            return
        before, aim.wanted = aim.wanted, wanted
        if wanted.folded != before.folded:
            aim.rows = [row for row in aim.rows if row.number > wanted.folded]
            aim.view = aim.holding(aim.view)
        if (before.first, before.last) != (wanted.first, wanted.last):
            self.queue.add(wanted.namespace)

    def drop(self, key: Hashable) -> None:
        """The key wants nothing any more; what it has begun stays as it is."""
        aim = self._aims.pop(key, None)
        if aim is not None and all(other.wanted.namespace != aim.wanted.namespace for other in self._aims.values()):
            self._heads.pop(aim.wanted.namespace, None)
            self.queue.core.drop(aim.wanted.namespace)

    def results(self, key: Hashable) -> LedgerView:
        """What was read for this key; an empty view before the scorer has answered."""
        aim = self._aims.get(key)
        return LedgerView() if aim is None else aim.view

    def close(self) -> None:
        self.queue.close()

    async def run(self) -> None:
        """Poll until :meth:`close`; what is under way then is given up."""
        await self.queue.work_off(self._work, self._concurrency, lent=QUICK)

    async def _work(self, namespace: str) -> None:
        try:
            await self.step(namespace)
        except Exception:
            log.exception("ledgers.bug", namespace=namespace)  # the other namespaces go on, and so does this one
            self.queue.fail(namespace)

    async def step(self, namespace: str) -> None:
        """Ask one namespace's scorer, read what is new, and make the next appointment."""
        if not any(True for _ in self._of(namespace)):
            return
        try:
            heads = await self._ask(namespace)
        except LedgerError as error:
            for key, aim in list(self._of(namespace)):
                self._tell(key, aim, replace(aim.view, reason=error.reason, message=error.message))
            self.queue.fail(namespace)
            return
        failed = not await self._end_past(namespace, heads)
        for key, aim in list(self._of(namespace)):
            failed = not await self._follow(key, aim, heads) or failed
        if failed:
            self._heads.pop(namespace, None)  # the same answer has to be looked at again
            self.queue.fail(namespace)
        else:
            self.queue.core.forget(namespace)
            self.queue.add_after(namespace, self._seconds * self._jitter(0.9, 1.1))

    def _of(self, namespace: str) -> Iterator[tuple[Hashable, _Aim]]:
        return ((key, aim) for key, aim in self._aims.items() if aim.wanted.namespace == namespace)

    async def _ask(self, namespace: str) -> dict[str, Head]:
        tag, known = self._heads.get(namespace, ("", {}))
        answer = await self._client.heads(namespace, tag)
        if answer is None:
            return known
        tag, heads = answer
        known = {head.name: head for head in heads}
        self._heads[namespace] = tag, known
        return known

    async def _follow(self, key: Hashable, aim: _Aim, heads: Mapping[str, Head]) -> bool:
        """Bring one key up to date; False: something failed that may pass."""
        wanted = aim.wanted
        try:
            view = await self._read(aim, wanted, heads)
        except LedgerError as error:
            if self._aims.get(key) is aim:
                view = replace(aim.view, reason=error.reason, message=error.message)
                self._tell(key, aim, replace(view, complete=False))
            return False
        except Untrusted as error:
            aim.anew()
            if self._aims.get(key) is aim:
                # Nothing of a ledger that is not what it was is handed on.
                self._tell(key, aim, LedgerView(reason=error.reason, message=error.message, at=self._now()))
            return False
        if self._aims.get(key) is aim:
            self._tell(key, aim, view)
        return True

    async def _end_past(self, namespace: str, heads: Mapping[str, Head]) -> bool:
        """Watches over versions that do not serve any more take no further session. False: it has to be tried again."""
        serving = {aim.wanted.model: aim.wanted for _, aim in self._of(namespace) if aim.wanted.watch}
        for head in heads.values():
            definition = head.definition
            wanted = serving.get(str(definition.get("model")))
            if wanted is None or wanted.first is None or definition.get("kind") != "Watch" or head.ended is not None:
                continue
            if wanted.serves(definition):
                continue
            last = max(wanted.first, head.last_session or "", str(definition.get("firstSession", "")))
            try:
                await self._client.end(namespace, head.name, last)
            except LedgerError as error:
                log.warning("ledger.unended", namespace=namespace, ledger=head.name, why=error.message)
                return False
            log.info("ledger.ended", namespace=namespace, ledger=head.name, last=last)
            self._heads.pop(namespace, None)
        return True

    async def _rows(self, aim: _Aim, reading: Reading, head: Head, source: Source, before: int) -> None:
        """Read on until ``head.length``; ``before``: how many rows of other ledgers come first."""
        await reading.on(
            head,
            lambda after: self._client.page(aim.wanted.namespace, head.name, after),
            lambda row: aim.take(
                as_watched(row, row.sequence) if aim.wanted.watch else as_folded(row, source, before + row.sequence)
            ),
        )

    def _tell(self, key: Hashable, aim: _Aim, view: LedgerView) -> None:
        view = aim.holding(view)
        before, aim.view = aim.view, view
        if replace(before, at=None) != replace(view, at=None):
            if before.reason != view.reason:
                told = log.warning if view.reason else log.info
                told("ledgers.changed", key=str(key), reason=view.reason, message=view.message)
            self._changed(key)

    async def _read(self, aim: _Aim, wanted: Wanted, heads: Mapping[str, Head]) -> LedgerView:
        """Raises LedgerError for what may pass and :class:`Untrusted` for a ledger that is not to be trusted."""
        view = LedgerView(at=self._now())
        before = 0
        if wanted.prequential is not None:
            head = heads.get(wanted.prequential)
            if head is None:
                # Live sessions come after the replayed ones: they wait.
                message = f"the scorer of {wanted.namespace} has no ledger {wanted.prequential} yet"
                live = None if wanted.live is None else await self._begun(wanted, heads.get(wanted.live))
                view = self._with_live(view, live)
                return replace(view, reason="LedgerAwaited", message=message)
            check(wanted, head, "Prequential")
            await self._rows(aim, aim.prequential, head, "Prequential", 0)
            before = head.length
            view = replace(view, prequential_length=before)
        if wanted.live is not None:
            head = await self._begun(wanted, heads.get(wanted.live))
            view = self._with_live(view, head)
            if head is not None:
                await self._rows(aim, aim.live, head, "Live", before)
                before += head.length
        if before <= aim.checked:
            raise Untrusted(
                "LedgerRewritten",
                f"the ledgers of {wanted.model} hold {before} rows, but {aim.checked + 1} of them are folded already: "
                f"the scorer's store was replaced; {_way_out(wanted)}",
            )
        view = replace(view, complete=True)
        if wanted.unable:
            return replace(view, reason="LedgerImpossible", message=wanted.unable)
        return view

    def _with_live(self, view: LedgerView, head: Head | None) -> LedgerView:
        if head is None:
            return view
        late = head.too_late.get("outcomes", 0)
        view = replace(view, begun=True, ended=head.ended is not None, late=late)
        return replace(view, reason="LedgerStands", message=head.problem) if head.problem else view

    async def _begun(self, wanted: Wanted, head: Head | None) -> Head | None:
        """The live ledger's head, begun or ended first where that is due."""
        name, namespace = wanted.live or "", wanted.namespace
        if head is None:
            if wanted.first is None or wanted.last is not None or wanted.definition is None:
                return None
            document = {**wanted.definition, "firstSession": wanted.first}
            await self._client.define(namespace, name, document)
            log.info("ledger.begun", namespace=namespace, ledger=name, first=wanted.first)
            self.queue.add(namespace)  # its head is what the scorer says, not what we think
            return None
        check(wanted, head, "Watch" if wanted.watch else "Live")
        if wanted.last is not None and head.ended is None:
            # Never before what it holds: rows that are there cannot be cut off.
            last = max(wanted.last, head.last_session or "", str(head.definition.get("firstSession", "")))
            await self._client.end(namespace, name, last)
            log.info("ledger.ended", namespace=namespace, ledger=name, last=last)
            return head.model_copy(update={"ended": last})
        return head


def _way_out(wanted: Wanted) -> str:
    return f"restore it, or {'create the DriftPolicy anew' if wanted.watch else 'begin another experiment'}"


def _question(wanted: Wanted) -> Wanted:
    """What stays the same while an experiment lasts."""
    return replace(wanted, first=None, last=None, folded=-1, chain="", unable="", definition=None)
