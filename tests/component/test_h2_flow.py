"""Back-pressure from one side of the router to the other, stream by stream: who does not read is not sent to, and nobody else notices."""

from __future__ import annotations

from h2_dialogue import H2Mesh, H2Side, called
from support import h2_frames as f
from transcript import idle

MOST_AHEAD = 262_144
"""More than the window of a stream on one side, what is kept here, and the window on the other."""


def upload(stream: int) -> bytes:
    return f.headers(stream, f.POST, ends=False)


def credit(side: H2Side, stream: int) -> int:
    """What may be sent on a stream, or with 0 on the connection."""
    return 65535 + sum(frame.number for frame in side.frames if frame.kind == f.WINDOW_UPDATE and frame.stream == stream)


def push(mesh: H2Mesh, side: H2Side, stream: int, most: int) -> int:
    """Send DATA as far as credit is given, at most so much; how much that was."""
    sent = 0
    while sent < most:
        mesh.settle()
        room = min(credit(side.read(), stream) - sent, most - sent, 16384)
        if room <= 0:
            break
        side.send(f.data(stream, bytes(room)))
        sent += room
    return sent


def test_a_service_that_does_not_read_one_stream_holds_only_that_back() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, upload(1))
        sent = push(mesh, caller, 1, 1 << 20)
        assert 65535 <= sent < MOST_AHEAD
        assert len(upstream.read().body(1)) == 65535, "all that its window allows"
        upstream.send(f.window_update(0, 1 << 20))
        caller.send(upload(3))
        upstream.until(lambda side: side.has_section(3))
        upstream.send(f.window_update(3, 1 << 20))
        assert push(mesh, caller, 3, 500_000) == 500_000
        upstream.until(lambda side: len(side.body(3)) == 500_000)
        assert len(upstream.body(1)) == 65535
        upstream.send(f.window_update(1, 1 << 20))
        upstream.until(lambda side: len(side.body(1)) == sent)
        mesh.settle()
        assert credit(caller.read(), 1) - sent > 0, "the caller may go on"


def test_a_caller_that_does_not_read_one_stream_holds_only_that_back() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, f.headers(1))
        caller.send(f.window_update(0, 1 << 20), f.headers(3), f.window_update(3, 1 << 20))
        upstream.until(lambda side: side.has_section(3))
        upstream.send(*(f.headers(stream, ((":status", "200"),), ends=False) for stream in (1, 3)))
        sent = push(mesh, upstream, 1, 1 << 20)
        assert 65535 <= sent < MOST_AHEAD
        assert len(caller.read().body(1)) == 65535
        assert push(mesh, upstream, 3, 500_000) == 500_000
        caller.until(lambda side: len(side.body(3)) == 500_000)
        assert len(caller.body(1)) == 65535
        caller.send(f.window_update(1, 1 << 20))
        caller.until(lambda side: len(side.body(1)) == sent)
        mesh.settle()
        assert credit(upstream.read(), 1) - sent > 0, "the service may go on"


def test_the_end_of_a_request_that_waits_comes_after_all_of_it() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, upload(1))
        sent = push(mesh, caller, 1, 100_000)
        caller.send(f.headers(1, (("x-sum", "1"),)))
        mesh.settle()
        assert not upstream.read().is_whole(1)
        upstream.send(f.window_update(0, 1 << 20), f.window_update(1, 1 << 20))
        upstream.until(lambda side: side.is_whole(1))
        assert (len(upstream.body(1)), upstream.sections[1][-1]) == (sent, {"x-sum": "1"})


def test_the_end_of_an_answer_that_waits_comes_after_all_of_it() -> None:
    with H2Mesh() as mesh:
        caller, upstream = called(mesh, f.headers(1))
        upstream.send(f.headers(1, ((":status", "200"),), ends=False))
        sent = push(mesh, upstream, 1, 100_000)
        upstream.send(f.headers(1, (("x-sum", "2"),)))
        mesh.settle()
        assert not caller.read().is_whole(1)
        caller.send(f.window_update(0, 1 << 20), f.window_update(1, 1 << 20))
        caller.until(lambda side: side.is_whole(1))
        assert (len(caller.body(1)), caller.sections[1][-1]) == (sent, {"x-sum": "2"})
        assert idle(mesh)


def test_a_stream_that_is_given_up_while_it_waits_is_forgotten_on_both_sides() -> None:
    for by_caller in (True, False):
        with H2Mesh() as mesh:
            caller, upstream = called(mesh, upload(1))
            push(mesh, caller, 1, 1 << 20)
            (caller if by_caller else upstream).send(f.rst_stream(1, f.CANCEL))
            (upstream if by_caller else caller).until(lambda side: side.code(1) == f.CANCEL)
            caller.send(f.headers(3))
            upstream.send(f.window_update(0, 1 << 20))
            upstream.awaited_request(3)
            upstream.send(f.headers(3, ((":status", "204"),)))
            assert caller.awaited_answer(3)[0][":status"] == "204"
            assert idle(mesh)
            assert credit(caller, 0) >= 1 << 20, "what was dropped is given back to the connection"
