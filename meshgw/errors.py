"""Every error a request or a start-up can end with: what failed, in which phase, whether the request may be tried again.

Source: linkerd-config spec 5.8 (generated error responses). An error carries fields and builds its sentence on demand; how it is
answered on a wire is decided by ``status`` here and the protocol's reply writer. This module imports nothing of meshgw.
"""

from __future__ import annotations

from typing import ClassVar

import attrs


class MeshError(Exception):
    """Root of all errors meshgw raises on purpose.

    ``phase`` names the step that failed, ``status`` is the HTTP status it is answered with, ``retry_safe`` tells that
    the request is known not to have reached a service, so that it may be sent again whatever its method.
    """

    phase: ClassVar[str] = "internal"
    status: ClassVar[int] = 502
    retry_safe: ClassVar[bool] = False

    @property
    def brief(self) -> str:
        """What it says in one line, of any length, for logs and traces: nothing of a query, which may hold secrets."""
        return str(self).partition("\n")[0]


@attrs.frozen(kw_only=True)
class BadRequest(MeshError):
    """The caller's message breaks the protocol or a limit; it is answered with ``code`` and the connection is closed."""

    phase: ClassVar[str] = "receive"
    reason: str
    code: int = 400

    @property
    def status(self) -> int:  # type: ignore[override]  # the only error whose status varies by instance
        """The HTTP status of the answer."""
        return self.code

    def __str__(self) -> str:
        return self.reason


@attrs.frozen(kw_only=True)
class Refused(MeshError):
    """A filter answered the request itself with ``code``; its reply has the reason."""

    phase: ClassVar[str] = "filter"
    code: int

    @property
    def status(self) -> int:  # type: ignore[override]  # varies by instance, as in BadRequest
        """The HTTP status of the answer."""
        return self.code

    def __str__(self) -> str:
        return f"answered {self.code} by a filter"


@attrs.frozen(kw_only=True)
class AccessDenied(MeshError):
    """``rule`` of the router's accessControl refuses the request, or its default does."""

    phase: ClassVar[str] = "access"
    status: ClassVar[int] = 403
    rule: str
    method: str
    caller: str
    service: str

    def __str__(self) -> str:
        return f"access denied by {self.rule} of accessControl: {self.method} to {self.service} by {self.caller}"


class IdentifyError(MeshError):
    """No logical name could be given to the request."""

    phase: ClassVar[str] = "identify"
    status: ClassVar[int] = 400


@attrs.frozen(kw_only=True)
class Unidentified(IdentifyError):
    """All identifiers declined; ``reason`` is the last one's (spec 5.2), ``tried`` lists each kind with its reason."""

    request: str
    reason: str
    tried: tuple[tuple[str, str], ...] = ()

    @property
    def brief(self) -> str:
        """See :class:`MeshError`."""
        return self.reason

    def __str__(self) -> str:
        text = f"Unknown destination: {self.request} / {self.reason}"
        if len(self.tried) > 1:
            text += "".join(f"\n  {kind}: {reason}" for kind, reason in self.tried)
        return text


@attrs.frozen(kw_only=True)
class RulesUnknown(IdentifyError):
    """What gives requests their names does not know its rules yet; ``waiting_for`` says why. The request waited for ``seconds``."""

    status: ClassVar[int] = 503
    waiting_for: str
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.seconds:
            return f"The rules that name requests are not known: {self.waiting_for}"
        return f"Exceeded {self.seconds:g}.seconds binding timeout while waiting for the rules that name requests: {self.waiting_for}"


class BindError(MeshError):
    """A logical name could not be turned into a bound name."""

    phase: ClassVar[str] = "bind"
    retry_safe: ClassVar[bool] = True


@attrs.frozen(kw_only=True)
class Unbound(BindError):
    """The name evaluates to neg, fail or empty (spec 5.8, "Unable to route request!").

    ``steps`` explains the delegation, one line per step, as ``meshgw dtab`` prints it. ``failures`` are the errors of sources that fail:
    had they answered, the name might be known.
    """

    name: str
    outcome: str
    base: tuple[str, ...] = ()
    override: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def brief(self) -> str:
        """See :class:`MeshError`; what keeps a name from being known comes first, then which names were tried."""
        text = f"Unable to route request! service name: {self.name}; outcome: {self.outcome}"
        if self.failures:
            text += f"; failing sources: {'; '.join(self.failures)}"
        if self.steps:
            text += f"; resolution: {'; '.join(step.strip() for step in self.steps)}"
        return text

    def __str__(self) -> str:
        lines = ["Unable to route request!", "", f"service name: {self.name}", "dtab:", "base dtab:"]
        lines += [f"  {dentry}" for dentry in self.base]
        lines.append("override dtab:")
        lines += [f"  {dentry}" for dentry in self.override]
        lines.append(f"outcome: {self.outcome}")
        if self.failures:
            lines.append("failing sources:")
            lines += [f"  {failure}" for failure in self.failures]
        if self.steps:
            lines.append("resolution:")
            lines += [f"  {step}" for step in self.steps]
        return "\n".join(lines)


