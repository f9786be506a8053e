"""The ledger goes to the scorer, which keeps it once: the same again is no change, other content is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiduciary_trainer.outcome import BadContract, Retryable, shorten
from fiduciary_trainer.patience import Unreachable, patiently

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

PATIENCE = 900.0
"""Seconds that are waited for the scorer; then the pod ends as Retryable, and the Job tries again."""
SECONDS = 60.0
"""For one answer: a ledger of 100,000 rows is checked and written before it comes."""


def post(
    scorer: str, name: str, token: str, ledger: Mapping[str, Any], stop: threading.Event, patience: float = PATIENCE
) -> None:
    """PUT the ledger until the scorer has it.

    Args:
        token: file that holds it.

    Raises:
        BadContract: the scorer refuses the content, or holds other content under this name.
        Retryable: it stayed away, or does not take our token.
    """
    body = json.dumps(ledger, ensure_ascii=False).encode()
    delivered("PUT", f"{scorer}/v1/ledgers/{name}", token, body, f"the ledger {name}", stop, patience)


def delivered(
    method: str, url: str, token: str, body: bytes, what: str, stop: threading.Event, patience: float = PATIENCE
) -> Any:
    """Send until the scorer has it; repeating it is a no-op there. Returns its answer. Raises as :func:`post`."""
    refused: list[Retryable] = []
    answers: list[Any] = []

    def send() -> None:
        refused.clear()
        answers.append(_sent(method, url, token, body, what, refused))

    place = f"the scorer at {url.partition('/v1/')[0]}"
    try:
        patiently(send, patience, stop, place)
    except Unreachable as away:
        if refused:
            raise refused[0] from away
        raise Retryable(
            "ScorerUnreachable",
            f"{place} did not take {what} within {patience:.0f} s: {away}; look at the Deployment fiduciary-outcomes "
            "of the namespace, and at NetworkPolicies between it and this pod",
        ) from away
    return answers[-1]


def _sent(method: str, url: str, token: str, body: bytes, what: str, refused: list[Retryable]) -> Any:
    import requests

    place = f"the scorer at {url.partition('/v1/')[0]}"
    try:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {Path(token).read_text().strip()}"}
    except OSError as error:
        raise BadContract(
            "NoToken", f"{token} cannot be read ({error.strerror}); expected the token that the Job mounts there"
        ) from None
    try:
        # No redirects: the token is for the scorer alone.
        answer = requests.request(method, url, data=body, headers=headers, timeout=SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise Unreachable(type(error).__name__) from error
    if answer.status_code == 200:
        return answer.json()
    said = _said(answer)
    if answer.status_code in (401, 403):
        # A scorer that was just made may not know our ServiceAccount, or the newest key, yet.
        refused.append(
            Retryable(
                "ScorerUnauthorized",
                f"{place} answers {answer.status_code} to our token ({said}); expected that its ServiceAccount may "
                f"write {what}",
            )
        )
        raise Unreachable(said)
    if answer.status_code == 409:
        raise BadContract(
            "LedgerExists",
            f"{place} holds another content of {what} ({said}); the first one counts, since evidence is not replaced. "
            "If it is wrong, find out who posted it",
        )
    if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
        raise Unreachable(f"{answer.status_code} {said}")
    raise BadContract("LedgerRefused", f"{place} answers {answer.status_code}: {said}")


def _said(answer: Any) -> str:
    try:
        document = answer.json()
        return shorten(f"{document['reason']}: {document['message']}", 400)
    except (ValueError, KeyError, TypeError):
        return shorten(answer.text.strip() or answer.reason or "nothing", 200)
