"""Where the fields of the access log come from, compiled once for each form: a line is a template and a tuple of texts.

Source: our own (``config.access_format`` has the names). Hot path where a form is configured: what callers repeat is encoded once and
remembered, with a bound; what they make up is escaped each time. In text, quotes, backslashes, control characters and bytes above 126
become ``\\xHH``, and spaces too where no quotes stand around the field, so that a request can forge neither a line nor a word. JSON has
``null`` for what is not there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Hashable, Mapping
from operator import attrgetter
from typing import Any, Final

from meshgw.config.access_format import AccessForm, FieldPart
from meshgw.core.exchange import Exchange
from meshgw.telemetry.access import AccessLog, ClfClock, remember, safe_text, safe_word

Value = Callable[[Exchange], Any]
"""What of a request goes into the line for one field."""
Encode = Callable[[bytes | None], bytes]

LONGEST_ERROR: Final = 300
"""Characters of an error's text that are logged."""
_UNSAFE_IN_JSON = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_NAMED: Final = {"host": b"host", "referer": b"referer", "user_agent": b"user-agent"}


def json_text(value: bytes | None) -> bytes:
    """A JSON string in ASCII, or ``null``."""
    if value is None:
        return b"null"
    if _UNSAFE_IN_JSON.search(value) is None:
        return b'"%b"' % value
    return json.dumps(value.decode("utf-8", "backslashreplace")).encode()


class Moment:
    """The time at which a request ended, by one look at the wall clock each second. ``now`` gives seconds since the epoch."""

    __slots__ = ("_clf", "_iso", "_now", "_offset", "_second", "_until")

    def __init__(self, now: Callable[[], float], zone: str) -> None:
        self._now, self._clf = now, ClfClock(zone)
        self._until, self._offset = float("-inf"), 0.0
        self._second, self._iso = -1, b""

    def epoch(self, ex: Exchange) -> float:
        """Seconds since the epoch."""
        ended = ex.ended
        if ended >= self._until:
            self._offset = self._now() - ended
            self._until = ended + 1.0
        return ended + self._offset

    def clf(self, ex: Exchange) -> bytes:
        """As the default form has it."""
        return self._clf.at(self.epoch(ex))

    def iso(self, ex: Exchange) -> bytes:
        """In UTC with milliseconds."""
        second, thousandths = divmod(int(self.epoch(ex) * 1000), 1000)
        if second != self._second:
            self._second = second
            self._iso = time.strftime("%Y-%m-%dT%H:%M:%S.%%03dZ", time.gmtime(second)).encode()
        return self._iso % thousandths


# --- fields with few different values: what they are remembered by, and their bytes


def _host(ex: Exchange) -> bytes | None:
    return ex.headers.seen.get(b"host")


def _client(ex: Exchange) -> str | None:
    return None if ex.bound is None else ex.bound.client.label


def _endpoint(ex: Exchange) -> str | None:
    return None if ex.node is None else ex.node.endpoint.pool.name


def _error(ex: Exchange) -> type | None:
    return None if ex.error is None else type(ex.error)


def _secured(name: str) -> Callable[[Exchange], str | None]:
    return lambda ex: None if ex.secured is None else getattr(ex.secured, name) or None


def _same(value: Any) -> bytes:
    return bytes(value)


def _encoded(value: Any) -> bytes:
    return str(value).encode()


def _shown(value: Any) -> bytes:
    return str(value.show()).encode()


def _address(value: Any) -> bytes:
    host, port = value
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


REPEATED: Final[Mapping[str, tuple[Callable[[Exchange], Hashable], Callable[[Any], bytes]]]] = {
    "listener": (attrgetter("local"), _address),
    "remote_ip": (lambda ex: ex.peer[0], _encoded),
    "host": (_host, _same),
    "method": (lambda ex: ex.method or None, _same),
    "protocol": (lambda ex: ex.version or b"1.1", lambda version: b"HTTP/" + version),
    "referer": (lambda ex: ex.headers.seen.get(b"referer"), _same),
    "user_agent": (lambda ex: ex.headers.seen.get(b"user-agent"), _same),
    "service": (attrgetter("name"), _shown),
    "client": (_client, _encoded),
    "endpoint": (_endpoint, _encoded),
    "error": (_error, lambda kind: kind.__name__.encode()),
    **{f"tls_{name}": (_secured(name), _encoded) for name in ("identity", "version", "cipher", "server_name")},
}

# --- fields that differ from request to request


def _request(ex: Exchange) -> bytes:
    return b"%b %b HTTP/%b" % (ex.method or b"-", ex.target or b"-", ex.version or b"1.1")


def _query(ex: Exchange) -> bytes | None:
    _, mark, query = ex.target.partition(b"?")
    return query if mark else None


def _trace_id(ex: Exchange) -> bytes | None:
    place = ex.trace
    if place is None:
        return None
    return b"%016x%016x" % (place.high, place.trace) if place.high else b"%016x" % place.trace


