"""What a server must make of frames, by section of RFC 9113 and RFC 7541. ``never`` in a request means that no service may see it."""

from __future__ import annotations

from conformance.http2.case import Answer, Case, Goaway, Ignored, Reset, Step, case, has_answer, has_ended, has_ponged, has_reset
from support import h2_frames as f
from support.h2_frames import GET, POST, data, frame, headers, number, ping, plain, priority, rst_stream, settings, window_update

BLOCKED = f.PREFACE + settings({f.WINDOW: 0})
"""An opening after which answers cannot come to their end, so that streams stay half-closed by us."""
NEVER = (("x-never", "1"),)
MOST = 16384
NOWHERE = (*POST[:3], (":authority", "nowhere"))
"""To no service, so that it is answered before its body has come."""
STREAMS = 20
"""What the gateway under test is told to allow."""

HALF_CLOSED: tuple[Step, ...] = (headers(1), has_answer(1))
CLOSED: tuple[Step, ...] = (headers(1), has_ended(1))
GIVEN_UP: tuple[Step, ...] = (headers(1, POST, ends=False), rst_stream(1))
REFUSED: tuple[Step, ...] = (headers(1, NOWHERE, ends=False), has_reset(1))


def never(*fields: tuple[str | bytes, str | bytes], base: tuple[tuple[str, str], ...] = GET) -> bytes:
    """A request that is to be refused, written as it stands."""
    return headers(1, plain((*base, *NEVER, *fields)))


def request(**pseudo: str | None) -> bytes:
    """A request with other pseudo-header fields than usual; None leaves one out."""
    fields = {"method": "GET", "scheme": "http", "path": "/", "authority": "web", **pseudo}
    return headers(1, plain([(f":{name}", value) for name, value in fields.items() if value is not None] + list(NEVER)))


