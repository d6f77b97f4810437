"""The options that everything over ZooKeeper has in common: where its servers are, how long a session lasts, and who we are.

Source: linkerd-config spec 3.3, 3.7 and 3.12; namerd spec, ``authInfo`` of its ZooKeeper storage, which we take everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import attrs

from meshgw.config.document import between, option
from meshgw.config.values import Port

CLIENT_PORT: Final = 2181
SESSION_MS: Final = 10_000
"""As namerd's storage has it: long enough for a server's restart within an ensemble, short enough for dead members to go."""
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?")


def zk_host(value: Any) -> str | None:
    """A check: the text can be the name or address of a server; ZooKeeper's own texts separate servers by commas and slashes."""
    return None if _HOST.fullmatch(value) else f"{value!r} is no host name or address"


def _some(addresses: Sequence[Any]) -> str | None:
    return None if addresses else "at least one server is needed"


@attrs.frozen(kw_only=True)
class ZkAddress:
    """One server of an ensemble."""

    host: str = option(doc="Host name or address.", check=zk_host)
    port: Port = option(default=Port(CLIENT_PORT), doc="Its port for clients.", check=between(1, 65535))


@attrs.frozen(kw_only=True)
class ZkAddressWithPort:
    """One server of an ensemble, whose port must be told."""

    host: str = option(doc="Host name or address.", check=zk_host)
    port: Port = option(doc="Its port for clients; there is no default here, as in Linkerd.", check=between(1, 65535))


@attrs.frozen(kw_only=True)
class ZkAuth:
    """How this process makes itself known to ZooKeeper, where access lists ask for it."""

    scheme: str = option(default="digest", doc="ZooKeeper's authentication scheme.")
    auth: str = option(doc="The credentials, for `digest` written `user:password`.", secret=True)


@attrs.frozen(kw_only=True)
class ZooKeeperConfig:
    """What every kind over ZooKeeper can be told."""

    zk_addrs: tuple[ZkAddress, ...] = option(doc="The servers of the ensemble; one that answers is enough.", check=_some)
    session_timeout_ms: int = option(
        default=SESSION_MS,
        doc="Milliseconds without a sign of life after which ZooKeeper ends our session (meshgw's own option).",
        check=between(1000, 600_000),
    )
    auth_info: ZkAuth | None = option(default=None, doc="Credentials, for nodes with access lists (meshgw's own option).", effective="none")


@attrs.frozen(kw_only=True)
class ZooKeeperConfigWithPorts(ZooKeeperConfig):
    """The same where ports must be told."""

    zk_addrs: tuple[ZkAddressWithPort, ...] = option(doc="The servers of the ensemble; one that answers is enough.", check=_some)  # type: ignore[assignment]  # the same fields