def _error_text(ex: Exchange) -> bytes | None:
    if ex.error is None:
        return None
    return " ".join(ex.error.brief.split())[:LONGEST_ERROR].encode() or None


DIFFERENT: Final[Mapping[str, Callable[[Exchange], bytes | None]]] = {
    "target": lambda ex: ex.target or None,
    "path": lambda ex: ex.target.partition(b"?")[0] or None,
    "query": _query,
    "request": _request,
    "dtab": lambda ex: None if ex.dtab is None else ex.dtab.show().encode(),
    "trace_id": _trace_id,
    "error_text": _error_text,
}

NUMBERS: Final[Mapping[str, tuple[bytes, Value]]] = {
    "duration_ms": (b"%.3f", lambda ex: (ex.ended - ex.arrived) * 1000),
    "duration_us": (b"%d", lambda ex: (ex.ended - ex.arrived) * 1e6),
    "remote_port": (b"%d", lambda ex: ex.peer[1]),
    "status": (b"%d", lambda ex: ex.status or 499),
    "request_bytes": (b"%d", attrgetter("request_bytes")),
    "retries": (b"%d", attrgetter("retries")),
    "requeues": (b"%d", attrgetter("attempts")),
}
"""How each is written, and the number."""


def _header(name: bytes) -> Callable[[Exchange], bytes | None]:
    return lambda ex: ex.headers.seen.get(name)


def _response(name: bytes) -> Callable[[Exchange], bytes | None]:
    return lambda ex: ex.response.get(name) if ex.status else None


class FormattedRecord:
    """Writes lines of a form; what :class:`meshgw.filters.access.AccessRecord` is for the default one."""

    __slots__ = ("_template", "_values", "_write", "wanted")

    def __init__(self, log: AccessLog, now: Callable[[], float], form: AccessForm, *, router: str) -> None:
        """``now`` gives seconds since the epoch, ``router`` is the label."""
        self._write = log.write
        maker = _Maker(Moment(now, log.zone), router, is_json=form.is_json)
        made = [maker.field(part) if isinstance(part, FieldPart) else (_literal(part), None) for part in form.parts]
        places = [b"%b:%b" % (_literal(json.dumps(part.label)), made[at][0]) for at, part in enumerate(form.fields)] if form.is_json else ()
        self._template = b"{%b}" % b",".join(places) if form.is_json else b"".join(place for place, _ in made)
        self._values = tuple(value for _, value in made if value is not None)
        asked = [part.argument.encode() if part.name == "header" else _NAMED.get(part.name) for part in form.fields]
        self.wanted = tuple(dict.fromkeys(name for name in asked if name is not None))
        """The request fields that lines tell of."""

    def on_end(self, ex: Exchange) -> None:
        """The request ended."""
        self._write(self._template % tuple([value(ex) for value in self._values]))


def _literal(text: str | bytes) -> bytes:
    """Text as it stands in a template."""
    return (text if isinstance(text, bytes) else text.encode()).replace(b"%", b"%%")


class _Maker:
    """Makes the places of one form's fields in its template, and what comes there; None where that is always the same."""

    def __init__(self, moment: Moment, router: str, *, is_json: bool) -> None:
        self._moment, self._router, self._is_json = moment, router.encode(), is_json

    def field(self, part: FieldPart) -> tuple[bytes, Value | None]:
        """The place and the value of one field."""
        name = part.name
        encode: Encode = json_text if self._is_json else safe_text if part.is_quoted else safe_word
        if name in NUMBERS:
            return NUMBERS[name]
        if name == "router":
            return _literal(encode(self._router)), None
        if name == "time_epoch":
            return b"%.3f", self._moment.epoch
        if name in ("time", "time_iso"):
            return b'"%b"' if self._is_json else b"%b", self._moment.clf if name == "time" else self._moment.iso
        return b"%b", self._text(part, encode)

    def _text(self, part: FieldPart, encode: Encode) -> Value:
        name = part.name
        if name == "response_bytes":
            nothing = encode(None)
            return lambda ex: b"%d" % ex.response_length if ex.response_length >= 0 else nothing
        if name in REPEATED:
            return _remembered(*REPEATED[name], encode)
        if name in DIFFERENT:
            differs = DIFFERENT[name]
        else:
            differs = (_header if name == "header" else _response)(part.argument.encode())
        return lambda ex: encode(differs(ex))


def _remembered(key: Value, value: Callable[[Any], bytes], encode: Encode) -> Value:
    """The text of a field whose values repeat."""
    known: dict[Any, bytes] = {None: encode(None)}

    def text(ex: Exchange) -> bytes:
        at = key(ex)
        found = known.get(at)
        if found is None:
            found = encode(value(at))
            remember(known, at, found)
            known.setdefault(None, encode(None))
        return found

    return text
