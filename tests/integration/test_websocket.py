"""WebSockets through the gateway, with the ``websockets`` package as client and as server: a switch of protocols becomes a tunnel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.gateways import LOOPBACK, SECONDS, Gateway, gateway, read_until
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration


async def answer(peer: ServerConnection) -> None:
    """Echo; some messages ask for an end of a certain kind."""
    async for message in peer:
        if message == "close":
            await peer.close(4001, "enough")
            return
        if message == "die":
            peer.transport.abort()
            return
        await peer.send(message)


@asynccontextmanager
async def echo(port: int) -> AsyncIterator[Server]:
    async with serve(answer, LOOPBACK, port, max_size=None, compression=None) as server:
        yield server


def client(gw: Gateway, host: str = "chat") -> connect:
    return connect(f"ws://{host}/talk", host=LOOPBACK, port=gw.port, proxy=None, compression=None, max_size=None)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a dialogue, which must not take long."""

    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await work

    asyncio.run(bounded())


def test_messages_are_echoed_both_ways_and_large_ones_arrive_whole(running: Running) -> None:
    port = free_port()
    gw = gateway(running, {"chat": port})

    async def work() -> None:
        async with echo(port), client(gw) as peer:
            for message in ("hello", b"\x00\xff" * 10, "x" * 70_000, bytes(8 << 20)):
                await peer.send(message)
                assert await peer.recv() == message
            await (await peer.ping())
            assert peer.response is not None
            assert peer.response.status_code == 101
            assert peer.response.headers["Via"] == "1.1 linkerd"

    run(work())
    assert gw.server_metric("status/101") == 1
    assert wait_until(lambda: gw.server_metric("connections") == 0, SECONDS)


def test_the_close_handshake_passes_from_either_side(running: Running) -> None:
    port = free_port()
    gw = gateway(running, {"chat": port})

    async def work() -> None:
        async with echo(port) as server:
            async with client(gw) as peer:
                await peer.close(4000, "done")
                assert peer.close_code == 4000
            async with client(gw) as peer:
                await peer.send("close")
                with pytest.raises(ConnectionClosed) as caught:
                    await peer.recv()
                assert caught.value.rcvd is not None
                assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")
            while server.connections:
                await asyncio.sleep(0.01)

    run(work())
    assert wait_until(lambda: gw.server_metric("connections") == 0, SECONDS)
    assert gw.metrics()["rt/http/client/#/io.l5d.fs/chat/connections"] == 0


def test_the_death_of_the_service_ends_the_callers_connection(running: Running) -> None:
    port = free_port()
    gw = gateway(running, {"chat": port})

    async def work() -> None:
        async with echo(port), client(gw) as peer:
            await peer.send("die")
            with pytest.raises(ConnectionClosed) as caught:
                await peer.recv()
            assert caught.value.rcvd is None, "no close frame was made up"

    run(work())


def test_the_death_of_the_caller_ends_the_services_connection(running: Running) -> None:
    port = free_port()
    gw = gateway(running, {"chat": port})

    async def work() -> None:
        async with echo(port) as server:
            peer: ClientConnection = await client(gw)
            await peer.send("hello")
            await peer.recv()
            assert len(server.connections) == 1
            peer.transport.abort()
            while server.connections:
                await asyncio.sleep(0.01)

    run(work())


def test_a_refused_handshake_comes_back_as_it_is(running: Running) -> None:
    port = free_port()
    gw = gateway(running, {"chat": port})

    async def work() -> None:
        def refuse(peer: ServerConnection, _request: object) -> object:
            return peer.respond(403, "not here\n")

        async with serve(answer, LOOPBACK, port, process_request=refuse):  # type: ignore[arg-type]  # its result has a private type
            with pytest.raises(InvalidStatus) as caught:
                await client(gw)
            assert (caught.value.response.status_code, caught.value.response.body) == (403, b"not here\n")
            with pytest.raises(InvalidStatus) as caught:
                await client(gw, "nowhere")
            assert caught.value.response.status_code == 502

    run(work())


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n"
ASK = b"GET / HTTP/1.1\r\nHost: raw\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"


def test_a_tunnel_after_a_chunked_answer_is_not_framed_and_carries_early_bytes(running: Running) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as service:
        gw = gateway(running, {"raw": service.getsockname()[1]})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: raw\r\n\r\n")
            upstream = service.accept()[0]
            upstream.settimeout(SECONDS)
            with closing(upstream):
                read_until(upstream, b"\r\n\r\n")
                upstream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
                read_until(caller, b"0\r\n\r\n")
                caller.sendall(ASK + b"early")
                read_until(upstream, b"\r\n\r\n")
                upstream.sendall(SWITCH + b"first bytes\n")
                assert read_until(caller, b"bytes\n").endswith(b"\r\n\r\nfirst bytes\n")
                upstream.sendall(b"more\n")
                assert read_until(caller, b"\n") == b"more\n"
                assert upstream.recv(100) == b"early"


def test_what_follows_the_end_of_a_tunnel_is_not_read_as_a_request(running: Running) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as service:
        gw = gateway(running, {"raw": service.getsockname()[1]})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(ASK)
            upstream = service.accept()[0]
            read_until(upstream, b"\r\n\r\n")
            upstream.sendall(SWITCH)
            read_until(caller, b"\r\n\r\n")
            upstream.close()
            assert caller.recv(100) == b""
            caller.sendall(b"GET /smuggled HTTP/1.1\r\nHost: raw\r\n\r\n")
            assert caller.recv(100) == b""
        service.settimeout(0.3)
        with pytest.raises(TimeoutError):
            service.accept()


def test_a_caller_that_sends_no_more_still_gets_the_rest(running: Running) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as service:
        gw = gateway(running, {"raw": service.getsockname()[1]})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(ASK)
            upstream = service.accept()[0]
            upstream.settimeout(SECONDS)
            with closing(upstream):
                read_until(upstream, b"\r\n\r\n")
                upstream.sendall(SWITCH)
                read_until(caller, b"\r\n\r\n")
                caller.sendall(b"question")
                caller.shutdown(socket.SHUT_WR)
                assert read_until(upstream, b"question") == b"question"
                assert upstream.recv(100) == b""
                upstream.sendall(b"answer")
            assert read_until(caller, b"answer") == b"answer"
            assert caller.recv(100) == b""
