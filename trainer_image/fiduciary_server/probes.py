"""Which requests are the operator's own: a header that only its private key can sign."""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = "fiduciary-probe"
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
        self._endings = tuple(f".{model}.{target}".encode() for target in (digest, "*"))
        self._clock = clock
        self._seen: dict[str, float] = {}

    def signed(self, header: str | None) -> bool:
        """Whether a request that carries this header is a probe. Anything doubtful is an ordinary request."""
        if header is None or self._key is None or len(header) > _LONGEST:
            return False
        parts = header.split(".")
        if len(parts) != 4 or parts[0] != "v1":
            return False
        _, seconds, nonce, signature = parts
        now = self._clock()
        if not seconds.isascii() or not seconds.isdigit() or abs(now - int(seconds)) > VALID_SECONDS:
            return False
        if nonce in self._seen or not self._verified(f"v1.{seconds}.{nonce}".encode(), signature):
            return False
        self._remember(nonce, now)
        return True

    def _verified(self, beginning: bytes, signature: str) -> bool:
        assert self._key is not None
        try:
            raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
        except (binascii.Error, ValueError):
            return False
        for ending in self._endings:
            try:
                self._key.verify(raw, beginning + ending)
            except InvalidSignature:
                continue
            return True
        return False

    def _remember(self, nonce: str, now: float) -> None:
        if len(self._seen) >= _MOST_NONCES:
            # A header may be dated up to VALID_SECONDS ahead and is good that long after.
            self._seen = {each: until for each, until in self._seen.items() if until > now}
        self._seen[nonce] = now + 2 * VALID_SECONDS
