from __future__ import annotations

from itertools import cycle

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection as Other
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.h2_engine import READER, Asker, Echo, EchoStream, Peer, exchange
from meshgw.core.exchange import Exchange
from meshgw.wire.h2_connection import H2Settings
from meshgw.wire.h2_messages import read_request
from meshgw.wire.h2_stream import UNTOLD
from meshgw.wire.hpack import Section
from support import h2_frames as f

windows = st.sampled_from([1, 2, 100, 16383, 16384, 16385, 65535, 65536, 1 << 20])
frame_sizes = st.sampled_from([16384, 16385, 30000, 1 << 20])
paddings = st.none() | st.sampled_from([0, 1, 255])
messages = st.lists(st.tuples(st.integers(0, 3000) | st.sampled_from([16384, 40000, 70000]), st.booleans()), min_size=1, max_size=4)
pieces = st.lists(st.sampled_from([1, 5, 9, 100, 5000, 100000]), min_size=1, max_size=4)
TRAILERS = [(b"x-sum", b"1"), (b"grpc-status", b"0")]


def limited(window: int, drawn: list[tuple[int, bool]], sizes: list[int]) -> list[tuple[bytes, bool]]:
    """Bodies; a byte at a time is slow to carry, so those are short."""
    most = 100 if window < 1000 or max(sizes) < 1000 else 70000
    return [(bytes((index + 65,)) * min(size, most), has_trailers) for index, (size, has_trailers) in enumerate(drawn)]


@settings(max_examples=40)
@given(windows, windows, frame_sizes, frame_sizes, paddings, messages, pieces)
def test_no_windows_frame_sizes_or_padding_make_requests_hang(
    own: int, other: int, frame: int, other_frame: int, padding: int | None, drawn: list[tuple[int, bool]], sizes: list[int]
) -> None:
    engine = Echo(H2Settings(window=own, frame=frame, streams=100))
    engine.begin()
    peer = Peer(is_client=True, window=other, frame=other_frame, padding=padding)
    asked = limited(min(own, other), drawn, sizes)
    streams = []
    preface = peer.output()
    assert preface.startswith(f.PREFACE)
    engine.data_received(preface[len(f.PREFACE) :])
    exchange(engine, peer, cycle(sizes))
    for body, has_trailers in asked:
        streams.append(peer.ask(body, TRAILERS if has_trailers else []))
    exchange(engine, peer, cycle(sizes))
    assert engine.fault is None
    for stream, (body, has_trailers) in zip(streams, asked, strict=True):
        got = peer.received[stream]
        assert got.is_over
        assert got.body == body
        assert got.trailers == (TRAILERS if has_trailers else [])
    assert not engine.streams
    assert not engine._blocked
    assert engine._held == 0


@settings(max_examples=40)
@given(windows, windows, frame_sizes, frame_sizes, paddings, messages, pieces)
def test_no_windows_frame_sizes_or_padding_make_answers_hang(
    own: int, other: int, frame: int, other_frame: int, padding: int | None, drawn: list[tuple[int, bool]], sizes: list[int]
) -> None:
    engine = Asker(H2Settings(window=own, frame=frame, is_client=True))
    engine.begin()
    peer = Peer(is_client=False, window=other, frame=other_frame, padding=padding)
    exchange(engine, peer, cycle(sizes))  # it holds callers to its settings from the first frame on
    asked = limited(min(own, other), drawn, sizes)
    streams = [
        engine.ask(b"/%d" % index, body, [b"x-sum: 1", b"grpc-status: 0"] if tail else []) for index, (body, tail) in enumerate(asked)
    ]
    exchange(engine, peer, cycle(sizes))
    assert engine.fault is None
    for stream, (body, has_trailers) in zip(streams, asked, strict=True):
        assert stream.is_over
        assert stream.body == body
        assert stream.tail == ([b"x-sum: 1", b"grpc-status: 0"] if has_trailers else [])
    assert not engine.streams
    assert not engine._blocked


# --- the same bytes, the same verdict

BLOCK = f.block(f.POST)
streams = st.sampled_from([1, 3, 5])
LENGTHS = (("content-length", "3"),)
valid = st.one_of(
    streams.map(lambda stream: f.headers(stream, BLOCK, ends=False)),
    streams.map(lambda stream: f.headers(stream, BLOCK)),
    streams.map(lambda stream: f.headers(stream, f.plain((*f.POST, *LENGTHS)), ends=False)),
    streams.map(lambda stream: f.headers(stream, BLOCK[:4], ends=False, flags=0) + f.continuation(stream, BLOCK[4:])),
    st.builds(f.data, streams, st.binary(max_size=4), ends=st.booleans(), padding=st.none() | st.integers(0, 9)),
    streams.map(lambda stream: f.headers(stream, f.plain((("x-sum", "1"),)))),
    streams.map(f.rst_stream),
    st.builds(f.window_update, st.sampled_from([0, 1, 3, 5]), st.sampled_from([1, 1000, 0x7FFF_0000])),
    st.sampled_from([f.ping(), f.settings(), f.settings({f.WINDOW: 70000}), f.settings({f.FRAME: 20000, 0x99: 1})]),
)
wrong = st.one_of(
    st.sampled_from([0, 2]).map(lambda stream: f.data(stream, b"x")),
    st.sampled_from([0, 2]).map(lambda stream: f.headers(stream, BLOCK)),
    st.sampled_from([0, 7, 2]).map(f.rst_stream),
    st.sampled_from([f.ping(b"short"), f.frame(f.PING, 0, 1, bytes(8)), f.frame(f.SETTINGS, 0, 0, bytes(5)), f.settings({f.FRAME: 1})]),
    st.sampled_from([f.settings({f.PUSH: 2}), f.settings({f.WINDOW: 1 << 31}), f.frame(f.SETTINGS, 1, 0, bytes(6)), f.window_update(0, 0)]),
    streams.map(lambda stream: f.window_update(stream, 0)),
    st.sampled_from([f.frame(f.DATA, 8, 1, b"\x09x"), f.frame(f.RST_STREAM, 0, 1, b"x"), f.frame(f.WINDOW_UPDATE, 0, 0, b"x")]),
    streams.map(lambda stream: f.continuation(stream, b"")),
    streams.map(lambda stream: f.headers(stream, b"\xff\xff\xff\xff\xff\xff")),
    streams.map(lambda stream: f.frame(f.PUSH_PROMISE, 4, stream, f.number(2) + BLOCK)),
    streams.map(lambda stream: f.data(stream, b"x" * 16385)),
)


