"""What a Zipkin collector reads, read by Apache Thrift's rules as another library has them, and the shape of v2 spans."""

from __future__ import annotations

import struct
from base64 import b64decode
from pathlib import Path
from typing import Any

import thriftpy2
from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.transport import TMemoryBuffer

FIXTURES = Path(__file__).parent.parent / "fixtures" / "zipkin"
core = thriftpy2.load(str(FIXTURES / "zipkinCore.thrift"), module_name="zipkinCore_thrift")
scribe = thriftpy2.load(str(FIXTURES / "scribe.thrift"), module_name="scribe_thrift")

_ID = {"type": "string", "pattern": "^[a-f0-9]{16}$"}
_ENDPOINT = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "serviceName": {"type": "string"},
        "ipv4": {"type": "string", "format": "ipv4"},
        "ipv6": {"type": "string", "format": "ipv6"},
        "port": {"type": "integer", "minimum": 0, "maximum": 65535},
    },
}
V2_SPANS = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["traceId", "id"],
        "properties": {
            "traceId": {"type": "string", "pattern": "^([a-f0-9]{16}){1,2}$"},
            "id": _ID,
            "parentId": _ID,
            "name": {"type": "string"},
            "kind": {"enum": ["CLIENT", "SERVER", "PRODUCER", "CONSUMER"]},
            "timestamp": {"type": "integer"},
            "duration": {"type": "integer", "minimum": 1},
            "debug": {"type": "boolean"},
            "shared": {"type": "boolean"},
            "localEndpoint": _ENDPOINT,
            "remoteEndpoint": _ENDPOINT,
            "annotations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"timestamp": {"type": "integer"}, "value": {"type": "string"}},
                },
            },
            "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
"""``ListOfSpans`` of zipkin2-api.yaml."""


def decode_span(data: bytes) -> Any:
    """One v1 span."""
    buffer = TMemoryBuffer(data)
    span = core.Span()
    span.read(TBinaryProtocol(buffer))
    assert buffer.read(1) == b"", "bytes are left behind the span"
    return span


def decode_call(frame: bytes) -> tuple[int, list[Any]]:
    """Sequence number and spans of a framed call of ``Log``."""
    (length,) = struct.unpack_from(">i", frame)
    assert length == len(frame) - 4
    protocol = TBinaryProtocol(TMemoryBuffer(frame[4:]))
    name, kind, sequence = protocol.read_message_begin()
    assert (name, kind) == ("Log", 1)
    call = scribe.Scribe.Log_args()
    call.read(protocol)
    protocol.read_message_end()
    assert {entry.category for entry in call.messages} == {"zipkin"}
    return sequence, [decode_span(b64decode(entry.message, validate=True)) for entry in call.messages]


def encode_reply(sequence: int, code: int) -> bytes:
    """The frame that answers a call."""
    buffer = TMemoryBuffer()
    protocol = TBinaryProtocol(buffer)
    protocol.write_message_begin("Log", 2, sequence)
    result = scribe.Scribe.Log_result()
    result.success = code
    result.write(protocol)
    protocol.write_message_end()
    body: bytes = buffer.getvalue()
    return struct.pack(">i", len(body)) + body


def encode_exception(sequence: int, message: str) -> bytes:
    """The frame by which a Thrift server says that it cannot do what was asked."""
    from thriftpy2.thrift import TApplicationException

    buffer = TMemoryBuffer()
    protocol = TBinaryProtocol(buffer)
    protocol.write_message_begin("Log", 3, sequence)
    TApplicationException(TApplicationException.UNKNOWN_METHOD, message).write(protocol)
    protocol.write_message_end()
    body: bytes = buffer.getvalue()
    return struct.pack(">i", len(body)) + body
