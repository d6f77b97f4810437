"""Back-pressure from one side of the router to the other, stream by stream: who does not read is not sent to, and nobody else notices."""

from __future__ import annotations

from h2_dialogue import ANSWER, CALL, H2Mesh, H2Side, called
from meshgw.wire.h2_connection import STARVED_SECONDS
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


# --- services that stand still


WIDE = 1 << 20
STUCK = range(3, 25, 2)


def flood(mesh: H2Mesh, side: H2Side, streams: range) -> int:
    """Send a MiB on each of the streams, or what the connection has credit for; how much that was."""
    sent = 0
    for stream in streams:
        for _ in range(WIDE // 16384):
            if credit(side.read(), 0) - sent < 16384:
                mesh.settle()
                if credit(side.read(), 0) - sent < 16384:
                    return sent
            side.send(f.data(stream, bytes(16384)))
            sent += 16384
    return sent


def starved(mesh: H2Mesh) -> tuple[H2Side, H2Side, int]:
    """A caller without credit, as a service takes nothing of its uploads; what it has sent. Stream 1 is the longest held back."""
    caller, upstream = called(mesh, upload(1))
    upstream.send(f.window_update(0, 1 << 24))
    kinds = (f.headers(3, CALL, ends=False), f.headers(5, CALL, ends=False), *map(upload, STUCK[2:]))
    caller.send(*kinds)
    upstream.until(lambda side: side.has_section(STUCK[-1])).send(f.headers(5, ANSWER, ends=False))
    sent = flood(mesh, caller, range(1, STUCK[-1] + 1, 2))
    assert credit(caller, 0) - sent < 16384
    return caller, upstream, sent


def test_services_that_take_nothing_do_not_keep_a_connection_from_others_for_long() -> None:
    with H2Mesh(server=f"initialStreamWindowBytes: {WIDE}") as mesh:
        caller, upstream, sent = starved(mesh)
        caller.send(upload(25))
        upstream.until(lambda side: side.has_section(25))
        mesh.clock.advance(STARVED_SECONDS / 2)
        upstream.send(f.window_update(1, 1000), f.window_update(25, WIDE))  # that one is slow, but it moves
        mesh.settle()
        mesh.clock.advance(STARVED_SECONDS / 2 + 1)
        caller.until(lambda side: credit(side, 0) - sent >= WIDE // 2)
        answer, _, _ = caller.awaited_answer(7)
        assert (answer[":status"], "took+nothing" in answer["l5d-err"]) == ("503", True)
        assert caller.awaited_answer(3)[0]["grpc-status"] == "14"
        assert caller.awaited_answer(5)[2]["grpc-status"] == "14"
        upstream.until(lambda side: {side.code(stream) for stream in STUCK[:3]} == {f.CANCEL})
        assert not caller.is_whole(1)
        assert not caller.is_whole(STUCK[-1]), "those that were held back later may have been for the others' sake"
        caller.send(f.data(25, bytes(16384), ends=True))
        upstream.until(lambda side: side.is_whole(25))


def test_services_that_take_bodies_again_in_time_lose_no_request() -> None:
    with H2Mesh(server=f"initialStreamWindowBytes: {WIDE}") as mesh:
        caller, upstream, sent = starved(mesh)
        upstream.send(*(f.window_update(stream, 2 * WIDE) for stream in range(1, STUCK[-1] + 1, 2)))
        caller.until(lambda side: credit(side, 0) - sent >= WIDE // 2)
        mesh.clock.advance(2 * STARVED_SECONDS)
        mesh.settle()
        assert not any(caller.read().code(stream) or caller.is_whole(stream) for stream in range(1, STUCK[-1] + 1, 2))


def test_a_caller_that_leaves_while_services_stand_still_leaves_nothing() -> None:
    with H2Mesh(server=f"initialStreamWindowBytes: {WIDE}") as mesh:
        caller, _, _ = starved(mesh)
        caller.side.reset()
        mesh.until(lambda: idle(mesh))
        mesh.clock.advance(2 * STARVED_SECONDS)
        assert idle(mesh)