STRICTER = {"RST_STREAM on an idle stream", "a body shorter than content-length says"}
"""Where RFC 9113 demands an error (sections 6.4 and 8.1.1, the latter before trailers) and the other implementation sees none."""


def our_verdict(sent: list[bytes], split: int) -> str:
    """``fine``, ``stream`` when streams were reset, ``connection`` when it was ended, ``stricter`` when that was for a known difference."""
    engine = Silent(H2Settings(streams=100))
    engine.begin()
    data = f.settings() + b"".join(sent)
    for at in range(0, len(data), split):
        engine.data_received(data[at : at + split])
    found, rest = f.split(engine.output())
    assert rest == b""
    if engine.fault is not None:
        engine.reasons.append(engine.fault.reason)
    if STRICTER.intersection(engine.reasons):
        return "stricter"
    if engine.fault is not None:
        return "connection"
    return "stream" if any(frame.kind == f.RST_STREAM for frame in found) else "fine"


class Silent(Echo):
    """Answers nothing, so that streams end by what the peer says alone."""

    def __init__(self, own: H2Settings) -> None:
        super().__init__(own)
        self.reasons: list[str] = []
        """Why streams and the connection failed."""

    def opened(self, id: int) -> SilentStream:  # type: ignore[override]
        return SilentStream(self, id)


class SilentStream(EchoStream):
    """A request that is read and never answered."""

    __slots__ = ()

    def headers_received(self, section: Section, ends: bool) -> None:
        if not self.head:
            ex = Exchange()
            read_request(section, READER, ex, ends=ends)
            self.left = UNTOLD if ends else ex.length
        super().headers_received(section, ends)

    def over(self) -> None:
        pass

    def faulted(self, reason: str) -> None:
        assert isinstance(self.connection, Silent)
        self.connection.reasons.append(reason)


def their_verdict(sent: list[bytes]) -> str:
    """The same of ``h2``."""
    other = Other(H2Configuration(client_side=False, header_encoding=None))
    other.initiate_connection()
    other.data_to_send()
    try:
        other.receive_data(f.OPENING + b"".join(sent))
    except ProtocolError:
        return "connection"
    found, _ = f.split(bytes(other.data_to_send()))
    return "stream" if any(frame.kind == f.RST_STREAM for frame in found) else "fine"


@settings(max_examples=250)
@given(st.lists(valid, max_size=10), st.integers(1, 50))
def test_what_may_be_sent_has_the_verdict_of_another_implementation(sent: list[bytes], split: int) -> None:
    ours, theirs = our_verdict(sent, split), their_verdict(sent)
    assert ours == "stricter" or (ours == "fine") == (theirs == "fine"), (ours, theirs)


@settings(max_examples=250)
@given(st.lists(valid, max_size=5), wrong, st.lists(valid, max_size=3), st.integers(1, 50))
def test_what_may_not_be_sent_has_the_verdict_of_another_implementation(
    before: list[bytes], bad: bytes, after: list[bytes], split: int
) -> None:
    sent = [*before, bad, *after]
    ours, theirs = our_verdict(sent, split), their_verdict(sent)
    assert ours == "stricter" or (ours == "fine") == (theirs == "fine"), (ours, theirs)


@settings(max_examples=150)
@given(st.lists(valid | wrong, max_size=8), st.integers(1, 40))
def test_the_verdict_does_not_depend_on_how_bytes_come(sent: list[bytes], split: int) -> None:
    assert our_verdict(sent, split) == our_verdict(sent, 1 << 20)


@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("window", [1, 2, 3, 1000, 65535, 1 << 20])
def test_no_ratio_of_credit_makes_a_request_hang(window: int, ratio: float) -> None:
    engine = Echo(H2Settings(window=window, update_ratio=ratio, streams=10))
    engine.begin()
    peer = Peer(is_client=True, window=65535, frame=16384, padding=None)
    engine.data_received(peer.output()[len(f.PREFACE) :])
    exchange(engine, peer, cycle([100000]))
    body = b"x" * min(3 * window, 200000)
    stream = peer.ask(body, [])
    exchange(engine, peer, cycle([100000]))
    assert peer.received[stream].body == body
    assert peer.received[stream].is_over
