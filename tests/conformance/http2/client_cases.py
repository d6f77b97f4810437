"""What a client must make of an endpoint's frames, by section of RFC 9113 and RFC 7541, and what its caller gets to see.

Each case begins when a request has arrived on stream 1. A caller's status of 0 stands for an answer that was broken off.
"""

from __future__ import annotations

import attrs

from conformance.http2.case import Answer, Case, Goaway, Ignored, Reset, Step, case
from support import h2_frames as f
from support.h2_frames import data, frame, headers, number, ping, plain, priority, rst_stream, settings, window_update

OK = ((":status", "200"),)
ANSWER = headers(1, OK, ends=False) + data(1, b"hello", ends=True)
MOST = 16384
MALFORMED = Reset(1, f.PROTOCOL_ERROR)
CUT = 0


@attrs.frozen
class Told:
    """A case and the status that the caller sees; ``method`` is that of its request."""

    case: Case
    caller: int
    method: str = "GET"


def told(section: str, title: str, *steps: Step | Goaway | Reset | Answer | Ignored, caller: int, method: str = "GET") -> Told:
    """A case of a client."""
    return Told(case(section, title, *steps), caller, method)


def ends(section: str, title: str, sent: bytes, code: int, *, caller: int = 502) -> Told:
    """What is sent in place of an answer ends the connection."""
    return told(section, title, sent, Goaway(code), caller=caller)


def answers(section: str, title: str, sent: bytes, *, method: str = "GET", caller: int = 200) -> Told:
    """What is sent is, or contains, a whole answer."""
    return told(section, title, sent, Ignored(), caller=caller, method=method)


def malformed(section: str, title: str, sent: bytes, *, method: str = "GET", caller: int = 502) -> Told:
    """The answer is malformed, which ends its stream only."""
    return told(section, title, sent, MALFORMED, caller=caller, method=method)


def head(*fields: tuple[str | bytes, str | bytes]) -> bytes:
    """An answer's head that is wrong, as it stands."""
    return headers(1, plain((*OK, *fields)))


def within(sent: bytes) -> bytes:
    """A frame in the middle of an answer's block."""
    return headers(1, b"\x88", flags=0, ends=False) + sent + f.continuation(1, b"")


