"""How errors made here are answered over HTTP.

Source: linkerd-config spec 5.8: the status of the error, ``l5d-err`` with the URL-encoded message, a plain-text body; ``l5d-retryable``
when the request is known not to have reached a service.
"""

from __future__ import annotations

from urllib.parse import quote_plus

from meshgw.core.stack import Reply
from meshgw.errors import MeshError, NamerError


class ErrorReplies:
    """Words errors. ``max_header`` bounds ``l5d-err``, ``max_body`` the body, in bytes."""

    def __init__(self, *, max_header: int, max_body: int) -> None:
        self._max_header, self._max_body = max_header, max_body

    def reply(self, error: MeshError) -> Reply:
        """The answer for ``error``."""
        text = str(error)
        encoded = quote_plus(text)
        if len(encoded) > self._max_header:
            encoded = (
                encoded[: self._max_header].rsplit("%", 1)[0] if "%" in encoded[self._max_header - 3 :][:3] else encoded[: self._max_header]
            )
        headers = [(b"l5d-err", encoded.encode("ascii")), (b"Content-Type", b"text/plain")]
        # the "Unable to ..." answers never carry it (spec 5.8)
        if error.retry_safe and (isinstance(error, NamerError) or error.phase != "bind") and not text.startswith("Unable to "):
            headers.append((b"l5d-retryable", b"true"))
        return Reply(error.status, text.encode("utf-8")[: self._max_body], tuple(headers))
