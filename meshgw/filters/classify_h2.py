"""Response classifiers of HTTP/2: by status as over HTTP/1.1, and by gRPC's status, which comes with the end of the answer.

Source: linkerd-config spec 6.2; the gRPC protocol over HTTP/2. A gRPC classifier judges a whole answer, or one that was passed on already
(:meth:`GrpcClassifier.conclude`). Linkerd's ``compliant`` behaves as its ``default`` by mistake; here it does what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from meshgw.config.document import option
from meshgw.core.exchange import Exchange
from meshgw.errors import Refused, StreamReset
from meshgw.filters.classify import (
    ALL,
    IDEMPOTENT,
    NON_RETRYABLE_FAILURE,
    READS,
    RETRYABLE_ERRORS,
    RETRYABLE_FAILURE,
    SUCCESS,
    AllSuccessfulConfig,
    CanReplay,
    NonRetryable5xxConfig,
    RetryableAll5xxConfig,
    RetryableIdempotent5xxConfig,
    RetryableRead5xxConfig,
    Verdict,
    build_all_successful,
    by_methods,
    has_no_body,
)
from meshgw.kinds import Kind, Runtime
from meshgw.wire.grpc import Status, status_in
from meshgw.wire.h2_frames import Code

RETRYABLE_HTTP: Final = frozenset((429, 502, 503, 504))
"""HTTP statuses that gRPC's specification maps to UNAVAILABLE."""

IsRetryable = Callable[[int], bool]


class GrpcClassifier:
    """Judges by ``grpc-status``: those in ``successes`` are successes, of the others ``is_retryable`` tells which are tried again.

    An answer without a status is a failure that is not tried again, but for HTTP statuses of ``retryable_http``.
    """

    __slots__ = ("_can_replay", "_http", "_is_retryable", "_resets", "_successes", "awaits_end")

    def __init__(
        self,
        is_retryable: IsRetryable,
        successes: frozenset[int],
        can_replay: CanReplay,
        *,
        retryable_http: frozenset[int] = frozenset(),
        resets: frozenset[int] = frozenset(),
        awaits_end: bool = True,
    ) -> None:
        """``resets`` are error codes of HTTP/2 with which a stream that was reset is tried again.

        ``awaits_end`` is false where no status leads to a retry, so that no answer need be kept for its trailers.
        """
        self.awaits_end = awaits_end
        self._is_retryable, self._successes, self._can_replay = is_retryable, successes, can_replay
        self._http, self._resets = retryable_http, resets

    def classify(self, ex: Exchange) -> Verdict:
        """Judge a whole answer, or the error that stands in place of one."""
        error = ex.error
        if isinstance(error, Refused):
            return NON_RETRYABLE_FAILURE if error.code >= 500 else SUCCESS
        if error is not None:
            if isinstance(error, StreamReset):
                is_retryable = error.stream_code in self._resets or self._is_retryable(Status.UNAVAILABLE)
            else:
                is_retryable = isinstance(error, RETRYABLE_ERRORS) and self._is_retryable(Status.UNAVAILABLE)
            return self._failure(ex, is_retryable=is_retryable and not ex.responded)
        trailers = ex.answer_trailers
        if trailers is None:  # passed on before its end: what it is comes later
            return NON_RETRYABLE_FAILURE if ex.status >= 400 else SUCCESS
        # where nothing follows the head, that is the trailers as well ("Trailers-Only")
        return self._judge(ex, status_in(trailers or ex.response.lines))

    def conclude(self, ex: Exchange, trailers: list[bytes]) -> Verdict:
        """Judge an answer that was passed on from its head on, by its trailers."""
        verdict = self._judge(ex, status_in(trailers))
        return SUCCESS if verdict is SUCCESS else NON_RETRYABLE_FAILURE

    def _judge(self, ex: Exchange, status: int | None) -> Verdict:
        if status is None:
            return self._failure(ex, is_retryable=ex.status in self._http)
        if status in self._successes:
            return SUCCESS
        return self._failure(ex, is_retryable=self._is_retryable(status))

    def _failure(self, ex: Exchange, *, is_retryable: bool) -> Verdict:
        return RETRYABLE_FAILURE if is_retryable and self._can_replay(ex) else NON_RETRYABLE_FAILURE


def _codes(doc: str) -> tuple[int, ...]:
    codes: tuple[int, ...] = option(default=(0,), doc=doc)
    return codes


SUCCESSES_DOC: Final = "Statuses that are successes; a list that is written replaces the default."


@attrs.frozen(kw_only=True)
class GrpcDefaultConfig:
    """A `grpc-status` that is no success is a failure; UNAVAILABLE (14) is retried."""

    success_status_codes: tuple[int, ...] = _codes(SUCCESSES_DOC)


