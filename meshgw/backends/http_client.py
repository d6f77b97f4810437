"""Asking a backend's HTTP API: whole answers and streams of lines, with a limit on every size and every wait.

Source: RFC 9110; linkerd-config spec 3.4 and 3.5. Whatever goes wrong is a :class:`meshgw.errors.BackendError`, which names the backend
and never shows a header that was sent, so that tokens stay secret. Meaning of what is asked is the caller's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import attrs
from OpenSSL import SSL
from twisted.internet import defer
from twisted.internet import error as net
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as BodyReader
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from meshgw.backends.http_bodies import LONGEST_LINE, Body, Lines, TooLong, WholeBody
from meshgw.backends.http_connection import HANDSHAKE_SECONDS, LARGEST_HEAD, HeadTooLarge, NoHandshake, NotHttp
from meshgw.core.tls import explain
from meshgw.errors import BackendError, BackendMalformed, BackendRefused, BackendSilent, BackendUnreachable, MeshError
from meshgw.telemetry.histogram import bucket_of
from meshgw.telemetry.outcomes import Outcomes

LARGEST_ANSWER: Final = 5 << 20
"""Bytes, as Linkerd's clients of APIs have it (5 MiB)."""
LONGEST_REASON: Final = 160
LARGEST_REFUSAL: Final = 16 << 10
"""Bytes that are read of an answer which refuses a stream; what is longer tells nobody anything."""

SHORTEST_SECRET: Final = 4
"""Characters; to blot out what is shorter would make words unreadable, and hide nothing that cannot be guessed."""
MOST_SECRETS: Final = 32
REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
"""Not followed: tokens are for the host that is configured."""

Query = Iterable[tuple[str, str]]


class RawFields(Protocol):
    """The fields of an answer."""

    def getAllRawHeaders(self) -> Iterable[tuple[bytes, list[bytes]]]:
        """As twisted.web's ``Headers`` have it."""
        ...


class Incoming(Protocol):
    """An answer whose head has come: what is used of twisted.web's ``IResponse``."""

    @property
    def code(self) -> int:
        """The status."""
        ...

    @property
    def headers(self) -> RawFields:
        """The fields of the head."""
        ...

    def deliverBody(self, reader: BodyReader, /) -> object:
        """Give the body to a reader as it comes."""
        ...


class Agent(Protocol):
    """What asks: of the shape of twisted.web's ``IAgent``."""

    def request(self, method: bytes, uri: bytes, headers: Headers, body: WholeBody | None, /) -> Deferred[Any]:
        """Ask; the result is an :class:`Incoming`."""
        ...


