"""The gateway as an HTTP/2 server, told right and wrong things over raw sockets: one process serves all cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conformance.http2.case import Answer, Case, Goaway, Ignored, Reset, has_answer, has_ended, has_ponged, has_reset
from conformance.http2.server_cases import BLOCKED, CASES, STREAMS
from support import h2_frames as f
from support.gateways import Gateway, gateway, talk
from support.h2_origin import Origin
from support.h2_peer import PROBE, Wire
from support.processes import Running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    service = Origin()
    yield service
    service.close()


@pytest.fixture(scope="module")
def gw(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Running(tmp_path_factory.mktemp("server")) as running:
        router = {"protocol": "h2", "client": {"protocol": "http/1.1"}}
        yield gateway(running, {"web": origin.port}, router=router, server={"maxConcurrentStreamsPerConnection": STREAMS})


def is_usable(wire: Wire) -> bool:
    """Whether another request is answered on the connection, and no GOAWAY came."""
    wire.send(f.settings({f.WINDOW: 65535}) + f.headers(PROBE))
    return wire.until(has_ended(PROBE)) and wire.status(PROBE) == 200 and wire.goaway() is None


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_what_is_sent_has_the_outcome_that_the_rfc_demands(case: Case, gw: Gateway, origin: Origin) -> None:
    with Wire.connect(gw.port, case.opening) as wire:
        for step in case.steps:
            if isinstance(step, bytes):
                wire.send(step)
            else:
                assert wire.until(step), wire.describe()
        outcome = case.outcome
        if isinstance(outcome, Goaway):
            assert wire.until(lambda wire: wire.ending), wire.describe()
            goaway = wire.goaway()
            assert goaway is not None, wire.describe()
            assert goaway.code == outcome.code, wire.describe()
        elif isinstance(outcome, Reset):
            assert wire.until(has_reset(outcome.stream)), wire.describe()
            assert wire.reset(outcome.stream) == outcome.code, wire.describe()
            assert is_usable(wire), wire.describe()
        elif isinstance(outcome, Answer):
            assert wire.until(has_ended(outcome.stream)), wire.describe()
            assert wire.status(outcome.stream) == outcome.status, wire.describe()
            assert wire.reset(outcome.stream) is None, wire.describe()
            assert is_usable(wire), wire.describe()
        else:
            assert isinstance(outcome, Ignored)
            assert is_usable(wire), wire.describe()
    assert not [seen for seen in origin.seen if "x-never" in seen[2] or "never" in seen[1]]


# --- what takes more than one look


def test_the_server_begins_with_its_settings_and_acknowledges_ours_once_each(gw: Gateway) -> None:
    with Wire.connect(gw.port) as wire:
        wire.send(f.settings({f.FRAME: 20000}) + f.settings() + f.ping())
        assert wire.until(has_ponged), wire.describe()
        first = wire.frames[0]
        assert first.kind == f.SETTINGS
        assert not first.is_ack
        assert first.settings[f.STREAMS] == STREAMS
        assert f.PUSH not in first.settings
        assert sum(frame.kind == f.SETTINGS and frame.is_ack for frame in wire.frames) == 3


def test_the_preface_and_frames_may_come_byte_by_byte(gw: Gateway) -> None:
    sent = f.OPENING + f.headers(1, f.POST, ends=False) + f.data(1, b"body", ends=True)
    with Wire.connect(gw.port, sent[:1]) as wire:
        for octet in sent[1:]:
            wire.send(bytes((octet,)))
        assert wire.until(has_ended(1)), wire.describe()
        assert wire.body(1) == b"body"


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\nHost: web\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    ],
    ids=["plain", "upgrade"],
)
def test_callers_of_http1_are_told_what_the_port_speaks(gw: Gateway, request_head: bytes) -> None:
    assert talk(gw.port, request_head).startswith(b"HTTP/1.1 505 ")


def test_a_ping_is_answered_with_what_it_held(gw: Gateway) -> None:
    with Wire.connect(gw.port) as wire:
        wire.send(f.ping(b"\0\1\2\3\xff\xfe\xfd\xfc") + f.ping(b"the next"))
        assert wire.until(lambda wire: len(wire.pongs()) == 2), wire.describe()
        assert wire.pongs() == [b"\0\1\2\3\xff\xfe\xfd\xfc", b"the next"]


def test_goaway_names_the_last_stream_that_was_looked_at(gw: Gateway) -> None:
    with Wire.connect(gw.port) as wire:
        wire.send(f.headers(1) + f.headers(7) + f.frame(f.DATA, 0, 0, b"x"))
        assert wire.until(lambda wire: wire.ending), wire.describe()
        goaway = wire.goaway()
        assert goaway is not None
        assert goaway.number == 7


def test_no_more_is_sent_than_the_window_of_the_stream_allows(gw: Gateway) -> None:
    with Wire.connect(gw.port, f.PREFACE + f.settings({f.WINDOW: 1})) as wire:
        wire.send(f.headers(1) + f.ping())
        assert wire.until(lambda wire: wire.body(1) and wire.pongs()), wire.describe()
        assert wire.body(1) == b"h"
        wire.send(f.window_update(1, 2) + f.ping(b"sent two"))
        assert wire.until(lambda wire: b"sent two" in wire.pongs() and len(wire.body(1)) > 1), wire.describe()
        assert wire.body(1) == b"hel"
        wire.send(f.window_update(1, 100))
        assert wire.until(has_ended(1)), wire.describe()
        assert wire.body(1) == b"hello"


def test_no_more_is_sent_than_the_window_of_the_connection_allows(gw: Gateway) -> None:
    big = (*f.GET[:2], (":path", "/size/100000"), f.GET[3])
    with Wire.connect(gw.port, f.PREFACE + f.settings({f.WINDOW: 1 << 20})) as wire:
        wire.send(f.headers(1, big) + f.headers(3, big))
        assert wire.until(lambda wire: len(wire.body(1)) + len(wire.body(3)) >= 65535), wire.describe()
        wire.send(f.ping())
        assert wire.until(has_ponged), wire.describe()
        assert len(wire.body(1)) + len(wire.body(3)) == 65535
        wire.send(f.window_update(0, 200000))
        assert wire.until(lambda wire: wire.ended(1) and wire.ended(3)), wire.describe()
        assert len(wire.body(1)) == len(wire.body(3)) == 100000


def test_a_window_that_settings_made_negative_is_waited_for(gw: Gateway) -> None:
    big = (*f.GET[:2], (":path", "/size/1000"), f.GET[3])
    with Wire.connect(gw.port, f.PREFACE + f.settings({f.WINDOW: 100})) as wire:
        wire.send(f.headers(1, big))
        assert wire.until(lambda wire: len(wire.body(1)) == 100), wire.describe()
        wire.send(f.settings({f.WINDOW: 40}) + f.window_update(1, 60) + f.ping(b"at null."))
        assert wire.until(lambda wire: b"at null." in wire.pongs()), wire.describe()
        assert len(wire.body(1)) == 100
        wire.send(f.window_update(1, 5) + f.ping(b"plus 5.."))
        assert wire.until(lambda wire: b"plus 5.." in wire.pongs() and len(wire.body(1)) > 100), wire.describe()
        assert len(wire.body(1)) == 105


@pytest.mark.parametrize("size", [16384, 100000])
def test_frames_are_no_larger_than_the_caller_takes(gw: Gateway, size: int) -> None:
    big = (*f.GET[:2], (":path", "/size/60000"), f.GET[3])
    with Wire.connect(gw.port, f.PREFACE + f.settings({f.FRAME: size})) as wire:
        wire.send(f.headers(1, big))
        assert wire.until(has_ended(1)), wire.describe()
        assert max(len(frame.payload) for frame in wire.frames) <= size
        assert len(wire.body(1)) == 60000


def test_credit_comes_back_for_padding_and_for_streams_that_were_reset(gw: Gateway) -> None:
    """Twice the window of the connection and of a stream, most of it padding, and as much again on a stream that is answered early."""
    with Wire.connect(gw.port) as wire:
        wire.until(lambda wire: wire.has(f.WINDOW_UPDATE, 0))
        granted = 65535 + sum(frame.number for frame in wire.frames if frame.kind == f.WINDOW_UPDATE)
        wire.send(f.headers(1, f.POST, ends=False))
        sent = 0
        while sent < 2 * granted:
            wire.send(f.data(1, b"x" * 100, padding=255) * 20)
            sent += 356 * 20
            credit = 65535 + sum(frame.number for frame in wire.frames if frame.kind == f.WINDOW_UPDATE and frame.stream == 1)
            if sent + 356 * 20 > credit:
                want = sent + 356 * 20
                assert wire.until(
                    lambda wire, want=want: (  # type: ignore[misc]
                        65535 + sum(frame.number for frame in wire.frames if frame.kind == f.WINDOW_UPDATE and frame.stream == 1) >= want
                    )
                ), wire.describe()
        wire.send(f.data(1, b"", ends=True))
        wire.send(f.settings({f.WINDOW: 1 << 24}) + f.window_update(0, 1 << 24) + f.window_update(1, 1 << 24))
        assert wire.until(has_ended(1)), wire.describe()
        assert len(wire.body(1)) == sent // 356 * 100


def test_a_header_section_larger_than_a_frame_is_continued(gw: Gateway) -> None:
    """The gateway tells in a header field why it could not bind a long name."""
    path = "/" + "a" * 30000
    fields = (*f.GET[:2], (":path", path), (":authority", "nowhere." + "b" * 6000))
    with Wire.connect(gw.port) as wire:
        block = f.plain(fields)
        wire.send(
            f.headers(1, block[:16000], flags=0) + f.continuation(1, block[16000:32000], ends=False) + f.continuation(1, block[32000:])
        )
        assert wire.until(lambda wire: wire.ended(1) or wire.reset(1) is not None), wire.describe()
        assert wire.status(1) >= 400
        assert max(len(frame.payload) for frame in wire.frames) <= 16384


def test_cookies_are_joined_for_a_service_of_http1(gw: Gateway, origin: Origin) -> None:
    with Wire.connect(gw.port) as wire:
        path = (*f.GET[:2], (":path", "/cookies"), f.GET[3])
        wire.send(f.headers(1, f.plain((*path, ("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")))))
        assert wire.until(has_ended(1)), wire.describe()
    seen = [fields for _, target, fields in origin.seen if target == "/cookies"]
    assert [fields["cookie"] for fields in seen] == ["a=b; c=d"]


def test_the_head_of_an_answer_says_what_is_expected(gw: Gateway) -> None:
    with Wire.connect(gw.port) as wire:
        wire.send(f.headers(1, f.HEAD) + f.headers(3))
        assert wire.until(lambda wire: wire.ended(1) and wire.ended(3)), wire.describe()
        assert wire.body(1) == b""
        assert wire.body(3) == b"hello"
        assert wire.fields[1][0]["content-length"] == wire.fields[3][0]["content-length"] == "5"
        assert not {
            name for name in wire.fields[3][0] if name in ("connection", "keep-alive", "transfer-encoding") or not name.islower()
        } - {":status"}


def test_a_table_that_the_caller_made_smaller_is_told_of_and_kept_to(gw: Gateway) -> None:
    with Wire.connect(gw.port) as wire:
        for stream in (1, 3, 5):
            wire.send(f.headers(stream))
            assert wire.until(has_ended(stream)), wire.describe()
        wire._decoder.max_allowed_table_size = 0
        wire.send(f.settings({f.TABLE: 0}))
        for stream in (7, 9):
            wire.send(f.headers(stream))
            assert wire.until(has_ended(stream)), wire.describe()
        assert wire._decoder.header_table_size == 0


def test_trailers_without_a_body_follow_after_half_closed(gw: Gateway) -> None:
    with Wire.connect(gw.port, BLOCKED) as wire:
        wire.send(f.headers(1, f.POST, ends=False) + f.data(1, b"x", ends=True))
        assert wire.until(has_answer(1)), wire.describe()
        wire.send(f.headers(1, (("x-sum", "1"),)))
        assert wire.until(has_reset(1)), wire.describe()
        assert wire.reset(1) == f.STREAM_CLOSED


def test_what_ends_late_does_not_spoil_the_connection_to_the_service(gw: Gateway) -> None:
    """A chunked body, then one of no bytes whose stream ends later, then whatever comes next on the same connection over HTTP/1.1."""
    with Wire.connect(gw.port) as wire:
        for stream in (1, 7, 13):
            wire.send(f.headers(stream, f.POST, ends=False) + f.data(stream, b"chunked", ends=True))
            assert wire.until(has_ended(stream)), wire.describe()
            wire.send(f.headers(stream + 2, (*f.POST, ("content-length", "0")), ends=False) + f.data(stream + 2, b"", ends=True))
            assert wire.until(has_ended(stream + 2)), wire.describe()
            wire.send(f.headers(stream + 4))
            assert wire.until(has_ended(stream + 4)), wire.describe()
            assert [wire.status(stream + step) for step in (0, 2, 4)] == [200, 200, 200], wire.describe()
