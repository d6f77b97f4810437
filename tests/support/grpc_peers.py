"""A gRPC service and its callers, made with grpcio and without generated code: messages are bytes, what is wanted is said in JSON.

The service is that of gRPC's own interoperability tests in spirit: empty and large calls, three kinds of streams, statuses, metadata that
are given back, and a wait. It runs in a thread of the test's process and writes down what it saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
import grpc.aio

from support.processes import LOOPBACK

SERVICE = "grpc.testing.TestService"
UNKNOWN_SERVICE = "grpc.testing.UnimplementedService"
ECHO_INITIAL, ECHO_TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
SECONDS = 20.0
"""The longest a call may take."""
MOST_MESSAGE = 64 << 20
T = TypeVar("T")


class GrpcService:
    """The service. ``deadlines`` are the seconds that calls said they had left, None without; ``seen`` the metadata of each call.

    ``failing`` is how many of the next unary calls are answered with ``failure``. ``calls`` counts by method, ``under_way`` is the number
    of those that have not ended, and ``cancelled`` of those whose work was broken off; one that reads a stream just sees its end then.
    """

    def __init__(self, *, most_streams: int | None = None, port: int = 0) -> None:
        self.port = port
        self.deadlines: list[float | None] = []
        self.seen: list[dict[str, str | bytes]] = []
        self.calls: dict[str, int] = {}
        self.cancelled = self.failing = self.under_way = 0
        self.failure = (grpc.StatusCode.UNAVAILABLE, "not now")
        self.compression: str | None = None
        self.arrived = threading.Event()
        self._most_streams = most_streams
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> GrpcService:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_exc: object) -> None:
        self._run(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def _start(self) -> None:
        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", MOST_MESSAGE), ("grpc.so_reuseport", 0)]
        if self._most_streams is not None:
            options.append(("grpc.max_concurrent_streams", self._most_streams))
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        self.port = self._server.add_insecure_port(f"{LOOPBACK}:{self.port}")
        await self._server.start()

    def drain(self) -> None:
        """Take no more calls, and let those under way end."""
        self._run(self._server.stop(SECONDS))

    def forget(self) -> None:
        """Begin the notes anew."""
        self.deadlines.clear()
        self.seen.clear()
        self.calls.clear()
        self.cancelled = self.failing = 0
        self.compression = None
        self.arrived.clear()

    # --- what each call has in common

    async def _begin(self, method: str, context: Any) -> None:
        left = context.time_remaining()
        self.deadlines.append(None if left is None or left > 1e8 else left)
        metadata = dict(context.invocation_metadata())
        self.seen.append(metadata)
        self.calls[method] = self.calls.get(method, 0) + 1
        self.arrived.set()
        if self.compression is not None:
            await context.send_initial_metadata((("grpc-internal-encoding-request", self.compression),))
        elif ECHO_INITIAL in metadata:
            await context.send_initial_metadata(((ECHO_INITIAL, metadata[ECHO_INITIAL]),))
        if ECHO_TRAILING in metadata:
            context.set_trailing_metadata(((ECHO_TRAILING, metadata[ECHO_TRAILING]),))

    def _unary(self, method: str, work: Callable[[Any, Any], Awaitable[bytes]]) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def call(request: Any, context: Any) -> bytes:
            self.under_way += 1
            try:
                await self._begin(method, context)
                return await work(request, context)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.under_way -= 1

        return call

    def _stream(self, method: str, work: Callable[[Any, Any], AsyncIterator[bytes]]) -> Callable[[Any, Any], AsyncIterator[bytes]]:
        async def call(request: Any, context: Any) -> AsyncIterator[bytes]:
            self.under_way += 1
            try:
                await self._begin(method, context)
                async for message in work(request, context):
                    yield message
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.under_way -= 1

        return call

    def _methods(self) -> Mapping[str, Any]:
        one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return {
            "EmptyCall": one(self._unary("EmptyCall", _empty)),
            "UnaryCall": one(self._unary("UnaryCall", self._unary_call)),
            "StreamingInputCall": grpc.stream_unary_rpc_method_handler(self._unary("StreamingInputCall", _count)),
            "StreamingOutputCall": many(self._stream("StreamingOutputCall", _put_out)),
            "FullDuplexCall": grpc.stream_stream_rpc_method_handler(self._stream("FullDuplexCall", _answer_each)),
        }

    async def _unary_call(self, request: bytes, context: Any) -> bytes:
        wish = read(request)
        if self.failing:
            self.failing -= 1
            await context.abort(*self.failure)
        if "sleep" in wish:
            await asyncio.sleep(wish["sleep"])
        if "code" in wish:
            await context.abort(_code(wish["code"]), wish.get("message", ""))
        return bytes(wish.get("size", 0))


def wish(payload: int = 0, **words: Any) -> bytes:
    """A request: what the answer should be, and ``payload`` bytes behind it. See ``_methods`` for the words."""
    return json.dumps(words).encode() + b"\n" + bytes(payload)


def read(request: bytes) -> dict[str, Any]:
    """What a request asks for."""
    found: dict[str, Any] = json.loads(request.partition(b"\n")[0] or b"{}")
    return found


def _code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


async def _empty(_request: bytes, _context: Any) -> bytes:
    return b""


async def _count(requests: AsyncIterator[bytes], _context: Any) -> bytes:
    """How many messages came and how many bytes behind their first lines."""
    messages = size = 0
    async for request in requests:
        messages += 1
        size += len(request.partition(b"\n")[2])
    return b"%d %d" % (messages, size)


async def _put_out(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """``sizes`` of messages, ``pause`` seconds between them, then perhaps ``code``."""
    asked = read(request)
    for size in asked.get("sizes", ()):
        yield bytes(size)
        await asyncio.sleep(asked.get("pause", 0))
    if "code" in asked:
        await context.abort(_code(asked["code"]), asked.get("message", ""))


async def _answer_each(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        asked = read(request)
        for size in asked.get("sizes", ()):
            yield bytes(size)
        if "code" in asked:
            await context.abort(_code(asked["code"]), asked.get("message", ""))


class GrpcCaller:
    """A channel of its own, and the service's methods on it."""

    def __init__(self, port: int, *, authority: str = "grpc.test", service: str = SERVICE, credentials: Any = None) -> None:
        options = [
            ("grpc.default_authority", authority),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", MOST_MESSAGE),
        ]
        target = f"{LOOPBACK}:{port}"
        make = grpc.insecure_channel if credentials is None else grpc.secure_channel
        self.channel = make(target, options) if credentials is None else make(target, credentials, options)
        self._service = service

    def close(self) -> None:
        """End the connection."""
        self.channel.close()

    def unary(self, method: str = "UnaryCall") -> Any:
        """A method with one message each way."""
        return self.channel.unary_unary(f"/{self._service}/{method}")

    def output(self) -> Any:
        """``StreamingOutputCall``."""
        return self.channel.unary_stream(f"/{self._service}/StreamingOutputCall")

    def input(self) -> Any:
        """``StreamingInputCall``."""
        return self.channel.stream_unary(f"/{self._service}/StreamingInputCall")

    def duplex(self) -> Any:
        """``FullDuplexCall``."""
        return self.channel.stream_stream(f"/{self._service}/FullDuplexCall")


@contextmanager
def caller(port: int, **words: Any) -> Iterator[GrpcCaller]:
    """A channel for the time of a block."""
    made = GrpcCaller(port, **words)
    try:
        yield made
    finally:
        made.close()


def main() -> None:
    """Serve on the port that is the only argument, until killed: a service of a process of its own."""
    with GrpcService(port=int(sys.argv[1])):
        threading.Event().wait()


if __name__ == "__main__":
    main()
