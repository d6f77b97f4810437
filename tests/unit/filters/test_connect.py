from __future__ import annotations

from meshgw.config.connect import ConnectPattern
from meshgw.core.exchange import Exchange
from meshgw.core.stack import Reply
from meshgw.filters.connect import ConnectGuard
from meshgw.identify.connect import ConnectNames
from meshgw.identify.request import HeaderToken
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.wire.headers import Headers

GUARD = ConnectGuard([ConnectPattern.read("*.example.com:443"), ConnectPattern.read("192.0.2.1:443")])


def connect(target: bytes, method: bytes = b"CONNECT") -> Exchange:
    ex = Exchange()
    ex.method, ex.target, ex.headers = method, target, Headers([b"Host: " + target], {b"host": target})
    return ex


def test_a_listed_destination_passes() -> None:
    assert GUARD.on_request(connect(b"a.example.com:443")) is None
    assert GUARD.on_request(connect(b"192.0.2.1:443")) is None


def test_another_destination_is_refused_with_the_name_of_the_option() -> None:
    guard = ConnectGuard([ConnectPattern.read("*.example.com:443")])
    reply = guard.on_request(connect(b"example.net:443"))
    assert isinstance(reply, Reply)
    assert reply.status == 403
    assert b"example.net:443" in reply.body
    assert b"servers[].connect.allow" in reply.body
    assert dict(reply.headers)[b"l5d-err"].startswith(b"CONNECT+to+example.net")
    assert guard.refused == 1


def test_a_tunnel_is_not_also_an_upgrade() -> None:
    ex = connect(b"a.example.com:443")
    ex.upgrade = b"websocket"
    GUARD.on_request(ex)
    assert ex.upgrade is None


def test_other_methods_are_not_looked_at() -> None:
    assert GUARD.on_request(connect(b"/", b"GET")) is None


def test_a_tunnel_is_named_by_its_destination() -> None:
    names = ConnectNames(HeaderToken(Path.of("svc")), Path.of("svc"))
    assert names.identify(connect(b"a.example.com:443")) == Path.of("svc", "a.example.com:443")


def test_delegations_of_the_caller_do_not_lead_tunnels() -> None:
    ex = connect(b"a.example.com:443")
    ex.dtab = Dtab.read("/svc => /$/inet/127.0.0.1/22")
    ConnectNames(HeaderToken(Path.of("svc")), Path.of("svc")).identify(ex)
    assert ex.dtab is None


def test_other_requests_are_named_by_the_routers_identifier() -> None:
    names = ConnectNames(HeaderToken(Path.of("svc"), header="X-Name"), Path.of("svc"))
    ex = connect(b"/", b"GET")
    assert names.identify(ex) == "X-Name header is absent"
    assert names.header_names == (b"x-name",)