MALFORMED = Reset(1, f.PROTOCOL_ERROR)
BEGINNINGS = [
    case("3.4", "a preface that is wrong", Goaway(f.PROTOCOL_ERROR), opening=b"\0\1 no preface at all\r\n\r\n"),
    case("3.4", "a preface that goes wrong late", Goaway(f.PROTOCOL_ERROR), opening=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX" + settings()),
    case("3.4", "another frame than SETTINGS first", Goaway(f.PROTOCOL_ERROR), opening=f.PREFACE + ping()),
    case("3.4", "an acknowledgement first", Goaway(f.PROTOCOL_ERROR), opening=f.PREFACE + settings(ack=True)),
    case("3.4", "a request before SETTINGS", Goaway(f.PROTOCOL_ERROR), opening=f.PREFACE + headers(1)),
    case("3.4", "a request with the preface", headers(1), Answer()),
    case("3.4", "SETTINGS of many values", headers(1), Answer(), opening=f.PREFACE + settings({f.STREAMS: 1, f.LIST: 8000, f.PUSH: 0})),
]
FRAMES = [
    case("4.1", "an unknown type on the connection", frame(0xB, 0, 0, b"what?"), Ignored()),
    case("4.1", "an unknown type on a stream", headers(1, POST, ends=False), frame(0x16, 0xFF, 1, b"?"), data(1, ends=True), Answer()),
    case("4.1", "an unknown type on an idle stream", frame(0xEE, 0, 77, b""), Ignored()),
    case("4.1", "undefined flags of PING", frame(f.PING, 0xFE, 0, b"8 bytes."), has_ponged, Ignored()),
    case("4.1", "undefined flags of DATA", headers(1, POST, ends=False), frame(f.DATA, 0x96 & ~0x8 | 0x1, 1, b"x"), Answer()),
    case("4.1", "undefined flags of HEADERS", headers(1, GET, flags=0x4 | 0xD2), Answer()),
    case("4.1", "a reserved bit before the stream", frame(f.HEADERS, 0x5, 0x8000_0001, f.block(GET)), Answer()),
    case("4.2", "DATA of the largest size", headers(1, POST, ends=False), data(1, b"x" * MOST, ends=True), Answer()),
    case("4.2", "DATA that is too large", headers(1, POST, ends=False), data(1, b"x" * (MOST + 1)), Goaway(f.FRAME_SIZE_ERROR)),
    case("4.2", "HEADERS that are too large", headers(1, plain((*GET, ("x", "y" * MOST)))), Goaway(f.FRAME_SIZE_ERROR)),
    case("4.2", "SETTINGS that are too large", settings([(0x99, 1)] * (MOST // 6 + 1)), Goaway(f.FRAME_SIZE_ERROR)),
    case("4.2", "an unknown frame that is too large", frame(0xCC, 0, 0, b"x" * (MOST + 1)), Goaway(f.FRAME_SIZE_ERROR)),
    case("4.3", "a block that is wrong", headers(1, b"\x82\x84\xff\xff\xff\xff\xff\xff"), Goaway(f.COMPRESSION_ERROR)),
    case("4.3", "a wrong block on a closed stream", *REFUSED, headers(1, b"\x80"), Goaway(f.COMPRESSION_ERROR)),
    case("4.3", "a wrong block as trailers", headers(1, POST, ends=False), headers(1, b"\xc0"), Goaway(f.COMPRESSION_ERROR)),
    case(
        "4.3",
        "the table holds what came on a stream that was given up",
        *REFUSED,
        headers(1, b"\x40\x0ax-compress\x01a"),
        headers(3, f.plain(GET) + b"\xbe"),
        Answer(3),
    ),
]


def between(frame: bytes) -> tuple[Step, ...]:
    """A frame in the middle of a header block."""
    block = f.block(GET)
    return headers(1, block[:4], flags=0) + frame + f.continuation(1, block[4:]), Goaway(f.PROTOCOL_ERROR)  # type: ignore[return-value]


BLOCKS = [
    case("4.3", "DATA within a block", *between(data(1, b"x"))),
    case("4.3", "HEADERS within a block", *between(headers(1, b""))),
    case("4.3", "HEADERS of another stream within a block", *between(headers(3))),
    case("4.3", "PRIORITY within a block", *between(priority(1))),
    case("4.3", "RST_STREAM within a block", *between(rst_stream(1))),
    case("4.3", "SETTINGS within a block", *between(settings())),
    case("4.3", "PING within a block", *between(ping())),
    case("4.3", "GOAWAY within a block", *between(f.goaway())),
    case("4.3", "WINDOW_UPDATE within a block", *between(window_update(0, 1))),
    case("4.3", "an unknown frame within a block", *between(frame(0x42, 0, 1, b"?"))),
    case("6.10", "CONTINUATION of another stream", *between(f.continuation(3, b""))),
    case("6.10", "CONTINUATION on the connection", *between(f.continuation(0, b""))),
    case("6.10", "a block in two", headers(1, f.block(GET)[:5], flags=0), f.continuation(1, f.block(GET)[5:]), Answer()),
    case(
        "6.10",
        "a block in many",
        headers(1, b"", flags=0) + b"".join(f.continuation(1, bytes((octet,)), ends=False) for octet in f.block(GET)[:12]),
        f.continuation(1, f.block(GET)[12:], ends=False) + f.continuation(1, b""),
        Answer(),
    ),
    case("6.10", "CONTINUATION without HEADERS", f.continuation(1, f.block(GET)), Goaway(f.PROTOCOL_ERROR)),
    case(
        "6.10", "CONTINUATION after the end of the block", headers(1, POST, ends=False) + f.continuation(1, b""), Goaway(f.PROTOCOL_ERROR)
    ),
    case(
        "6.10", "CONTINUATION after DATA", headers(1, POST, ends=False) + data(1, b"x") + f.continuation(1, b""), Goaway(f.PROTOCOL_ERROR)
    ),
    case(
        "6.10", "CONTINUATION that goes on", headers(1, b"", flags=0) + f.continuation(1, b"", ends=False) * 40, Goaway(f.ENHANCE_YOUR_CALM)
    ),
    case(
        "6.10",
        "CONTINUATION without an end to it",
        headers(1, b"", flags=0) + f.continuation(1, b"\0\1x\1y" * 3000, ends=False) * 40,
        Goaway(f.ENHANCE_YOUR_CALM),
    ),
]
STATES = [
    case("5.1", "DATA on an idle stream", data(1, b"x"), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "RST_STREAM on an idle stream", rst_stream(1), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "WINDOW_UPDATE on an idle stream", window_update(1, 1), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "CONTINUATION on an idle stream", f.continuation(1, b""), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "PRIORITY on an idle stream", priority(1, 3), Ignored()),
    case("5.1", "DATA on a stream that the server could open", data(2, b"x"), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "RST_STREAM on a stream that the server could open", rst_stream(2), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "WINDOW_UPDATE on a stream that the server could open", window_update(2, 1), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "DATA on a half-closed stream", *HALF_CLOSED, data(1, b"x"), Reset(1, f.STREAM_CLOSED), opening=BLOCKED),
    case("5.1", "HEADERS on a half-closed stream", *HALF_CLOSED, headers(1), Reset(1, f.STREAM_CLOSED), opening=BLOCKED),
    case("5.1", "CONTINUATION on a half-closed stream", *HALF_CLOSED, f.continuation(1, b""), Goaway(f.PROTOCOL_ERROR), opening=BLOCKED),
    case("5.1", "WINDOW_UPDATE on a half-closed stream", *HALF_CLOSED, window_update(1, 100), Answer(), opening=BLOCKED),
    case("5.1", "PRIORITY on a half-closed stream", *HALF_CLOSED, priority(1), window_update(1, 100), Answer(), opening=BLOCKED),
    case("5.1", "RST_STREAM on a half-closed stream", *HALF_CLOSED, rst_stream(1), Ignored(), opening=BLOCKED),
    case("5.1", "DATA on a closed stream", *CLOSED, data(1, b"x"), Goaway(f.STREAM_CLOSED)),
    case("5.1", "HEADERS on a closed stream", *CLOSED, headers(1), Goaway(f.STREAM_CLOSED)),
    case("5.1", "CONTINUATION on a closed stream", *CLOSED, f.continuation(1, b""), Goaway(f.PROTOCOL_ERROR)),
    case("5.1", "WINDOW_UPDATE on a closed stream", *CLOSED, window_update(1, 1), Ignored()),
    case("5.1", "RST_STREAM on a closed stream", *CLOSED, rst_stream(1), Ignored()),
    case("5.1", "PRIORITY on a closed stream", *CLOSED, priority(1), Ignored()),
    case("5.1", "DATA after RST_STREAM", *GIVEN_UP, data(1, b"x"), Reset(1, f.STREAM_CLOSED)),
    case("5.1", "HEADERS after RST_STREAM", *GIVEN_UP, headers(1), Reset(1, f.STREAM_CLOSED)),
    case("5.1", "WINDOW_UPDATE after RST_STREAM", *GIVEN_UP, window_update(1, 1), Ignored()),
    case("5.1", "RST_STREAM after RST_STREAM", *GIVEN_UP, rst_stream(1), Ignored()),
    case("5.1", "PRIORITY after RST_STREAM", *GIVEN_UP, priority(1), Ignored()),
    case("5.1", "DATA after the server's RST_STREAM", *REFUSED, data(1, b"x"), Ignored()),
    case("5.1", "trailers after the server's RST_STREAM", *REFUSED, headers(1, (("x-sum", "1"),)), Ignored()),
    case("5.1", "WINDOW_UPDATE after the server's RST_STREAM", *REFUSED, window_update(1, 1), Ignored()),
    case("5.1", "RST_STREAM after the server's RST_STREAM", *REFUSED, rst_stream(1), Ignored()),
    case("5.1.1", "a stream of an even number", headers(2), Goaway(f.PROTOCOL_ERROR)),
    case("5.1.1", "a stream of a smaller number", headers(5), has_ended(5), headers(3), Goaway(f.PROTOCOL_ERROR)),
    case("5.1.1", "streams that are left out", headers(1), headers(9), headers(0x101), Answer(0x101)),
    case("5.1.1", "DATA on a stream that was left out", headers(5), has_ended(5), data(3, b"x"), Reset(3, f.STREAM_CLOSED)),
    case("5.1.1", "WINDOW_UPDATE on a stream that was left out", headers(5), has_ended(5), window_update(3, 9), Ignored()),
    case(
        "5.1.2",
        "more streams than allowed",
        b"".join(headers(2 * index + 1) for index in range(STREAMS + 1)),
        lambda wire: all(wire.status(2 * index + 1) for index in range(STREAMS)),
        Reset(2 * STREAMS + 1, f.REFUSED_STREAM),
        opening=BLOCKED,
    ),
    case(
        "5.1.2",
        "streams that ended do not count",
        *(step for index in range(STREAMS + 5) for step in (headers(2 * index + 1), has_ended(2 * index + 1))),
        headers(99),
        Answer(99),
    ),
    case(
        "5.1.2",
        "streams that were given up do not count",
        b"".join(headers(2 * index + 1, POST, ends=False) + rst_stream(2 * index + 1) for index in range(STREAMS + 5)),
        headers(99),
        Answer(99),
    ),
    case("5.3.1", "HEADERS with a priority", frame(f.HEADERS, 0x25, 1, number(0x8000_0003) + b"\xff" + f.block(GET)), Answer()),
    case("5.3.1", "HEADERS that depend on themselves", frame(f.HEADERS, 0x25, 1, number(1) + b"\x0f" + f.block(GET)), MALFORMED),
    case("5.3.1", "PRIORITY of a stream on itself", headers(1, POST, ends=False), priority(1, 1), MALFORMED),
    case("5.5", "an unknown setting", settings({0x99: 7, 0xFFFF: 1}), headers(1), Answer()),
]
TYPES = [
    case("6.1", "DATA on the connection", data(0, b"x"), Goaway(f.PROTOCOL_ERROR)),
    case("6.1", "padded DATA", headers(1, POST, ends=False), data(1, b"body", padding=200, ends=True), Answer()),
    case("6.1", "DATA of padding only", headers(1, POST, ends=False), data(1, b"", padding=255), data(1, b"x", ends=True), Answer()),
    case("6.1", "as much padding as payload", headers(1, POST, ends=False), frame(f.DATA, 0x8, 1, b"\x05body"), Goaway(f.PROTOCOL_ERROR)),
    case("6.1", "more padding than payload", headers(1, POST, ends=False), frame(f.DATA, 0x8, 1, b"\xffbody"), Goaway(f.PROTOCOL_ERROR)),
    case("6.1", "padded DATA without a length", headers(1, POST, ends=False), frame(f.DATA, 0x8, 1), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.2", "HEADERS on the connection", headers(0), Goaway(f.PROTOCOL_ERROR)),
    case("6.2", "padded HEADERS", frame(f.HEADERS, 0xD, 1, b"\x05" + f.block(GET) + bytes(5)), Answer()),
    case("6.2", "padded HEADERS with a priority", frame(f.HEADERS, 0x2D, 1, b"\x01" + number(0) + b"\1" + f.block(GET) + b"\0"), Answer()),
    case("6.2", "more padding than payload", frame(f.HEADERS, 0xD, 1, b"\xff" + f.block(GET)), Goaway(f.PROTOCOL_ERROR)),
    case("6.2", "padding over the priority", frame(f.HEADERS, 0x2D, 1, b"\x05" + number(0) + b"\1\0\0"), Goaway(f.PROTOCOL_ERROR)),
    case("6.2", "padded HEADERS without a length", frame(f.HEADERS, 0xD, 1), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.2", "HEADERS too short for a priority", frame(f.HEADERS, 0x25, 1, b"\0\0\0"), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.3", "PRIORITY on the connection", priority(0), Goaway(f.PROTOCOL_ERROR)),
    case("6.3", "a short PRIORITY", headers(1, POST, ends=False), frame(f.PRIORITY, 0, 1, b"\0" * 4), Reset(1, f.FRAME_SIZE_ERROR)),
    case("6.3", "a long PRIORITY", headers(1, POST, ends=False), frame(f.PRIORITY, 0, 1, b"\0" * 6), Reset(1, f.FRAME_SIZE_ERROR)),
    case("6.3", "a short PRIORITY on an idle stream", frame(f.PRIORITY, 0, 1, b"\0" * 4), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.4", "RST_STREAM on the connection", rst_stream(0), Goaway(f.PROTOCOL_ERROR)),
    case("6.4", "a short RST_STREAM", headers(1, POST, ends=False), frame(f.RST_STREAM, 0, 1, b"\0\0\0"), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.4", "a long RST_STREAM", headers(1, POST, ends=False), frame(f.RST_STREAM, 0, 1, bytes(5)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.4", "a short RST_STREAM on a closed stream", *CLOSED, frame(f.RST_STREAM, 0, 1, b"\0"), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.5", "an acknowledgement with a payload", frame(f.SETTINGS, 1, 0, bytes(6)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.5", "SETTINGS on a stream", frame(f.SETTINGS, 0, 1), Goaway(f.PROTOCOL_ERROR)),
    case("6.5", "an acknowledgement on a stream", frame(f.SETTINGS, 1, 1), Goaway(f.PROTOCOL_ERROR)),
    case("6.5", "SETTINGS of an odd size", frame(f.SETTINGS, 0, 0, bytes(7)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.5", "SETTINGS of five bytes", frame(f.SETTINGS, 0, 0, bytes(5)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.5", "an acknowledgement that nobody waits for", settings(ack=True) * 3, Ignored()),
    case("6.5.2", "ENABLE_PUSH of 2", settings({f.PUSH: 2}), Goaway(f.PROTOCOL_ERROR)),
    case("6.5.2", "a window that is too large", settings({f.WINDOW: 2**31}), Goaway(f.FLOW_CONTROL_ERROR)),
    case("6.5.2", "frames that are too small", settings({f.FRAME: 16383}), Goaway(f.PROTOCOL_ERROR)),
    case("6.5.2", "frames that are too large", settings({f.FRAME: 2**24}), Goaway(f.PROTOCOL_ERROR)),
    case("6.5.2", "the largest of all", settings({f.FRAME: 2**24 - 1, f.WINDOW: f.LARGEST, f.TABLE: 2**32 - 1}), headers(1), Answer()),
    case("6.5.2", "no streams for the server", settings({f.STREAMS: 0}), headers(1), Answer()),
    case("6.5.3", "values in their order", settings([(f.WINDOW, 0), (f.WINDOW, 1000)]), headers(1), Answer(), opening=BLOCKED),
    case("6.6", "PUSH_PROMISE from a client", frame(f.PUSH_PROMISE, 4, 1, number(2) + f.block(GET)), Goaway(f.PROTOCOL_ERROR)),
    case(
        "6.6",
        "PUSH_PROMISE on an open stream",
        headers(1, POST, ends=False),
        frame(f.PUSH_PROMISE, 4, 1, number(2) + f.block(GET)),
        Goaway(f.PROTOCOL_ERROR),
    ),
    case("6.7", "an answer that nobody waits for", ping(b"not sent", ack=True), Ignored()),
    case("6.7", "PING on a stream", frame(f.PING, 0, 1, bytes(8)), Goaway(f.PROTOCOL_ERROR)),
    case("6.7", "a short PING", frame(f.PING, 0, 0, bytes(7)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.7", "a long PING", frame(f.PING, 0, 0, bytes(9)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.8", "GOAWAY on a stream", frame(f.GOAWAY, 0, 1, bytes(8)), Goaway(f.PROTOCOL_ERROR)),
    case("6.8", "a short GOAWAY", frame(f.GOAWAY, 0, 0, bytes(7)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.8", "GOAWAY while a request is under way", headers(1), f.goaway(0, f.NO_ERROR, b"bye"), Answer()),
    case("6.9", "no credit for the connection", window_update(0, 0), Goaway(f.PROTOCOL_ERROR)),
    case("6.9", "no credit for a stream", headers(1, POST, ends=False), window_update(1, 0), MALFORMED),
    case("6.9", "a short WINDOW_UPDATE", frame(f.WINDOW_UPDATE, 0, 0, bytes(3)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.9", "a long WINDOW_UPDATE", frame(f.WINDOW_UPDATE, 0, 0, bytes(5)), Goaway(f.FRAME_SIZE_ERROR)),
    case("6.9.1", "too much credit for the connection", window_update(0, f.LARGEST), Goaway(f.FLOW_CONTROL_ERROR)),
    case("6.9.1", "as much credit as there is", window_update(0, f.LARGEST - 65535), headers(1), Answer()),
    case(
        "6.9.1",
        "too much credit for a stream",
        headers(1, POST, ends=False),
        window_update(1, f.LARGEST),
        Reset(1, f.FLOW_CONTROL_ERROR),
    ),
    case(
        "6.9.2",
        "too much credit by SETTINGS",
        headers(1, POST, ends=False),
        window_update(1, f.LARGEST - 65535),
        settings({f.WINDOW: 65536}),
        Goaway(f.FLOW_CONTROL_ERROR),
    ),
    case("6.9.2", "credit by SETTINGS for a stream that waits", *HALF_CLOSED, settings({f.WINDOW: 100}), Answer(), opening=BLOCKED),
    case("7", "an unknown code in RST_STREAM", headers(1, POST, ends=False), rst_stream(1, 0xDEAD_BEEF), Ignored()),
    case("7", "an unknown code in GOAWAY", f.goaway(0, 0xDEAD_BEEF), Ignored()),
]
MESSAGES = [
    case("8.1", "trailers", headers(1, POST, ends=False), data(1, b"x"), headers(1, (("x-sum", "1"),)), Answer()),
    case("8.1", "trailers without a body", headers(1, POST, ends=False), headers(1, (("x-sum", "1"),)), Answer()),
    case("8.1", "trailers that do not end", headers(1, (*POST, *NEVER), ends=False), headers(1, (("a", "b"),), ends=False), MALFORMED),
    case("8.1", "the same section again as trailers", headers(1, (*POST, *NEVER), ends=False), headers(1, POST), MALFORMED),
    case("8.1", "an answer before the end of the request", headers(1, NOWHERE, ends=False), Reset(1, f.NO_ERROR)),
    case(
        "8.1.1",
        "a body that is too short",
        headers(1, (*POST, ("content-length", "5")), ends=False),
        data(1, b"four", ends=True),
        MALFORMED,
    ),
    case(
        "8.1.1",
        "a body that is too long",
        headers(1, (*POST, ("content-length", "5")), ends=False),
        data(1, b"sixsix", ends=True),
        MALFORMED,
    ),
    case(
        "8.1.1",
        "a body that is too long at last",
        headers(1, (*POST, ("content-length", "5")), ends=False),
        data(1, b"four") + data(1, b"four"),
        MALFORMED,
    ),
    case(
        "8.1.1",
        "a body that is too short before trailers",
        headers(1, (*POST, ("content-length", "5")), ends=False),
        data(1, b"four") + headers(1, (("x", "y"),)),
        MALFORMED,
    ),
    case("8.1.1", "a length without a body", never(("content-length", "5"), base=POST), MALFORMED),
    case("8.1.1", "a length of none", headers(1, (*POST, ("content-length", "0"))), Answer()),
    case(
        "8.1.1",
        "a body of the length told",
        headers(1, (*POST, ("content-length", "4")), ends=False),
        data(1, b"four", ends=True),
        Answer(),
    ),
    case(
        "8.1.1",
        "a body in pieces",
        headers(1, (*POST, ("content-length", "4")), ends=False),
        data(1, b"fo") + data(1, b"ur", ends=True),
        Answer(),
    ),
    case("8.1.1", "no body, as told, at last", headers(1, (*POST, ("content-length", "0")), ends=False) + data(1, ends=True), Answer()),
    case(
        "8.1.1",
        "a body where none was told",
        headers(1, (*POST, ("content-length", "0")), ends=False) + data(1, b"x", ends=True),
        MALFORMED,
    ),
    case("8.1.1", "two lengths", never(("content-length", "0"), ("content-length", "0")), MALFORMED),
    case("8.1.1", "a length that is no number", never(("content-length", "+0")), MALFORMED),
    case("8.2", "an upper-case name", never(("X-Test", "1")), MALFORMED),
    case("8.2", "an empty name", never(("", "1")), MALFORMED),
    case("8.2", "a space in a name", never(("x y", "1")), MALFORMED),
    case("8.2", "a colon in a name", never(("x:y", "1")), MALFORMED),
    case("8.2", "a line end in a name", never(("x\r\ny", "1")), MALFORMED),
    case("8.2", "a byte of no text in a name", never((b"x\xff", "1")), MALFORMED),
    case("8.2", "a deletion in a name", never(("x\x7f", "1")), MALFORMED),
    case("8.2.1", "a zero byte in a value", never(("x", "a\0b")), MALFORMED),
    case("8.2.1", "a line feed in a value", never(("x", "a\nb: c")), MALFORMED),
    case("8.2.1", "a carriage return in a value", never(("x", "a\rb")), MALFORMED),
    case("8.2.1", "a space before a value", never(("x", " a")), MALFORMED),
    case("8.2.1", "a space behind a value", never(("x", "a ")), MALFORMED),
    case("8.2.1", "a tab before a value", never(("x", "\ta")), MALFORMED),
    case("8.2.1", "a tab behind a value", never(("x", "a\t")), MALFORMED),
    case("8.2.1", "an empty value", headers(1, (*GET, ("x", ""))), Answer()),
    case("8.2.1", "a value of bytes beyond ASCII", headers(1, plain((*GET, ("x", b"\xe2\x82\xac")))), Answer()),
    case("8.2.2", "connection", never(("connection", "close")), MALFORMED),
    case("8.2.2", "keep-alive", never(("keep-alive", "timeout=5")), MALFORMED),
    case("8.2.2", "proxy-connection", never(("proxy-connection", "keep-alive")), MALFORMED),
    case("8.2.2", "transfer-encoding", never(("transfer-encoding", "chunked"), base=POST), MALFORMED),
    case("8.2.2", "upgrade", never(("upgrade", "h2c")), MALFORMED),
    case("8.2.2", "te of another value", never(("te", "trailers, deflate")), MALFORMED),
    case("8.2.2", "te of trailers", headers(1, (*GET, ("te", "trailers"))), Answer()),
    case("8.2.2", "connection in trailers", headers(1, (*POST, *NEVER), ends=False), headers(1, (("connection", "close"),)), MALFORMED),
    case("8.3", "an unknown pseudo-header field", headers(1, plain((*GET, (":protocol", "websocket"), *NEVER))), MALFORMED),
    case("8.3", "one of answers", headers(1, plain((*GET, (":status", "200"), *NEVER))), MALFORMED),
    case("8.3", "one after a regular field", headers(1, plain((*GET[:3], *NEVER, GET[3]))), MALFORMED),
    case("8.3", "one in trailers", headers(1, (*POST, *NEVER), ends=False), headers(1, plain(((":path", "/"),))), MALFORMED),
    case("8.3", "one that ends in nothing", headers(1, plain((*GET, (":", "x"), *NEVER))), MALFORMED),
    case("8.3.1", "no :method", request(method=None), MALFORMED),
    case("8.3.1", "no :scheme", request(scheme=None), MALFORMED),
    case("8.3.1", "no :path", request(path=None), MALFORMED),
    case("8.3.1", "nothing at all", headers(1, b""), MALFORMED),
    case("8.3.1", "an empty :path", request(path=""), MALFORMED),
    case("8.3.1", "a :path without a slash", request(path="never"), MALFORMED),
    case("8.3.1", "a space in :path", request(path="/never HTTP/1.1"), MALFORMED),
    case("8.3.1", "a line end in :path", request(path="/ HTTP/1.1\r\nx-never: 1\r\n\r\n"), MALFORMED),
    case("8.3.1", "a star for GET", request(path="*"), MALFORMED),
    case("8.3.1", "a star for OPTIONS", headers(1, ((":method", "OPTIONS"), GET[1], (":path", "*"), GET[3])), Answer()),
    case("8.3.1", "an empty :method", request(method=""), MALFORMED),
    case("8.3.1", "a space in :method", request(method="GET /never"), MALFORMED),
    case("8.3.1", "an empty :scheme", request(scheme=""), MALFORMED),
    case("8.3.1", "an empty :authority", request(authority=""), MALFORMED),
    case("8.3.1", "a name and a password in :authority", request(authority="me:secret@web"), MALFORMED),
    case("8.3.1", "a line end in :authority", request(authority="web\r\nx-never: 1"), MALFORMED),
    case("8.3.1", "a path in :authority", request(authority="web/never"), MALFORMED),
    *(
        case("8.3.1", f"{name} twice", headers(1, plain((*GET, (name, value), *NEVER))), MALFORMED)
        for name, value in (*GET[:3], (":authority", "web"))
    ),
    case("8.3.1", "Host in place of :authority", headers(1, (*GET[:3], ("host", "web"))), Answer()),
    case("8.3.1", "Host beside the same :authority", headers(1, (*GET, ("host", "web"))), Answer()),
    case("8.3.1", "Host beside another :authority", never(("host", "other")), MALFORMED),
    case("8.3.1", "neither Host nor :authority", headers(1, plain((*GET[:3], *NEVER))), Answer(1, 400)),
    case("8.5", "CONNECT", headers(1, ((":method", "CONNECT"), (":authority", "web:443"))), Answer(1, 405)),
    case("8.5", "CONNECT with :path and :scheme", request(method="CONNECT"), MALFORMED),
    case("8.5", "CONNECT with :path and :scheme, without :authority", request(method="CONNECT", authority=None), MALFORMED),
    case("8.5", "CONNECT without :authority", request(method="CONNECT", authority=None, path=None, scheme=None), MALFORMED),
    case(
        "10.5.1",
        "a section that is too large",
        *[
            headers(1, plain(GET), flags=0)
            + b"".join(f.continuation(1, plain([(f"x{number}", "y" * 12000)]), ends=False) for number in range(6))
            + f.continuation(1, b"")
        ],
        Answer(1, 431),
    ),
]
FLOODS = [
    case("10.5", "PING without end", ping() * 1100, Goaway(f.ENHANCE_YOUR_CALM)),
    case("10.5", "SETTINGS without end", settings() * 1100, Goaway(f.ENHANCE_YOUR_CALM)),
    case("10.5", "PRIORITY without end", priority(1) * 1100, Goaway(f.ENHANCE_YOUR_CALM)),
    case("10.5", "empty DATA without end", headers(1, POST, ends=False), data(1) * 1100, Goaway(f.ENHANCE_YOUR_CALM)),
    case("10.5", "unknown frames without end", frame(0x77) * 1100, Goaway(f.ENHANCE_YOUR_CALM)),
    case(
        "10.5",
        "streams that are given up at once",
        b"".join(headers(2 * index + 1, POST, ends=False) + rst_stream(2 * index + 1) for index in range(1100)),
        Goaway(f.ENHANCE_YOUR_CALM),
    ),
    case(
        "10.5",
        "streams that the server is made to give up",
        b"".join(headers(2 * index + 1, POST, ends=False) + window_update(2 * index + 1, 0) for index in range(1100)),
        Goaway(f.ENHANCE_YOUR_CALM),
    ),
    case(
        "10.5",
        "streams beyond the limit",
        b"".join(headers(2 * index + 1, POST, ends=False) for index in range(1100)),
        Goaway(f.ENHANCE_YOUR_CALM),
    ),
    case(
        "10.5",
        "a table that is filled and named",
        headers(1, b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 12000),
        Goaway(f.ENHANCE_YOUR_CALM),
    ),
]
HEAD = plain(GET)


def compressed(title: str, tail: bytes, section: str = "5.2", *, head: bytes = b"") -> Case:
    """A block that is wrong at its beginning or end."""
    return case(f"RFC 7541 {section}", title, headers(1, head + HEAD + tail), Goaway(f.COMPRESSION_ERROR))


COMPRESSION = [
    compressed("an index of 0", b"\x80", "6.1"),
    compressed("an index beyond both tables", b"\xbe", "2.3.3"),
    compressed("an index far beyond", b"\xff\x80\x7f", "2.3.3"),
    compressed("a name beyond both tables", b"\x7e\x01x", "2.3.3"),
    compressed("a name beyond both tables, without indexing", b"\x0f\x7f\x01x", "2.3.3"),
    compressed("an integer without end", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "5.1"),
    compressed("an integer that is cut off", b"\xff", "5.1"),
    compressed("a name that is cut off", b"\x40\x05x", "5.2"),
    compressed("a value that is cut off", b"\x40\x01x\x05y", "5.2"),
    compressed("a literal without a value", b"\x00\x01x", "6.2.2"),
    compressed("padding of more than seven bits", b"\x00\x01x\x82\x1f\xff"),
    compressed("padding that is not of ones", b"\x00\x01x\x81\x18"),
    compressed("the code of the end", b"\x00\x01x\x84\xff\xff\xff\xff"),
    compressed("nothing but padding", b"\x00\x01x\x81\xff"),
    compressed("a new size after a field", b"\x20", "4.2"),
    compressed("a size beyond the limit", b"", "6.3", head=b"\x3f\xe2\x1f"),
    case("RFC 7541 4.2", "two new sizes", headers(1, b"\x20\x3f\xe1\x1f" + HEAD), Answer()),
    case("RFC 7541 4.2", "no table", headers(1, b"\x20" + HEAD), Answer()),
    case("RFC 7541 4.4", "a field that is larger than the table", headers(1, b"\x3f\x21" + HEAD + b"\x40\x01x\x40" + b"y" * 64), Answer()),
    case(
        "RFC 7541 4.4",
        "a field that was dropped",
        headers(1, HEAD + b"\x40\x01x\x01y"),
        headers(3, b"\x20" + HEAD + b"\xbe"),
        Goaway(f.COMPRESSION_ERROR),
    ),
    case("RFC 7541 2.3.2", "a field from the table", headers(1, HEAD + b"\x40\x01x\x01y"), headers(3, HEAD + b"\xbe"), Answer(3)),
    case("RFC 7541 5.2", "Huffman codes", headers(1, f.block(GET, huffman=True)), Answer()),
    case("RFC 7541 6.2.3", "a field that is never indexed", headers(1, HEAD + b"\x10\x01x\x01y"), Answer()),
]
CASES = [*BEGINNINGS, *FRAMES, *BLOCKS, *STATES, *TYPES, *MESSAGES, *FLOODS, *COMPRESSION]