@attrs.frozen(kw_only=True)
class ApiAnswer:
    """A whole answer; names of ``headers`` are lower-case, the first of a name counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300


def api_path(*segments: str) -> str:
    """A path of these segments, each escaped: what callers name must not reach other parts of an API."""
    return "".join(f"/{'%2E' * len(segment) if segment in ('.', '..') else quote(segment, safe='')}" for segment in segments)


def _as_text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


class ApiClient:
    """An HTTP API. ``name`` is what messages call it, ``base`` its scheme, host and port.

    ``headers`` are sent with each request, and shown nowhere. ``explain`` tells why TLS refused the last certificate. ``tell`` finds in
    the body of a refusal what the API says about it; without it the body is taken as text.
    """

    def __init__(
        self,
        agent: Agent,
        clock: IReactorTime,
        *,
        name: str,
        base: str,
        headers: Mapping[str, str] | None = None,
        largest: int = LARGEST_ANSWER,
        explain: Callable[[], str] = str,
        tell: Callable[[bytes], str] = _as_text,
        outcomes: Outcomes | None = None,
    ) -> None:
        """``outcomes`` counts what is asked, by the heads of the answers."""
        self.name, self.base, self._tell = name, base, tell
        self._agent, self.clock, self._largest, self._explain = agent, clock, largest, explain
        self._outcomes = outcomes
        self._headers = dict(headers or {})
        self._given: Mapping[str, str] = {}
        self._fields: Headers | None = None
        """The fields of the last request, to which those were given."""
        self._secrets: dict[str, None] = {}
        """What was sent in headers lately, and is not to be shown when an API quotes it."""

    # --- whole answers

    async def get(
        self, path: str, query: Query = (), *, seconds: float, asked: str = "", headers: Mapping[str, str] | None = None
    ) -> ApiAnswer:
        """GET, complete within ``seconds``. The answer may have any status. Raises :class:`BackendError`."""
        return await self.request("GET", path, query, seconds=seconds, asked=asked, headers=headers)

    async def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        seconds: float,
        asked: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> ApiAnswer:
        """As :meth:`get`, with any method, and a body. ``asked`` is told in errors."""
        exchange = Deferred.fromCoroutine(self._exchange(method, path, query, headers, body, asked))
        try:
            return await exchange.addTimeout(seconds, self.clock)
        except defer.TimeoutError as error:
            raise BackendSilent(backend=self.name, reason=f"no complete answer within {seconds:g} s", asked=asked) from error

    async def _exchange(
        self, method: str, path: str, query: Query, headers: Mapping[str, str] | None, body: bytes | None, asked: str
    ) -> ApiAnswer:
        response = await self._send(method, path, query, headers, body, asked)
        reader = Body(self._largest)
        response.deliverBody(reader)
        try:
            content = await reader.done
        except TooLong as error:
            reason = f"an answer longer than {self._largest} bytes"
            raise BackendMalformed(backend=self.name, reason=reason, asked=asked) from error
        except Exception as error:  # an agent passes on whatever ended the connection
            raise self._broken(error, asked) from error
        return ApiAnswer(status=response.code, headers=_plain(response.headers), body=content)

    async def _send(
        self, method: str, path: str, query: Query, headers: Mapping[str, str] | None, body: bytes | None, asked: str
    ) -> Incoming:
        text = urlencode(list(query), quote_via=quote)
        uri = f"{self.base}{path}{'?' if text else ''}{text}".encode("ascii")
        fields = self._fields_with(headers or {})
        producer = WholeBody(body) if body is not None else None
        began = self.clock.seconds()
        if self._outcomes is not None:
            self._outcomes.began()
        try:
            response: Incoming = await self._agent.request(method.encode("ascii"), uri, fields, producer)
        except Exception as error:  # as above, and whatever kept it from being opened
            broken = self._broken(error, asked)
            self._count(began, type(broken).__name__)
            raise broken from error
        self._count(began, response.code)
        return response

    def _fields_with(self, given: Mapping[str, str]) -> Headers:
        """The fields of a request, which are mostly those of the one before."""
        if self._fields is None or given != self._given:
            fields = Headers({"User-Agent": ["meshgw"], "Accept": ["application/json"]})
            for name, value in {**self._headers, **given}.items():
                fields.setRawHeaders(name, [value])
                self._keep_secret(value)
            self._fields, self._given = fields, dict(given)
        return self._fields

    def _count(self, began: float, outcome: int | str) -> None:
        """What was asked then was answered with a status, or ended in the error of that name."""
        if self._outcomes is not None:
            micros = int((self.clock.seconds() - began) * 1e6)
            if isinstance(outcome, str):
                self._outcomes.failed(outcome, bucket_of(micros), micros)
            else:
                self._outcomes.ended(outcome, outcome < 500, bucket_of(micros), micros)

    def _keep_secret(self, value: str) -> None:
        words = value.split()
        for secret in {value, *words[-1:]}:  # of ``Bearer TOKEN`` the token may be quoted alone
            if len(secret) >= SHORTEST_SECRET:
                self._secrets.pop(secret, None)
                self._secrets[secret] = None
        while len(self._secrets) > MOST_SECRETS:
            del self._secrets[next(iter(self._secrets))]

    # --- streams

    async def lines(
        self, path: str, query: Query = (), *, seconds: float, asked: str = "", headers: Mapping[str, str] | None = None
    ) -> LineStream:
        """GET an answer that goes on for as long as it likes; its head must come within ``seconds``, and be a 2xx."""
        opened = Deferred.fromCoroutine(self._send("GET", path, query, headers, None, asked))
        try:
            response = await opened.addTimeout(seconds, self.clock)
        except defer.TimeoutError as error:
            raise BackendSilent(backend=self.name, reason=f"no answer within {seconds:g} s", asked=asked) from error
        if not 200 <= response.code < 300:
            reader = Body(LARGEST_REFUSAL)
            response.deliverBody(reader)
            try:
                body = await reader.done.addTimeout(seconds, self.clock)
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - the status says enough
                body = b""
            raise self.refused(ApiAnswer(status=response.code, headers=_plain(response.headers), body=body), asked)
        return LineStream(self, response, asked)

    # --- reading answers

    def refused(self, answer: ApiAnswer, asked: str = "") -> BackendRefused:
        """The error for an answer whose status is none to go on with. What the API says about it is shortened, and shown."""
        reason = str(answer.status)
        said = self._said(answer)
        return BackendRefused(backend=self.name, reason=f"{reason} ({said})" if said else reason, asked=asked, code=answer.status)

    def _said(self, answer: ApiAnswer) -> str:
        """The API's own words for an error: an operator needs to know that it was the token. Ours are blotted out."""
        if answer.status in REDIRECTS:
            text = f"to {answer.headers.get('location', 'nowhere')}, which is not followed"
        elif "html" in answer.headers.get("content-type", ""):
            return ""  # a proxy's page tells nothing
        else:
            text = self._tell(answer.body[:LARGEST_REFUSAL])
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = text[: LONGEST_REASON * 4]
        shown = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        return shown if len(shown) <= LONGEST_REASON else f"{shown[: LONGEST_REASON - 3]}..."

    def read_json(self, text: bytes, asked: str = "") -> Any:
        """What JSON text says. Raises :class:`BackendMalformed`, which tells where it is wrong, not what it is."""
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.not_json(error, asked) from error

    def not_json(self, error: ValueError | RecursionError, asked: str = "") -> BackendMalformed:
        """The error for what cannot be read as JSON."""
        if isinstance(error, RecursionError):
            return self.malformed("JSON that is nested too deeply", asked)
        where = f" at line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        return self.malformed(f"what is not JSON{where}", asked)

    def malformed(self, what: str, asked: str = "") -> BackendMalformed:
        """The error for an answer that cannot be understood."""
        return BackendMalformed(backend=self.name, reason=f"it answered with {what}", asked=asked)

    def _broken(self, error: BaseException, asked: str) -> BackendError | CancelledError:
        """What to raise for whatever an agent ended an exchange with."""
        cause = _cause(error)
        if isinstance(cause, CancelledError | ConnectingCancelledError):
            return CancelledError()
        if isinstance(cause, HeadTooLarge):
            return self.malformed(f"a head larger than {LARGEST_HEAD} bytes", asked)
        if isinstance(cause, NotHttp):
            return self.malformed("what is not HTTP", asked)
        return self.unreachable(error)

    def unreachable(self, error: BaseException) -> BackendUnreachable:
        """The error for a connection that could not be had, or broke."""
        refusal = self._explain() if isinstance(_cause(error), SSL.Error) else ""
        return BackendUnreachable(backend=self.name, reason=f"its TLS certificate is refused: {refusal}" if refusal else reason_of(error))