FRAMES = [
    answers("4.1", "an unknown type on the connection", frame(0xB, 0, 0, b"what?") + ANSWER),
    answers("4.1", "an unknown type on a stream", frame(0xB, 0xFF, 1, b"what?") + ANSWER),
    answers("4.1", "undefined flags", frame(f.HEADERS, 0x5 | 0xD2, 1, f.block(OK))),
    answers("4.1", "a reserved bit before the stream", frame(f.HEADERS, 0x5, 0x8000_0001, f.block(OK))),
    answers("4.2", "DATA of the largest size", headers(1, OK, ends=False) + data(1, b"x" * MOST, ends=True)),
    ends("4.2", "DATA that is too large", headers(1, OK, ends=False) + data(1, b"x" * (MOST + 1)), f.FRAME_SIZE_ERROR, caller=CUT),
    ends("4.2", "HEADERS that are too large", headers(1, plain((*OK, ("x", "y" * MOST)))), f.FRAME_SIZE_ERROR),
    ends("4.3", "a block that is wrong", headers(1, b"\x88\xff\xff\xff\xff\xff\xff"), f.COMPRESSION_ERROR),
    ends("4.3", "a wrong block as trailers", headers(1, OK, ends=False) + headers(1, b"\xc0"), f.COMPRESSION_ERROR, caller=CUT),
    ends("4.3", "DATA within a block", within(data(1, b"x")), f.PROTOCOL_ERROR),
    ends("4.3", "PING within a block", within(ping()), f.PROTOCOL_ERROR),
    ends("4.3", "SETTINGS within a block", within(settings()), f.PROTOCOL_ERROR),
    ends("4.3", "PRIORITY within a block", within(priority(1)), f.PROTOCOL_ERROR),
    ends("4.3", "HEADERS within a block", within(headers(1, b"")), f.PROTOCOL_ERROR),
    ends("4.3", "an unknown frame within a block", within(frame(0x42, 0, 1)), f.PROTOCOL_ERROR),
    ends("6.10", "CONTINUATION of another stream", within(f.continuation(3, b"")), f.PROTOCOL_ERROR),
    ends("6.10", "CONTINUATION without HEADERS", f.continuation(1, f.block(OK)), f.PROTOCOL_ERROR),
    answers("6.10", "a block in two", headers(1, b"", flags=0) + f.continuation(1, f.block(OK))),
    ends("6.10", "CONTINUATION that goes on", headers(1, b"", flags=0) + f.continuation(1, b"", ends=False) * 40, f.ENHANCE_YOUR_CALM),
]
STATES = [
    ends("5.1", "DATA on an idle stream", data(5, b"x"), f.PROTOCOL_ERROR),
    ends("5.1", "HEADERS on an idle stream", headers(5, OK), f.PROTOCOL_ERROR),
    ends("5.1", "RST_STREAM on an idle stream", rst_stream(5), f.PROTOCOL_ERROR),
    ends("5.1", "WINDOW_UPDATE on an idle stream", window_update(5, 1), f.PROTOCOL_ERROR),
    ends("5.1", "HEADERS on a stream of the endpoint's", headers(2, OK), f.PROTOCOL_ERROR),
    ends("5.1", "a request from the endpoint", headers(2), f.PROTOCOL_ERROR),
    ends("5.1", "DATA on a stream of the endpoint's", data(2, b"x"), f.PROTOCOL_ERROR),
    ends("5.1", "RST_STREAM on a stream of the endpoint's", rst_stream(2), f.PROTOCOL_ERROR),
    ends("5.1", "WINDOW_UPDATE on a stream of the endpoint's", window_update(2, 1), f.PROTOCOL_ERROR),
    ends("5.1", "DATA after the end", ANSWER + data(1, b"more"), f.STREAM_CLOSED, caller=200),
    ends("5.1", "HEADERS after the end", ANSWER + headers(1, OK), f.STREAM_CLOSED, caller=200),
    answers("5.1", "WINDOW_UPDATE after the end", ANSWER + window_update(1, 1)),
    answers("5.1", "RST_STREAM after the end", ANSWER + rst_stream(1, f.NO_ERROR)),
    answers("5.1", "PRIORITY after the end", ANSWER + priority(1)),
    answers("5.1", "PRIORITY on an idle stream", priority(77) + ANSWER),
    told("5.1", "DATA after RST_STREAM", rst_stream(1) + data(1, b"x"), Reset(1, f.STREAM_CLOSED), caller=502),
    told("5.1", "HEADERS after RST_STREAM", rst_stream(1) + headers(1, OK), Reset(1, f.STREAM_CLOSED), caller=502),
    answers("5.1", "WINDOW_UPDATE after RST_STREAM", rst_stream(1) + window_update(1, 1), caller=502),
    answers("5.1", "RST_STREAM after RST_STREAM", rst_stream(1) + rst_stream(1), caller=502),
    *(
        answers("5.4.2", f"a stream that is given up by code {code}", rst_stream(1, code), caller=502)
        for code in (f.NO_ERROR, f.PROTOCOL_ERROR, f.INTERNAL_ERROR, f.CANCEL, f.ENHANCE_YOUR_CALM, 0xD, 0xDEAD_BEEF)
    ),
    answers(
        "5.4.2", "an answer that is given up in the middle", headers(1, OK, ends=False) + data(1, b"he") + rst_stream(1, 2), caller=CUT
    ),
]
TYPES = [
    ends("6.1", "DATA on the connection", data(0, b"x"), f.PROTOCOL_ERROR),
    answers("6.1", "padded DATA", headers(1, OK, ends=False) + data(1, b"hello", padding=99, ends=True)),
    ends("6.1", "more padding than payload", headers(1, OK, ends=False) + frame(f.DATA, 8, 1, b"\x09body"), f.PROTOCOL_ERROR, caller=CUT),
    ends("6.1", "padded DATA without a length", headers(1, OK, ends=False) + frame(f.DATA, 8, 1), f.FRAME_SIZE_ERROR, caller=CUT),
    ends("6.2", "HEADERS on the connection", headers(0, OK), f.PROTOCOL_ERROR),
    answers("6.2", "padded HEADERS", frame(f.HEADERS, 0xD, 1, b"\x05" + f.block(OK) + bytes(5))),
    answers("6.2", "HEADERS with a priority", frame(f.HEADERS, 0x25, 1, number(0) + b"\x01" + f.block(OK))),
    ends("6.2", "more padding than payload", frame(f.HEADERS, 0xD, 1, b"\xff" + f.block(OK)), f.PROTOCOL_ERROR),
    malformed("5.3.1", "HEADERS that depend on themselves", frame(f.HEADERS, 0x25, 1, number(1) + b"\x0f" + f.block(OK))),
    ends("6.3", "PRIORITY on the connection", priority(0), f.PROTOCOL_ERROR),
    told("6.3", "a short PRIORITY", frame(f.PRIORITY, 0, 1, bytes(4)), Reset(1, f.FRAME_SIZE_ERROR), caller=502),
    ends("6.4", "RST_STREAM on the connection", rst_stream(0), f.PROTOCOL_ERROR),
    ends("6.4", "a short RST_STREAM", frame(f.RST_STREAM, 0, 1, bytes(3)), f.FRAME_SIZE_ERROR),
    ends("6.5", "an acknowledgement with a payload", frame(f.SETTINGS, 1, 0, bytes(6)), f.FRAME_SIZE_ERROR),
    ends("6.5", "SETTINGS on a stream", frame(f.SETTINGS, 0, 1), f.PROTOCOL_ERROR),
    ends("6.5", "SETTINGS of an odd size", frame(f.SETTINGS, 0, 0, bytes(7)), f.FRAME_SIZE_ERROR),
    ends("6.5.2", "ENABLE_PUSH of 1 from a server", settings({f.PUSH: 1}), f.PROTOCOL_ERROR),
    ends("6.5.2", "ENABLE_PUSH of 2", settings({f.PUSH: 2}), f.PROTOCOL_ERROR),
    answers("6.5.2", "ENABLE_PUSH of 0", settings({f.PUSH: 0}) + ANSWER),
    ends("6.5.2", "a window that is too large", settings({f.WINDOW: 2**31}), f.FLOW_CONTROL_ERROR),
    ends("6.5.2", "frames that are too small", settings({f.FRAME: 16383}), f.PROTOCOL_ERROR),
    ends("6.5.2", "frames that are too large", settings({f.FRAME: 2**24}), f.PROTOCOL_ERROR),
    answers("6.5.2", "unknown settings", settings({0x99: 1, 0xFFFF: 2}) + ANSWER),
    answers("6.5.2", "no table", settings({f.TABLE: 0}) + ANSWER),
    ends("6.6", "PUSH_PROMISE", frame(f.PUSH_PROMISE, 4, 1, number(2) + f.block(f.GET)), f.PROTOCOL_ERROR),
    answers("6.7", "an answer to no PING", ping(ack=True) + ANSWER),
    ends("6.7", "PING on a stream", frame(f.PING, 0, 1, bytes(8)), f.PROTOCOL_ERROR),
    ends("6.7", "a short PING", frame(f.PING, 0, 0, bytes(7)), f.FRAME_SIZE_ERROR),
    ends("6.8", "GOAWAY on a stream", frame(f.GOAWAY, 0, 1, bytes(8)), f.PROTOCOL_ERROR),
    ends("6.8", "a short GOAWAY", frame(f.GOAWAY, 0, 0, bytes(7)), f.FRAME_SIZE_ERROR),
    ends("6.9", "no credit for the connection", window_update(0, 0), f.PROTOCOL_ERROR),
    malformed("6.9", "no credit for a stream", window_update(1, 0)),
    ends("6.9", "a short WINDOW_UPDATE", frame(f.WINDOW_UPDATE, 0, 0, bytes(3)), f.FRAME_SIZE_ERROR),
    ends("6.9.1", "too much credit for the connection", window_update(0, f.LARGEST), f.FLOW_CONTROL_ERROR),
    told("6.9.1", "too much credit for a stream", window_update(1, f.LARGEST), Reset(1, f.FLOW_CONTROL_ERROR), caller=502),
    ends("10.5", "PING without end", ping() * 1100, f.ENHANCE_YOUR_CALM),
    ends("10.5", "SETTINGS without end", settings() * 1100, f.ENHANCE_YOUR_CALM),
    ends("10.5", "empty DATA without end", headers(1, OK, ends=False) + data(1) * 1100, f.ENHANCE_YOUR_CALM, caller=CUT),
]
BEGUN = headers(1, OK, ends=False) + data(1, b"x")
MESSAGES = [
    answers("8.1", "an answer", ANSWER),
    answers("8.1", "an answer without a body", headers(1, OK)),
    answers("8.1", "an answer with trailers", headers(1, OK, ends=False) + data(1, b"hello") + headers(1, (("x-sum", "1"),))),
    answers("8.1", "an answer of trailers only", headers(1, OK, ends=False) + headers(1, (("x-sum", "1"),))),
    malformed("8.1", "a body before the head", data(1, b"hello", ends=True)),
    malformed("8.1", "an end before the head", data(1, ends=True)),
    malformed("8.1", "trailers that do not end", BEGUN + headers(1, (("x", "y"),), ends=False), caller=CUT),
    malformed("8.1", "a second head", BEGUN + headers(1, OK), caller=CUT),
    malformed("8.1", "the same section again as trailers", headers(1, b"\x88", ends=False) + headers(1, b"\x88"), caller=CUT),
    answers("8.1", "an interim answer", headers(1, ((":status", "103"), ("link", "</a>")), ends=False) + ANSWER),
    malformed("8.1", "an interim answer that ends", headers(1, ((":status", "100"),))),
    malformed("8.1", "interim answers without end", headers(1, ((":status", "103"),), ends=False) * 20),
    malformed("8.1", "an interim answer after the head", BEGUN + headers(1, ((":status", "103"),), ends=False), caller=CUT),
    malformed("8.6", "101", headers(1, ((":status", "101"),), ends=False)),
    malformed(
        "8.1.1", "a body that is too short", headers(1, (*OK, ("content-length", "9")), ends=False) + data(1, b"x", ends=True), caller=CUT
    ),
    malformed(
        "8.1.1", "a body that is too long", headers(1, (*OK, ("content-length", "1")), ends=False) + data(1, b"xx", ends=True), caller=CUT
    ),
    malformed("8.1.1", "a length without a body", head(("content-length", "5"))),
    malformed("8.1.1", "two lengths", head(("content-length", "0"), ("content-length", "0"))),
    malformed("8.1.1", "a length that is no number", head(("content-length", "five"))),
    answers("8.1.1", "a length in an answer to HEAD", headers(1, (*OK, ("content-length", "5"))), method="HEAD"),
    answers("8.1.1", "a late end of it", headers(1, (*OK, ("content-length", "5")), ends=False) + data(1, ends=True), method="HEAD"),
    malformed("8.1.1", "a body in an answer to HEAD", BEGUN, method="HEAD", caller=CUT),
    answers("8.1.1", "a length in 304", headers(1, ((":status", "304"), ("content-length", "5"))), caller=304),
    answers(
        "8.1.1", "a late end of 304", headers(1, ((":status", "304"), ("content-length", "5")), ends=False) + data(1, ends=True), caller=304
    ),
    malformed("8.1.1", "a body in 304", headers(1, ((":status", "304"),), ends=False) + data(1, b"x"), caller=CUT),
    malformed("8.1.1", "a body in 204", headers(1, ((":status", "204"),), ends=False) + data(1, b"x"), caller=CUT),
    malformed("8.2", "an upper-case name", head(("X-Test", "1"))),
    malformed("8.2", "an empty name", head(("", "1"))),
    malformed("8.2", "a space in a name", head(("x y", "1"))),
    malformed("8.2", "a colon in a name", head(("x:y", "1"))),
    malformed("8.2", "a line end in a name", head(("x\r\ny", "1"))),
    malformed("8.2.1", "a line end in a value", head(("x", "y\r\nset-cookie: a=b"))),
    malformed("8.2.1", "a line feed in a value", head(("x", "y\nz"))),
    malformed("8.2.1", "a zero byte in a value", head(("x", "y\0z"))),
    malformed("8.2.1", "a space before a value", head(("x", " y"))),
    malformed("8.2.1", "a tab behind a value", head(("x", "y\t"))),
    *(
        malformed("8.2.2", name, head((name, value)))
        for name, value in (
            *(("connection", "close"), ("keep-alive", "max=1"), ("proxy-connection", "close")),
            *(("transfer-encoding", "chunked"), ("upgrade", "h2c")),
        )
    ),
    malformed("8.2.2", "transfer-encoding in trailers", BEGUN + headers(1, (("transfer-encoding", "chunked"),)), caller=CUT),
    malformed("8.3", "one of requests", headers(1, plain((*OK, (":path", "/"))))),
    malformed("8.3", "an unknown one", headers(1, plain((*OK, (":what", "?"))))),
    malformed("8.3", "one after a regular field", headers(1, plain((("x", "y"), *OK)))),
    malformed("8.3", "one in trailers", BEGUN + headers(1, plain(((":status", "200"),))), caller=CUT),
    malformed("8.3.2", "no :status", headers(1, (("x", "y"),))),
    malformed("8.3.2", "nothing at all", headers(1, b"")),
    malformed("8.3.2", ":status twice", headers(1, plain((*OK, *OK)))),
    *(
        malformed("8.3.2", f"a status of {value!r}", headers(1, plain(((":status", value),))))
        for value in ("", "ok", "20", "2000", "099", "+20", "200 OK", "20\r")
    ),
    answers("8.2.3", "fields that come twice", headers(1, (*OK, ("set-cookie", "a=b"), ("set-cookie", "c=d")))),
]
COMPRESSION = [
    ends("RFC 7541 6.1", "an index of 0", headers(1, b"\x88\x80"), f.COMPRESSION_ERROR),
    ends("RFC 7541 2.3.3", "an index beyond both tables", headers(1, b"\x88\xbe"), f.COMPRESSION_ERROR),
    ends("RFC 7541 4.2", "a new size after a field", headers(1, b"\x88\x20"), f.COMPRESSION_ERROR),
    ends("RFC 7541 6.3", "a size beyond the limit", headers(1, b"\x3f\xe2\x1f\x88"), f.COMPRESSION_ERROR),
    ends("RFC 7541 5.2", "padding of more than seven bits", headers(1, b"\x88\x00\x01x\x82\x1f\xff"), f.COMPRESSION_ERROR),
    ends("RFC 7541 5.2", "padding that is not of ones", headers(1, b"\x88\x00\x01x\x81\x18"), f.COMPRESSION_ERROR),
    ends("RFC 7541 5.2", "the code of the end", headers(1, b"\x88\x00\x01x\x84\xff\xff\xff\xff"), f.COMPRESSION_ERROR),
    ends("RFC 7541 5.1", "an integer without end", headers(1, b"\x88" + b"\xff" * 12 + b"\x01"), f.COMPRESSION_ERROR),
    ends("RFC 7541 5.2", "a value that is cut off", headers(1, b"\x88\x40\x01x\x05y"), f.COMPRESSION_ERROR),
    answers("RFC 7541 6.2.3", "a field that is never indexed", headers(1, b"\x88\x10\x01x\x01y")),
]
CASES = [*FRAMES, *STATES, *TYPES, *MESSAGES, *COMPRESSION]
