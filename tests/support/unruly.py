"""A small HTTP/1.1 service that misbehaves on demand: `unruly.py NAME PORT CONTROL_PORT`.

It answers each request with its name and the request's id, which is the last part of the target. Datagrams to the control port of
loopback set the mode and are answered with it, so that whoever sent one knows that it holds. Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time

LOOPBACK = "127.0.0.1"
MODES = ("ok", "slow", "reset", "half-close", "garbage", "refuse", "error")
"""Answer; answer after a while; reset in the middle of a head; close the sending side; send no HTTP; do not listen; answer 503."""
SLOW_SECONDS = 1.5
LINGER_NONE = struct.pack("ii", 1, 0)


class Unruly:
    """The service. ``mode`` holds for each request that arrives from now on."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port, self.mode = name, port, "ok"
        self._listener: socket.socket | None = None

    def set(self, mode: str) -> None:
        """Change the mode; ``refuse`` stops listening, any other listens again."""
        self.mode = mode
        if mode == "refuse":
            listener, self._listener = self._listener, None
            if listener is not None:
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)  # else the thread in accept keeps the port open
                listener.close()
        elif self._listener is None:
            self._listener = socket.create_server((LOOPBACK, self.port), backlog=256)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while (request := read_request(sock)) is not None and self._answer(sock, request):
                pass

    def _answer(self, sock: socket.socket, request: str) -> bool:
        """Answer one request by the mode; False when the connection is done for."""
        mode = self.mode
        if mode == "reset":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
            return False
        if mode == "half-close":
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)  # until the peer closes as well
            return False
        if mode == "garbage":
            sock.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            return False
        if mode == "refuse":
            return False
        if mode == "slow":
            time.sleep(SLOW_SECONDS)
        line = b"HTTP/1.1 503 Unwell" if mode == "error" else b"HTTP/1.1 200 OK"
        body = f"{self.name} {request}\n".encode()
        sock.sendall(b"%b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (line, len(body), body))
        return True


def read_request(sock: socket.socket) -> str | None:
    """The id of the next request, whose body, if any, must be that id again; None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        piece = sock.recv(65536)
        if not piece:
            return None
        body += piece
    found = head.split(b" ", 2)[1].rsplit(b"/", 1)[-1].decode()
    return found if not length or body.decode() == found else f"{found} with the body of {body.decode()!r}"


def main() -> int:
    """Serve, and take modes from the control port, until stopped."""
    if len(sys.argv) != 4:
        sys.stderr.write("usage: unruly.py NAME PORT CONTROL_PORT\n")
        return 2
    service = Unruly(sys.argv[1], int(sys.argv[2]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.bind((LOOPBACK, int(sys.argv[3])))
        service.set("ok")
        while True:
            data, sender = control.recvfrom(100)
            if data.decode() in MODES:
                service.set(data.decode())
            control.sendto(service.mode.encode(), sender)


if __name__ == "__main__":
    raise SystemExit(main())
