"""Much data both ways at once over one connection, with a stream that is hardly read: others are not delayed, memory stays small.

`MESHGW_TEST_H2_MIB` is the size of each transfer, 64 by default; 1024 is what is claimed, and takes some ten seconds more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest

from support import servers
from support.gateways import Gateway
from support.h2_bulk import BulkCaller
from support.h2_gateways import assert_at_rest, h2_gateway, under_way
from support.processes import LOOPBACK, Process, Running, free_port, wait_until

pytestmark = pytest.mark.integration

SIZE = int(os.environ.get("MESHGW_TEST_H2_MIB", "64")) << 20
MOST_GROWTH = 16 << 20
"""Bytes by which the process may grow; all of the windows and buffers of these streams are less."""
LONGEST = 300.0
CALLS = "/small"


class Watch:
    """Takes the gateway's resident size now and then."""

    def __init__(self, gw: Gateway, done: Callable[[], bool]) -> None:
        self._gw, self._done, self._last = gw, done, 0.0
        self.before = self.peak = gw.resident()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last > 0.05:
            self._last, self.peak = now, max(self.peak, self._gw.resident())
        return self._done()

    def describe(self) -> str:
        return f"{self.before / 2**20:.1f} MiB before, {self.peak / 2**20:.1f} MiB at most"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a small file and a huge one, which takes no room."""
    root = tmp_path / "files"
    root.mkdir()
    (root / "small").write_text("hello\n")
    with (root / "huge").open("wb") as file:
        file.truncate(SIZE)
    return root


@pytest.fixture
def gw(running: Running, files: Path) -> Iterator[Gateway]:
    """A gateway in front of nghttpd."""
    port = free_port()
    argv = [servers.tool("nghttpd"), "--no-tls", "-a", LOOPBACK, "-d", str(files), str(port)]
    running.add(Process("nghttpd", argv, running.directory, port=port))
    yield h2_gateway(running, {"web": port})


def shown(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{len(ordered)} calls, median {median(ordered) * 1000:.1f} ms, longest {ordered[-1] * 1000:.1f} ms"


def test_a_slow_reader_delays_no_other_stream_of_its_connection(gw: Gateway) -> None:
    with closing(BulkCaller(gw.port)) as caller:
        assert caller.run(lambda: len(caller.latencies) >= 50, seconds=LONGEST, calls=CALLS)
        idle, caller.latencies = caller.latencies, []
        slow = caller.read_slowly("/huge")
        down, up = caller.download("/huge"), caller.upload(CALLS, SIZE)
        watch = Watch(gw, lambda: down.is_whole and up.is_whole)
        assert caller.run(watch, seconds=LONGEST, calls=CALLS)
        busy = caller.latencies
        assert (down.status, down.received) == (200, SIZE)
        assert (up.status, up.left) == (200, 0)
        assert not slow.is_whole
        assert 0 < slow.received < SIZE // 2
        assert len(busy) > 20
        told = f"idle {shown(idle)}; busy {shown(busy)}; {watch.describe()}"
        print(told)  # noqa: T201 - the figures, with pytest -s
        assert watch.peak - watch.before < MOST_GROWTH, told
        assert set(under_way(gw).values()) == {1}, "the slow one"
        upstream = gw.metrics()
        assert upstream["rt/h2/client/#/io.l5d.fs/web/connects"] == 1, "all of it went over one connection behind as well"
    assert_at_rest(gw)


def test_many_streams_that_nobody_reads_take_little_memory(gw: Gateway) -> None:
    with closing(BulkCaller(gw.port)) as caller:
        assert caller.run(lambda: len(caller.latencies) >= 20, seconds=LONGEST, calls=CALLS)
        stuck = [caller.read_slowly("/huge") for _ in range(100)]
        watch = Watch(gw, lambda: all(stream.received for stream in stuck) and len(caller.latencies) >= 60)
        assert caller.run(watch, seconds=LONGEST, calls=CALLS)
        assert all(stream.received < 1 << 20 for stream in stuck)
        assert watch.peak - watch.before < 2 * MOST_GROWTH, watch.describe()
    assert_at_rest(gw)


def test_a_caller_that_leaves_amid_all_this_leaves_nothing(gw: Gateway) -> None:
    with closing(BulkCaller(gw.port)) as caller:
        caller.read_slowly("/huge")
        down, up = caller.download("/huge"), caller.upload(CALLS, SIZE)
        assert caller.run(lambda: down.received > 1 << 20 and up.left < SIZE - (1 << 20), seconds=LONGEST, calls=CALLS)
    assert_at_rest(gw)
    assert wait_until(lambda: gw.server_metric("connections", "h2") == 0, LONGEST)
