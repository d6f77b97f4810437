"""DNS messages: a question as bytes, and what an answer says of addresses, services, aliases and absence.

Source: RFC 1035 section 4.1, RFC 2782 (SRV), RFC 3596 (AAAA), RFC 6891 (the record that offers larger datagrams). Records of other
kinds are passed over. Names have their limits and point only backwards, so that no answer costs more to read than its length warrants.
"""

from __future__ import annotations

import struct
from typing import Final

import attrs

A, CNAME, SOA, AAAA, SRV, OPT = 1, 5, 6, 28, 33, 41
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = range(6)

LONGEST_NAME: Final = 255
"""Bytes of a name, with the lengths of its labels."""
MOST_POINTERS: Final = 127
"""Followed for one name, which cannot have more labels."""
_INTERNET: Final = 1
_HEADER: Final = struct.Struct("!6H")
_QUESTION: Final = struct.Struct("!2H")
_RECORD: Final = struct.Struct("!2HIH")
_SRV: Final = struct.Struct("!3H")


class DnsSyntaxError(ValueError):
    """Bytes that are no whole DNS message."""


@attrs.frozen
class Srv:
    """Where a service is; ``target`` is in lower case, without final dot, and empty for the root: "not available here"."""

    priority: int
    weight: int
    port: int
    target: str


@attrs.frozen
class Record:
    """A record of a kind that is understood. ``data``: the packed address, an :class:`Srv`, a SOA's ``minimum``, None for an alias."""

    kind: int
    ttl: int
    data: bytes | Srv | int | None


@attrs.frozen(kw_only=True)
class Answer:
    """A message with its flags. ``asked`` is the name and kind that it repeats, None if it does not."""

    id: int
    code: int
    is_answer: bool
    is_truncated: bool
    is_authority: bool
    can_recurse: bool
    asked: tuple[str, int] | None
    answers: tuple[Record, ...]
    authority: tuple[Record, ...]


def encode_question(id: int, name: str, kind: int, *, payload: int | None) -> bytes:
    """A question that asks the server to ask others; ``payload`` are the bytes of a datagram that it may answer with, if it can tell.

    Raises ValueError if the text is no name.
    """
    labels = [label.encode("ascii") for label in name.removesuffix(".").split(".")]
    if not all(0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) >= LONGEST_NAME:
        raise ValueError(f"{name!r} cannot be the name of a DNS record")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    option = b"" if payload is None else b"\0" + _RECORD.pack(OPT, payload, 0, 0)
    return _HEADER.pack(id, 0x0100, 1, 0, 0, 1 if option else 0) + wire + _QUESTION.pack(kind, _INTERNET) + option


def read_answer(data: bytes) -> Answer:
    """What a message says. One that says it is truncated may end anywhere. Raises :class:`DnsSyntaxError`."""
    if len(data) < _HEADER.size:
        raise DnsSyntaxError("too short")
    id, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
    is_truncated = bool(flags & 0x0200)
    asked, at = None, _HEADER.size
    found: list[list[Record]] = [[], []]
    try:
        for _ in range(questions):
            name, at = _read_name(data, at)
            kind, _class = _QUESTION.unpack_from(data, at)
            asked, at = (name, kind), at + _QUESTION.size
        for section, count in zip(found, (answers, authorities), strict=True):
            for _ in range(count):
                record, at = _read_record(data, at)
                if record is not None:
                    section.append(record)
    except (struct.error, IndexError) as error:
        if not is_truncated:
            raise DnsSyntaxError("cut short") from error
    return Answer(
        id=id,
        code=flags & 0x000F,
        is_answer=bool(flags & 0x8000),
        is_truncated=is_truncated,
        is_authority=bool(flags & 0x0400),
        can_recurse=bool(flags & 0x0080),
        asked=asked,
        answers=tuple(found[0]),
        authority=tuple(found[1]),
    )


def _read_record(data: bytes, at: int) -> tuple[Record | None, int]:
    _, at = _read_name(data, at)
    kind, klass, ttl, length = _RECORD.unpack_from(data, at)
    at += _RECORD.size
    end = at + length
    if end > len(data):
        raise IndexError
    if klass != _INTERNET:
        return None, end
    return (Record(kind, ttl, _read_data(data, at, end, kind)) if kind in (A, AAAA, CNAME, SRV, SOA) else None), end


def _read_data(data: bytes, at: int, end: int, kind: int) -> bytes | Srv | int | None:
    if kind in (A, AAAA):
        if end - at != (4 if kind == A else 16):
            raise DnsSyntaxError("an address of the wrong length")
        return data[at:end]
    if kind == SRV:
        priority, weight, port = _SRV.unpack_from(data, at)
        target, past = _read_name(data, at + _SRV.size)
        if past != end:
            raise DnsSyntaxError("an SRV record of the wrong length")
        return Srv(priority, weight, port, target)
    if kind == SOA:
        if end - at < 22:  # two names, however short, and five numbers
            raise DnsSyntaxError("a SOA record that is too short")
        return int.from_bytes(data[end - 4 : end], "big")
    return None


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    """The name at ``at``, in lower case, and where the next thing is. A dot within a label is shown as ``\\.``, so no name has it."""
    labels: list[str] = []
    length, past, least, pointers = 1, -1, at, 0
    while size := data[at]:
        if size >= 0xC0:
            target = (size & 0x3F) << 8 | data[at + 1]
            past = at + 2 if past < 0 else past
            pointers += 1
            if target >= least or pointers > MOST_POINTERS:
                raise DnsSyntaxError("a name that points forwards" if target >= least else "a name of too many pointers")
            at = least = target
            continue
        if size >= 64:
            raise DnsSyntaxError("a label of an unknown form")
        length += size + 1
        if length > LONGEST_NAME:
            raise DnsSyntaxError("a name that is too long")
        label = data[at + 1 : at + 1 + size]
        if len(label) < size:
            raise IndexError
        labels.append(label.decode("latin-1").lower().replace(".", "\\."))
        at += size + 1
    return ".".join(labels), at + 1 if past < 0 else past
