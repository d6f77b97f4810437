"""What a protocol speaks over, be it plain or with TLS: the interface that both kinds of connection have in common.

Source: DATAPATH.md, design points 2 and 6. :class:`meshgw.core.transport.Connection` is the plain one,
:class:`meshgw.core.tls_connection.TlsConnection` the other; a compiled one has to offer the same.
"""

from __future__ import annotations

from typing import Protocol

from meshgw.core.transport import Receiver


class Stream(Protocol):
    """An established connection. Its owner sets ``receiver`` and then calls :meth:`start`."""

    receiver: Receiver
    is_full: bool
    """Whether so much output waits that the source of it should pause until ``drained``."""

    @property
    def received(self) -> int:
        """Bytes of the whole connection, as they came over the network."""
        ...

    @property
    def sent(self) -> int:
        """Bytes of the whole connection, as they went over the network."""
        ...

    @property
    def flushed(self) -> int:
        """Bytes that had to wait and were sent then."""
        ...

    @property
    def blocked(self) -> float:
        """Seconds for which output has had to wait."""
        ...

    @property
    def is_readable(self) -> bool:
        """Whether bytes or the end are there to be read."""
        ...

    @property
    def is_sending(self) -> bool:
        """Whether output waits to be sent."""
        ...

    def start(self) -> None:
        """Begin to read."""
        ...

    def pause_reading(self) -> None:
        """Give nothing on until :meth:`resume_reading`."""
        ...

    def resume_reading(self) -> None:
        """Go on after :meth:`pause_reading`."""
        ...

    def write(self, data: bytes) -> None:
        """Send ``data`` now, or keep what cannot go yet; ignored once closed."""
        ...

    def write_eof(self) -> None:
        """Half-close: nothing more will be sent."""
        ...

    def close(self) -> None:
        """Send what waits, then end the connection."""
        ...

    def close_now(self) -> None:
        """End the connection without waiting for anything."""
        ...

    def abort(self) -> None:
        """Reset the connection."""
        ...
