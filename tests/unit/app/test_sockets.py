from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from fakes.workers import open_files
from meshgw.app.sockets import Place, Sockets, inherited, places
from meshgw.config.loader import load
from meshgw.config.router import SocketOptions
from meshgw.kinds import Registry

LOOPBACK = "127.0.0.1"


def at(name: str, port: int, ip: str = LOOPBACK, backlog: int | None = None) -> Place:
    return Place(name, ip, port, SocketOptions(backlog=backlog))


def port_of(sockets: Sockets, name: str) -> int:
    with closing(sockets.take(name)) as sock:
        port: int = sock.getsockname()[1]
        return port


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def connects(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=5.0).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_configuration_names_what_it_listens_on() -> None:
    text = (
        "admin: {port: 9991, httpIdentifierPort: 9992}\nrouters:\n- {protocol: http, servers: [{port: 1}, {port: 2, ip: 0.0.0.0}]}\n"
        "- {protocol: http, label: out, servers: [{port: 3}]}\n"
    )
    config = load(text, "m.yml", Registry()).config
    assert config is not None
    assert [(place.name, place.ip, place.port) for place in places(config)] == [
        ("admin", "127.0.0.1", 9991),
        ("admin/identifier", "127.0.0.1", 9992),
        ("router/http/0", "127.0.0.1", 1),
        ("router/http/1", "0.0.0.0", 2),
        ("router/out/0", "127.0.0.1", 3),
    ]


def test_a_duplicate_may_be_closed_without_closing_the_port() -> None:
    sockets = Sockets.open([at("a", 0)])
    port = port_of(sockets, "a")
    sockets.take("a").close()
    assert connects(port)
    taken = sockets.take("a")
    sockets.close()
    assert connects(port), "whoever took one serves on"
    taken.close()
    assert not connects(port)


def test_a_socket_is_kept_over_a_reload_with_those_who_wait_in_its_queue() -> None:
    old = Sockets.open([at("a", 0), at("b", 0)])
    port = port_of(old, "a")
    with closing(socket.create_connection((LOOPBACK, port), timeout=5.0)) as caller:
        new = Sockets.open([at("renamed", port), at("b", 0)], kept=Sockets({"a": old.take("a")}, {"a": (LOOPBACK, port, "")}))
        assert inode(new.fileno("renamed")) == inode(old.fileno("a"))
        assert inode(new.fileno("b")) != inode(old.fileno("b"))
        old.close()
        accepted, peer = new.take("renamed").accept()
        assert peer == caller.getsockname()
        accepted.close()
    new.close()


def test_a_port_chosen_by_the_system_is_kept_for_who_had_it() -> None:
    old = Sockets.open([at("a", 0), at("b", 0)])
    new = Sockets.open([at("b", 0), at("a", 0), at("c", 0)], kept=old)
    assert {name: port_of(old, name) for name in "ab"} == {name: port_of(new, name) for name in "ab"}
    assert len({port_of(new, name) for name in "abc"}) == 3
    old.close()
    assert all(connects(port_of(new, name)) for name in "abc")
    new.close()


def test_a_failure_names_the_address_and_closes_what_was_opened() -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as taken:
        port = taken.getsockname()[1]
        kept = Sockets.open([at("a", 0)])
        before = open_files()
        with pytest.raises(OSError, match=f"cannot listen on {LOOPBACK}:{port}: Address already in use") as caught:
            Sockets.open([at("a", 0), at("b", 0), at("c", port)], kept=kept)
        assert len(os.listdir("/proc/self/fd")) == before
        assert caught.tb is not None  # it keeps the function's variables, so that nothing was closed by being forgotten
        assert connects(port_of(kept, "a")), "what was kept is untouched"
        kept.close()


def test_an_address_cannot_become_all_addresses_while_it_is_bound() -> None:
    old = Sockets.open([at("a", 0)])
    port = port_of(old, "a")
    with pytest.raises(OSError, match=f"cannot listen on 0.0.0.0:{port}"):
        Sockets.open([at("a", port, "0.0.0.0")], kept=old)
    old.close()
    fresh = Sockets.open([at("a", port, "0.0.0.0")])
    assert connects(port)
    fresh.close()


def test_what_a_new_configuration_does_not_name_is_closed() -> None:
    old = Sockets.open([at("a", 0), at("b", 0)])
    gone = port_of(old, "b")
    new = Sockets.open([at("a", 0)], kept=old)
    old.close()
    assert (connects(port_of(new, "a")), connects(gone)) == (True, False)
    new.close()


def test_a_descriptor_that_was_passed_on_listens_without_blocking() -> None:
    sockets = Sockets.open([at("a", 0)])
    with closing(inherited(os.dup(sockets.fileno("a")))) as sock:
        assert sock.getsockname()[1] == port_of(sockets, "a")
        with pytest.raises(BlockingIOError):
            sock.accept()
    sockets.close()
    sockets.close()  # may be repeated
