"""Merging of static client parameters (linkerd-config spec 4.8)."""

from __future__ import annotations

from collections.abc import Callable

from meshgw.config.loader import LoadResult
from meshgw.config.models import ClientBlock, ClientParams, HostConnectionPool, HttpRouterConfig
from meshgw.naming.path import Path

Loaded = Callable[[str], LoadResult]


def client(loaded: Loaded, block: str) -> ClientBlock:
    result = loaded(f"routers: [{{protocol: http, servers: [{{}}], client: {block}}}]")
    assert result.config is not None, [problem.show() for problem in result.problems]
    config = result.config.routers[0].config
    assert isinstance(config, HttpRouterConfig)
    return config.client


def test_block_without_kind_applies_to_every_name(loaded: Loaded) -> None:
    params, captures = client(loaded, "{connectTimeoutMs: 5}").for_name(Path.read("/#/io.l5d.fs/web"))
    assert params == ClientParams(connect_timeout_ms=5)
    assert captures == {"connect_timeout_ms": {}}


def test_name_that_matches_nothing_gets_the_defaults(loaded: Loaded) -> None:
    block = "{kind: io.l5d.static, configs: [{prefix: /#/io.l5d.fs/web, connectTimeoutMs: 5}]}"
    params, captures = client(loaded, block).for_name(Path.read("/#/io.l5d.fs/users"))
    assert (params, captures) == (ClientParams(), {})


def test_last_entry_that_sets_a_parameter_wins_whole(loaded: Loaded) -> None:
    block = (
        "{kind: io.l5d.static, configs: ["
        "{prefix: /, connectTimeoutMs: 1, hostConnectionPool: {minSize: 1, maxSize: 2}},"
        "{prefix: '/#/*/{service}', hostConnectionPool: {maxSize: 3}},"
        "{prefix: /#/io.l5d.fs/users, connectTimeoutMs: 9}]}"
    )
    params, captures = client(loaded, block).for_name(Path.read("/#/io.l5d.fs/web/rest"))
    assert params.connect_timeout_ms == 1
    assert params.host_connection_pool == HostConnectionPool(min_size=0, max_size=3)
    assert captures == {"connect_timeout_ms": {}, "host_connection_pool": {"service": "web"}}
