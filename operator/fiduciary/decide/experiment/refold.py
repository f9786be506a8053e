"""Evidence from exported blocks, folded again: it has to meet the hash over all blocks that the status holds.

An export has one line a fact, in the order in which they were written. A process that ended between the export and
its status leaves a line that nothing follows, and one that could not write leaves a hole, so the way through is the
chain of hashes: from the one in the status back to the start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiduciary.decide.experiment.fold import chained, fold_block
from fiduciary.decide.experiment.state import State
from fiduciary.decide.experiment.watch import watched
from fiduciary.decide.experiment.world import ClosedBlock
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.refusal import Refusal, Why

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fiduciary.decide.experiment.state import Evidence

Line = dict[str, Any]


def exported(before: State | None, after: State, blocks: Iterable[ClosedBlock]) -> tuple[Line, ...]:
    """What one evaluation adds to the export: the start, the watch of a promotion, each block that was folded."""
    if before is None:
        return ({"kind": "begin", "state": encode(after)},)
    lines: list[Line] = []
    chain = before.evidence.chain
    if not _watching(before.evidence) and _watching(after.evidence):
        lines.append({"kind": "watch", "chain": chain})
    for block in blocks:
        if before.evidence.last < block.last <= after.evidence.last:
            following = chained(chain, block)
            lines.append({"kind": "block", "before": chain, "after": following, "block": encode(block)})
            chain = following
    return tuple(lines)


def refold(lines: Iterable[Mapping[str, Any]], chain: str) -> Evidence | Refusal:
    """The evidence of all blocks up to the one whose hash is ``chain``. A refusal says what the export lacks.

    Objectives and sessions are those of the start: the scorer's ledger holds what they are folded from.
    """
    begun: object = None
    blocks: dict[str, tuple[str, object]] = {}
    watches: set[str] = set()
    for line in lines:
        match line.get("kind"):
            case "begin":
                begun = line.get("state")
            case "block":
                blocks[str(line.get("after"))] = str(line.get("before")), line.get("block")
            case "watch":
                watches.add(str(line.get("chain")))
            case _:
                pass
    state = decode(State, begun)
    if isinstance(state, Refusal):
        return Refusal(Why.MALFORMED, f"the export has no start of the experiment: {state.message}")
    way = _way(blocks, chain, state.evidence.chain)
    if isinstance(way, Refusal):
        return way
    evidence = state.evidence
    for before, found in way:
        if before in watches:
            evidence = watched(state.terms, evidence)
        block = decode(ClosedBlock, found)
        folded = block if isinstance(block, Refusal) else fold_block(state.terms, evidence, block)
        if isinstance(folded, Refusal):
            return folded
        evidence = folded
    if chain in watches:
        evidence = watched(state.terms, evidence)
    if evidence.chain != chain:
        return Refusal(Why.MALFORMED, f"the blocks hash to {evidence.chain or 'nothing'}, the status has {chain}")
    return evidence


def differing(found: Evidence, stored: Evidence) -> tuple[str, ...]:
    """Names of what is not the same, bit for bit, beside what sessions say."""
    found = replace(found, objectives=stored.objectives, sessions=stored.sessions)
    one, other = encode(found), encode(stored)
    return tuple(name for name in other if one[name] != other[name])


def _way(blocks: Mapping[str, tuple[str, object]], chain: str, start: str) -> list[tuple[str, object]] | Refusal:
    """(hash before, block) from the start to ``chain``."""
    way: list[tuple[str, object]] = []
    at = chain
    while at != start:
        if at not in blocks or len(way) > len(blocks):
            return Refusal(Why.MALFORMED, f"the block whose hash is {at} is not in the export, {len(way)} after it are")
        way.append(blocks[at])
        at = blocks[at][0]
    return way[::-1]


def _watching(evidence: Evidence) -> bool:
    return any(one.watch is not None for one in evidence.guardrails)