class LineStream:
    """The lines of a streamed answer, in order. Whoever has it must close it."""

    def __init__(self, client: ApiClient, response: Incoming, asked: str) -> None:
        self._client, self._asked = client, asked
        self._reader = Lines()
        response.deliverBody(self._reader)

    async def line(self, seconds: float) -> bytes | None:
        """The next line without its end, which must come within ``seconds``; None after the last. Raises :class:`BackendError`."""
        reader, client = self._reader, self._client
        if not reader.lines and reader.ended is None:
            try:
                await reader.more().addTimeout(seconds, client.clock)
            except defer.TimeoutError as error:
                raise BackendSilent(backend=client.name, reason=f"silent for {seconds:g} s", asked=self._asked) from error
        line = reader.take()
        if line is not None:
            return line
        ended = reader.ended
        if isinstance(ended, TooLong):
            raise client.malformed(f"a line longer than {LONGEST_LINE} bytes", self._asked) from ended
        if ended is not None and not isinstance(ended, ResponseDone | PotentialDataLoss):
            raise client._broken(ended, self._asked) from ended
        return None

    @property
    def is_ready(self) -> bool:
        """Whether a line can be had without waiting."""
        return bool(self._reader.lines)

    def close(self) -> None:
        """End it."""
        self._reader.stop()


def _plain(headers: RawFields) -> dict[str, str]:
    return {name.decode("latin-1").lower(): values[0].decode("latin-1") for name, values in headers.getAllRawHeaders() if values}


def _cause(error: BaseException) -> BaseException:
    """What is behind an error as twisted.web has it, which gathers all that happened: TLS if that is among it, else the first."""
    failures = getattr(error, "reasons", None)
    causes = [_cause(failure.value) for failure in failures or () if isinstance(failure, Failure) and failure.value is not None]
    return next((cause for cause in causes if isinstance(cause, SSL.Error)), causes[0] if causes else error)


def reason_of(error: BaseException) -> str:
    """The error in an operator's words."""
    cause = _cause(error)
    if isinstance(cause, SSL.Error):
        return f"TLS failed: {explain(cause)}"
    if isinstance(cause, MeshError):
        return str(cause)
    if isinstance(cause, NoHandshake):
        return f"no TLS handshake within {HANDSHAKE_SECONDS:g} s"
    if isinstance(cause, net.ConnectionRefusedError):
        return "connection refused"
    if isinstance(cause, net.TimeoutError | defer.TimeoutError):
        return "no connection in time"
    text = str(cause).strip().rstrip(".")
    if isinstance(cause, net.ConnectError):
        return f"no connection: {text}"
    return f"the connection broke: {text}" if text else f"the connection broke ({type(cause).__name__})"
