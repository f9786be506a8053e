"""What a client is told when its request cannot be answered: a status and one sentence, never a traceback."""

from __future__ import annotations

from mlserver.errors import MLServerError


class BadRequest(MLServerError):
    """The request is wrong: what was seen, what was expected. 400, and INVALID_ARGUMENT over gRPC."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message, status)


class NotHere(MLServerError):
    """Another model or version than the one that is served here. 404, and NOT_FOUND over gRPC."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 404)


class Unusable(BadRequest):
    """The request is well formed, but features of its rows cannot be computed, or are out of range: see ``records``."""


class Failed(MLServerError):
    """The model could not answer a good request. 500, and INTERNAL over gRPC."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 500)
