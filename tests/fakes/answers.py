"""What the tests of limits and retries have in common: answers of services, and the check that a dialogue left nothing behind."""

from __future__ import annotations

from transcript import Mesh, Side, gauge, idle

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nfail"
BAD = b"\r\n\r\nfail"


def pass_time(mesh: Mesh, seconds: float, step: float = 0.05) -> None:
    """Let time pass in steps, and handle what comes of each."""
    left = seconds
    while left > 1e-9:
        mesh.clock.advance(min(step, left))
        mesh.pump()
        left -= step
    mesh.settle()


def answer_of(side: Side, status: int) -> tuple[dict[str, str], str]:
    """The header fields and the body of the answer that ``side`` gets, which must have this status."""
    side.expect(b"HTTP/1.1 %d " % status)
    head, _, body = side.expect(b"\r\n\r\n").partition(b"\r\n\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])}
    length = int(fields.get("content-length", "0"))
    side._mesh.until(lambda: len(side.got.partition(b"\r\n\r\n")[2]) >= length or side.ending)
    side.got = side.got[len(head) + 4 + length :]
    return fields, (body + side.got)[:length].decode()


def pending(mesh: Mesh) -> float:
    """All ``pending`` gauges together."""
    return sum(value for names, value in mesh.snapshot().gauges.items() if names[-1] == "pending")


def assert_nothing_left(mesh: Mesh, connections: int = 0) -> None:
    """No request is under way anywhere, nobody waits, and this many connections to endpoints are open, all of them idle."""
    mesh.settle()
    assert idle(mesh)
    assert pending(mesh) == 0
    assert gauge(mesh, "pool_size") == gauge(mesh, "pool_cached") == connections
