"""Which requests are the operator's own: a header that only its private key can sign."""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = "fiduciary-probe"

Addressed = Literal["version", "any"]
ADDRESSED: tuple[Addressed, ...] = ("version", "any")
"""Whom a probe was signed for: one digest (it may have come straight to the pod), or whoever the route leads to."""

VALID_SECONDS = 60.0
_MOST_NONCES = 4096
_LONGEST = 512


class Probes:
    """Checks ``v1.<unix seconds>.<nonce hex>.<base64url signature>``.

    Signed is ``v1.<seconds>.<nonce>.<model>.<digest or *>`` with Ed25519 (RFC 8032); ``*`` is a probe through a route,
    which may reach any version. A header counts once: whoever overhears one cannot hide requests of his own behind it.

    Args:
        key: raw public key; None: nothing is a probe.
        model: ``<namespace>.<name>``.
        digest: of the version that is served here.
        clock: Unix time in seconds.
    """

    def __init__(self, key: bytes | None, model: str, digest: str, clock: Callable[[], float] = time.time) -> None:
        self._key = None if key is None else Ed25519PublicKey.from_public_bytes(key)
        self._endings = tuple(
            (addressed, f".{model}.{target}".encode())
            for addressed, target in zip(ADDRESSED, (digest, "*"), strict=True)
        )
        self._clock = clock
        self._seen: dict[str, float] = {}

    def signed(self, header: str | None) -> Addressed | None:
        """Whom the probe with this header was signed for; None: an ordinary request, as all that is doubtful."""
        if header is None or self._key is None or len(header) > _LONGEST:
            return None
        parts = header.split(".")
        if len(parts) != 4 or parts[0] != "v1":
            return None
        _, seconds, nonce, signature = parts
        now = self._clock()
        if not seconds.isascii() or not seconds.isdigit() or abs(now - int(seconds)) > VALID_SECONDS:
            return None
        if nonce in self._seen:
            return None
        addressed = self._verified(f"v1.{seconds}.{nonce}".encode(), signature)
        if addressed is not None:
            self._remember(nonce, now)
        return addressed

    def _verified(self, beginning: bytes, signature: str) -> Addressed | None:
        assert self._key is not None
        try:
            raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        except (binascii.Error, ValueError):
            return None
        for addressed, ending in self._endings:
            try:
                self._key.verify(raw, beginning + ending)
            except InvalidSignature:
                continue
            return addressed
        return None

    def _remember(self, nonce: str, now: float) -> None:
        if len(self._seen) >= _MOST_NONCES:
            # A header may be dated up to VALID_SECONDS ahead and is good that long after.
            self._seen = {each: until for each, until in self._seen.items() if until > now}
        self._seen[nonce] = now + 2 * VALID_SECONDS
