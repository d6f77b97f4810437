"""``io.l5d.fs`` without a reactor: the file format, and what names and addresses follow from a directory (spec 3.2)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path as File
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, Pending, Source, constant, current
from meshgw.kinds import Runtime
from meshgw.namers.files import KIND, LARGEST_FILE, Endpoint, FsNamer, read_endpoints
from meshgw.namers.resolvconf import literal_address
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree


class Hosts:
    """A resolver whose names are sources under the test's control."""

    def __init__(self) -> None:
        self.sources: dict[tuple[str, int], Source[Addr]] = {}

    def resolve(self, host: str, port: int) -> Live[Addr]:
        literal = literal_address(host)
        if literal is not None:
            return constant(Replicas((Address(literal, port),)))
        return self.sources.setdefault((host, port), Source())


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


@pytest.fixture
def namer(tmp_path: File, hosts: Hosts) -> FsNamer:
    return FsNamer(Clock(), str(tmp_path), Path.read("/#/io.l5d.fs"), hosts.resolve)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("meshgw."):
            lines.append(event["log_format"].format(**{key: value for key, value in event.items() if not key.startswith("log_")}))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def tree_of(namer: FsNamer, path: str) -> NameTree[Any]:
    state = current(namer.lookup(Path.read(path)))
    assert isinstance(state, Ok)
    return state.value


def bound(namer: FsNamer, path: str) -> Bound:
    tree = tree_of(namer, path)
    assert isinstance(tree, Leaf)
    return cast(Bound, tree.value)


def watch(live: Live[Any]) -> tuple[list[Any], Callable[[], None]]:
    seen: list[Any] = []
    return seen, live.observe(seen.append).close


def replicas(*addresses: Address) -> Replicas:
    return Replicas(addresses)


@pytest.mark.parametrize(
    ("line", "endpoint"),
    [
        ("127.0.0.1 8080", Endpoint("127.0.0.1", 8080)),
        ("  web.example.com\t80  # comment", Endpoint("web.example.com", 80)),
        ("::1 8080", Endpoint("::1", 8080)),
        ("[2001:db8::1] 8080 * 2", Endpoint("[2001:db8::1]", 8080, 2.0)),
        ("fe80::1%eth0 80", Endpoint("fe80::1%eth0", 80)),
        ("h 65535 * .5", Endpoint("h", 65535, 0.5)),
        ("h 1*1.5e1", Endpoint("h", 1, 15.0)),
        ("h 1 * 0", Endpoint("h", 1, 0.0)),
    ],
)
def test_good_lines(line: str, endpoint: Endpoint) -> None:
    assert read_endpoints(line) == ((endpoint,), ())


@pytest.mark.parametrize(
    "line",
    [
        "web",
        "web:80",
        "web 0",
        "web 65536",
        "web -80",
        "web 80 81",
        "web 80 *",
        "web 80 * -1",
        "web 80 * 1e999",
        "web 80 * nan",
        "web 80 * 2 * 3",
        "w/b 80",
        "wéb 80",
        "[::1 80",
        "web ٨٠",
    ],
)
def test_malformed_lines_are_told_with_their_number(line: str) -> None:
    assert read_endpoints(f"# head\n\na 1\n{line}\nb 2\n") == ((Endpoint("a", 1), Endpoint("b", 2)), ((4, line),))


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    good, _ = read_endpoints(text)
    assert all(1 <= endpoint.port <= 65535 and endpoint.weight >= 0 for endpoint in good)


def test_bound_files_are_described_with_their_error(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("127.0.0.1 80\n")
    (tmp_path / "bad").write_text("what?\n")
    holds = [bound(namer, path).addr.observe(lambda _state: None) for path in ("/web", "/bad")]
    described = json.loads(json.dumps(namer.describe()))
    assert described["/web"] == {"state": {"running": True, "stale": False, "value": ["127.0.0.1:80"]}, "poll": {}}
    assert described["/bad"]["state"]["value"] is None and "malformed address" in described["/bad"]["poll"]["error"]
    (tmp_path / "web").write_text("what?\n")
    namer.look()
    assert namer.describe()["/web"]["state"] == {"running": True, "stale": True, "value": ["127.0.0.1:80"]}
    for hold in holds:
        hold.close()
    assert namer.describe()["/web"]["state"]["running"] is False


def test_a_file_is_a_name_and_the_rest_is_residual(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("127.0.0.1 80\n")
    found = bound(namer, "/web/a/b")
    assert found.id == Path.read("/#/io.l5d.fs/web")
    assert found.residual == Path.read("/a/b")
    assert current(found.addr) == Ok(replicas(Address("127.0.0.1", 80)))


def test_sub_directories_consume_a_segment_each(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "eu" / "west").mkdir(parents=True)
    (tmp_path / "eu" / "west" / "web").write_text("127.0.0.1 80")
    assert bound(namer, "/eu/west/web/rest").id == Path.read("/#/io.l5d.fs/eu/west/web")
    assert tree_of(namer, "/eu/west") == NEG
    assert tree_of(namer, "/eu") == NEG
    assert tree_of(namer, "/") == NEG
    assert tree_of(namer, "/nosuch") == NEG


@pytest.mark.parametrize("label", [b"..", b".", b".hidden", b"a/b", b"/etc", b"web\0x", b"x" * 300])
def test_names_that_leave_the_directory_are_unknown(namer: FsNamer, tmp_path: File, label: bytes) -> None:
    (tmp_path / ".hidden").write_text("127.0.0.1 80")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("127.0.0.1 80")
    (tmp_path / "web").write_text("127.0.0.1 80")
    assert namer.find(Path((label, b"web"))) == NEG
    assert namer.find(Path((label,))) == NEG


def test_names_that_do_not_decode_are_files_too(namer: FsNamer, tmp_path: File) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"w\xffb"), "wb") as file:
        file.write(b"127.0.0.1 80")
    assert isinstance(namer.find(Path((b"w\xffb",))), Leaf)


