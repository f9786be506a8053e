"""Tokens of the operator's own ServiceAccount, one for each audience, so that who receives one can use it nowhere else.

Issued by TokenRequest (authentication.k8s.io/v1) and renewed as the kubelet renews projected ones: once less than a
fifth of their life is left.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from fiduciary.clients.kube import Forbidden, KubeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.clients.kube import Token

SECONDS = 3600
TIMEOUT = 10.0
RENEWED_AT = 0.2


class TokenError(Exception):
    """There is no token to show. The message says why and is fit for a condition."""


class Issuer(Protocol):
    async def token(self, namespace: str, account: str, audience: str, seconds: int) -> Token:
        """TokenRequest for a ServiceAccount."""
        ...


class Tokens:
    """Tokens of one ServiceAccount, kept for each audience until they are renewed.

    ``subject``: ``system:serviceaccount:<namespace>:<name>``. It needs the right to ``create serviceaccounts/token`` of
    itself.
    """

    def __init__(
        self,
        issuer: Issuer,
        subject: str,
        *,
        timeout: float = TIMEOUT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        _, _, self._namespace, self._account = subject.split(":")
        self._issuer = issuer
        self._timeout = timeout
        self._now = now
        self._kept: dict[str, Token] = {}

    async def of(self, audience: str) -> str:
        """A token that is valid for some time yet. Raises :class:`TokenError`."""
        kept = self._kept.get(audience)
        if kept is not None and self._now() < kept.expires - kept.lifetime * RENEWED_AT:
            return kept.text
        try:
            async with asyncio.timeout(self._timeout):
                fresh = await self._issuer.token(self._namespace, self._account, audience, SECONDS)
        except (KubeError, TimeoutError) as error:
            if kept is not None and self._now() < kept.expires:
                return kept.text
            raise TokenError(self._explained(audience, error)) from error
        self._kept[audience] = fresh
        return fresh.text

    def _explained(self, audience: str, error: KubeError | TimeoutError) -> str:
        told = str(error) or f"no answer within {self._timeout:g} s"
        what = f"no token of {self._namespace}/{self._account} for {audience} ({told})"
        if isinstance(error, Forbidden):
            return f"{what}; its Role has to allow `create` of serviceaccounts/token, resourceNames [{self._account}]"
        return what
