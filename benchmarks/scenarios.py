"""What is measured: the table of scenarios."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

KIB, MIB = 1 << 10, 1 << 20
LOAD, FIXED_RATE, IDLE, NAMES = "load", "fixed-rate", "idle", "names"
"""Kinds: closed loop; open loop at a part of each proxy's own maximum; idle connections; many bound names."""
COMPILED = ("nginx", "haproxy", "envoy", "meshgw")
IN_PYTHON = ("twisted.web", "mitmproxy", "proxy.py", "meshgw")


@attrs.frozen(kw_only=True)
class Scenario:
    """One line of the table. ``proxies`` are participants as on the command line (`nginx:2` has two workers); ``rounds`` is the default."""

    name: str
    about: str
    kind: str = LOAD
    proxies: tuple[str, ...] = COMPILED
    body: int = 128
    connections: tuple[int, ...] = (16,)
    is_keep_alive: bool = True
    headers: int = 12
    is_per_worker: bool = False
    """``connections`` are for each worker, so that with more workers each has the same load."""
    rounds: int = 3
    is_default: bool = True


def _grid() -> Iterator[Scenario]:
    """All combinations, without those that the default set has already."""
    for body, size in ((128, "128 B"), (10 * KIB, "10 KiB"), (MIB, "1 MiB")):
        for is_keep_alive in (True, False):
            for proxies, group in ((COMPILED, "1"), (tuple(f"{name}:2" for name in COMPILED), "2"), (IN_PYTHON[:3], "python")):
                way = "keep-alive" if is_keep_alive else "one request per connection"
                yield Scenario(
                    name=f"grid-{size.replace(' ', '').lower()}-{'keep' if is_keep_alive else 'close'}-{group}",
                    about=f"{size} bodies, {way}, {'2 workers' if group == '2' else '1 worker'}",
                    proxies=proxies,
                    body=body,
                    connections=(1, 16, 256),
                    is_keep_alive=is_keep_alive,
                    is_default=False,
                )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="small", about="128 B bodies, keep-alive", connections=(1, 16), rounds=5),
        Scenario(name="python", about="proxies written in Python", proxies=IN_PYTHON),
        Scenario(name="many", about="256 connections", connections=(256,)),
        Scenario(name="close", about="one request per connection", is_keep_alive=False),
        Scenario(name="body-10k", about="10 KiB bodies", body=10 * KIB),
        Scenario(name="body-1m", about="1 MiB bodies", body=MIB),
        Scenario(name="workers", about="one worker and two", proxies=("nginx", "nginx:2", "meshgw", "meshgw:2"), is_per_worker=True),
        Scenario(
            name="fixed-rate", about="latency at 70 % of each one's own maximum", kind=FIXED_RATE, proxies=("haproxy", "meshgw"), rounds=3
        ),
        Scenario(name="idle", about="10,000 idle connections", kind=IDLE, connections=(10_000,), rounds=1),
        Scenario(name="names", about="10,000 bound endpoints and ten", kind=NAMES, proxies=("meshgw-few", "meshgw-many")),
        Scenario(name="bare", about="requests with nothing but Host", headers=0, connections=(1, 16), is_default=False),
        Scenario(
            name="resilience", about="what resilience costs", proxies=("haproxy", "meshgw-off", "meshgw", "meshgw-full"), is_default=False
        ),
        Scenario(
            name="workers-all",
            about="one worker and two, all proxies",
            proxies=tuple(f"{name}{workers}" for name in COMPILED for workers in ("", ":2")),
            is_per_worker=True,
            is_default=False,
        ),
        Scenario(name="fixed-rate-all", about="latency at 70 % of each one's own maximum", kind=FIXED_RATE, is_default=False),
        Scenario(
            name="idle-python",
            about="10,000 idle connections, proxies written in Python",
            kind=IDLE,
            proxies=IN_PYTHON[:3],
            connections=(10_000,),
            rounds=1,
            is_default=False,
        ),
        *_grid(),
    )
}
