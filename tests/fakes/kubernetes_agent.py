"""A connection in memory between a client (as an ``IAgent``) and the scripted Kubernetes API server, under a clock that a test moves."""

from __future__ import annotations

from random import Random
from typing import Any, Generic, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from fakes.kubernetes import Answer, Asked, Server, Stream
from fakes.looked import literal
from meshgw.backends.kubernetes import PACE, KubernetesApi
from meshgw.backends.kubernetes_access import ApiServer
from meshgw.backends.watching import Pace
from meshgw.config.kubernetes import KubernetesAccess, KubernetesServer
from meshgw.core.live import Live, Ok, State
from meshgw.telemetry.metrics import Metrics

T = TypeVar("T")


class _Consumer:
    """What a request's body is written to."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


@implementer(IResponse)
class Response:
    """A response whose body is delivered as the server sends it."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    length = -1
    request = previousResponse = None

    def __init__(self, code: int, headers: dict[str, str]) -> None:
        self.code, self.headers = code, Headers({name: [value] for name, value in headers.items()})
        self._protocol: Any = None
        self._waiting: list[bytes] = []
        self._reason: Failure | None = None
        self.is_paused = False
        self.lost: list[None] = []
        self.on_lost: Any = None

    def setPreviousResponse(self, _previous: object) -> None:
        """There is none."""

    def deliverBody(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.makeConnection(self)
        self._flush()

    # the transport that the body's protocol sees

    def loseConnection(self) -> None:
        self.lost.append(None)
        if self.on_lost is not None:
            self.on_lost()

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False
        self._flush()

    def stopProducing(self) -> None:
        self.loseConnection()

    # the server's side

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._flush()

    def finish(self, properly: bool) -> None:
        self._reason = Failure(ResponseDone()) if properly else Failure(ResponseFailed([Failure(ConnectionLost())]))
        self._flush()

    def _flush(self) -> None:
        while self._protocol is not None and self._waiting and not self.is_paused:
            self._protocol.dataReceived(self._waiting.pop(0))
        if self._protocol is not None and self._reason is not None and not self._waiting:
            protocol, self._protocol = self._protocol, None
            protocol.connectionLost(self._reason)


@implementer(IAgent)
class Agent:
    """Gives requests to a server; ``is_down`` refuses connections. ``unanswered`` are those that wait for their head."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self.server, self.clock = server, clock
        self.is_down = False
        self.unanswered: set[Deferred[Any]] = set()

    def request(self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: Any = None) -> Deferred[Any]:
        if self.is_down:
            return defer.fail(ConnectionRefusedError())
        url = urlsplit(uri.decode("ascii"))
        body = _Consumer()
        if bodyProducer is not None:
            bodyProducer.startProducing(body)
        fields = {name.decode().lower(): values[0].decode() for name, values in (headers or Headers()).getAllRawHeaders()}
        asked = Asked(method.decode(), url.path, dict(parse_qsl(url.query, keep_blank_values=True)), fields, body.data)
        answered: Deferred[Any] = Deferred(lambda _answered: call.cancel() if call is not None else None)
        call = None
        if self.server.delay:
            self.unanswered.add(answered)
            answered.addBoth(self._ended, answered)
            call = self.clock.callLater(self.server.delay, lambda: answered.callback(self._response(asked)))
        else:
            answered.callback(self._response(asked))
        return answered

    def _ended(self, result: Any, answered: Deferred[Any]) -> Any:
        self.unanswered.discard(answered)
        return result

    def _response(self, asked: Asked) -> Response:
        answer = self.server.answer(asked)
        if isinstance(answer, Stream):
            response = Response(200, {"content-type": "application/json"})
            response.on_lost = answer.closed
            answer.connect(response.write, response.finish)
            return response
        assert isinstance(answer, Answer)
        response = Response(answer.status, answer.headers)
        response.write(answer.body)
        response.finish(True)
        return response


class MemoryConnector:
    """Stands in for a :class:`meshgw.backends.connecting.Connector`, and keeps what each was made with."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.made: list[dict[str, Any]] = []
        self.started = 0

    def __call__(self, _reactor: object, _resolve: object, host: str, port: int, **settings: Any) -> MemoryConnector:
        self.made.append({"host": host, "port": port, **settings})
        self.base = f"http://{host}:{port}"
        return self

    def refusal(self) -> str:
        return ""

    def start(self) -> None:
        self.started += 1

    def stop(self) -> None:
        self.started -= 1


class Cluster:
    """A scripted server, a clock, and our client of it, started."""

    def __init__(self, config: KubernetesAccess | None = None, *, pace: Pace = PACE, **settings: Any) -> None:
        self.clock = Clock()
        self.server = Server(self.clock)
        self.agent = Agent(self.server, self.clock)
        self.connector = MemoryConnector(self.agent)
        self.metrics = Metrics()
        reached = ApiServer(
            self.clock,
            literal,
            config or KubernetesServer(),
            environment=settings.pop("environment", {}),
            service_account=settings.pop("service_account", "/nonexistent"),
            connector=cast("Any", self.connector),
        )
        self.api = KubernetesApi(self.clock, Random(7), self.metrics, reached, pace=pace, **settings)
        self.api.startService()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.api.running:
            self.api.stopService()

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        """Let time go by in steps, so that what is due at once after something else is done as well."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def counted(self, name: str) -> float:
        """A counter or gauge of the watches."""
        snapshot = self.metrics.snapshot()
        return snapshot.counters.get((name,), 0) or snapshot.gauges.get((name,), 0.0)


class Seen(Generic[T]):
    """What an observer of a live value was told."""

    def __init__(self, live: Live[T]) -> None:
        self.states: list[State[T]] = []
        self._observation = live.observe(self.states.append)

    @property
    def last(self) -> State[T]:
        return self.states[-1]

    @property
    def value(self) -> T:
        assert isinstance(self.last, Ok), self.last
        return self.last.value

    @property
    def error(self) -> str:
        """Why there is no state, or only an old one; empty if all is well."""
        return str(getattr(self.last, "error", None) or "")

    def close(self) -> None:
        self._observation.close()