@attrs.frozen(kw_only=True)
class BindingTimeout(BindError):
    """Binding did not finish within ``seconds`` (router option ``bindingTimeoutMs``); ``waiting_for`` says for what."""

    name: str
    seconds: float
    waiting_for: str = ""

    def __str__(self) -> str:
        text = f"Exceeded {self.seconds:g}.seconds binding timeout while resolving name: {self.name}"
        return f"{text} (waiting for {self.waiting_for})" if self.waiting_for else text


@attrs.frozen(kw_only=True)
class NamerError(BindError):
    """A lookup failed: unknown namer, recursion limit, a source that never answered well."""

    detail: str

    def __str__(self) -> str:
        return self.detail


@attrs.frozen(kw_only=True)
class BackendError(BindError):
    """A discovery or storage system gave no usable answer. ``asked`` is what was asked for, if that is worth telling.

    ``is_lasting``: it is not likely to go away by asking again soon, so that is done slowly.
    """

    phase: ClassVar[str] = "backend"
    backend: str
    reason: str
    asked: str = ""

    @property
    def is_lasting(self) -> bool:
        """Whether somebody has to do something about it."""
        return False

    @property
    def summary(self) -> str:
        """What is wrong, whatever was asked for."""
        return f"{self.backend}: {self.reason}"

    @property
    def outage(self) -> str:
        """The kind of trouble, which is the same for all that have it."""
        return self.summary

    def __str__(self) -> str:
        return f"{self.summary} (asked for {self.asked})" if self.asked else self.summary


@attrs.frozen(kw_only=True)
class BackendUnreachable(BackendError):
    """No connection, or it broke before an answer was complete."""

    def __str__(self) -> str:
        return self.summary  # it has nothing to do with what was asked


@attrs.frozen(kw_only=True)
class BackendSilent(BackendError):
    """No answer in time, or none at all."""


@attrs.frozen(kw_only=True)
class BackendRefused(BackendError):
    """It answered with an error ``status`` (HTTP's or a like one)."""

    code: int

    @property
    def is_lasting(self) -> bool:
        """A redirect, or the client's fault, but for "too slow", "too early" and "too many"."""
        return 300 <= self.code < 500 and self.code not in (408, 425, 429)

    @property
    def outage(self) -> str:
        """The status alone: what the API says about it often has the name that was asked for."""
        return f"{self.backend}: {self.code}"


@attrs.frozen(kw_only=True)
class BackendMalformed(BackendError):
    """It answered with what cannot be understood."""

    @property
    def is_lasting(self) -> bool:
        """See :class:`BackendError`."""
        return True


@attrs.frozen(kw_only=True)
class BackendDefect(BackendMalformed):
    """What it answered met a defect here."""


@attrs.frozen(kw_only=True)
class AddressDenied(BindError):
    """Every address of a bound name is in a network that the router does not connect to (``egress``)."""

    status: ClassVar[int] = 403
    retry_safe: ClassVar[bool] = False
    name: str
    addresses: str

    def __str__(self) -> str:
        return f"{self.name}: {self.addresses} may not be connected to (egress.denyNetworks)"


@attrs.frozen(kw_only=True)
class DeadlineExceeded(MeshError):
    """The deadline that came with the request, in the field ``said_in``, has passed, ``late`` seconds before it got here."""

    phase: ClassVar[str] = "time"
    status: ClassVar[int] = 503
    late: float
    said_in: str = "l5d-ctx-deadline"

    def __str__(self) -> str:
        when = f"{self.late:.3f} s before it arrived here" if self.late else "while waiting for a response"
        return f"the request's deadline passed {when} ({self.said_in})"


@attrs.frozen(kw_only=True)
class RequestTimeout(MeshError):
    """The limit of a whole request passed before its answer began; ``scope`` is ``server`` or ``total`` (spec 5.8)."""

    phase: ClassVar[str] = "time"
    status: ClassVar[int] = 503
    name: str
    seconds: float
    scope: str

    def __str__(self) -> str:
        text = f"exceeded {self.seconds * 1000:g}.milliseconds to {self.name} while waiting for a response for the request"
        if self.scope == "total":
            return f"{text}, including retries (if applicable) (totalTimeoutMs)"
        return f"{text} at the server (timeoutMs)"


class BalanceError(MeshError):
    """No endpoint could be chosen."""

    phase: ClassVar[str] = "balance"
    retry_safe: ClassVar[bool] = True


@attrs.frozen(kw_only=True)
class NoEndpoint(BalanceError):
    """No endpoint of a bound name could take the request (Finagle: NoBrokersAvailable)."""

    service: str
    bound: str
    known: int = 0
    closed: int = 0
    stale: str = ""
    """Why the source of the addresses fails, if it does."""

    @property
    def brief(self) -> str:
        """See :class:`MeshError`."""
        return f"Unable to route request! service name: {self.service}; client name: {self.bound}; no hosts available: {self._detail}"

    @property
    def _detail(self) -> str:
        if not self.known:
            detail = "it has no addresses"
        else:
            detail = f"{self.known} known, {self.closed} marked dead; see /client_state.json"
        return f"{detail}; their source fails: {self.stale}" if self.stale else detail

    def __str__(self) -> str:
        return f"Unable to route request!\n\nservice name: {self.service}\nclient name: {self.bound}\nno hosts available: {self._detail}"