def test_an_empty_file_is_bound_to_no_address(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("# none yet\n")
    assert current(bound(namer, "/web").addr) == Ok(replicas())


def test_addresses_keep_order_and_weight_without_repeats(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("127.0.0.2 80 * 3\n127.0.0.1 80\n[::1] 80\n127.0.0.2 80\n127.1 81\n")
    assert current(bound(namer, "/web").addr) == Ok(
        replicas(Address("127.0.0.2", 80, 3.0), Address("127.0.0.1", 80), Address("::1", 80), Address("127.0.0.1", 81))
    )


def test_content_changes_addresses_without_rebinding(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("127.0.0.1 80")
    trees, _ = watch(namer.lookup(Path.read("/web")))
    addresses, _ = watch(trees[0].value.value.addr)
    (tmp_path / "web").write_text("127.0.0.2 80")
    namer.look()
    assert len(trees) == 1
    assert addresses == [Ok(replicas(Address("127.0.0.1", 80))), Ok(replicas(Address("127.0.0.2", 80)))]
    namer.look()
    assert len(addresses) == 2


def test_a_removed_file_is_unknown_and_may_return(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("127.0.0.1 80")
    trees, _ = watch(namer.lookup(Path.read("/web")))
    addresses, _ = watch(trees[0].value.value.addr)
    (tmp_path / "web").unlink()
    namer.look()
    assert trees[-1] == Ok(NEG)
    assert addresses[-1] == Ok(ADDR_NEG)
    (tmp_path / "web").write_text("127.0.0.3 80")
    namer.look()
    assert isinstance(trees[-1].value, Leaf)
    assert addresses[-1] == Ok(replicas(Address("127.0.0.3", 80)))
    assert trees[-1].value.value.addr is trees[0].value.value.addr


def test_a_bad_line_is_logged_once_and_the_good_ones_serve(namer: FsNamer, tmp_path: File, logged: list[str]) -> None:
    (tmp_path / "web").write_text("127.0.0.1 80\nnonsense\n")
    seen, _ = watch(bound(namer, "/web").addr)
    namer.look()
    assert seen == [Ok(replicas(Address("127.0.0.1", 80)))]
    assert logged == [f"{tmp_path}/web:2: malformed address: 'nonsense'; expected `host port` or `host port * weight`"]


def test_a_file_of_bad_lines_keeps_the_last_good_addresses(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("127.0.0.1 80")
    seen, _ = watch(bound(namer, "/web").addr)
    (tmp_path / "web").write_text("nonsense\n")
    namer.look()
    assert seen[-1].value == replicas(Address("127.0.0.1", 80))
    assert str(seen[-1].error) == f"{tmp_path}/web:1: malformed address: nonsense"
    (tmp_path / "web").write_text("127.0.0.2 80")
    namer.look()
    assert seen[-1] == Ok(replicas(Address("127.0.0.2", 80)))


def test_a_file_that_is_too_large_fails_and_keeps_the_last_good_addresses(namer: FsNamer, tmp_path: File, logged: list[str]) -> None:
    (tmp_path / "big").write_bytes(b"#" * (LARGEST_FILE + 1))
    state = current(bound(namer, "/big").addr)
    assert isinstance(state, Failed)
    assert "larger than 500 kB" in str(state.error)
    (tmp_path / "web").write_text("127.0.0.1 80")
    seen, _ = watch(bound(namer, "/web").addr)
    (tmp_path / "web").write_bytes(b"#" * (LARGEST_FILE + 1))
    namer.look()
    namer.look()
    assert seen[-1].value == replicas(Address("127.0.0.1", 80))
    assert "larger" in str(seen[-1].error)
    assert len([line for line in logged if "/web" in line]) == 1


def test_host_names_are_followed(namer: FsNamer, tmp_path: File, hosts: Hosts) -> None:
    (tmp_path / "web").write_text("a.example 80 * 2\nb.example 81")
    seen, close = watch(bound(namer, "/web").addr)
    assert isinstance(seen[-1], Pending)
    hosts.sources["a.example", 80].set(replicas(Address("10.0.0.1", 80), Address("10.0.0.2", 80)))
    assert seen[-1] == Ok(replicas(Address("10.0.0.1", 80, 2.0), Address("10.0.0.2", 80, 2.0)))
    hosts.sources["b.example", 81].set(ADDR_NEG)
    hosts.sources["a.example", 80].set(replicas(Address("10.0.0.3", 80)))
    assert seen[-1] == Ok(replicas(Address("10.0.0.3", 80, 2.0)))
    close()
    assert not any(source.is_observed for source in hosts.sources.values())


def test_hosts_that_stay_in_the_file_are_not_asked_anew(namer: FsNamer, tmp_path: File, hosts: Hosts) -> None:
    (tmp_path / "web").write_text("a.example 80")
    seen, _ = watch(bound(namer, "/web").addr)
    hosts.sources["a.example", 80].set(replicas(Address("10.0.0.1", 80)))
    (tmp_path / "web").write_text("a.example 80\nb.example 80")
    namer.look()
    assert seen[-1] == Ok(replicas(Address("10.0.0.1", 80)))
    (tmp_path / "web").write_text("b.example 80")
    namer.look()
    assert seen[-1].value == replicas(Address("10.0.0.1", 80))
    assert not hosts.sources["a.example", 80].is_observed
    hosts.sources["b.example", 80].set(replicas(Address("10.0.0.9", 80)))
    assert seen[-1] == Ok(replicas(Address("10.0.0.9", 80)))


def test_a_failed_lookup_counts_only_while_no_address_is_known(namer: FsNamer, tmp_path: File, hosts: Hosts) -> None:
    (tmp_path / "web").write_text("a.example 80\nb.example 80")
    seen, _ = watch(bound(namer, "/web").addr)
    error = ValueError("no answer")
    hosts.sources["a.example", 80].fail(error)
    hosts.sources["b.example", 80].fail(error)
    assert seen[-1] == Failed(error)
    hosts.sources["b.example", 80].set(replicas(Address("10.0.0.1", 80)))
    assert seen[-1] == Ok(replicas(Address("10.0.0.1", 80)), error)


def test_an_unwatched_name_does_no_work(namer: FsNamer, tmp_path: File, hosts: Hosts) -> None:
    (tmp_path / "web").write_text("a.example 80")
    trees, close_tree = watch(namer.lookup(Path.read("/web")))
    _, close = watch(trees[0].value.value.addr)
    close()
    close_tree()
    (tmp_path / "web").unlink()
    namer.look()
    assert not namer._files
    assert not namer._lookups
    assert not any(source.is_observed for source in hosts.sources.values())


def test_a_file_may_become_a_directory(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("127.0.0.1 80")
    trees, _ = watch(namer.lookup(Path.read("/web/blue")))
    assert trees[-1].value.value.residual == Path.read("/blue")
    (tmp_path / "web").unlink()
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "blue").write_text("127.0.0.2 80")
    namer.look()
    assert trees[-1].value.value.id == Path.read("/#/io.l5d.fs/web/blue")


def test_names_lists_all_files_even_through_links_in_circles(namer: FsNamer, tmp_path: File) -> None:
    (tmp_path / "web").write_text("")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "eu").mkdir()
    (tmp_path / "eu" / "api").write_text("")
    (tmp_path / "eu" / "again").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "web")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert [name.show() for name in namer.names()] == ["/#/io.l5d.fs/eu/api", "/#/io.l5d.fs/link", "/#/io.l5d.fs/web"]


def test_kind_builds_a_namer_under_its_prefix(tmp_path: File, hosts: Hosts) -> None:
    nothing = cast(Any, None)
    runtime = Runtime(reactor=Clock(), metrics=nothing, random=Random(1), spawn=nothing, resolve=hosts.resolve)
    (tmp_path / "web").write_text("127.0.0.1 80")
    assert KIND.build(KIND.config(root_dir=str(tmp_path)), runtime).names() == [Path.read("/#/io.l5d.fs/web")]
    mine = KIND.build(KIND.config(root_dir=str(tmp_path), prefix=Path.read("/disco")), runtime)
    assert mine.names() == [Path.read("/#/disco/web")]
