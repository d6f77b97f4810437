"""Response classifiers: whether an outcome is a success, and whether a failure is worth another attempt.

Source: linkerd-config spec 5.7, and 7.3 for ``l5d-retryable`` and ``l5d-success-class``. A classifier only judges; retrying is another
filter's, within its budget.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import ClassVar, Final

import attrs

from meshgw.core.exchange import Exchange
from meshgw.errors import AnswerError, ConnectError, MeshError, Refused
from meshgw.kinds import Kind, Runtime
from meshgw.wire.headers import Headers


class Verdict(enum.Enum):
    """What a classifier makes of an outcome."""

    SUCCESS = "success"
    NON_RETRYABLE_FAILURE = "nonRetryableFailure"
    RETRYABLE_FAILURE = "retryableFailure"


# Looking a member up in its class costs more than all the rest of a classification.
SUCCESS: Final = Verdict.SUCCESS
NON_RETRYABLE_FAILURE: Final = Verdict.NON_RETRYABLE_FAILURE
RETRYABLE_FAILURE: Final = Verdict.RETRYABLE_FAILURE

RETRYABLE_HEADER: Final = b"l5d-retryable"
SUCCESS_CLASS_HEADER: Final = b"l5d-success-class"

READS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
IDEMPOTENT: Final = READS | {b"PUT", b"DELETE"}
ALL: Final = IDEMPOTENT | {b"POST", b"PATCH"}

RETRYABLE_ERRORS: Final[tuple[type[MeshError], ...]] = (ConnectError, AnswerError)
"""Unsent requests; closed connections, broken messages, attempts that took too long. A name that could not be bound is not among them."""

CanReplay = Callable[[Exchange], bool]
"""Whether the request could be sent again as it was."""


def has_no_body(ex: Exchange) -> bool:
    """The rule where nobody keeps bodies: what was streamed is gone, only a request without a body can be sent again (wrapper b)."""
    return ex.length == 0


class HttpClassifier:
    """5xx answers and errors are failures, other answers successes; failures of the given methods are retryable.

    Two rules hold for every kind (spec 5.7): a failure whose answer says ``l5d-retryable: true`` is retryable whatever the method, since
    it is known not to have been delivered; and a request that can not be replayed is never retryable.
    """

    __slots__ = ("_can_replay", "_heeds_answer", "_methods")
    sure_below: ClassVar[int] = 500
    """Answers of a lower status are successes whatever else they say; who has such a limit need not be asked about them."""

    def __init__(self, methods: frozenset[bytes] = frozenset(), can_replay: CanReplay = has_no_body, *, heeds_answer: bool = True) -> None:
        """``methods`` are those whose requests may be sent again; ``heeds_answer`` tells whether ``l5d-retryable`` counts."""
        self._methods, self._can_replay, self._heeds_answer = methods, can_replay, heeds_answer

    def classify(self, ex: Exchange) -> Verdict:
        """Judge the answer's head in ``ex``, or the error that stands in place of an answer."""
        error = ex.error
        if error is None:
            if not 500 <= ex.status < 600:
                return SUCCESS
            is_retryable = ex.method in self._methods or (self._heeds_answer and says_retryable(ex.response))
        elif isinstance(error, Refused):
            # A filter's own answer: asking again changes nothing.
            return NON_RETRYABLE_FAILURE if error.code >= 500 else SUCCESS
        else:
            is_retryable = isinstance(error, RETRYABLE_ERRORS) and ex.method in self._methods and not ex.responded
        return RETRYABLE_FAILURE if is_retryable and self._can_replay(ex) else NON_RETRYABLE_FAILURE


class AllSuccessful:
    """Every answer is a success; errors are failures and are not tried again."""

    __slots__ = ()

    def classify(self, ex: Exchange) -> Verdict:
        """Judge the answer or error in ``ex``."""
        return SUCCESS if ex.error is None or isinstance(ex.error, Refused) else NON_RETRYABLE_FAILURE


def says_retryable(response: Headers) -> bool:
    """Whether the answer says that its request was not delivered."""
    value = response.get(RETRYABLE_HEADER)
    return value is not None and value.lower() == b"true"


def write_success_class(response: Headers, verdict: Verdict) -> None:
    """Tell the next Linkerd or meshgw up the chain how the service's classifier judged."""
    response.set(SUCCESS_CLASS_HEADER, b"1.0" if verdict is SUCCESS else b"0.0")


def is_success(status: int, response: Headers | None) -> bool:
    """How a server counts an answer: by ``l5d-success-class`` where it is present, otherwise 5xx is a failure.

    A status of 0 stands for no answer. A value that is no number is a failure.
    """
    value = None if response is None else response.get(SUCCESS_CLASS_HEADER)
    if value is None:
        return 0 < status < 500 or status >= 600
    if value == b"1.0":
        return True
    try:
        return float(value) > 0
    except ValueError:
        return False


@attrs.frozen(kw_only=True)
class NonRetryable5xxConfig:
    """5xx answers and errors are failures; none is retried unless the answer says `l5d-retryable: true`."""


@attrs.frozen(kw_only=True)
class RetryableRead5xxConfig:
    """5xx answers and errors are failures; those of GET, HEAD, OPTIONS and TRACE are retried."""


@attrs.frozen(kw_only=True)
class RetryableIdempotent5xxConfig:
    """5xx answers and errors are failures; those of GET, HEAD, OPTIONS, TRACE, PUT and DELETE are retried."""


@attrs.frozen(kw_only=True)
class RetryableAll5xxConfig:
    """5xx answers and errors are failures; those of POST and PATCH are retried too."""


@attrs.frozen(kw_only=True)
class AllSuccessfulConfig:
    """Every answer is a success, whatever its status; errors are failures and are not retried."""


def by_methods(methods: frozenset[bytes], *, heeds_answer: bool = True) -> Callable[..., HttpClassifier]:
    """What builds a classifier that calls failures of these methods retryable."""

    def build(_config: object, _runtime: Runtime, *, can_replay: CanReplay = has_no_body) -> HttpClassifier:
        return HttpClassifier(methods, can_replay, heeds_answer=heeds_answer)

    return build


def build_all_successful(_config: AllSuccessfulConfig, _runtime: Runtime, *, can_replay: CanReplay = has_no_body) -> AllSuccessful:
    """The classifier of one service; nothing is retryable, so ``can_replay`` is never asked."""
    return AllSuccessful()


_HTTP: Final = frozenset({"http"})

NON_RETRYABLE_5XX = Kind(id="io.l5d.http.nonRetryable5XX", config=NonRetryable5xxConfig, build=by_methods(frozenset()), protocols=_HTTP)
RETRYABLE_READ_5XX = Kind(id="io.l5d.http.retryableRead5XX", config=RetryableRead5xxConfig, build=by_methods(READS), protocols=_HTTP)
RETRYABLE_IDEMPOTENT_5XX = Kind(
    id="io.l5d.http.retryableIdempotent5XX", config=RetryableIdempotent5xxConfig, build=by_methods(IDEMPOTENT), protocols=_HTTP
)
RETRYABLE_ALL_5XX = Kind(id="io.l5d.http.retryableAll5XX", config=RetryableAll5xxConfig, build=by_methods(ALL), protocols=_HTTP)
ALL_SUCCESSFUL = Kind(id="io.l5d.http.allSuccessful", config=AllSuccessfulConfig, build=build_all_successful, protocols=_HTTP)
