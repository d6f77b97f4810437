"""gRPC with grpcio as caller and service: the calls of gRPC's interoperability tests, through one gateway and through two."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from support.gateways import Gateway
from support.grpc_peers import ECHO_INITIAL, ECHO_TRAILING, SECONDS, SERVICE, UNKNOWN_SERVICE, GrpcCaller, GrpcService, caller, wish
from support.h2_gateways import assert_at_rest, h2_gateway
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

BY_METHOD = {"identifier": {"kind": "io.l5d.header.path", "segments": 2}}
NAMES = f"/svc => /#/io.l5d.fs; /svc/{UNKNOWN_SERVICE} => /#/io.l5d.fs/{SERVICE}"
LARGE_REQUEST, LARGE_ANSWER = 271828, 314159
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


@pytest.fixture(scope="module")
def service() -> Iterator[GrpcService]:
    with GrpcService() as served:
        yield served


@pytest.fixture(scope="module")
def chain(service: GrpcService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Gateway]]:
    """A gateway in front of the service, and one in front of that."""
    router = {**BY_METHOD, "dtab": NAMES}
    with Running(tmp_path_factory.mktemp("grpc")) as running:
        far = h2_gateway(running, {SERVICE: service.port}, router=router, name="far")
        near = h2_gateway(running, {SERVICE: far.port}, router=router, name="near")
        yield far, near


@pytest.fixture(params=["one gateway", "two gateways"])
def calls(request: pytest.FixtureRequest, service: GrpcService, chain: tuple[Gateway, Gateway]) -> Iterator[GrpcCaller]:
    """A caller; after its test nothing is under way anywhere."""
    service.forget()
    far, near = chain
    with caller(far.port if request.param == "one gateway" else near.port) as made:
        yield made
        assert_at_rest(far, near)
        assert wait_until(lambda: service.under_way == 0, SECONDS), f"{service.under_way} calls hang at the service"


def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and message of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        result = call()
        if hasattr(result, "__next__"):
            list(result)
    return caught.value.code(), caught.value.details()


def test_empty_unary(calls: GrpcCaller) -> None:
    assert calls.unary("EmptyCall")(b"", timeout=SECONDS) == b""


def test_large_unary(calls: GrpcCaller) -> None:
    assert len(calls.unary()(wish(LARGE_REQUEST, size=LARGE_ANSWER), timeout=SECONDS)) == LARGE_ANSWER


def test_unary_much_larger_than_all_windows(calls: GrpcCaller) -> None:
    assert len(calls.unary()(wish(3 << 20, size=8 << 20), timeout=SECONDS)) == 8 << 20


def test_client_streaming(calls: GrpcCaller) -> None:
    sizes = [27182, 8, 1828, 45904]
    assert calls.input()(iter([wish(size) for size in sizes]), timeout=SECONDS) == b"4 %d" % sum(sizes)


def test_server_streaming(calls: GrpcCaller) -> None:
    sizes = [31415, 9, 2653, 58979]
    assert [len(message) for message in calls.output()(wish(sizes=sizes), timeout=SECONDS)] == sizes


class Asking:
    """Requests that are sent when the test says so."""

    def __init__(self) -> None:
        self._wishes: queue.Queue[bytes | None] = queue.Queue()

    def __iter__(self) -> Iterator[bytes]:
        while (asked := self._wishes.get()) is not None:
            yield asked

    def ask(self, asked: bytes) -> None:
        self._wishes.put(asked)

    def end(self) -> None:
        self._wishes.put(None)


def test_ping_pong(calls: GrpcCaller) -> None:
    asking = Asking()
    answers = calls.duplex()(iter(asking), timeout=SECONDS)
    for payload, size in ((27182, 31415), (8, 9), (1828, 2653), (45904, 58979)):
        asking.ask(wish(payload, sizes=[size]))
        assert len(next(answers)) == size, "each answer comes before the next request"
    asking.end()
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def test_empty_stream(calls: GrpcCaller) -> None:
    answers = calls.duplex()(iter(()), timeout=SECONDS)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def test_cancel_after_begin(calls: GrpcCaller, service: GrpcService) -> None:
    call = calls.input().future(iter(Asking()))
    assert service.arrived.wait(SECONDS)
    call.cancel()
    assert call.cancelled()
    assert call.code() is grpc.StatusCode.CANCELLED
    assert wait_until(lambda: service.under_way == 0, SECONDS), "the service still waits for requests"


def test_cancel_after_first_response(calls: GrpcCaller, service: GrpcService) -> None:
    asking = Asking()
    answers = calls.duplex()(iter(asking))
    asking.ask(wish(27182, sizes=[31415]))
    assert len(next(answers)) == 31415
    answers.cancel()
    assert failure(lambda: answers)[0] is grpc.StatusCode.CANCELLED
    assert wait_until(lambda: service.under_way == 0, SECONDS), "the service still waits for requests"


def test_timeout_on_sleeping_server(calls: GrpcCaller, service: GrpcService) -> None:
    assert failure(lambda: calls.unary()(wish(sleep=30), timeout=0.3))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert wait_until(lambda: service.cancelled == 1, SECONDS), "the service was not told"


def test_the_service_is_told_how_much_time_is_left(calls: GrpcCaller, service: GrpcService) -> None:
    calls.unary()(wish(), timeout=1000.0)
    calls.unary()(wish())
    told, untold = service.deadlines
    assert told is not None
    assert 900 < told <= 1000
    assert untold is None


def test_custom_metadata(calls: GrpcCaller) -> None:
    binary = bytes(range(256))
    metadata = ((ECHO_INITIAL, "test_initial_metadata_value"), (ECHO_TRAILING, binary))
    _, unary = calls.unary().with_call(wish(8, size=9), timeout=SECONDS, metadata=metadata)
    stream = calls.duplex()(iter([wish(8, sizes=[9])]), timeout=SECONDS, metadata=metadata)
    assert len(list(stream)) == 1
    for call in (unary, stream):
        assert dict(call.initial_metadata())[ECHO_INITIAL] == "test_initial_metadata_value"
        assert dict(call.trailing_metadata())[ECHO_TRAILING] == binary


def test_metadata_of_both_sides_passes_and_the_path_is_told(calls: GrpcCaller, service: GrpcService) -> None:
    calls.unary()(wish(), timeout=SECONDS, metadata=(("x-many", "one"), ("x-many", "two"), ("x-bin-bin", b"\x00\xff")))
    seen = service.seen[-1]
    assert seen["x-bin-bin"] == b"\x00\xff"
    assert seen["x-many"] in ("two", "one, two")
    assert seen["l5d-dst-service"] == f"/svc/{SERVICE}/UnaryCall"
    assert str(seen["user-agent"]).startswith("grpc-python/")


def test_status_code_and_message(calls: GrpcCaller) -> None:
    expected = (grpc.StatusCode.UNKNOWN, "test status message")
    assert failure(lambda: calls.unary()(wish(code=2, message=expected[1]), timeout=SECONDS)) == expected
    assert failure(lambda: calls.duplex()(iter([wish(code=2, message=expected[1])]), timeout=SECONDS)) == expected


def test_status_after_messages(calls: GrpcCaller) -> None:
    answers = calls.output()(wish(sizes=[5, 6], code=10, message="half-way"), timeout=SECONDS)
    assert [len(next(answers)), len(next(answers))] == [5, 6]
    assert failure(lambda: answers) == (grpc.StatusCode.ABORTED, "half-way")


def test_special_status_message(calls: GrpcCaller) -> None:
    assert failure(lambda: calls.unary()(wish(code=2, message=SPECIAL), timeout=SECONDS)) == (grpc.StatusCode.UNKNOWN, SPECIAL)


def test_unimplemented_method(calls: GrpcCaller) -> None:
    assert failure(lambda: calls.unary("UnimplementedCall")(b"", timeout=SECONDS))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_unimplemented_service(calls: GrpcCaller) -> None:
    call = calls.channel.unary_unary(f"/{UNKNOWN_SERVICE}/UnimplementedCall")
    assert failure(lambda: call(b"", timeout=SECONDS))[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_service_that_leads_nowhere_is_unavailable(calls: GrpcCaller) -> None:
    code, message = failure(lambda: calls.channel.unary_unary("/no.Such/Call")(b"", timeout=SECONDS))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "/svc/no.Such/Call" in message


def test_compression_passes(calls: GrpcCaller, service: GrpcService, chain: tuple[Gateway, Gateway]) -> None:
    service.compression, compression = "gzip", grpc.Compression.Gzip
    before = chain[0].server_metric("received_bytes", "h2"), chain[0].server_metric("sent_bytes", "h2")
    assert len(calls.unary()(wish(1 << 20, size=1 << 20), timeout=SECONDS, compression=compression)) == 1 << 20
    after = chain[0].server_metric("received_bytes", "h2"), chain[0].server_metric("sent_bytes", "h2")
    assert after[0] - before[0] < 50_000
    assert after[1] - before[1] < 50_000


def test_a_thousand_streams_at_once(calls: GrpcCaller, service: GrpcService) -> None:
    count = 1000
    wishes = [Asking() for _ in range(count)]
    streams = [calls.duplex()(iter(asking), timeout=120) for asking in wishes]
    for number, asking in enumerate(wishes):
        asking.ask(wish(sizes=[number]))
    assert [len(next(stream)) for stream in streams] == list(range(count))
    assert service.under_way == count, "all of them are open at once"
    for asking in wishes:
        asking.ask(wish(sizes=[1, 2]))
        asking.end()
    assert all([len(message) for message in stream] == [1, 2] for stream in streams)
    assert all(stream.code() is grpc.StatusCode.OK for stream in streams)


def test_a_storm_of_cancelled_streams_leaves_nothing(calls: GrpcCaller, service: GrpcService) -> None:
    def begin_and_cancel(number: int) -> None:
        asking = Asking()
        answers = calls.duplex()(iter(asking))
        if number % 3:
            asking.ask(wish(100, sizes=[100_000] if number % 3 == 1 else [10]))
        if number % 3 == 2:
            next(answers)
        answers.cancel()
        asking.end()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin_and_cancel, range(90)))
    assert calls.unary("EmptyCall")(b"", timeout=SECONDS) == b"", "the connection is in good order"


def test_calls_of_many_threads_get_their_own_answers(calls: GrpcCaller) -> None:
    unary, mixed = calls.unary(), threading.Event()

    def ask(number: int) -> None:
        if len(unary(wish(number, size=number), timeout=SECONDS)) != number:
            mixed.set()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(400)))
    assert not mixed.is_set()