class ConnectError(MeshError):
    """A connection to an endpoint could not be had; nothing was sent."""

    phase: ClassVar[str] = "connect"
    retry_safe: ClassVar[bool] = True


@attrs.frozen(kw_only=True)
class ConnectFailed(ConnectError):
    """Connecting to ``selected`` failed or timed out (spec 5.8, "Unable to establish connection")."""

    selected: str
    reason: str
    service: str = ""
    client: str = ""
    addresses: tuple[str, ...] = ()

    @property
    def brief(self) -> str:
        """See :class:`MeshError`."""
        return f"Unable to establish connection to {self.selected}: {self.reason}"

    def __str__(self) -> str:
        return (
            f"Unable to establish connection to {self.selected}.\n\nservice name: {self.service}\n"
            f"client name: {self.client}\naddresses: [{', '.join(self.addresses)}]\n"
            f"selected address: {self.selected}\nreason: {self.reason}"
        )


class Rebound(ConnectError):
    """A request that waited for addresses goes on elsewhere, as its name was bound anew; no caller gets to see it."""

    def __str__(self) -> str:
        return "the name was bound anew"


@attrs.frozen(kw_only=True)
class TooManyWaiters(ConnectError):
    """The endpoint's pool has all connections busy and its queue of waiters is full."""

    selected: str
    waiting: int

    def __str__(self) -> str:
        return f"{self.selected}: all pooled connections are busy and {self.waiting} requests are waiting already"


class AnswerError(MeshError):
    """The request was sent, wholly or in part, and no usable answer came back."""

    phase: ClassVar[str] = "answer"


@attrs.frozen(kw_only=True)
class UpstreamClosed(AnswerError):
    """The endpoint closed or reset the connection before a whole response head."""

    selected: str
    reason: str

    def __str__(self) -> str:
        return f"{self.selected} closed the connection before answering: {self.reason}"


@attrs.frozen(kw_only=True)
class StreamReset(AnswerError):
    """The endpoint reset the stream; ``stream_code`` is HTTP/2's error code, ``code`` its name. HTTP/2 callers get the same."""

    selected: str
    code: str
    stream_code: int

    def __str__(self) -> str:
        return f"{self.selected} reset the stream: {self.code}"


@attrs.frozen(kw_only=True)
class ServiceStalled(AnswerError):
    """The service has taken nothing of the request's body for ``seconds``, and other requests of its connection waited for that."""

    status: ClassVar[int] = 503
    seconds: float

    def __str__(self) -> str:
        return f"the service took nothing of the request's body for {self.seconds:g} s, while others on the caller's connection waited"


@attrs.frozen(kw_only=True)
class AttemptTimeout(AnswerError):
    """One attempt took longer than ``seconds`` to begin its answer (spec 5.8, requestAttemptTimeoutMs)."""

    status: ClassVar[int] = 503
    name: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"exceeded {self.seconds * 1000:g}.milliseconds to {self.name} while waiting for a response for an individual request, "
            "excluding retries (requestAttemptTimeoutMs)"
        )


@attrs.frozen(kw_only=True)
class BadResponse(AnswerError):
    """The endpoint's response breaks the protocol or a limit."""

    selected: str
    reason: str

    def __str__(self) -> str:
        return f"{self.selected} sent an invalid response: {self.reason}"


class CallerGone(MeshError):
    """The caller went away before its answer was complete; nobody is left to be told."""

    phase: ClassVar[str] = "answer"
    status: ClassVar[int] = 499

    def __str__(self) -> str:
        return "the caller closed the connection"


@attrs.frozen(kw_only=True)
class CallerReset(CallerGone):
    """The caller reset its stream; ``stream_code`` is HTTP/2's error code, ``code`` its name."""

    code: str
    stream_code: int

    def __str__(self) -> str:
        return f"the caller reset the stream: {self.code}"


@attrs.frozen(kw_only=True)
class CallerStalled(CallerGone):
    """The caller takes nothing of its answer, which was given up; ``stream_code`` is HTTP/2's error code that it is told."""

    stream_code: int

    def __str__(self) -> str:
        return "the caller takes nothing of its answer"


@attrs.frozen(kw_only=True)
class Draining(MeshError):
    """The process is shutting down and the grace period of this request ended."""

    phase: ClassVar[str] = "answer"
    status: ClassVar[int] = 503

    def __str__(self) -> str:
        return "shutting down: the request did not finish within the grace period"


@attrs.frozen(kw_only=True)
class InternalError(MeshError):
    """A defect in meshgw or a plug-in, caught at a rim; the log has the traceback."""

    where: str
    status: ClassVar[int] = 500

    def __str__(self) -> str:
        return f"internal error in {self.where}; the log has the details"
