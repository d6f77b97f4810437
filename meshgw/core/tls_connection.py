"""TLS over a data-path connection: the same interface as the plain one, so that the protocols above need not know.

Source: DATAPATH.md, design point 6; RFC 8446, RFC 5246. Bytes pass through OpenSSL's memory buffers between the plain connection, which
keeps sockets, pauses and buffers, and the owner. Everything that was read is decrypted and given on at once, so that nothing waits
inside OpenSSL while reading is paused. The end of what a peer sends counts only when it was announced by close_notify. How a handshake
begins, and what becomes of it, is in ``core.tls_ends``.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL

from meshgw.core.timers import Timer, Wheel
from meshgw.core.tls import explain
from meshgw.core.tls_facts import TlsFacts
from meshgw.core.transport import HIGH_WATER, Connection, Receiver
from meshgw.errors import MeshError

RECORD = 16384
"""Most plain bytes of one record."""
_OVERHEAD = 64  # bytes a record may grow by: 22 with TLS 1.3, 29 to 61 with the suites of TLS 1.2
_SLACK = 512  # for messages that OpenSSL sends of itself in front of ours, such as KeyUpdate
NEW, HELLO, _HANDSHAKE, _SECURED, _HALF_CLOSED, _ENDING, _GONE = range(7)

Secured = Callable[[MeshError | None], None]


class TlsConnection(TlsFacts):
    """What both sides have in common. Its owner sets ``receiver``, and ``on_secured`` if it wants to know, and calls :meth:`start`."""

    __slots__ = (
        *("_bio_read", "_bio_write", "_early", "_early_size", "_eof", "_eof_held", "_fragment", "_missing", "_paused"),
        *("_peer_ended", "_read", "_reason", "_send", "_state", "_timer", "_wheel"),
        *("error", "is_full", "on_secured", "receiver"),
    )
    receiver: Receiver

    def __init__(self, raw: Connection, wheel: Wheel, receiver: Receiver | None = None) -> None:
        super().__init__(raw)
        self._wheel = wheel
        raw.receiver = self
        self._state = NEW
        self._early: list[bytes] = []
        self._early_size = 0
        self._missing = 0
        self._fragment = b""
        self._paused = self._eof = self._eof_held = self._peer_ended = False
        self._timer: Timer | None = None
        self._reason = ""
        self.error: MeshError | None = None
        """Why the handshake failed."""
        self.is_full = False
        """Whether so much output waits that the source of it should pause until ``drained``."""
        self.on_secured: Secured | None = None
        """Called once: with None when the handshake is done, else with the error; then the connection's end follows."""
        if receiver is not None:
            self.receiver = receiver

    @property
    def is_sending(self) -> bool:
        """Whether output waits to be sent."""
        return bool(self._early) or self._raw.is_sending

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        return self._state <= _HALF_CLOSED and self._raw.is_open

    @property
    def is_secured(self) -> bool:
        """Whether the handshake is done and the connection was not ended."""
        return self._state in (_SECURED, _HALF_CLOSED)

    # --- handshake

    def start(self) -> None:
        """Begin to read, and with the handshake; once begun, nothing."""
        if self._timer is not None:
            return
        self._raw.start()
        self._timer = self._wheel.after(self._handshake_seconds(), self._too_slow)

    def _handshake_seconds(self) -> float:
        raise NotImplementedError  # pragma: no cover - abstract

    def _adopt(self, ssl: SSL.Connection) -> None:
        self._ssl = ssl
        self._bio_write, self._bio_read, self._read, self._send = ssl.bio_write, ssl.bio_read, ssl.recv, ssl.send
        self._state = _HANDSHAKE

    def _shake(self) -> None:
        """Take the handshake as far as the bytes at hand allow."""
        ssl = self._ssl
        assert ssl is not None
        try:
            ssl.do_handshake()
        except SSL.WantReadError:
            self._emit()
            return
        except SSL.Error as error:
            self._emit()  # the alert for the peer
            self._fail("handshake", explain(error))
            return
        self._emit()
        self._established()

    def _emit(self) -> bool:
        """Send what OpenSSL has to say; whether it had something."""
        has_said = False
        try:
            while True:
                self._raw.write(self._bio_read(RECORD))
                has_said = True
        except SSL.WantReadError:
            return has_said

    def _established(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._state = _SECURED
        self._completed()
        if self._paused:
            self._raw.pause_reading()
        early, self._early = self._early, []
        was_full, self.is_full = self.is_full, False
        if early:
            self.write(b"".join(early))
        if self._eof:
            self.write_eof()
        if self.on_secured is not None:
            self.on_secured(None)
        if was_full and not self.is_full:
            self.receiver.drained()
        if self._state in (_SECURED, _HALF_CLOSED):
            self._read_all()  # what came along with the end of the handshake

    def _completed(self) -> None:
        """The side's own book-keeping after a handshake."""

    def _too_slow(self) -> None:
        self._fail("timeout", f"it did not finish within {self._handshake_seconds():g} s")

    def _fail(self, kind: str, reason: str) -> None:
        """Give the handshake up; what was written last, an alert perhaps, is still delivered."""
        if self._state < _SECURED:
            self._state = _ENDING
            self._failed(self._failure(kind, reason))
            self._raw.close()

    def _failed(self, error: MeshError) -> None:
        """Make it known that the handshake failed."""
        if self._timer is not None:
            self._timer.cancel()
        self.error, self._reason = error, str(error)
        self._early = []
        if self.on_secured is not None:
            self.on_secured(error)

    def _failure(self, kind: str, reason: str) -> MeshError:
        """The error of a handshake that failed, counted."""
        raise NotImplementedError  # pragma: no cover - abstract

    # --- reading

    def data_received(self, data: bytes) -> None:
        """See :class:`meshgw.core.transport.Receiver`; called by the plain connection."""
        if self._state != _SECURED:
            self._data_otherwise(data)
            return
        size = len(data)
        # One whole record, as most requests and answers are, needs no second look, which would cost an exception (3 of 11 µs).
        is_one = not self._missing and not self._fragment and size > 5 and size == 5 + (data[3] << 8 | data[4])
        if not is_one:
            self._follow(data)
        self._bio_write(data)
        if is_one:
            try:
                plain = self._read(RECORD)
            except SSL.Error as error:
                self._read_nothing(error)
                return
            self.receiver.data_received(plain)
        else:
            self._read_all()

    def _data_otherwise(self, data: bytes) -> None:
        if self._state == _HANDSHAKE:
            self._handshake_data(data)
        elif self._state == _HALF_CLOSED:
            self._follow(data)
            self._bio_write(data)
            self._read_all()
        elif self._state == HELLO:
            self._hello(data)

    def _handshake_data(self, data: bytes) -> None:
        self._follow(data)
        self._bio_write(data)
        self._shake()

    def _hello(self, data: bytes) -> None:
        raise NotImplementedError  # pragma: no cover - only servers wait for one

    def _follow(self, data: bytes) -> None:
        """Keep count of the records, to know whether OpenSSL holds a part of one."""
        if self._fragment:
            data = self._fragment + data
        at, size = self._missing, len(data)
        while at + 5 <= size:
            at += 5 + (data[at + 3] << 8 | data[at + 4])
        if at < size:
            self._fragment, self._missing = data[at:], 0
        else:
            self._fragment, self._missing = b"", at - size

    def _read_all(self) -> None:
        """Decrypt all there is, and give it on in one piece."""
        pieces = []
        try:
            while True:
                pieces.append(self._read(RECORD))
        except SSL.Error as error:
            end = error
        if pieces:
            self.receiver.data_received(b"".join(pieces) if len(pieces) > 1 else pieces[0])
            if self._state not in (_SECURED, _HALF_CLOSED):
                return
        self._read_nothing(end)

    def _read_nothing(self, end: SSL.Error) -> None:
        """OpenSSL has no more bytes for us: it waits, or the peer ended, or broke the protocol."""
        if isinstance(end, SSL.WantReadError):
            self._silence()
        elif isinstance(end, SSL.ZeroReturnError):
            self._end_input()
        else:
            self._emit()
            self._break(f"TLS: {explain(end)}")

    def _silence(self) -> None:
        """A part of a record, or one without data for us: OpenSSL may have an answer to it (KeyUpdate, or a refused renegotiation)."""
        if self._emit() and self._raw.is_full:  # who asks for answers and does not read them would fill the memory
            self._break("TLS: too many control messages")

    def _end_input(self) -> None:
        if not self._peer_ended:
            self._peer_ended = True
            if self._paused:
                self._eof_held = True
            else:
                self.receiver.eof_received()

    def eof_received(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`: the network connection ended, which counts only after close_notify."""
        if self._state < _SECURED:
            self._fail("closed", "the peer closed the connection")
        elif not self._peer_ended:
            self._break("the peer closed without close_notify, so what it sent may not be complete")

    def _break(self, reason: str) -> None:
        if self._state != _GONE:
            self._reason = reason
            self._state = _ENDING
            self._raw.close_now()

    def pause_reading(self) -> None:
        """Give nothing on until :meth:`resume_reading`; a handshake goes on."""
        self._paused = True
        if self._state >= _SECURED:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on after :meth:`pause_reading`."""
        self._paused = False
        if self._eof_held:
            self._wheel.soon(self._tell_end)
        if self._state >= _SECURED:
            self._raw.resume_reading()

    def _tell_end(self) -> None:
        if self._eof_held and not self._paused and self._state in (_SECURED, _HALF_CLOSED):
            self._eof_held = False
            self.receiver.eof_received()

    # --- writing

    def write(self, data: bytes) -> None:
        """Encrypt and send ``data`` now, or keep what cannot go yet; ignored once ended."""
        if self._state != _SECURED:
            self._keep_early(data)
            return
        size = len(data)
        raw = self._raw
        try:
            if size <= RECORD:
                if not size:
                    return
                self._send(data)
                wanted = size + _SLACK
            else:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._send(rest) :]
                wanted = size + (size // RECORD + 1) * _OVERHEAD + _SLACK
            out = self._bio_read(wanted)
        except SSL.Error as error:
            self._fail_write(error)
            return
        raw.write(out)
        self.is_full = raw.is_full
        if len(out) == wanted:
            self._emit()

    def _keep_early(self, data: bytes) -> None:
        if self._state < _SECURED and not self._eof and data:
            self._early.append(data)
            self._early_size += len(data)
            self.is_full = self._early_size > HIGH_WATER

    def _fail_write(self, error: SSL.Error) -> None:
        """Told from the loop, not from inside the owner's call."""
        reason = f"TLS: {explain(error)}"
        self._wheel.soon(lambda: self._break(reason))

    def drained(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`; called by the plain connection."""
        if self._state >= _SECURED:
            self.is_full = False
            self.receiver.drained()

    # --- ending

    def _notify(self) -> None:
        """Say that nothing more comes (close_notify), unless output waits that cannot be followed by it any more."""
        ssl = self._ssl
        if ssl is not None and self._state == _SECURED:
            try:
                ssl.shutdown()
            except SSL.Error:
                pass  # the session is broken: there is nobody to tell
            self._emit()

    def write_eof(self) -> None:
        """Half-close: nothing more will be sent. A peer with TLS 1.2 may take it for the end of both directions (RFC 5246 7.2.1)."""
        if self._state < _SECURED:
            self._eof = True
        elif self._state == _SECURED:
            self._notify()
            self._state = _HALF_CLOSED
            self._raw.write_eof()

    def close(self) -> None:
        """Send what waits and close_notify, then end the connection as the plain one does."""
        if self._state in (_SECURED, _HALF_CLOSED):
            self._notify()
            self._state = _ENDING
            self._raw.close()
        elif self._state < _SECURED:
            self.close_now()  # nothing that the peer could understand was said yet

    def close_now(self) -> None:
        """End at once, with close_notify if it can go at once."""
        if self._state == _GONE:
            return
        if self._state == _SECURED and not self._raw.is_sending:
            self._notify()
        self._state = _ENDING
        self._raw.close_now()

    def abort(self) -> None:
        """Reset the connection, without close_notify: the peer learns that what it got is not complete."""
        if self._state != _GONE:
            self._state = _ENDING
        self._raw.abort()

    def connection_lost(self, reason: str) -> None:
        """See :class:`meshgw.core.transport.Receiver`; called by the plain connection."""
        was, self._state = self._state, _GONE
        if self._timer is not None:
            self._timer.cancel()
        if was < _SECURED:
            self._failed(self._failure("closed", reason))
        self._released()
        receiver: Receiver | None = getattr(self, "receiver", None)
        if receiver is not None:
            receiver.connection_lost(self._reason or reason)

    def _released(self) -> None:
        """The side's own book-keeping at the end."""