@attrs.frozen(kw_only=True)
class GrpcCompliantConfig:
    """As gRPC's specification: UNAVAILABLE (14), streams refused with REFUSED_STREAM, and HTTP 429, 502, 503 and 504 are retried."""

    success_status_codes: tuple[int, ...] = _codes(SUCCESSES_DOC)


@attrs.frozen(kw_only=True)
class GrpcAlwaysRetryableConfig:
    """Every `grpc-status` that is no success is a failure that is retried."""

    success_status_codes: tuple[int, ...] = _codes(SUCCESSES_DOC)


@attrs.frozen(kw_only=True)
class GrpcNeverRetryableConfig:
    """Every `grpc-status` that is no success is a failure that is not retried."""

    success_status_codes: tuple[int, ...] = _codes(SUCCESSES_DOC)


@attrs.frozen(kw_only=True)
class GrpcRetryableStatusCodesConfig:
    """A `grpc-status` that is no success is a failure; those that are listed are retried."""

    success_status_codes: tuple[int, ...] = _codes(SUCCESSES_DOC)
    retryable_status_codes: tuple[int, ...] = option(default=(), doc="Statuses that are retried.")


def _is_unavailable(status: int) -> bool:
    return status == Status.UNAVAILABLE


def build_default(config: GrpcDefaultConfig, _runtime: Runtime, *, can_replay: CanReplay = has_no_body) -> GrpcClassifier:
    """The classifier of one service."""
    return GrpcClassifier(_is_unavailable, frozenset(config.success_status_codes), can_replay)


def build_compliant(config: GrpcCompliantConfig, _runtime: Runtime, *, can_replay: CanReplay = has_no_body) -> GrpcClassifier:
    """The classifier of one service."""
    return GrpcClassifier(
        _is_unavailable,
        frozenset(config.success_status_codes),
        can_replay,
        retryable_http=RETRYABLE_HTTP,
        resets=frozenset((int(Code.REFUSED_STREAM),)),
    )


def build_always(config: GrpcAlwaysRetryableConfig, _runtime: Runtime, *, can_replay: CanReplay = has_no_body) -> GrpcClassifier:
    """The classifier of one service."""
    return GrpcClassifier(lambda _status: True, frozenset(config.success_status_codes), can_replay)


def build_never(config: GrpcNeverRetryableConfig, _runtime: Runtime, *, can_replay: CanReplay = has_no_body) -> GrpcClassifier:
    """The classifier of one service."""
    return GrpcClassifier(lambda _status: False, frozenset(config.success_status_codes), can_replay, awaits_end=False)


def build_listed(config: GrpcRetryableStatusCodesConfig, _runtime: Runtime, *, can_replay: CanReplay = has_no_body) -> GrpcClassifier:
    """The classifier of one service."""
    retryable, successes = frozenset(config.retryable_status_codes), frozenset(config.success_status_codes)
    return GrpcClassifier(retryable.__contains__, successes, can_replay, awaits_end=not retryable <= successes)


by_status = partial(by_methods, heeds_answer=False)
_H2: Final = frozenset({"h2"})

NON_RETRYABLE_5XX = Kind(id="io.l5d.h2.nonRetryable5XX", config=NonRetryable5xxConfig, build=by_status(frozenset()), protocols=_H2)
RETRYABLE_READ_5XX = Kind(id="io.l5d.h2.retryableRead5XX", config=RetryableRead5xxConfig, build=by_status(READS), protocols=_H2)
RETRYABLE_IDEMPOTENT_5XX = Kind(
    id="io.l5d.h2.retryableIdempotent5XX", config=RetryableIdempotent5xxConfig, build=by_status(IDEMPOTENT), protocols=_H2
)
RETRYABLE_ALL_5XX = Kind(id="io.l5d.h2.retryableAll5XX", config=RetryableAll5xxConfig, build=by_status(ALL), protocols=_H2)
ALL_SUCCESSFUL = Kind(id="io.l5d.h2.allSuccessful", config=AllSuccessfulConfig, build=build_all_successful, protocols=_H2)
GRPC_DEFAULT = Kind(id="io.l5d.h2.grpc.default", config=GrpcDefaultConfig, build=build_default, protocols=_H2)
GRPC_COMPLIANT = Kind(id="io.l5d.h2.grpc.compliant", config=GrpcCompliantConfig, build=build_compliant, protocols=_H2)
GRPC_ALWAYS = Kind(id="io.l5d.h2.grpc.alwaysRetryable", config=GrpcAlwaysRetryableConfig, build=build_always, protocols=_H2)
GRPC_NEVER = Kind(id="io.l5d.h2.grpc.neverRetryable", config=GrpcNeverRetryableConfig, build=build_never, protocols=_H2)
GRPC_LISTED = Kind(id="io.l5d.h2.grpc.retryableStatusCodes", config=GrpcRetryableStatusCodesConfig, build=build_listed, protocols=_H2)
