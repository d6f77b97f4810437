"""What a line of the access log looks like: one of the known forms, JSON, or a text with ``%{field}`` in it.

Source: our own; Linkerd has one form, which stays the default (linkerd-config spec 5.9). This module knows names and grammar; where the
values of fields come from is ``filters.access_fields``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

import attrs

LINKERD: Final = "linkerd"
FIELDS: Final[Mapping[str, str]] = {
    "time": "when the request ended, as in the default form: `26/11/2026:14:05:00 UTC`",
    "time_iso": "the same in UTC with milliseconds: `2026-11-26T14:05:00.123Z`",
    "time_epoch": "the same in seconds since 1970, with three decimals",
    "duration_ms": "milliseconds from the request's arrival to the end of its answer, with three decimals",
    "duration_us": "the same in whole microseconds",
    "router": "label of the router",
    "listener": "address and port that the caller connected to",
    "remote_ip": "address of the caller; with `trustedForwarders` of the one they tell",
    "remote_port": "port of the connection's other side",
    "host": "`Host`, or `:authority`",
    "method": "method",
    "target": "path with query",
    "path": "path without query",
    "query": "query without its question mark",
    "protocol": "`HTTP/1.1`, `HTTP/1.0` or `HTTP/2`",
    "request": "method, target and protocol, as in the default form",
    "status": "status that the caller got; 499 if it went away before",
    "request_bytes": "bytes of the request's body",
    "response_bytes": "bytes of the answer's body, where its head tells them",
    "referer": "the field `Referer`",
    "user_agent": "the field `User-Agent`",
    "service": "logical name: `/svc/web`",
    "client": "bound name: `/#/io.l5d.fs/web`",
    "endpoint": "address and port that the last attempt went to",
    "dtab": "dtab that came with the request",
    "retries": "how often the service was tried again after an answer",
    "requeues": "how often another endpoint was tried because nothing had been worked on",
    "trace_id": "id of the trace, in hexadecimal digits",
    "error": "kind of the error, of an answer made here: `NoEndpoint`",
    "error_text": "what it says, in one line of at most 300 characters",
    "tls_identity": "SPIFFE id or name in the certificate that the caller has proven to own",
    "tls_version": "version of TLS",
    "tls_cipher": "cipher suite",
    "tls_server_name": "name that the caller asked for by SNI",
}
"""All fields with what they are. ``header:NAME`` and ``response:NAME`` are fields of the request's and the answer's head."""

PREFIXES: Final = ("header", "response")
JSON_FIELDS: Final = (
    *("time_iso", "router", "listener", "remote_ip", "tls_identity", "host", "method", "target", "protocol", "status", "duration_ms"),
    *("request_bytes", "response_bytes", "service", "client", "endpoint", "retries", "requeues", "trace_id", "error", "error_text"),
    *("referer", "user_agent"),
)
COMMON: Final = '%{remote_ip} - - [%{time}] "%{request}" %{status} %{response_bytes}'
KNOWN: Final[Mapping[str, str]] = {"common": COMMON, "combined": COMMON + ' "%{referer}" "%{user_agent}"'}

_PART = re.compile(r"%\{(?P<field>[^{}]*)\}|%%|(?P<bad>%)")
_JSON = re.compile(r"json(?:\((?P<fields>[^()]*)\))?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
MOST_FIELDS: Final = 64


@attrs.frozen
class FieldPart:
    """A field in a form; ``argument`` is the lower-case name behind ``header:`` or ``response:``."""

    name: str
    argument: str = ""
    is_quoted: bool = False
    """Whether it stands between double quotes, where spaces may not be taken for the end of a word."""

    @property
    def label(self) -> str:
        """As it was written."""
        return f"{self.name}:{self.argument}" if self.argument else self.name


@attrs.frozen
class AccessForm:
    """A form as it was read: literals and fields in their order, or the fields of a JSON object. Neither is Linkerd's own form."""

    parts: tuple[str | FieldPart, ...] = ()
    is_json: bool = False

    @property
    def is_default(self) -> bool:
        """Whether it is Linkerd's."""
        return not self.parts

    @property
    def fields(self) -> tuple[FieldPart, ...]:
        """The fields in their order."""
        return tuple(part for part in self.parts if isinstance(part, FieldPart))

    @classmethod
    def read(cls, text: str) -> AccessForm:
        """Read the option's value. Raises ValueError with what was expected."""
        if text == LINKERD:
            return cls()
        as_json = _JSON.fullmatch(text)
        if as_json is not None:
            listed = JSON_FIELDS if as_json["fields"] is None else tuple(name.strip() for name in as_json["fields"].split(","))
            fields = tuple(_field(name, is_quoted=True) for name in listed)
            if len(set(fields)) != len(fields):
                raise ValueError("a field is listed twice")
            return cls(_bounded(fields), is_json=True)
        text = KNOWN.get(text, text)
        if "%{" not in text:
            words = (LINKERD, *KNOWN, "json")
            expected = f"{', '.join(words)}, json(FIELD, …), or a text with %{{FIELD}} in it"
            raise ValueError(f"{text!r} is no form of the access log; expected {expected}{_nearest(text, words)}")
        return cls(_bounded(_parts(text)))


def access_format(value: Any) -> str | None:
    """A check: the text is a form of the access log."""
    try:
        AccessForm.read(value)
    except ValueError as error:
        return str(error)
    return None


def _parts(text: str) -> tuple[str | FieldPart, ...]:
    if "\n" in text or "\r" in text:
        raise ValueError("a line of the log cannot have line breaks in it")
    parts: list[str | FieldPart] = []
    literal, at, quotes = "", 0, 0
    for match in _PART.finditer(text):
        literal += text[at : match.start()]
        at = match.end()
        if match["bad"]:
            raise ValueError(f"a percent sign at {text[match.start() :][:10]!r} begins no %{{field}}; write %% for the sign itself")
        if match["field"] is None:
            literal += "%"
            continue
        quotes += literal.count('"')
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_field(match["field"], is_quoted=quotes % 2 == 1))
    literal += text[at:]
    return (*parts, literal) if literal else tuple(parts)


def _field(text: str, *, is_quoted: bool) -> FieldPart:
    name, colon, argument = text.partition(":")
    if colon and name in PREFIXES:
        if not _HEADER.fullmatch(argument):
            raise ValueError(f"{argument!r} cannot be the name of a header")
        return FieldPart(name, argument.lower(), is_quoted)
    if text not in FIELDS:
        raise ValueError(f"unknown field {text!r}; known: {', '.join(FIELDS)}, header:NAME, response:NAME{_nearest(text, FIELDS)}")
    return FieldPart(text, "", is_quoted)


def _nearest(text: str, known: Any) -> str:
    found = get_close_matches(text, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _bounded(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    count = sum(isinstance(part, FieldPart) for part in parts)
    if count > MOST_FIELDS:
        raise ValueError(f"{count} fields; at most {MOST_FIELDS} are expected")
    return parts
